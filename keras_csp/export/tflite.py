"""TFLite files: built-in operations only, checked with LiteRT."""

import dataclasses
import os
import pathlib

import keras
import numpy as np

_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """How the written file's outputs compare with the model's.

    Attributes:
        path: of the file.
        size: in bytes.
        largest_difference: of any output value, relative to the largest.
        agreement: share of the samples with the same best class.
    """

    path: pathlib.Path
    size: int
    largest_difference: float
    agreement: float


def to_tflite(model, path, samples):
    """Writes `model` as a TFLite file after running the file on `samples`.

    Args:
        model: a `keras.Model` on the TensorFlow backend, one input, one
            output.
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
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "TFLite files are written on the TensorFlow backend. Received: "
            f"the backend {keras.backend.backend()!r}"
        )
    samples = np.asarray(samples, "float32")
    _check_samples(model, samples)
    path = pathlib.Path(path)
    content = _convert(model, samples.shape[1:])
    expected = np.asarray(model.predict_on_batch(samples))
    answered = _run(content, samples)
    difference = np.abs(answered - expected).max() / np.abs(expected).max()
    if not difference <= _TOLERANCE:  # NaN included
        raise ValueError(
            f"The TFLite file of {model.name!r} differs from the model by "
            f"{difference:.2g} of its largest output; {_TOLERANCE} is allowed"
        )
    _write(path, content)
    agreement = np.mean(answered.argmax(-1) == expected.argmax(-1))
    return ExportCheck(path, len(content), float(difference), float(agreement))


def _check_samples(model, samples):
    expected = model.input_shape
    fits = samples.ndim == len(expected) and len(samples) > 0
    if not fits or any(
        side not in (None, given)
        for side, given in zip(expected[1:], samples.shape[1:])
    ):
        raise ValueError(
            "`samples` must be a non-empty batch of the model's inputs, "
            f"{expected}. Received: shape {samples.shape}"
        )


def _convert(model, shape):
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(
        tf.TensorSpec((1, *shape), "float32")
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

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    returned = interpreter.get_output_details()[0]["index"]
    outputs = []
    for sample in samples:
        interpreter.set_tensor(given, sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(returned)[0])
    return np.stack(outputs)


def _write(path, content):
    """To a temporary name first: never half a file under `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
