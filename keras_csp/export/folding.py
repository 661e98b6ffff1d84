"""Batch normalisation folded into the convolutions before it."""

import collections

import keras
import numpy as np

from keras_csp._keras_internals import functional, nodes, producer
from keras_csp._structure import is_composite, run_inside

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
    if functional(model) is None:
        raise ValueError(
            "`model` must be a functional keras.Model. Received: "
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
    takers = collections.Counter(map(id, flat.outputs))
    calls = collections.Counter()
    for node in nodes(flat):
        takers.update(map(id, node.input_tensors))
        calls[node.operation] += 1
    found = {}
    for node in nodes(flat):
        norm = node.operation
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        x = node.input_tensors[0]
        source = producer(x)
        if (
            isinstance(source, _CONVOLUTIONS)
            and calls[source] == calls[norm] == 1
            and takers[id(x)] == 1
            and source.activation is keras.activations.linear
            and norm.axis in (-1, 3)
            and source.data_format == "channels_last"
        ):
            found[source.name] = norm
    return found


def _flattened(model):
    """A functional model of copies of the innermost layers of `model`."""
    inputs = [
        keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
        )
        for tensor in model.inputs
    ]
    given = keras.tree.pack_sequence_as(model.input, inputs)
    outputs = run_inside(model, _Copies().run, given)
    return keras.Model(given, outputs, name=model.name)


class _Copies:
    """Runs a copy of each layer, and of a composite those of its layers."""

    def __init__(self):
        self._copies = {}  # by the id of a layer
        self._names = set()
        self._path = []

    def run(self, operation, *args, **kwargs):
        """The outputs of the copy, for `run_inside`."""
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        if _is_known_composite(operation):
            self._path.append(operation.name)
            try:
                return run_inside(operation, self.run, *args, **kwargs)
            finally:
                self._path.pop()
        copy = self._copy_of(operation)
        outputs = copy(*args, **kwargs)
        copy.set_weights(operation.get_weights())
        return outputs

    def _copy_of(self, layer):
        if id(layer) not in self._copies:
            base = name = "_".join([*self._path, layer.name])
            number = 1
            while name in self._names:
                number += 1
                name = f"{base}_{number}"
            self._names.add(name)
            self._copies[id(layer)] = _copy(layer, name)
        return self._copies[id(layer)]


def _is_known_composite(layer):
    """Whether its `call` is known to be of Keras' operations alone."""
    ours = type(layer).__module__.startswith("keras_csp.")
    known = ours or isinstance(layer, keras.Sequential)
    return functional(layer) is not None or (known and is_composite(layer))


def _copy(layer, name):
    config = keras.saving.serialize_keras_object(layer)
    config.pop("build_config", None)
    config["config"]["name"] = name
    return keras.saving.deserialize_keras_object(config)
