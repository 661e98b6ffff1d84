"""Keras networks: `predict_on_batch` and `train_on_batch`."""

import numpy as np

from peers_lib.keras_models import make

LEARNING_RATE, MOMENTUM = 0.01, 0.9


class Runs:
    """One network, a model for each size of image, made when first needed.

    Args:
        quantities: {name: {"batch", "size", "training"}}.
        framework, model: as of `keras_models.make`.
        jit_compile: of `Model.compile`: whether XLA compiles the step.
        threads: of TensorFlow.
    """

    def __init__(self, quantities, framework, model, jit_compile, threads):
        if framework == "keras_csp":
            import keras_csp  # noqa: F401  (before TensorFlow, as users do)
        limit_threads(threads)
        self.quantities = quantities
        self.framework, self.name = framework, model
        self.jit_compile = jit_compile
        self.models, self.batches = {}, {}

    def run(self, quantity):
        asked = self.quantities[quantity]
        model = self.model(asked["size"])
        images, labels = self.batch(asked["batch"], asked["size"])
        if asked.get("training"):
            model.train_on_batch(images, labels)
        else:
            model.predict_on_batch(images)

    def cost(self, quantity):
        """BFLOPs and CIO, counted by this package in any Keras model."""
        from keras_csp import count

        counted = count(self.model(self.quantities[quantity]["size"]))
        return {"bflops": counted.bflops, "cio": counted.cio}

    def model(self, size):
        if size not in self.models:
            import keras

            model = make(self.framework, self.name, size)
            model.compile(
                keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
                "sparse_categorical_crossentropy",
                jit_compile=self.jit_compile,
            )
            self.models[size] = model
        return self.models[size]

    def batch(self, number, size):
        if (number, size) not in self.batches:
            rng = np.random.default_rng(0)
            images = rng.random((number, size, size, 3), dtype="float32")
            self.batches[number, size] = images, rng.integers(0, 1000, number)
        return self.batches[number, size]


def limit_threads(threads):
    """TensorFlow's; JAX keeps to the cores that the process may use."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
