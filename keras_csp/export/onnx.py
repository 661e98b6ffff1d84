"""ONNX files, checked with onnxruntime."""

import numpy as np

from keras_csp.export.checking import (
    as_outputs,
    check_samples,
    checked,
)


def to_onnx(model, path, samples, opset=17):
    """Writes `model` as an ONNX file after running the file on `samples`.

    Args:
        model: a `keras.Model` on the TensorFlow backend with one input; of a
            detector, `Detector.inference_model()`, whose boxes come out after
            non-maximum suppression.
        path: of the file; its folder is made if need be.
        samples: `(n, height, width, channels)` real inputs, as the model
            takes them; the file has these sides and any batch.
        opset: of ONNX. Default 17.

    Returns:
        An `ExportCheck`.

    Raises:
        ImportError: tf2onnx or onnxruntime is not installed.
        ValueError: another backend, samples that do not fit the model, or
            outputs that differ by more than 1e-4 of the largest. No file is
            left then.
    """
    samples = check_samples(model, samples, "ONNX")
    content = _convert(model, samples.shape[1:], opset)
    return checked(model, "ONNX", path, content, samples, _run)


def _convert(model, shape, opset):
    import tensorflow as tf

    try:
        import tf2onnx
    except ImportError as error:
        raise ImportError(
            'ONNX files need tf2onnx: pip install "keras-csp[onnx]"'
        ) from error
    signature = [tf.TensorSpec((None, *shape), "float32", name="images")]
    function = tf.function(
        lambda images: model(images, training=False),
        input_signature=signature,
    )
    proto, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=opset
    )
    return proto.SerializeToString()


def _run(content, samples):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        content, providers=["CPUExecutionProvider"]
    )
    values = session.run(None, {"images": samples})
    names = [output.name for output in session.get_outputs()]
    return as_outputs({k: np.asarray(v) for k, v in zip(names, values)})
