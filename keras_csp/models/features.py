"""Pyramid features of a network, its levels named by stride."""

import collections
import functools
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


def feature_extractor(model, levels=("P3", "P4", "P5")):
    """A model from an image to the features at the given strides.

    Level `Pn` has stride 2^n: P3 is 8, P4 16, P5 32. It is the last feature
    map of `model` at that stride, just before the next halving, whichever
    layer or operation made it, also inside models that `model` holds. Where a
    branch of a block goes on at the stride before it halves the map, it is the
    map that the whole block reads. The heads of a detector do not count: a
    `YoloHead`, the convolution whose output only that takes, and what comes
    after.

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
            f"{', '.join(sorted(available)) or 'none'}. Received: "
            f"levels={levels}"
        )
    tensors = {level: available[level] for level in levels}
    image = keras.utils.get_source_inputs(tensors[levels[0]])[0]
    return keras.Model(image, tensors, name=f"{model.name}_features")


def list_levels(model):
    """The names of the levels that `feature_extractor` finds, finest first."""
    return tuple(sorted(_levels(model)))


def _levels(model):
    """{level name: its feature map, a symbolic tensor}."""
    flow = flow_of(model)
    levels = collections.defaultdict(list)
    for key, level in flow.levels.items():
        levels[level].append(key)
    return {
        f"P{level}": flow.tensors[_feature(flow, level, maps)]
        for level, maps in levels.items()
    }


def flow_of(model):
    """The `Flow` of a functional model with one image, models inside joined."""
    return Flow(_without_nesting(_graph(model)))


def _feature(flow, level, maps):
    """Which of the maps of a level is its feature.

    One that the model gives out, or gives to a head, is. Else it is the last
    one through which everything goes that is made of this level: in a network
    where the next block halves the map inside, not a map of that block, but
    the one it is given.
    """
    given = [key for key in maps if flow.is_given_out(key)]
    if given:
        return given[-1]
    ways = {key: flow.ways_out(key) for key in maps}
    coarser = [
        key
        for key, found in ways.items()
        if any(max(ahead, default=0) > level for ahead in found)
    ]
    leaving = coarser or [key for key, found in ways.items() if found]
    common = flow.common(leaving) if leaving else None
    return common if common in maps else maps[-1]


class Flow:
    """What is made of what in a graph, and the levels of its maps.

    Attributes, by the ids of the tensors, in order of execution:
        tensors: the tensors.
        makers: the operation that gives it; the image has none.
        sources, takers: the ids of those it is made of, and made of it.
        levels: n for a map of stride 2^n, unless a head made it.
        heads: the outputs of the `YoloHead`s.
        head_maps: of them, of their convolutions, and of all after them.
    """

    def __init__(self, graph):
        self.tensors = {id(tensor): tensor for tensor in graph.inputs}
        self.sources = {key: [] for key in self.tensors}
        self.makers = {}
        for node in nodes(graph):
            sources = list(map(id, node.input_tensors))
            for tensor in node.outputs:
                key = id(tensor)
                self.tensors[key], self.makers[key] = tensor, node.operation
                self.sources[key] = sources
        self.takers = {key: [] for key in self.tensors}
        for key, sources in self.sources.items():
            for source in sources:
                self.takers[source].append(key)
        self._outputs = set(map(id, graph.outputs))
        self.heads = [
            key
            for key, maker in self.makers.items()
            if isinstance(maker, YoloHead)
        ]
        self.head_maps = self._of_heads()
        self.levels = self._find_levels(graph)
        self._ahead = {}
        self._look_ahead()
        # The tree of dominators.
        self._parents, self._depths = {}, dict.fromkeys(self.tensors, 0)
        self._find_parents()

    def is_given_out(self, key):
        """Whether the model's output or a head takes a map."""
        return key in self._outputs or not self.head_maps.isdisjoint(
            self.takers[key]
        )

    def ways_out(self, key):
        """The levels after each taker from which no way leads back."""
        own = self.levels[key]
        ways = [self._with_ahead(taker) for taker in self.takers[key]]
        return [way for way in ways if own not in way]

    def ancestors(self, keys):
        """The ids of these and of all that they are made of."""
        found = set(keys)
        for key in reversed(self.tensors):
            if key in found:
                found.update(self.sources[key])
        return found

    def chain(self, key):
        """What every way to it goes through, from it back to the image."""
        found = [key]
        while found[-1] in self._parents:
            found.append(self._parents[found[-1]])
        return found

    def common(self, keys):
        """The last tensor that every way to one of these goes through."""
        return functools.reduce(self._common_of_two, keys)

    def _common_of_two(self, one, other):
        while one != other:
            if self._depths[one] < self._depths[other]:
                one, other = other, one
            one = self._parents[one]
        return one

    def _of_heads(self):
        """What `YoloHead`s give, their convolutions, and all after them."""
        found = set(self.heads)
        for key, sources in self.sources.items():
            if not found.isdisjoint(sources):
                found.add(key)
        for head in self.heads:
            found.update(self._convolution_before(head))
        return found

    def _convolution_before(self, head):
        """From a head's convolution on, if only the head uses its map."""
        chain, key = [], head
        while len(self.sources[key]) == 1:
            (key,) = self.sources[key]
            if len(self.takers[key]) != 1 or key in self._outputs:
                break
            chain.append(key)
            maker = self.makers.get(key)
            if isinstance(maker, (keras.layers.Conv2D, ConvNormAct)):
                return chain
        return []

    def _find_levels(self, graph):
        small, large = (_shapes(graph, side) for side in _SIDES)
        levels = {}
        for key, maker in self.makers.items():
            if key not in self.head_maps and not _pads(maker):
                level = _level(small.get(key, ()), large.get(key, ()))
                if level is not None:
                    levels[key] = level
        return levels

    def _look_ahead(self):
        """Notes the levels of all that is made of each, heads left out."""
        for key in reversed(self.tensors):
            ways = [
                self._with_ahead(taker)
                for taker in self.takers[key]
                if taker not in self.head_maps
            ]
            self._ahead[key] = frozenset().union(*ways)

    def _with_ahead(self, key):
        own = {self.levels[key]} if key in self.levels else set()
        return self._ahead[key] | own

    def _find_parents(self):
        """Notes the last tensor before each that every way to it crosses."""
        for key, sources in self.sources.items():
            if sources:
                self._parents[key] = self.common(sources)
                self._depths[key] = self._depths[self._parents[key]] + 1


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
    """3 for a stride of 8; None for what is no map of such a stride."""
    if len(small) != 4 or len(large) != 4 or None in (*small[1:], *large[1:]):
        return None
    rows, columns = large[1] - small[1], large[2] - small[2]
    if rows != columns or rows <= 0:  # the same at both sizes: a pooled map
        return None
    power = math.log2((_SIDES[1] - _SIDES[0]) / rows)
    return int(power) if power.is_integer() and power > 0 else None


def _pads(operation):
    """Whether it only enlarges a map, or cuts it.

    The class of `keras.ops.pad` has no public name.
    """
    kinds = (keras.layers.ZeroPadding2D, keras.layers.Cropping2D)
    return isinstance(operation, kinds) or type(operation).__name__ == "Pad"


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
