"""The parts of a network that are trained apart, from its end backwards."""

import itertools
import re

import keras

from keras_csp._keras_internals import functional
from keras_csp.detection import Detector
from keras_csp.detection.parts import detector_parts
from keras_csp.models.features import flow_of

_STAGE = re.compile(r"stage([0-9]+)")


def layer_groups(model):
    """The layers of a model in groups, from its output back to its input.

        a detector          head, neck, the stages of its backbone backwards
        a classifier        head, its stages backwards
        without stages      head, every other layer with weights backwards

    The stages of this package's networks are those of their layers' names,
    e.g. `stage3_down`, and the stem before them. A stage of other networks,
    as Darknet's and keras.applications', is the layers whose maps have one
    stride, those included that a block makes coarser inside.

    Args:
        model: a `keras.Model`; the layers of models inside count as its own.

    Returns:
        {name: layers}: "head"; "neck" of a detector; then "stage4", ...,
        "stage1", "stem", or "stride32", ..., "stride2"; without stages
        "layer7", ..., "layer1", in order of execution. Groups without weights
        are left out, but not the head.
    """
    if isinstance(model, Detector):
        groups = detector_parts(model)
        backbone = groups.pop("backbone")
        stages, after = _stages(model, backbone)
        if not stages:
            stages = {"backbone": after}
        elif after:
            stages[next(iter(stages))] += after
        groups.update(stages)
    else:
        stages, head = _stages(model, flat_layers(model))
        groups = {"head": head, **stages} if stages else _one_by_one(head)
    return {
        name: layers
        for name, layers in groups.items()
        if name == "head" or any(layer.weights for layer in layers)
    }


def flat_layers(model):
    """The layers, those of models inside in the place of the model."""
    found = []
    for layer in model.layers:
        inside = isinstance(layer, keras.Model)
        found += flat_layers(layer) if inside else [layer]
    return found


def _stages(model, layers):
    """({name of a stage: layers}, the last first; the layers after them)."""
    labels = _names(layers) or _strides(model, layers)
    groups = {}
    for label, layer in zip(labels, layers):
        groups.setdefault(label, []).append(layer)
    return dict(reversed(groups.items())), layers[len(labels) :]


def _names(layers):
    """The stage of each layer up to that of the last one named by stage."""
    found = [_STAGE.match(layer.name) for layer in layers]
    while found and not found[-1]:
        found.pop()
    numbers = [int(match[1]) if match else 0 for match in found]
    return [
        f"stage{number}" if number else "stem"
        for number in itertools.accumulate(numbers, max)
    ]


def _strides(model, layers):
    """Likewise by stride, up to the last layer that makes a feature map."""
    graph = functional(model)
    if graph is None or len(graph.inputs) != 1:
        return []
    flow = flow_of(model)
    of_layers = {}
    for key, maker in flow.makers.items():
        if key in flow.levels:
            of_layers.setdefault(maker, flow.levels[key])
    found = [of_layers.get(layer) for layer in layers]
    while found and found[-1] is None:
        found.pop()
    coarsest = max((level for level in found if level), default=0)
    # Backwards: what is finer later on is where a block leads back to.
    levels = itertools.accumulate(
        (level or coarsest for level in reversed(found)), min
    )
    return [f"stride{2**level}" for level in reversed(list(levels))]


def _one_by_one(layers):
    layers = [layer for layer in layers if layer.weights]
    names = [f"layer{number + 1}" for number in range(len(layers))]
    names[-1:] = ["head"]
    return {
        name: [layer] for name, layer in zip(reversed(names), reversed(layers))
    }
