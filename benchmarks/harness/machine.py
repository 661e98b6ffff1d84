"""The machine: its CPU and memory, its Python interpreters, its device."""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys

# Module: the distribution whose version is reported.
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
# The user's choice, read before keras_csp is imported, which sets its own.
_USERS_CHOICE = os.environ.get(_ONEDNN)


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python and {module: version} of what is installed there."""

    path: str
    versions: dict


def inspect_interpreter(path):
    """The `Interpreter` at `path`.

    Raises:
        ValueError: it does not run as a Python interpreter.
    """
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
        """(interpreter for `job`, None), or (None, why there is none)."""
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
        """{distribution: version}; both, where the interpreters differ."""
        found = {"Python": platform.python_version()}
        for module, name in DISTRIBUTIONS.items():
            versions = [
                interpreter.versions[module]
                for interpreter in (self.this, self.timm)
                if module in interpreter.versions
            ]
            if versions:
                found[name] = " and ".join(dict.fromkeys(versions))
        return found


def find_machine(timm_python, threads):
    """The `Machine` of this process.

    Args:
        timm_python: path of an interpreter with timm; None for this one.
        threads: of every contender; None for as many as there are cores.

    Raises:
        ValueError: there is no such interpreter, or there are fewer cores.
    """
    this = inspect_interpreter(sys.executable)
    timm = inspect_interpreter(timm_python) if timm_python else this
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


def software(*names):
    """Names and versions in words, e.g. "Keras 3.15.1, TensorFlow 2.21.0"."""
    modules = {"Keras": "keras", "LiteRT": "ai_edge_litert"}
    modules |= {"TensorFlow": "tensorflow", "keras-hub": "keras_hub"}
    return ", ".join(
        f"{name} {importlib.import_module(modules.get(name, name)).__version__}"
        for name in names
    )


@functools.cache
def cpu_name():
    """The CPU's name and its vector extensions, in words."""
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
    """Bytes that a new process can use; None if that is not known."""
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
    except OSError:
        return None
    (line,) = [x for x in text.splitlines() if x.startswith("MemAvailable")]
    return 1024 * int(line.split()[1])


def environment(threads):
    """Environment of a contender: this one's, the threads, and no GPU.

    It lacks what importing keras_csp has set in this process: each package
    decides for itself whether oneDNN is on, unless the user has decided.
    """
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    given = {k: v for k, v in os.environ.items() if k != _ONEDNN}
    if _USERS_CHOICE is not None:
        given[_ONEDNN] = _USERS_CHOICE
    return {
        **given,
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Compile in the process itself, which can be paused and timed.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }


def device_name():
    """The GPU of Keras' backend, or else the CPU and its cores."""
    return _gpu() or f"{cpu_name()}, {os.cpu_count()} cores"


def has_gpu():
    """Whether Keras' backend computes on a GPU."""
    return _gpu() is not None


def _gpu():
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        found = torch.cuda.is_available()
        return torch.cuda.get_device_name(0) if found else None
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(device)["device_name"]
    return None
