"""TensorFlow's converter: its settings and errors, and what it must skip."""

import contextlib

import keras

from keras_csp._keras_internals import calibrated, quantized
from keras_csp.export.ranges import narrowed


def convert(model, inputs, quantize=None):
    """Contents of `model`'s TFLite file, of built-in operations.

    Args:
        inputs: {name: shape with the batch}, in the order of the model's.
        quantize: `None`, "float16" or "dynamic".

    Raises:
        ValueError: names an operation that TFLite lacks.
    """
    import tensorflow as tf

    made = _converter(model, inputs)
    if quantize:
        made.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        made.target_spec.supported_types = [tf.float16]
    with _errors_in_one_line(model):
        return made.convert()


def convert_int8(model, inputs, representative, types, calibration):
    """Contents of `model`'s TFLite file in 8 bits, without float operations.

    Args:
        inputs: {name: shape with the batch}.
        representative: real inputs, an array, which set the ranges.
        types: ("float32", "int8" or "uint8") of input and output.
        calibration: as of `to_tflite`.

    Raises:
        ValueError: names an operation that TFLite lacks.
    """
    import tensorflow as tf

    made = _converter(model, inputs)
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    made.representative_dataset = lambda: ([x[None]] for x in representative)
    made.inference_input_type, made.inference_output_type = map(
        tf.dtypes.as_dtype, types
    )
    with _errors_in_one_line(model):
        if calibration == "mse":
            return _in_narrower_ranges(made, representative)
        return made.convert()


def _in_narrower_ranges(made, representative):
    """The converter's two steps, calibration and quantisation, with other
    ranges in between."""
    return quantized(
        narrowed(calibrated(made), representative),
        made.inference_input_type,
        made.inference_output_type,
    )


def _converter(model, inputs):
    import tensorflow as tf

    made = tf.lite.TFLiteConverter.from_concrete_functions(
        [_concrete_function(model, inputs)], _holder(model)
    )
    made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return made


def _concrete_function(model, inputs):
    import tensorflow as tf

    several = len(inputs) > 1

    def answer(*tensors):
        return model(list(tensors) if several else tensors[0], training=False)

    specs = [
        tf.TensorSpec(shape, "float32", name=name)
        for name, shape in inputs.items()
    ]
    return tf.function(answer).get_concrete_function(*specs)


def _holder(model):
    """The converter reads values from TensorFlow's variables, held here:
    given the Keras model itself it writes variables without their values."""
    import tensorflow as tf

    holder = tf.Module()
    holder.held = [variable.value for variable in model.variables]
    return holder


@contextlib.contextmanager
def _errors_in_one_line(model):
    try:
        yield
    except Exception as error:
        raise ValueError(_reason(model, str(error))) from error


def _reason(model, message):
    """The converter names an operation in one line among very many."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if "tf." in line and "error" in line]
    if named:
        return (
            f"{model.name!r} has an operation that is not built into TFLite: "
            f"{named[0][:300]}"
        )
    reason = (lines or ["no reason given"])[0][:300]
    return f"TensorFlow's converter cannot convert {model.name!r}: {reason}"


def split_head(model):
    """`model` up to its last layer, and that layer, if it is not quantizable.

    Such a layer has the attribute `quantizable = False`. Non-maximum
    suppression is one: in 8 bits the step of a box is a 256th of the image's
    width, and the converter cannot calibrate a loop.

    Returns:
        Two models, of which the second is `None` without such a layer. The
        first gives {"map_0": ..., "map_1": ...}, which the second takes in
        that order.

    Raises:
        ValueError: such a layer elsewhere.
    """
    last = model.layers[-1]
    fixed = {id(x) for x in _sublayers(model) if not _is_quantizable(x)}
    if fixed - {id(last)}:
        raise ValueError(
            f"{model.name!r} has a layer that cannot be quantised (its "
            "`quantizable` is False), which must be the last of its own "
            "layers, not of a model inside it"
        )
    if not fixed:
        return model, None
    tensors = keras.tree.flatten(last.input)
    named = {f"map_{i}": tensor for i, tensor in enumerate(tensors)}
    body = keras.Model(model.inputs, named, name=model.name)
    return body, keras.Model(tensors, model.output, name=last.name)


def _is_quantizable(layer):
    return getattr(layer, "quantizable", True)


def _sublayers(model):
    """The layers of a model, and those of the models among them."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _sublayers(layer)
