"""What comes before a Keras network's first answer, each step once.

Builds it, saves and loads its weights, and writes the files that the other
runtimes are measured with.
"""

import pathlib

from peers_lib.keras_models import make, set_statistics
from peers_lib.keras_runs import limit_threads


class Runs:
    """A quantity has the "step", a method, and "with", its arguments.

    Args:
        framework, model: as of `keras_models.make`.
        size: of the images, unless the step names another.
        folder: for the weights.
        threads: of TensorFlow.
    """

    def __init__(self, quantities, framework, model, size, folder, threads):
        if framework == "keras_csp":
            import keras_csp  # noqa: F401  (before TensorFlow, as users do)
        if framework == "keras-hub":
            import keras_hub  # noqa: F401
        limit_threads(threads)
        self.quantities = quantities
        self.framework, self.name, self.size = framework, model, size
        path = f"{framework}-{model}.weights.h5"
        self.weights = str(pathlib.Path(folder) / path)
        self.model = self.samples = None

    def prepare(self, quantity):
        """What the step needs and is no part of it.

        A model, if an earlier start of the benchmark timed its building; for
        exports, statistics as of a network that has seen data.
        """
        step = self.quantities[quantity]["step"]
        if step != "build" and self.model is None:
            self.build()
        if step.startswith("export") and self.samples is None:
            self.settle()

    def run(self, quantity):
        asked = self.quantities[quantity]
        return getattr(self, asked["step"])(**asked.get("with", {}))

    def build(self):
        self.model = make(self.framework, self.name, self.size)

    def save_weights(self):
        self.model.save_weights(self.weights)

    def load_weights(self):
        self.model.load_weights(self.weights)

    def settle(self):
        """Photographs, and the statistics of batch normalisation on them.

        Random pixels would not do: after a few layers all such images are
        alike, and normalising what differs between them is normalising
        rounding errors.
        """
        from keras_csp.export import photographs

        self.samples = photographs((self.size, self.size, 3))
        set_statistics(self.model, self.samples)

    def export_litert(self, path, size=None):
        from keras_csp.export import to_tflite

        if size not in (None, self.size):
            self.size = size
            self.build()
            self.settle()
        to_tflite(self.model, path, self.samples[:1])

    def export_litert_int8(self, path):
        """Of a network that is not trained, whose best classes say nothing."""
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
