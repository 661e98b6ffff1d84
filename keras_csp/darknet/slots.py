"""Where the convolutions of a Darknet file go in a Keras model, in order.

A file holds the numbers of one convolution after another and nothing else:
no names, no shapes. The order is that of the cfg's sections in models that
`keras_csp.darknet.load` built, and that of execution in the package's
networks.
"""

import dataclasses
import math
import re

import keras

from keras_csp._keras_internals import flatten_layers
from keras_csp._structure import trace
from keras_csp.darknet.plan import ACTIVATIONS
from keras_csp.layers.composite import output_shape
from keras_csp.layers.csp_stage import CSPStage
from keras_csp.layers.new_classes import heads_and_layers
from keras_csp.layers.residual import ResidualBlock
from keras_csp.layers.units import LEAKY_SLOPES, ConvNormAct

_CFG_NAME = re.compile(r"convolutional_([0-9]+)")
_EXPRESSIBLE = {"linear", *ACTIVATIONS.values()}


@dataclasses.dataclass(frozen=True)
class Slot:
    """One [convolutional] of a file and the layers that take it.

    Args:
        name: of the unit, for messages.
        convolution: a convolution or the classifier's Dense.
        norm: its batch normalisation, or None.
        index: Darknet's index of the layer; None in the package's networks.
        shortcut: how many of the input channels come last in the file and
            first in the layer: x0' of eq. 4, which the paper's [x0', T]
            and the authors' files, [T, x0'], put in different places.
        anchors: n, where the layer gives the n (5 + classes) channels of a
            [yolo]; 0 for every other layer.
    """

    name: str
    convolution: keras.layers.Layer
    norm: keras.layers.Layer | None
    index: int | None = None
    shortcut: int = 0
    anchors: int = 0

    @property
    def vectors(self):
        """(what, variable) in the order of the file, before the kernel."""
        if self.norm is None:
            return [("biases", self.convolution.bias)]
        return [
            ("biases", self.norm.beta),
            ("scales", self.norm.gamma),
            ("means", self.norm.moving_mean),
            ("variances", self.norm.moving_variance),
        ]

    @property
    def variables(self):
        kernel = self.convolution.kernel
        return [kernel, *(variable for _, variable in self.vectors)]

    @property
    def floats(self):
        """How many numbers the file has for this slot."""
        return sum(_size(variable) for variable in self.variables)

    @property
    def filters(self):
        return _size(self.vectors[0][1])

    @property
    def row(self):
        """How many numbers the file has for each filter."""
        return self.floats // self.filters


def _size(variable):
    return math.prod(variable.shape)


def find_slots(model):
    """The slots of `model`, in the order of a Darknet file.

    Raises:
        ValueError: a layer that Darknet's format has no place for; its name
            is in the message.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model. Received: "
            f"{model!r} of type {type(model).__name__}"
        )
    slots = _cfg_slots(model) or _traced_slots(model)
    if not slots:
        raise ValueError(
            f"Model {model.name!r} has no convolution, of which Darknet's "
            "files hold the weights"
        )
    _check_nothing_else(model, slots)
    return slots


def _cfg_slots(model):
    """The slots of a model of a cfg, none for other models."""
    anchors = _anchors_of_units(model)
    found = []
    for layer in model.layers:
        if _is_unit(layer):
            index = int(_CFG_NAME.fullmatch(layer.name)[1])
            slot = _unit_slot(layer, layer.name, index)
            count = anchors.get(id(layer), 0)
            found.append(dataclasses.replace(slot, anchors=count))
    return sorted(found, key=lambda slot: slot.index)


def _anchors_of_units(model):
    """{id of the layer before a `YoloHead`: how many anchors that has}."""
    return {
        id(layer): len(head.anchors) for head, layer in heads_and_layers(model)
    }


def _unit_slot(unit, name, index=None, shortcut=0):
    parts = {layer.name: layer for layer in unit.layers}
    return Slot(name, parts["conv"], parts.get("norm"), index, shortcut)


def classifier_slots(model, slots):
    """Those of `slots` whose size depends on the number of classes.

    Args:
        model: a detector: the convolution before each [yolo]; another network
            with a classifier: that one; features: none.
        slots: of `find_slots`, of which the model may have more.

    Raises:
        ValueError: another layer than a convolution before a [yolo].
    """
    heads = _anchors_of_units(model)
    if heads:
        units = {id(layer) for layer in model.layers if _is_unit(layer)}
        if not heads.keys() <= units:
            raise ValueError(
                f"Model {model.name!r} has a [yolo] that does not read a "
                "[convolutional], so which weights are those of its classes "
                "is not known"
            )
        return [slot for slot in slots if slot.anchors]
    if slots and slots[0].index is None and classifier_of(model) is None:
        return []
    return slots[-1:]


def _is_unit(layer):
    return isinstance(layer, ConvNormAct) and _CFG_NAME.fullmatch(layer.name)


def _traced_slots(model):
    calls = trace(model, _concrete(model))
    _check_expressible(calls)
    units = [c.layer for c in calls if isinstance(c.layer, ConvNormAct)]
    if any(_CFG_NAME.fullmatch(unit.name) for unit in units):
        raise ValueError(
            f"Model {model.name!r} holds a model of a Darknet cfg inside, "
            "whose order of weights is its own: give that one"
        )
    widths = {}
    for call in calls:
        if isinstance(call.layer, CSPStage):
            widths.update(_shortcut_width(call, units))
    slots = [
        _unit_slot(unit, unit.path, shortcut=widths.get(id(unit), 0))
        for unit in units
    ]
    classifier = classifier_of(model)
    if classifier is not None:
        slots.append(Slot(classifier.path, classifier, None))
    if len({id(slot.convolution) for slot in slots}) < len(slots):
        raise ValueError(
            f"Model {model.name!r} uses one layer more than once, which "
            "Darknet's format cannot express"
        )
    return slots


def classifier_of(model):
    """The Dense layer "predictions" at the end of a network, or None."""
    last = model.layers[-1]
    dense = isinstance(last, keras.layers.Dense) and last.name == "predictions"
    return last if dense and last.use_bias else None


def _concrete(model):
    """The input's shape, with sides for those left open."""
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(
            "Darknet's networks have one image as their input. Received: "
            f"model {model.name!r} with the input shape {shape}"
        )
    return (*(side or 64 for side in shape[1:3]), shape[3])


def _check_expressible(calls):
    for layer in (call.layer for call in calls):
        if isinstance(layer, ConvNormAct) and layer.preactivation:
            raise _no_place(layer, "it normalises before the convolution")
        projection = getattr(layer, "_projection", None)
        if isinstance(layer, ResidualBlock) and projection is not None:
            raise _no_place(layer, "its shortcut has a convolution")
        if not _has_activation(layer):
            owner = _innermost_owner(layer, calls)
            raise _no_place(owner, "Darknet lacks its activation")


def _has_activation(layer):
    if isinstance(layer, keras.layers.LeakyReLU):
        return layer.negative_slope == LEAKY_SLOPES["leaky"]
    if isinstance(layer, keras.layers.Activation):
        name = getattr(layer.activation, "__name__", None)
        return name in _EXPRESSIBLE
    return True


def _innermost_owner(layer, calls):
    """The layer that holds `layer`, or itself; inner calls come first."""
    owners = (
        call.layer
        for call in calls
        if call.layer is not layer
        and any(layer is inner for inner in flatten_layers(call.layer))
    )
    return next(owners, layer)


def _no_place(layer, reason):
    return ValueError(
        f"Darknet's format cannot express layer {layer.path or layer.name!r} "
        f"({type(layer).__name__}): {reason}"
    )


def _shortcut_width(call, units):
    """{id of M's convolution: the width of x0'} of one CSP stage."""
    stage = call.layer
    last = stage.transition
    inner = [] if last is None else flatten_layers(last)
    mixing = [unit for unit in units if any(unit is one for one in inner)]
    if not mixing or mixing[0].groups > 1:
        raise _no_place(
            stage,
            "it has no plain convolution after its concatenation, whose order "
            "is another one in Darknet's files",
        )
    shortcut, _ = stage.split_shapes((1, *call.input_shape), output_shape)
    return {id(mixing[0]): shortcut[-1]}


def _check_nothing_else(model, slots):
    """Every weight of the model must have its place in the file."""
    placed = {id(v) for slot in slots for v in slot.variables}
    for variable in model.weights:
        if id(variable) not in placed:
            owner = variable.path.rsplit("/", 1)[0]
            raise ValueError(
                f"Darknet's format cannot express layer {owner!r}: it holds "
                f"{variable.path!r}, which is not part of a convolution with "
                "its normalisation after it, nor of a classifier "
                '"predictions" at the end'
            )
