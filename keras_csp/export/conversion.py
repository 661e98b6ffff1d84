"""TensorFlow's converter: its settings, its errors, what it leaves alone."""

import keras


def converter(model, inputs, quantize=None, representative=None, types=None):
    """A `tf.lite.TFLiteConverter` of `model`, for built-in operations.

    Args:
        inputs: {name: shape with the batch}, in the order of the model's.
        quantize, representative: as of `to_tflite`.
        types: ("float32", "int8" or "uint8") of input and output.
    """
    import tensorflow as tf

    builtin = tf.lite.OpsSet.TFLITE_BUILTINS
    made = tf.lite.TFLiteConverter.from_concrete_functions(
        [_concrete_function(model, inputs)], _holder(model)
    )
    made.target_spec.supported_ops = [builtin]
    if quantize:
        made.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        made.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        made.representative_dataset = _one_by_one(representative)
        made.inference_input_type, made.inference_output_type = (
            tf.dtypes.as_dtype(name) for name in types or ("float32",) * 2
        )
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


def _one_by_one(values):
    return lambda: ([value[None]] for value in values)


def convert(model, made):
    """The file's contents; ValueError naming an operation it cannot have."""
    try:
        return made.convert()
    except Exception as error:
        raise ValueError(_refusal(model, str(error))) from error


def _refusal(model, message):
    """The converter names an operation in one line among very many."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if "tf." in line and "error" in line]
    if named:
        return (
            f"{model.name!r} has an operation that TFLite has not built in: "
            f"{named[0][:300]}"
        )
    reason = (lines or ["no reason given"])[0][:300]
    return f"TensorFlow's converter refuses {model.name!r}: {reason}"


def split_head(model):
    """`model` up to a layer that is not to be quantised, and from there on.

    Such a layer says so by its attribute `quantizable = False`, and must be
    the model's last one. Non-maximum suppression is one: in 8 bits a box is
    a 256th of the image wide, and the converter cannot calibrate a loop.

    Returns:
        Two models, of which the second is `None` without such a layer. The
        first gives {"map_0": ..., "map_1": ...}, which the second takes in
        that order.
    """
    last = model.layers[-1]
    if getattr(last, "quantizable", True):
        return model, None
    tensors = keras.tree.flatten(last.input)
    named = {f"map_{i}": tensor for i, tensor in enumerate(tensors)}
    body = keras.Model(model.inputs, named, name=model.name)
    return body, keras.Model(tensors, model.output, name=last.name)
