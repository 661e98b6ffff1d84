"""A written file as a function: LiteRT, onnxruntime, SavedModel, Keras.

A runtime is made of a path and a number of threads (None: its own choice). It
takes batches of inputs and returns what the model's `predict_on_batch` does;
its attribute `metadata` is the `Metadata` in the file, or None.
"""

import pathlib
import warnings

import keras
import numpy as np

from keras_csp.detection import Detector
from keras_csp.export.metadata import Metadata, describe
from keras_csp.export.tflite_file import (
    read_metadata,
    to_integers,
    to_numbers,
)

METADATA_KEY = "keras_csp"
METADATA_FILE = "keras_csp.json"


def one_or_by_name(outputs):
    """As the model returns them: a dict by name, or the only output."""
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))


class TFLiteRuntime:
    """Runs one image at a time; int8 inputs and outputs become floats."""

    def __init__(self, path, threads=None):
        from ai_edge_litert.interpreter import Interpreter

        self.metadata = read_metadata(path)
        self._runner = Interpreter(
            str(path), num_threads=threads
        ).get_signature_runner()
        ((self._input, details),) = self._runner.get_input_details().items()
        self._from_float = to_integers(details)
        self._to_float = {
            name: to_numbers(details)
            for name, details in self._runner.get_output_details().items()
        }

    def __call__(self, images):
        rows = [
            self._runner(**{self._input: self._from_float(image[None])})
            for image in np.asarray(images, "float32")
        ]
        return one_or_by_name(
            {
                name: np.concatenate([number(row[name]) for row in rows])
                for name, number in self._to_float.items()
            }
        )


def inspected(content, delegates=True):
    """A LiteRT interpreter that keeps the values of every tensor.

    Args:
        content: of a TFLite file, bytes.
        delegates: whether LiteRT's own run the operations. They fuse some,
            and do not give what was between.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO
    if not delegates:
        kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():  # that this is for debugging
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=kind,
        )
    interpreter.allocate_tensors()
    return interpreter


class ONNXRuntime:
    """Batches as large as the file takes."""

    def __init__(self, path, threads=None):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                'ONNX files need onnxruntime: pip install "keras-csp[onnx]"'
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        noted = self._session.get_modelmeta().custom_metadata_map
        text = noted.get(METADATA_KEY)
        self.metadata = text and Metadata.from_json(text)
        (given,) = self._session.get_inputs()
        self._input = given.name
        self._batch = given.shape[0] if isinstance(given.shape[0], int) else 0
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, images):
        images = np.asarray(images, "float32")
        size = self._batch or len(images)
        answers = [
            self._session.run(None, {self._input: images[i : i + size]})
            for i in range(0, len(images), size)
        ]
        whole = [np.concatenate(parts) for parts in zip(*answers)]
        return one_or_by_name(dict(zip(self._names, whole)))


class SavedModelRuntime:
    """The folder's `serving_default`."""

    def __init__(self, path, threads=None):
        import tensorflow as tf

        self._module = tf.saved_model.load(str(path))  # keeps its variables
        self._function = self._module.signatures["serving_default"]
        (self._input,) = self._function.structured_input_signature[1]
        file = pathlib.Path(path) / "assets.extra" / METADATA_FILE
        self.metadata = None
        if file.is_file():
            self.metadata = Metadata.from_json(file.read_text("utf-8"))

    def __call__(self, images):
        import tensorflow as tf

        images = tf.constant(np.asarray(images, "float32"))
        answers = self._function(**{self._input: images})
        return one_or_by_name({k: v.numpy() for k, v in answers.items()})


class KerasRuntime:
    """A Keras model itself: of a `.keras` file, or a `keras.Model`.

    A `Detector` gives the boxes of its `inference_model()`.
    """

    def __init__(self, model, threads=None):
        if not isinstance(model, keras.Model):
            model = keras.saving.load_model(model, compile=False)
        if isinstance(model, Detector):
            model = model.inference_model()
        self._model = model
        self.metadata = describe(model)

    def __call__(self, images):
        return self._model.predict_on_batch(np.asarray(images, "float32"))
