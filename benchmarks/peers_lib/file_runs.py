"""Exported files in their runtimes: LiteRT, onnxruntime, OpenVINO."""

import numpy as np


class Runs:
    """One file, opened for each shape of input when it is first needed.

    Args:
        quantities: {name: {"batch", "size"}}.
        runtime: "LiteRT", "onnxruntime" or "OpenVINO".
        paths: {size of image: path}; LiteRT's files have one size.
        layout: "NHWC" or "NCHW", of the images.
        threads: of the runtime.
    """

    def __init__(self, quantities, runtime, paths, threads, layout="NHWC"):
        self.quantities, self.paths = quantities, paths
        self.open, self.threads = _RUNTIMES[runtime], threads
        self.layout = layout
        self.opened = {}

    def run(self, quantity):
        asked = self.quantities[quantity]
        batch, size = asked["batch"], asked["size"]
        if (batch, size) not in self.opened:
            sides = (
                (3, size, size) if self.layout == "NCHW" else (size, size, 3)
            )
            rng = np.random.default_rng(0)
            images = rng.random((batch, *sides), dtype="float32")
            call = self.open(self.paths[str(size)], images.shape, self.threads)
            self.opened[batch, size] = call, images
        call, images = self.opened[batch, size]
        call(images)


def _litert(path, shape, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    given = interpreter.get_input_details()[0]
    if tuple(given["shape"]) != shape:
        interpreter.resize_tensor_input(given["index"], shape)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    answer = interpreter.get_output_details()[0]["index"]

    def call(images):
        # A file whose inputs are 8-bit wants them so; quantising them is the
        # caller's, and costs next to nothing.
        interpreter.set_tensor(given["index"], images.astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(answer)

    return call


def _onnxruntime(path, shape, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def _openvino(path, shape, threads):
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # It would choose bfloat16 by itself on a CPU that has it.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    return lambda images: request.infer([images])


_RUNTIMES = {
    "LiteRT": _litert,
    "onnxruntime": _onnxruntime,
    "OpenVINO": _openvino,
}
