"""ONNX files, checked with onnxruntime."""

import contextlib
import os
import pathlib

import keras
import numpy as np

from keras_csp._files import atomic_write
from keras_csp._validation import check_choice
from keras_csp.export.inputs import exportable, prepare
from keras_csp.export.runtimes import METADATA_KEY, ONNXRuntime
from keras_csp.export.verification import float_tolerance, verify


def to_onnx(
    model,
    path,
    samples=None,
    *,
    opset=17,
    dynamic_batch=True,
    input_shape=None,
    maximum_difference=None,
):
    """Writes `model` as an ONNX file after running the file on `samples`.

    The file holds the network's name and the model's `ImageSpec` (see
    `to_tflite`), in its `metadata_props` under "keras_csp".

    Args:
        model: a functional `keras.Model` on the TensorFlow backend with one
            input, or a `Detector`, whose boxes come out after non-maximum
            suppression;
            `Detector.inference_model(score_threshold=...)` has other
            thresholds.
        path: of the file; its folder is made if need be.
        samples: `(n, height, width, channels)` real inputs, as the model
            takes them, on which the file is compared with the model. Default:
            parts of two photographs.
        opset: of ONNX, 13 to 18. Default 17.
        dynamic_batch: True (default): batches of any size. False: of 1.
        input_shape: `(height, width, channels)` of the file; needed only for
            a model of open sides without samples or a size in its
            `ImageSpec`.
        maximum_difference: as of `to_tflite`.

    Returns:
        An `ExportCheck`.

    Raises:
        ImportError: tf2onnx or onnxruntime is not installed.
        ValueError: another backend, an argument out of range, samples that do
            not fit the model, or outputs that differ by more than
            `maximum_difference`. No file is left then, and one that was there
            before stays.
    """
    check_choice("opset", opset, range(13, 19))
    check_choice("dynamic_batch", dynamic_batch, (True, False))
    tolerance = float_tolerance(maximum_difference)
    model = exportable(model, "ONNX")
    metadata, samples = prepare(model, samples, input_shape)
    batch = None if dynamic_batch else 1
    content = _convert(model, (batch, *metadata.input_shape), opset, metadata)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_bytes(content)
        run = _run_more if dynamic_batch else _run
        return verify(model, "ONNX", path, samples, part, run, tolerance)


def _convert(model, shape, opset, metadata):
    import tensorflow as tf

    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise ImportError(
            'ONNX files need tf2onnx: pip install "keras-csp[onnx]"'
        ) from error
    signature = [tf.TensorSpec(shape, "float32", name="images")]
    function = tf.function(
        lambda images: model(images, training=False),
        input_signature=signature,
    )
    with _errors_are_raised():
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=signature, opset=opset
        )
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    return proto.SerializeToString()


@contextlib.contextmanager
def _errors_are_raised():
    """To go on after an error, tf2onnx copies all weights before each of its
    passes: more than twice the memory and the time."""
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _run(path, samples):
    return ONNXRuntime(path)(samples)


def _run_more(path, samples):
    """In a batch of at least two: one that takes a single image would fail."""
    answers = _run(path, np.concatenate([samples, samples[:1]]))
    return keras.tree.map_structure(lambda y: y[:-1], answers)
