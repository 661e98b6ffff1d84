"""Pyramid features of a network, its levels named by stride."""

import collections
import math
import re

import keras

from keras_csp._keras_internals import functional, nodes
from keras_csp._structure import graph_values, run_graph
from keras_csp.layers.units import ConvNormAct
from keras_csp.layers.yolo_head import YoloHead

# Two sides of an image that differ by twice the largest stride, 512: the
# difference of a map's sides tells its stride, whatever padding adds to both.
_SIDES = (2048, 3072)

# They enlarge a map for the operation after them, or cut what one has added.
_PADDINGS = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D)


def feature_extractor(model, levels=("P3", "P4", "P5")):
    """A model from an image to the features at the given strides.

    Level `Pn` has stride 2^n: P3 is 8, P4 16, P5 32. It is the last feature
    map of `model` at that stride, so just before the next halving, whichever
    layer or operation made it, also inside models that `model` holds. Of a
    detector the heads do not count: a `YoloHead`, the convolution whose output
    goes to it alone, and what comes after.

    Args:
        model: a `keras.Model` of this package, or any functional model with
            one image input, with or without its classifier. The weights are
            shared with it.
        levels: names from "P1" to "P9", each once. Default ("P3", "P4",
            "P5").

    Returns:
        A `keras.Model` whose output is a dict from level name to
        `(batch, height, width, channels)`.

    Raises:
        ValueError: a name that is no level, or a level the model lacks; the
            message lists those it has.
    """
    levels = _check_levels(levels)
    available = _levels(model)
    missing = [level for level in levels if level not in available]
    if missing:
        raise ValueError(
            f"{model.name!r} has no level {', '.join(missing)}; it has "
            f"{', '.join(sorted(available))}. Received: levels={levels}"
        )
    tensors = {level: available[level] for level in levels}
    image = keras.utils.get_source_inputs(tensors[levels[0]])[0]
    return keras.Model(image, tensors, name=f"{model.name}_features")


def list_levels(model):
    """The names of the levels that `feature_extractor` finds, finest first."""
    return tuple(sorted(_levels(model)))


def _levels(model):
    """{level name: the last feature map at that stride, a symbolic tensor}."""
    graph = _without_nesting(_graph(model))
    before = _ids_before_heads(graph)
    small, large = (_shapes(graph, side) for side in _SIDES)
    levels = {}
    for node in nodes(graph):
        if isinstance(node.operation, _PADDINGS) or _is_pad(node.operation):
            continue
        for tensor in node.outputs:
            key = id(tensor)
            if key in before and key in small and key in large:
                level = _level(small[key], large[key])
                if level is not None:
                    levels[level] = tensor
    return levels


def _graph(model):
    """The functional model that `model` is, with one input."""
    graph = functional(model)
    if graph is None or len(graph.inputs) != 1:
        raise ValueError(
            "`model` must be a functional keras.Model with one image input. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    return graph


def _without_nesting(graph):
    """The graph with those of the models it holds in their places."""
    if not any(functional(node.operation) for node in nodes(graph)):
        return graph

    def call(operation, *args, **kwargs):
        inner = functional(operation)
        if inner is None:
            return operation(*args, **kwargs)
        return run_graph(inner, args[0], call)

    (image,) = graph.inputs
    image = keras.Input(
        batch_shape=image.shape, dtype=image.dtype, name=image.name
    )
    try:
        return keras.Model(image, run_graph(graph, [image], call))
    except ValueError as error:
        raise ValueError(
            f"The models inside {graph.name!r} cannot be joined to one: {error}"
        ) from error


def _shapes(graph, side):
    """{id of a tensor: its shape} for an image of that side.

    An operation that fixes the sides, such as a `Reshape`, may refuse this
    one; what comes after it is no feature map of an image of any size.
    """
    (image,) = graph.inputs
    shape = (1, side, side, image.shape[-1])

    def infer(operation, *args, **kwargs):
        return operation.compute_output_spec(*args, **kwargs)

    probe = keras.KerasTensor(shape, dtype=image.dtype)
    specs = graph_values(graph, [probe], infer, skipped=(Exception,))
    return {key: spec.shape for key, spec in specs.items()}


def _level(small, large):
    """ "P3" for a stride of 8; None for what is no map of such a stride."""
    if len(small) != 4 or len(large) != 4 or None in (*small[1:], *large[1:]):
        return None
    rows, columns = large[1] - small[1], large[2] - small[2]
    if rows != columns or rows <= 0:  # the same at both sizes: a pooled map
        return None
    power = math.log2((_SIDES[1] - _SIDES[0]) / rows)
    return f"P{int(power)}" if power.is_integer() and power > 0 else None


def _is_pad(operation):
    """Whether it is `keras.ops.pad`, whose class has no public name."""
    return type(operation).__name__ == "Pad"


def _ids_before_heads(graph):
    """The ids of the tensors that no `YoloHead` gave, nor its convolution."""
    takers = collections.Counter(map(id, graph.outputs))
    makers, after, heads = {}, set(), []
    for node in nodes(graph):
        takers.update(map(id, node.input_tensors))
        makers.update({id(tensor): node for tensor in node.outputs})
        is_head = isinstance(node.operation, YoloHead)
        if is_head:
            heads.append(node)
        if is_head or any(id(x) in after for x in node.input_tensors):
            after.update(map(id, node.outputs))
    for head in heads:
        after.update(_ids_of_convolution(head, makers, takers))
    return makers.keys() - after


def _ids_of_convolution(head, makers, takers):
    """Of the maps from a head's convolution to the head, if it alone uses them.

    There may be an activation between them.
    """
    ids, node = [], head
    while len(node.input_tensors) == 1:
        key = id(node.input_tensors[0])
        if takers[key] != 1 or key not in makers:
            break
        ids.append(key)
        node = makers[key]
        if isinstance(node.operation, (keras.layers.Conv2D, ConvNormAct)):
            return ids
    return []


def _check_levels(levels):
    good = isinstance(levels, (list, tuple)) and levels
    if not good or not all(
        isinstance(level, str) and re.fullmatch(r"P[1-9]", level)
        for level in levels
    ):
        raise ValueError(
            '`levels` must be a tuple of names such as "P3" (stride 8). '
            f"Received: levels={levels!r}"
        )
    if len(set(levels)) < len(levels):
        raise ValueError(
            f"`levels` names a level twice. Received: levels={levels}"
        )
    return tuple(levels)
