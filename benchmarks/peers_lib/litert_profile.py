"""Where LiteRT spends its time, by the kernels of XNNPACK.

LiteRT's Python interpreter does not tell; its C interface (litert/c of
google-ai-edge/LiteRT) does, and is called here through ctypes.
"""

import ctypes
import pathlib

from peers_lib.operations import per_run

# Of litert/c/litert_common.h.
_CPU = 1
# Of tflite::Profiler::EventType: an operation by LiteRT itself, and one by
# XNNPACK. XNNPACK's part of the network is among the former, as a whole.
_OPERATION, _KERNEL = 2, 8
_SIZE = ctypes.c_size_t


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


def operations(path, threads, runs=20):
    """{kernel: (milliseconds of one run, calls in one run)}.

    Args:
        path: of a TFLite file with one input and one output.
        threads: of XNNPACK.
        runs: over which it is averaged, after three that warm up.

    Raises:
        RuntimeError: LiteRT refused a call.
    """
    model = _Model(path, threads)
    for _ in range(3):
        model.run()
    events = (event for _ in range(runs) for event in model.profiled())
    return per_run(events, runs)


class _Model:
    """A LiteRtCompiledModel and its two buffers, whose content is any."""

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
        """What the function writes through its last argument."""
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
            whole = event.kind == _OPERATION and "Delegate" in tag
            if event.kind in (_OPERATION, _KERNEL) and not whole:
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
