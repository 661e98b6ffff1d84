"""The CPU, and the interpreters that contenders can run in."""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import subprocess
import sys

# Module to the distribution whose version is told.
DISTRIBUTIONS = {
    "numpy": "numpy",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "keras_hub": "keras-hub",
    "ai_edge_litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "tf2onnx": "tf2onnx",
    "openvino": "openvino",
    "timm": "timm",
    "torch": "torch",
    "onnxscript": "onnxscript",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
}
INSTALL = {
    "keras_hub": "pip install keras-hub",
    "tf2onnx": 'pip install "keras-csp[onnx]"',
    "onnxruntime": 'pip install "keras-csp[onnx]"',
    "openvino": "pip install openvino",
    "jax": "pip install jax",
    "timm": "pip install timm safetensors onnx onnxscript, here or in an "
    "environment of its own named by --timm-python",
    "torch": "pip install torch",
    "onnxscript": "pip install onnx onnxscript where timm is",
}
_PROBE = """
import importlib.metadata, importlib.util, json, sys
found = {}
for module, distribution in json.loads(sys.argv[1]).items():
    if importlib.util.find_spec(module) is not None:
        try:
            found[module] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[module] = "unknown"
print(json.dumps(found))
"""

_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# The user's choice, read before keras_csp is imported, which makes one.
_CHOSEN = os.environ.get(_ONEDNN)


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python and {module: version} of what it has."""

    path: str
    versions: dict


def look_into(path):
    """An `Interpreter`; ValueError if `path` is none."""
    try:
        answer = subprocess.run(
            [path, "-c", _PROBE, json.dumps(DISTRIBUTIONS)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return Interpreter(str(path), json.loads(answer.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ValueError(f"not a Python: {path} ({error})") from error


@dataclasses.dataclass(frozen=True)
class Machine:
    """What contenders run on.

    Attributes:
        this, timm: `Interpreter`s, which may be the same one.
        cores: the CPUs that every contender keeps to.
    """

    this: Interpreter
    timm: Interpreter
    cores: tuple

    def interpreter(self, job):
        """The one for `job`, or why there is none: (interpreter, reason)."""
        order = [self.this, self.timm]
        if job.python == "timm":
            order.reverse()
        for interpreter in order:
            if set(job.needs) <= set(interpreter.versions):
                return interpreter, None
        missing = [m for m in job.needs if m not in order[0].versions]
        how = INSTALL.get(missing[0], f"pip install {missing[0]}")
        return None, f"{missing[0]} is not installed: {how}"

    @property
    def versions(self):
        """{distribution: version}, both where the interpreters differ."""
        told = {"Python": platform.python_version()}
        for module, name in DISTRIBUTIONS.items():
            versions = [
                interpreter.versions[module]
                for interpreter in (self.this, self.timm)
                if module in interpreter.versions
            ]
            if versions:
                told[name] = " and ".join(dict.fromkeys(versions))
        return told


def find_machine(timm_python, threads):
    """The `Machine`: `timm_python` may be None, `threads` too.

    Raises:
        ValueError: no such Python, or not so many cores.
    """
    this = look_into(sys.executable)
    timm = look_into(timm_python) if timm_python else this
    cores = allowed_cores()
    if threads is not None and not 1 <= threads <= len(cores):
        raise ValueError(
            f"--threads must be 1 to {len(cores)}, the cores that this "
            f"process may use. Received: {threads}"
        )
    return Machine(this, timm, cores[:threads])


def allowed_cores():
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count()))


@functools.cache
def cpu():
    """The CPU's name and what vectors it has, in words."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(
        map(str.strip, line.split(":", 1))
        for line in text.split("\n\n", maxsplit=1)[0].splitlines()
        if ":" in line
    )
    name = fields.get("model name", platform.machine())
    if "model" in fields:
        name += f" (family {fields.get('cpu family')}, model {fields['model']})"
    flags = fields.get("flags", "").split()
    known = {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx512_vnni": "VNNI",
        "avx_vnni": "AVX-VNNI",
        "avx512_bf16": "bfloat16",
        "amx_int8": "AMX",
    }
    return ", ".join([name, *(v for k, v in known.items() if k in flags)])


def free_memory():
    """Bytes that a new process can have, or None if that is not known."""
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
    except OSError:
        return None
    (line,) = [x for x in text.splitlines() if x.startswith("MemAvailable")]
    return 1024 * int(line.split()[1])


def environment(threads):
    """Of every contender: this program's, its threads, and no GPU.

    Without what importing keras_csp has set in this process: whether oneDNN
    is on is each package's own doing, unless the user said it.
    """
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    given = {k: v for k, v in os.environ.items() if k != _ONEDNN}
    if _CHOSEN is not None:
        given[_ONEDNN] = _CHOSEN
    return {
        **given,
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Compiles in the process itself, which can be stopped and timed.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
