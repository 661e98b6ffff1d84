"""Where the time of each network goes, by operation.

    python benchmarks/profiles.py

LiteRT runs one image, TensorFlow a batch of eight, in inference and in a
training step; each names its kernels. LiteRT's milliseconds are of a run on
all threads, TensorFlow's the sum over its threads. Nothing else should run at
the same time. The tables, of the largest operations, are profiles.csv and
profiles.md.

LiteRT's Python interpreter does not report the kernels of XNNPACK; its C
interface (litert/c of google-ai-edge/LiteRT) does, and is called through
ctypes.
"""

import argparse
import collections
import concurrent.futures
import ctypes
import functools
import multiprocessing
import os
import pathlib
import shlex
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
from harness.contenders import KerasNetwork, KerasSteps
from harness.machine import cpu_name, software
from harness.networks import NETWORKS
from harness.results import RESULTS, table_lines, write_page, write_rows

from keras_csp.training.run import cli_errors, positive_int

COLUMNS = ("network", "engine", "operation", "ms", "share", "calls")
FACTORIES = [network.factory for network in NETWORKS]
LITERT, INFERENCE, TRAINING = (
    "LiteRT, 1 image",
    "TensorFlow, 8 images",
    "TensorFlow, training step of 8",
)

# Of litert/c/litert_common.h.
_CPU = 1
# Of tflite::Profiler::EventType: an operation of LiteRT itself, and one of
# XNNPACK. The former include XNNPACK's part of the network as a whole.
_OPERATION, _KERNEL = 2, 8
_SIZE = ctypes.c_size_t


def profiles(name, options):
    """Rows of one network. TensorFlow's threads are set for the process."""
    size, threads = options.size, options.threads
    quantities = {
        INFERENCE: {"batch": 8, "size": size},
        TRAINING: {"batch": 8, "size": size, "training": True},
    }
    network = KerasNetwork(quantities, "keras_csp", name, False, threads)
    found = {}
    for engine in quantities:
        run = functools.partial(network.run, engine)
        found[engine] = tensorflow_operations(run)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        steps = KerasSteps({}, "keras_csp", name, size, folder, threads)
        steps.build()
        steps.set_statistics()
        steps.export_litert(path)
        found[LITERT] = litert_operations(path, threads)
    return [
        row
        for engine, operations in found.items()
        for row in rows(name, engine, operations, options.least)
    ]


def rows(name, engine, operations, least):
    """Rows of one engine, the largest first and the small ones as one.

    Args:
        operations: {operation: (milliseconds, calls)}.
        least: fraction of the time below which an operation is small.
    """
    total = sum(ms for ms, _calls in operations.values())
    kinds = sorted(operations, key=lambda kind: -operations[kind][0])
    large = [kind for kind in kinds if operations[kind][0] >= least * total]
    small = [operations[kind] for kind in kinds if kind not in large]
    listed = [(kind, *operations[kind]) for kind in large]
    if small:
        listed.append((f"{len(small)} others", *map(sum, zip(*small))))
    for kind, ms, calls in listed:
        share = f"{ms / total:.1%}"
        values = (name, engine, kind, f"{ms:.2f}", share, str(calls))
        yield dict(zip(COLUMNS, values))


class _Event(ctypes.Structure):
    """ProfiledEventData of litert/c/litert_profiler_event.h."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_uint32),
        ("start", ctypes.c_uint64),
        ("microseconds", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


def _per_run(events, runs):
    """{operation: (milliseconds of one run, calls in one run)}.

    Args:
        events: (operation, milliseconds) of each call, of all runs.
        runs: how many there were.
    """
    found = collections.defaultdict(lambda: [0.0, 0])
    for operation, milliseconds in events:
        found[operation][0] += milliseconds / runs
        found[operation][1] += 1
    return {k: (total, calls // runs) for k, (total, calls) in found.items()}


def tensorflow_operations(run, runs=5):
    """{operation: (milliseconds of CPU time of one run, calls in one run)}.

    Several threads may work at once: the sum can exceed the time of a run.

    Args:
        run: a function, which is first called twice to warm up.
        runs: over which it is averaged.
    """
    import tensorflow as tf

    run()
    run()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(runs):
            run()
        tf.profiler.experimental.stop()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        content = path.read_bytes()
    return _per_run(_tensorflow_events(content), runs)


def _tensorflow_events(content):
    """(operation, milliseconds) of each kernel that the executor ran."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(content)
    for plane in space.planes:
        names = {key: data.name for key, data in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                # "path/of/the/node:Conv2D"
                name = names[event.metadata_id].split("#")[0]
                node, _, kind = name.rpartition(":")
                scope = node.endswith(":")  # a C++ function, not a node
                if node and not scope and kind.isidentifier():
                    yield kind.lstrip("_"), event.duration_ps / 1e9


def litert_operations(path, threads, runs=20):
    """{kernel: (milliseconds of one run, calls in one run)}.

    Args:
        path: of a TFLite file with one input and one output.
        threads: of XNNPACK.
        runs: over which it is averaged; three more warm up.

    Raises:
        RuntimeError: LiteRT refused a call.
    """
    model = _Model(path, threads)
    for _ in range(3):
        model.run()
    events = (event for _ in range(runs) for event in model.profiled())
    return _per_run(events, runs)


class _Model:
    """A LiteRtCompiledModel and its two buffers, of arbitrary content."""

    def __init__(self, path, threads):
        import ai_edge_litert

        folder = pathlib.Path(ai_edge_litert.__file__).parent
        self._library = ctypes.CDLL(str(folder / "libLiteRt.so"))
        self._libc = ctypes.CDLL(None)
        self._libc.strdup.restype = ctypes.c_void_p
        self.environment = self.new("LiteRtCreateEnvironment", 0, None)
        file = ctypes.c_char_p(str(path).encode())
        model = self.new("LiteRtCreateModelFromFile", self.environment, file)
        options = self._options(threads)
        self.compiled = self.new(
            "LiteRtCreateCompiledModel", self.environment, model, options
        )
        self._signature = self.new("LiteRtGetModelSignature", model, _SIZE(0))
        self._buffers = self._buffer("Input"), self._buffer("Output")
        self._profiler = self.new(
            "LiteRtCompiledModelGetProfiler", self.compiled
        )

    def call(self, name, *arguments):
        function = getattr(self._library, name)
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise RuntimeError(f"LiteRT's {name} gave the status {status}")

    def new(self, name, *arguments):
        """The value that the function writes through its last argument."""
        made = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(made))
        return made

    def run(self):
        given, answer = map(ctypes.byref, self._buffers)
        self.call(
            *("LiteRtRunCompiledModel", self.compiled, _SIZE(0)),
            *(_SIZE(1), given, _SIZE(1), answer),
        )

    def profiled(self):
        """(kernel, milliseconds) of each operation of a run."""
        profiler = self._profiler
        self.call("LiteRtResetProfiler", profiler)
        self.call("LiteRtStartProfiler", profiler)
        self.run()
        self.call("LiteRtStopProfiler", profiler)
        count = ctypes.c_int()
        self.call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self.call("LiteRtGetProfilerEvents", profiler, count, events)
        for event in events:
            tag = event.tag.decode()
            is_all = event.kind == _OPERATION and "Delegate" in tag
            if event.kind in (_OPERATION, _KERNEL) and not is_all:
                yield tag, event.microseconds / 1000

    def _options(self, threads):
        options = self.new("LiteRtCreateOptions")
        self.call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        for name, text in (
            (b"runtime_options_string", "enable_profiling = true\n"),
            (b"xnnpack", f"num_threads = {threads}\n"),
        ):
            # LiteRT frees its copy of the text.
            copy = ctypes.c_void_p(self._libc.strdup(text.encode()))
            free = ctypes.cast(self._libc.free, ctypes.c_void_p)
            more = self.new(
                "LiteRtCreateOpaqueOptions", ctypes.c_char_p(name), copy, free
            )
            self.call("LiteRtAddOpaqueOptions", options, more)
        return options

    def _buffer(self, which):
        tensor = self.new(
            f"LiteRtGetSignature{which}TensorByIndex", self._signature, _SIZE(0)
        )
        kind = ctypes.create_string_buffer(512)  # of a struct of 100 bytes
        self.call("LiteRtGetRankedTensorType", tensor, kind)
        needs = self.new(
            f"LiteRtGetCompiledModel{which}BufferRequirements",
            *(self.compiled, _SIZE(0), _SIZE(0)),
        )
        return self.new(
            "LiteRtCreateManagedTensorBufferFromRequirements",
            *(self.environment, kind, needs),
        )


def write(found, options):
    write_rows(options.output / "profiles.csv", COLUMNS, found)
    command = f"python benchmarks/profiles.py {shlex.join(sys.argv[1:])}"
    software_used = software("Keras", "TensorFlow", "LiteRT", "keras_csp")
    lines = [
        "# Where the time goes",
        "",
        f"Operations of at least {options.least:.0%} of the time, "
        f"{options.size} pixels. LiteRT's milliseconds are of a run on all "
        f"threads, TensorFlow's the sum over its threads. {cpu_name()}, "
        f"{options.threads} threads; {software_used}.",
        "",
        f"    {command}".rstrip(),
        *tables(found),
    ]
    write_page(options.output / "profiles.md", lines)


def tables(found):
    """A section with a table for each network."""
    for network in dict.fromkeys(row["network"] for row in found):
        own = [row for row in found if row["network"] == network]
        yield from ("", f"## {network}", "")
        yield from table_lines(COLUMNS[1:], own, right=(2, 3, 4))


def profile_all(options):
    """Each network in a process of its own, one after the other."""
    found = []
    with concurrent.futures.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,
    ) as pool:
        for name in options.networks:
            print(f"profiling {name}", file=sys.stderr, flush=True)
            found += pool.submit(profiles, name, options).result()
    return found


def main():
    options = parse()
    with cli_errors("profiles", resumes=False):
        write(profile_all(options), options)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="NETWORK",
        default=FACTORIES,
        choices=keras_csp.list_models(),
        help="default: the five of peers.py",
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        default=224,
        help="of the images, pixels; default 224",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=os.cpu_count(),
        help="default: all cores",
    )
    parser.add_argument(
        "--least",
        type=float,
        default=0.02,
        help="fraction of the time from which an operation is listed; "
        "default 0.02",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=RESULTS,
        help="folder; default: results beside this script",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
