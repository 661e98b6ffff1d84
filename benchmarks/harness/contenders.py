"""Contenders: one class for each way to run a network.

A process makes one of them from a job, then runs it by quantity:

    run(quantity)      one run, to be timed; its seconds if it timed itself
    prepare(quantity)  what a run needs and is not part of it, if anything
    cost(quantity)     {"bflops", "cio"} of one image, if they are known

The classes take `quantities`, {name: dict of what to run}, and the arguments
of their job. Images and labels are random: the time does not depend on them.
"""

import functools
import pathlib
import statistics
import subprocess
import sys

import numpy as np

LEARNING_RATE, MOMENTUM, CLASSES = 0.01, 0.9, 1000


def random_batch(batch, size):
    """Images `(batch, size, size, 3)` float32 in [0, 1) and their labels."""
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), dtype="float32")
    return images, rng.integers(0, CLASSES, batch)


class _Network:
    """Inference and training steps of one network.

    A quantity has "batch", "size" and, if it is a training step, "training".
    Subclasses have `place`, which brings a batch to where it is needed,
    `infer` and `train`.
    """

    def __init__(self, quantities):
        self.quantities, self._batches = quantities, {}

    def run(self, quantity):
        given = self.quantities[quantity]
        images, labels = self._batch(given["batch"], given["size"])
        if given.get("training"):
            self.train(images, labels)
        else:
            self.infer(images)

    def _batch(self, batch, size):
        if (batch, size) not in self._batches:
            placed = self.place(*random_batch(batch, size))
            self._batches[batch, size] = placed
        return self._batches[batch, size]

    def place(self, images, labels):
        return images, labels


class KerasNetwork(_Network):
    """`predict_on_batch` and `train_on_batch`; one model for each size.

    Args:
        framework, model: of `build_keras`.
        jit_compile: of `Model.compile`.
        threads: of TensorFlow.
    """

    def __init__(self, quantities, framework, model, jit_compile, threads):
        super().__init__(quantities)
        import_framework(framework)
        limit_threads(threads)
        self.make = functools.cache(
            functools.partial(self._make, framework, model, jit_compile)
        )

    def _make(self, framework, name, jit_compile, size):
        import keras

        model = build_keras(framework, name, size)
        model.compile(
            keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
            "sparse_categorical_crossentropy",
            jit_compile=jit_compile,
        )
        return model

    def infer(self, images):
        self.make(images.shape[1]).predict_on_batch(images)

    def train(self, images, labels):
        self.make(images.shape[1]).train_on_batch(images, labels)

    def cost(self, quantity):
        """Counted by this package, which counts any Keras model."""
        return _counted(self.make(self.quantities[quantity]["size"]))


class TorchNetwork(_Network):
    """timm's network in PyTorch.

    Args:
        model: timm's name.
        channels_last: whether the memory has that layout. Default False.
        compiled: whether `torch.compile` compiles it. Default False.
        threads: of PyTorch. Default: as PyTorch chooses.
        device: "cpu" or "cuda". Default "cpu".
        precision: of the activations; weights are float32.
    """

    def __init__(
        self,
        quantities,
        model,
        channels_last=False,
        compiled=False,
        threads=None,
        device="cpu",
        precision="float32",
    ):
        super().__init__(quantities)
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        self.torch, self.device = torch, device
        self.layout = torch.contiguous_format
        if channels_last:
            self.layout = torch.channels_last
        self.network = build_timm(model)
        self.network.to(device, memory_format=self.layout)
        self.call = self.network
        if compiled:
            self.call = torch.compile(self.network, dynamic=False)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), LEARNING_RATE, MOMENTUM
        )
        self.autocast = torch.autocast(
            device, torch.bfloat16, enabled=precision == "bfloat16"
        )

    def place(self, images, labels):
        images = self.torch.from_numpy(images).permute(0, 3, 1, 2)
        images = images.to(self.device)
        labels = self.torch.from_numpy(labels).to(self.device)
        return images.contiguous(memory_format=self.layout), labels

    def infer(self, images):
        self.network.eval()
        with self.torch.inference_mode(), self.autocast:
            return self.call(images)

    def train(self, images, labels):
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            logits = self.call(images)
            loss = self.torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()

    def cost(self, quantity):
        """As this package counts: convolutions and classifier."""
        size = self.quantities[quantity]["size"]
        images, _labels = self._batch(1, size)
        return {"bflops": torch_operations(self.network, images) / 1e9}


class ExportedFile(_Network):
    """An exported file in its runtime, opened for each shape of input.

    Args:
        runtime: "LiteRT", "onnxruntime" or "OpenVINO".
        paths: {size of the images: path}.
        layout: "NHWC" or "NCHW", of the images. Default "NHWC".
        threads: of the runtime.
    """

    def __init__(self, quantities, runtime, paths, threads, layout="NHWC"):
        super().__init__(quantities)
        # JSON has no numbers as keys.
        self.paths = {int(size): path for size, path in paths.items()}
        self.channels_first = layout == "NCHW"
        opened = {
            "LiteRT": _litert,
            "onnxruntime": _onnxruntime,
            "OpenVINO": _openvino,
        }[runtime]
        self.open = functools.cache(functools.partial(opened, threads))

    def place(self, images, labels):
        if self.channels_first:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return images, labels

    def infer(self, images):
        path = self.paths[images.shape[2]]
        self.open(path, images.shape)(images)


def _litert(threads, path, shape):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    given = interpreter.get_input_details()[0]
    if tuple(given["shape"]) != shape:
        interpreter.resize_tensor_input(given["index"], shape)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    answer = interpreter.get_output_details()[0]["index"]

    def call(images):
        # A file with 8-bit inputs expects them so; quantising them is up to
        # the caller and takes next to no time.
        interpreter.set_tensor(given["index"], images.astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(answer)

    return call


def _onnxruntime(threads, path, shape):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def _openvino(threads, path, shape):
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
            # By default it chooses bfloat16 on a CPU that has it.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    return lambda images: request.infer([images])


class DetectorFrames:
    """A detector of Table 2, from the bytes of a JPEG to boxes.

    Args:
        quantities: one, with its "size".
        detector: arguments of `keras_csp.Detector`.
        threads: of TensorFlow.
    """

    def __init__(self, quantities, detector, threads):
        import keras_csp

        limit_threads(threads)
        (given,) = quantities.values()
        shape = (given["size"], given["size"], 3)
        self.detector = keras_csp.Detector(input_shape=shape, **detector)
        # The heads are not trained: with a higher threshold no candidate
        # would pass, and the suppression would have nothing to do.
        self.model = self.detector.inference_model(score_threshold=0.0)
        self.model.compile(jit_compile=False)
        self.spec = keras_csp.image_spec(self.detector)
        self.jpeg = self._photograph()

    def _photograph(self):
        """A JPEG of 640x427 pixels that comes with scikit-learn."""
        import sklearn.datasets

        folder = pathlib.Path(sklearn.datasets.__file__).parent
        return (folder / "images" / "china.jpg").read_bytes()

    def run(self, quantity):
        import tensorflow as tf

        from keras_csp.data import fit_image

        image = tf.io.decode_jpeg(self.jpeg, channels=3).numpy()
        pixels, _view = fit_image(image, self.spec)
        self.model.predict_on_batch(pixels[None])

    def cost(self, quantity):
        return _counted(self.detector)


class MatrixProduct:
    """The machine's own speed: a product of square float32 matrices.

    Args:
        quantities: with the "side" of the matrices.
        library: "numpy" or "torch".
        threads: of PyTorch; numpy's are in the environment.
    """

    def __init__(self, quantities, library, threads):
        self.quantities = quantities
        self.make = functools.cache(functools.partial(self._make, library))
        if library == "torch":
            import torch

            torch.set_num_threads(threads)

    def _make(self, library, side):
        matrix = np.random.default_rng(0).random((side, side), "float32")
        if library == "numpy":
            return matrix
        import torch

        return torch.from_numpy(matrix)

    def run(self, quantity):
        matrix = self.make(self.quantities[quantity]["side"])
        matrix @ matrix


class Import:
    """How long a "module" takes to import: the median of new processes."""

    PROCESSES = 3
    CODE = (
        "import time; start = time.perf_counter(); import {}; "
        "print(time.perf_counter() - start)"
    )

    def __init__(self, quantities):
        self.quantities = quantities

    def run(self, quantity):
        code = self.CODE.format(self.quantities[quantity]["module"])
        command = [sys.executable, "-c", code]
        return statistics.median(
            float(subprocess.check_output(command, text=True).split()[-1])
            for _ in range(self.PROCESSES)
        )


class _Steps:
    """What comes before a network's first answer, each step once.

    A quantity has the "step", a method, and "with", its arguments.
    """

    def __init__(self, quantities, model, size, weights):
        self.quantities = quantities
        self.name, self.size, self.weights = model, size, str(weights)
        self.model = None
        self._has_statistics = False

    def prepare(self, quantity):
        """Builds the network, if an earlier start timed that already.

        Before an export, it gets statistics as if it had seen data.
        """
        step = self.quantities[quantity]["step"]
        if step != "build" and self.model is None:
            self.build()
        if step.startswith("export") and not self._has_statistics:
            self.set_statistics()
            self._has_statistics = True

    def run(self, quantity):
        given = self.quantities[quantity]
        getattr(self, given["step"])(**given.get("with", {}))


class KerasSteps(_Steps):
    """Building, weights and exports of a Keras network.

    Args:
        framework, model: of `build_keras`.
        size: of the images, unless an export names another.
        folder: for the weights.
        threads: of TensorFlow.
    """

    def __init__(self, quantities, framework, model, size, folder, threads):
        weights = pathlib.Path(folder) / f"{framework}-{model}.weights.h5"
        super().__init__(quantities, model, size, weights)
        import_framework(framework)
        limit_threads(threads)
        self.framework, self.samples = framework, None

    def build(self):
        self.model = build_keras(self.framework, self.name, self.size)

    def save_weights(self):
        self.model.save_weights(self.weights)

    def load_weights(self):
        self.model.load_weights(self.weights)

    def set_statistics(self):
        """From photographs.

        After a few layers all images of random pixels are alike; normalising
        by what differs between them would be normalising rounding errors.
        """
        from keras_csp.export import photographs

        self.samples = photographs((self.size, self.size, 3))
        set_statistics(self.model, self.samples)

    def export_litert(self, path, size=None):
        from keras_csp.export import to_tflite

        if size not in (None, self.size):
            self.size = size
            self.build()
            self.set_statistics()
        to_tflite(self.model, path, self.samples[:1])

    def export_litert_int8(self, path):
        """Any match rate will do: the network is not trained."""
        from keras_csp.export import to_tflite

        to_tflite(
            self.model,
            path,
            self.samples[:1],
            quantize="int8",
            representative=self.samples,
            minimum_match_rate=0.0,
        )

    def export_onnx(self, path):
        from keras_csp.export import to_onnx

        to_onnx(self.model, path, self.samples[:1])


class TorchSteps(_Steps):
    """Building, weights and the export of a network of timm.

    Args:
        model: timm's name.
        size: of the images.
        folder: for the weights.
        threads: of PyTorch.
    """

    def __init__(self, quantities, model, size, folder, threads):
        weights = pathlib.Path(folder) / f"timm-{model}.safetensors"
        super().__init__(quantities, model, size, weights)
        import safetensors.torch
        import timm  # noqa: F401  (importing it is not part of building)
        import torch

        torch.set_num_threads(threads)
        self.torch, self.files = torch, safetensors.torch

    def build(self):
        self.model = build_timm(self.name).eval()

    def save_weights(self):
        self.files.save_model(self.model, self.weights)

    def load_weights(self):
        self.files.load_model(self.model, self.weights)

    def set_statistics(self):
        norms = [
            layer
            for layer in self.model.modules()
            if isinstance(layer, self.torch.nn.modules.batchnorm._BatchNorm)
        ]
        momenta = [layer.momentum for layer in norms]
        for layer in norms:
            layer.momentum = 1.0
        with self.torch.no_grad():
            self.model.train()(self._images(4))
        for layer, momentum in zip(norms, momenta):
            layer.momentum = momentum
        self.model.eval()

    def export_onnx(self, path):
        part = pathlib.Path(f"{path}.part")
        self.torch.onnx.export(
            self.model,
            (self._images(2),),
            part,
            dynamic_shapes=({0: self.torch.export.Dim("batch")},),
            external_data=False,
        )
        part.rename(path)

    def _images(self, batch):
        return self.torch.rand(batch, 3, self.size, self.size)


def import_framework(framework):
    """keras_csp before TensorFlow, as its users do; the others as they are."""
    if framework == "keras_csp":
        import keras_csp  # noqa: F401
    if framework == "keras-hub":
        import keras_hub  # noqa: F401


def limit_threads(threads):
    """TensorFlow's; JAX keeps to the cores that the process may use."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def build_keras(framework, name, size):
    """A classifier of 1000 classes with random weights.

    Args:
        framework: "keras_csp", "keras-hub" or "keras.applications".
        name: of the factory; for keras-hub, timm's name of the network.
        size: side of the images.
    """
    shape = (size, size, 3)
    if framework == "keras-hub":
        return _build_hub(name, shape)
    if framework == "keras_csp":
        import keras_csp

        factory = keras_csp.get_factory(name)
    else:
        import keras

        factory = getattr(keras.applications, name)
    return factory(weights=None, input_shape=shape)


def _build_hub(name, shape):
    """With keras-hub's own configuration for timm's file of this name."""
    from keras_hub.models import CSPNetBackbone, CSPNetImageClassifier
    from keras_hub.src.utils.timm.convert_cspnet import convert_backbone_config

    configuration = convert_backbone_config({"architecture": name})
    backbone = CSPNetBackbone(**configuration, image_shape=shape)
    return CSPNetImageClassifier(
        backbone=backbone, num_classes=CLASSES, activation="softmax"
    )


def build_timm(name):
    import timm

    return timm.create_model(name, pretrained=False)


def set_statistics(model, samples):
    """Statistics of batch normalisation as if the network had seen data.

    Without them the values of a deep random network shrink or grow from layer
    to layer, until denormal numbers slow a runtime down or 8 bits have no
    scale for them. In training each layer normalises by the batch itself, so
    that one pass over the samples is right for all layers at once.
    """
    import keras

    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(samples, training=True)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum


def _counted(model):
    import keras_csp

    counted = keras_csp.count(model)
    return {"bflops": counted.bflops, "cio": counted.cio}


def torch_operations(network, images):
    """2 x multiply-adds of convolutions and classifier, for one image."""
    import torch

    operations = []

    def add(layer, _inputs, output):
        positions = output.numel() // output.shape[1] // len(output)
        operations.append(2 * layer.weight.numel() * positions)

    hooks = [
        layer.register_forward_hook(add)
        for layer in network.modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    network.eval()
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return sum(operations)
