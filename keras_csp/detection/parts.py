"""The parts of a detector: its backbone, its neck, its heads.

A detector's graph does not say where its backbone ends. Below a
`PyramidFusion`, the neck of the paper's detectors, it ends in the maps that
this reads. In other graphs, as those of Darknet's cfg files, the neck begins
among the maps of the coarsest head's stride, on the way that all heads have in
common:

    -- block -- block --+-- 1x1, fewer channels -- ... -- heads, upsample
      the backbone      E         the neck

E is the last map that every way crosses before the first of

- a 1x1 convolution with an activation that gives fewer channels than the map
  that it takes. This excludes two that end a block: the linear convolution of
  an inverted bottleneck, and the transition after a concatenation.
- a max pooling of stride 1 that is concatenated: spatial pyramid pooling.

The backbone is all that E is made of. In the authors' cfg files it is what
the detector has in common with the classifier of its backbone.
"""

import itertools
import re

import keras

from keras_csp.detection.graph import COARSER
from keras_csp.layers.fusion import PyramidFusion
from keras_csp.layers.pooling import SpatialPyramidPooling
from keras_csp.layers.units import ConvNormAct
from keras_csp.models.features import flow_of

# What may stand between a convolution and its activation.
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)
_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
)


def detector_parts(detector):
    """The layers of a detector by what they are for.

    Args:
        detector: a `Detector`.

    Returns:
        {"head", "neck", "backbone"}: lists of layers in order of execution,
        those of models inside in their places. "head" has the last
        convolution before each `YoloHead`, and what is between the two.
    """
    flow = flow_of(detector)
    backbone = flow.ancestors(_ends_of_backbone(flow))
    parts = {"head": {}, "neck": {}, "backbone": {}}
    for key, layer in flow.makers.items():
        if isinstance(layer, keras.Layer):
            other = "head" if key in flow.head_maps else "neck"
            part = "backbone" if key in backbone else other
            parts[part].setdefault(layer)
    # A layer that is called again later belongs where it is called first.
    for later, earlier in (("neck", "backbone"), ("head", "neck")):
        for layer in parts[earlier]:
            parts[later].pop(layer, None)
    return {part: list(layers) for part, layers in parts.items()}


def _ends_of_backbone(flow):
    """The maps that the neck reads, or the last one of the backbone."""
    for key, maker in flow.makers.items():
        if isinstance(maker, PyramidFusion):
            return [_before_coarser(flow, k) for k in flow.sources[key]]
    return [_last_of_backbone(flow)]


def _before_coarser(flow, key):
    """The map of the backbone of which `build_graph` made a coarser one."""
    while re.fullmatch(COARSER.format("P[0-9]+"), flow.makers[key].name):
        (key,) = flow.sources[key]
    return key


def _last_of_backbone(flow):
    trunk = _trunk(flow)
    before_pooling = {
        flow.common([*flow.sources[key], trunk[-1]])
        for key, maker in flow.makers.items()
        if _is_pyramid_pooling(flow, key, maker)
    }
    for key, following in itertools.pairwise(trunk):
        if key in before_pooling or _narrows(flow, following):
            return key
    return trunk[-1]


def _trunk(flow):
    """The maps of the coarsest head's stride that every way crosses, in order.

    On the way to what all heads are made of; or, where no such map has this
    stride, to the coarsest head.
    """
    heads = {key: max(flow.makers[key].strides) for key in flow.heads}
    coarsest = max(heads, key=heads.get)
    read = [flow.ancestors(flow.sources[key]) for key in heads]
    common = set.intersection(*read)
    own = flow.ancestors(flow.sources[coarsest])
    of_stride = [
        key for key, level in flow.levels.items() if 2**level == heads[coarsest]
    ]
    maps = [key for key in of_stride if key in common]
    maps = maps or [key for key in of_stride if key in own]
    if not maps:  # a stride that is no power of two
        own -= flow.head_maps
        return [key for key in flow.tensors if key in own][-1:]
    chain = flow.chain(maps[-1])
    return [key for key in reversed(chain) if key in of_stride]


def _is_pyramid_pooling(flow, key, maker):
    """Whether it is spatial pyramid pooling, or one of its poolings."""
    if isinstance(maker, SpatialPyramidPooling):
        return True
    pools = isinstance(maker, keras.layers.MaxPooling2D)
    return (
        pools
        and tuple(maker.strides) == (1, 1)
        and any(_is_concatenation(flow, taker) for taker in flow.takers[key])
    )


def _narrows(flow, key):
    """Whether a neck begins with the convolution that gives a map."""
    maker = flow.makers[key]
    if not isinstance(maker, (keras.layers.Conv2D, ConvNormAct)):
        return False
    (source,) = flow.sources[key]
    config = maker.get_config()
    size = config["kernel_size"]
    return (
        set(size if isinstance(size, (list, tuple)) else [size]) == {1}
        and flow.tensors[key].shape[-1] < flow.tensors[source].shape[-1]
        and _is_activated(flow, key, config["activation"])
        and not _is_concatenation(flow, source)
    )


def _is_activated(flow, key, activation):
    if activation not in (None, "linear"):
        return True
    while True:
        takers = flow.takers[key]
        if len(takers) != 1:
            return False
        (key,) = takers
        if not isinstance(flow.makers[key], _NORMALIZATIONS):
            return isinstance(flow.makers[key], _ACTIVATIONS)


def _is_concatenation(flow, key):
    widths = [flow.tensors[k].shape[-1] for k in flow.sources[key]]
    return len(widths) > 1 and flow.tensors[key].shape[-1] > max(widths)
