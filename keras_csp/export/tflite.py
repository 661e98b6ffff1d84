"""TFLite files: built-in operations only, checked with LiteRT."""

import numpy as np

from keras_csp.export.checking import (
    as_outputs,
    check_samples,
    checked,
)


def to_tflite(model, path, samples):
    """Writes `model` as a TFLite file after running the file on `samples`.

    Args:
        model: a `keras.Model` on the TensorFlow backend with one input; of a
            detector, `Detector.inference_model()`, whose boxes come out after
            non-maximum suppression.
        path: of the file; its folder is made if need be.
        samples: `(n, height, width, channels)` real inputs, as the model
            takes them; the file has these sides and a batch of 1.

    Returns:
        An `ExportCheck`.

    Raises:
        ValueError: another backend, samples that do not fit the model, an
            operation that TFLite has not built in, or outputs that differ by
            more than 1e-4 of the largest. No file is left then.
    """
    samples = check_samples(model, samples, "TFLite")
    content = _convert(model, samples.shape[1:])
    return checked(model, "TFLite", path, content, samples, _run)


def _convert(model, shape):
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(
        tf.TensorSpec((1, *shape), "float32", name="images")
    )
    # The converter reads values from TensorFlow's variables, held here: given
    # the Keras model itself it writes variables without their values.
    holder = tf.Module()
    holder.held = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [concrete], holder
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except Exception as error:
        raise ValueError(
            f"{model.name!r} has an operation that TFLite has not built in: "
            + _needed_operation(str(error))
        ) from error


def _needed_operation(message):
    """The converter names the operation in one line among very many."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if "tf." in line and "error" in line]
    return (named or lines or ["unknown"])[0][:300]


def _run(content, samples):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content).get_signature_runner()
    rows = [runner(images=sample[None]) for sample in samples]
    return as_outputs(
        {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    )
