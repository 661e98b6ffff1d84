"""Parameters, BFLOPs and CIO of a built model, in the paper's conventions.

The paper's tables mix programs that count differently:

| convention         | parameters      | BFLOPs                              |
|--------------------|-----------------|-------------------------------------|
| "darknet"          | kernels only    | 2 x multiply-adds of convolutions   |
|                    |                 | and classifier, plus size^2 a value |
|                    |                 | of max pooling (AlexeyAB's Darknet) |
| "darknet-original" | kernels only    | without the pooling (pjreddie's)    |
| "torch"            | all trainable   | 2 x (multiply-adds + values that a  |
|                    |                 | batch normalisation gives)          |

CIO is the convolutional input/output: the values that convolutions, poolings
and classifier read and write (HarDNet's measure of memory traffic, Fig. 8).
"""

import dataclasses
import gc
import math

import keras

from keras_csp._keras_internals import flatten_layers
from keras_csp._structure import trace
from keras_csp._tables import aligned
from keras_csp._validation import check_choice

CONVENTIONS = ("darknet", "darknet-original", "torch")

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dense,
)
_MAX_POOLINGS = (keras.layers.MaxPooling2D,)
_POOLINGS = (
    *_MAX_POOLINGS,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
)
_NORMALIZATIONS = (keras.layers.BatchNormalization,)
_COUNTED = (*_CONVOLUTIONS, *_POOLINGS, *_NORMALIZATIONS)


@dataclasses.dataclass(frozen=True)
class LayerCount:
    """One call of one layer. `flops` and `params` as the convention counts."""

    path: str
    kind: str
    output_shape: tuple
    params: int
    flops: int
    cio: int


@dataclasses.dataclass(frozen=True)
class Count:
    """What a model costs; `str` gives the table of its layers.

    Attributes:
        name: of the model.
        convention: "darknet", "darknet-original" or "torch".
        input_shape: `(height, width, channels)` counted at.
        params: parameters (a number, not millions).
        bflops: 1e9 floating-point operations for one image.
        cio: values read and written by convolutions, poolings, classifier.
        layers: tuple of `LayerCount`, in the order of the calls.
        uncounted: paths of layers with weights whose operations are not
            counted: layers of another kind, and those inside a layer of the
            user's that cannot be traced.
    """

    name: str
    convention: str
    input_shape: tuple
    params: int
    layers: tuple
    uncounted: tuple = ()

    @property
    def bflops(self):
        return sum(layer.flops for layer in self.layers) / 1e9

    @property
    def cio(self):
        return sum(layer.cio for layer in self.layers)

    def summary(self):
        """The totals in one line."""
        size = "x".join(map(str, self.input_shape))
        return (
            f"{self.name} at {size}: {self.params / 1e6:.4f} M parameters, "
            f"{self.bflops:.4f} BFLOPs, {self.cio / 1e6:.2f} M CIO "
            f"({self.convention})"
        )

    def __str__(self):
        rows = [
            (
                layer.path,
                layer.kind,
                "x".join(map(str, layer.output_shape)),
                f"{layer.params:,}",
                f"{layer.flops / 1e6:,.2f}",
                f"{layer.cio:,}",
            )
            for layer in self.layers
        ]
        header = ("layer", "kind", "output", "params", "MFLOPs", "CIO")
        lines = aligned([header, *rows], right=(3, 4, 5))
        lines += ["", self.summary()]
        if self.uncounted:
            lines.append("not counted: " + ", ".join(self.uncounted))
        return "\n".join(lines)


def count(model, convention="darknet", input_shape=None):
    """Parameters, BFLOPs and CIO of a built model, layer by layer.

    The model's structure is walked, call by call, also inside models and
    layers that hold others; a layer used twice is counted twice in BFLOPs and
    once in parameters.

    Args:
        model: a functional `keras.Model` with one image input, or a
            `keras.Sequential` that knows its input.
        convention: "darknet" (default), "darknet-original" or "torch"; see
            this module's first lines.
        input_shape: `(height, width, channels)`; needed only where the model
            leaves its sides open.

    Returns:
        A `Count`.

    Raises:
        ValueError: unknown convention, a model that is not functional or has
            several inputs, or sides that neither it nor `input_shape` gives.
    """
    check_choice("convention", convention, CONVENTIONS)
    input_shape = _input_shape(model, input_shape)
    seen = set()
    layers = []
    for call in trace(model, input_shape):
        if isinstance(call.layer, _COUNTED):
            first = id(call.layer) not in seen
            seen.add(id(call.layer))
            layers.append(_count_call(call, convention, first))
    # What a convention leaves out on purpose is 0 in `layers`; "torch" counts
    # every trainable weight, also of layers that the walk does not know.
    params = sum(layer.params for layer in layers)
    if convention == "torch":
        params = sum(_size(w) for w in model.trainable_weights)
    return Count(
        name=model.name,
        convention=convention,
        input_shape=tuple(input_shape),
        params=params,
        layers=tuple(layers),
        uncounted=_uncounted(model, seen),
    )


def build_and_count(build, convention="darknet"):
    """Counts what `build()` gives in a third of the time, and lets it go.

    Shapes are all that is counted, so the weights are never given values.

    Args:
        build: a function that gives a new `keras.Model`, as `count` takes it.
        convention: as of `count`.

    Returns:
        A `Count`.

    Raises:
        ValueError: as `build` and `count` do.
    """
    with keras.StatelessScope(initialize_variables=False):
        counted = count(build(), convention)
    # A model refers to itself in circles. `keras.utils.clear_session` would
    # collect it as well, but resets the state of other threads.
    gc.collect()
    return counted


def _count_call(call, convention, first):
    layer = call.layer
    outputs = math.prod(call.output_shape)
    flops = cio = params = 0
    if isinstance(layer, _CONVOLUTIONS):
        # A kernel is applied once at each output position.
        flops = 2 * _size(layer.kernel) * outputs // call.output_shape[-1]
    if isinstance(layer, _MAX_POOLINGS) and convention == "darknet":
        flops = math.prod(layer.pool_size) * outputs
    if isinstance(layer, _NORMALIZATIONS) and convention == "torch":
        flops = 2 * outputs
    if isinstance(layer, (*_CONVOLUTIONS, *_POOLINGS)):
        cio = math.prod(call.input_shape) + outputs
    if first and convention == "torch":
        params = sum(_size(w) for w in layer.trainable_weights)
    elif first and isinstance(layer, _CONVOLUTIONS):
        params = _size(layer.kernel)
    return LayerCount(
        path=layer.path or layer.name,
        kind=type(layer).__name__,
        output_shape=call.output_shape,
        params=params,
        flops=flops,
        cio=cio,
    )


def _size(weight):
    return math.prod(weight.shape)


def _uncounted(model, seen):
    """Paths of layers with weights of their own that were not counted."""
    layers = flatten_layers(model)[1:]
    return tuple(
        layer.path or layer.name
        for layer in layers
        if id(layer) not in seen and _has_own_weights(layer)
    )


def _has_own_weights(layer):
    inner = flatten_layers(layer)[1:]
    inside = {id(weight) for one in inner for weight in one.weights}
    return any(id(weight) not in inside for weight in layer.weights)


def _input_shape(model, given):
    inputs = getattr(model, "inputs", None)
    if not isinstance(model, keras.Model) or not inputs:
        raise ValueError(
            "`model` must be a functional keras.Model, or a keras.Sequential "
            "that knows its input. Received: "
            f"{model!r} of type {type(model).__name__}"
        )
    if len(inputs) != 1:
        raise ValueError(
            f"`model` must have one input. Received: {model.name!r} with "
            f"{len(inputs)}"
        )
    own = tuple(inputs[0].shape[1:])
    shape = own if given is None else tuple(given)
    if None in shape or len(shape) != len(own):
        raise ValueError(
            "`input_shape` must give every side that the model leaves open. "
            f"Received: input_shape={given}, a model with input {own}"
        )
    if shape[-1] != own[-1]:
        raise ValueError(
            f"`input_shape` must have the model's {own[-1]} channels. "
            f"Received: input_shape={given}"
        )
    return shape
