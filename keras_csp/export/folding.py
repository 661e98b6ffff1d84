"""Batch normalisation folded into the convolutions before it."""

import collections
import contextlib
import threading

import keras
import numpy as np

# Keras gives the class no public name.
_Functional = type(keras.Model(*[keras.Input(())] * 2))
_LOCK = threading.Lock()
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def fold_batchnorm(model):
    """s (K * x + b - m) + t = sK * x + s (b - m) + t: one convolution.

    For runtimes that do not do it themselves (LiteRT and onnxruntime do), and
    for `predict`, which then computes less. s = gamma / sqrt(variance +
    epsilon), m is the moving mean, t is beta. What comes before the first
    convolution of a pre-activation block has none to be folded into and stays.

    Args:
        model: a built functional `keras.Model`, e.g. of any factory here, or
            `Detector.inference_model()`. It is left as it is.

    Returns:
        A functional `keras.Model` for inference, of the same inputs, outputs
        and name, whose layers are those inside the model's own; it is saved
        and loaded as any other. Its answers differ by rounding only.

    Raises:
        ValueError: a model that is not functional.
    """
    if not isinstance(model, _Functional):
        raise ValueError(
            "Expected a functional keras.Model. Received: "
            f"{model!r} of type {type(model).__name__}"
        )
    flat = _flattened(model)
    folded = _foldable(flat)
    norms = {norm.name for norm in folded.values()}

    def copied(layer):
        config = layer.get_config()
        if layer.name in folded:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def called(layer, *args, **kwargs):
        return args[0] if layer.name in norms else layer(*args, **kwargs)

    result = keras.models.clone_model(
        flat, clone_function=copied, call_function=called
    )
    for layer in result.layers:
        original = flat.get_layer(layer.name)
        if layer.name in folded:
            layer.set_weights(_folded(original, folded[layer.name]))
        else:
            layer.set_weights(original.get_weights())
    return result


def _folded(convolution, norm):
    """[kernel, bias] of both layers together."""
    numpy = keras.ops.convert_to_numpy
    kernel, *bias = convolution.get_weights()
    scale = 1 / np.sqrt(numpy(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * numpy(norm.gamma)
    shift = (sum(bias) - numpy(norm.moving_mean)) * scale
    if norm.center:
        shift = shift + numpy(norm.beta)
    # A depthwise kernel's last two axes, together, are its outputs.
    outputs = kernel.shape[-2:] if _is_depthwise(convolution) else (-1,)
    return [kernel * scale.reshape(outputs), shift]


def _is_depthwise(layer):
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _foldable(flat):
    """{name of a convolution: the normalisation that alone takes its output}"""
    takers = collections.Counter(id(t) for t in flat.outputs)
    for operation in flat.operations:
        for node in operation._inbound_nodes:
            takers.update(id(tensor) for tensor in node.input_tensors)
    found = {}
    for layer in flat.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        source = layer.input._keras_history.operation
        if (
            isinstance(source, _CONVOLUTIONS)
            and len(source._inbound_nodes) == len(layer._inbound_nodes) == 1
            and takers[id(layer.input)] == 1
            and source.activation is keras.activations.linear
            and layer.axis in (-1, 3)
            and source.data_format == "channels_last"
        ):
            found[source.name] = layer
    return found


def _flattened(model):
    """A functional model of copies of the innermost layers of `model`."""
    inputs = [
        keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
        )
        for tensor in model.inputs
    ]
    with _copying():
        given = keras.tree.pack_sequence_as(model.input, inputs)
        outputs = model.call(given)
    return keras.Model(given, outputs, name=model.name)


@contextlib.contextmanager
def _copying():
    """On this thread, a layer's call is that of its copy, and a composite's
    that of the copies of its layers."""
    copies, names, path = {}, collections.Counter(), []
    thread = threading.get_ident()
    with _LOCK:
        original = keras.layers.Layer.__call__

        def copy_of(layer):
            if id(layer) not in copies:
                name = "_".join([*path, layer.name])
                names[name] += 1
                if names[name] > 1:
                    name = f"{name}_{names[name]}"
                copies[id(layer)] = _copy(layer, name)
            return copies[id(layer)]

        def called(layer, *args, **kwargs):
            if threading.get_ident() != thread:
                return original(layer, *args, **kwargs)
            if not _is_composite(layer):
                copy = copy_of(layer)
                answer = original(copy, *args, **kwargs)
                copy.set_weights(layer.get_weights())
                return answer
            kwargs.pop("training", None)
            path.append(layer.name)
            try:
                return layer.call(*args, **kwargs)
            finally:
                path.pop()

        keras.layers.Layer.__call__ = called
        try:
            yield
        finally:
            keras.layers.Layer.__call__ = original


def _is_composite(layer):
    """Whether its `call` is known to be of Keras' operations alone."""
    ours = type(layer).__module__.startswith("keras_csp.")
    return bool(layer._layers) and (
        ours or isinstance(layer, (_Functional, keras.Sequential))
    )


def _copy(layer, name):
    config = keras.saving.serialize_keras_object(layer)
    config.pop("build_config", None)
    config["config"]["name"] = name
    return keras.saving.deserialize_keras_object(config)
