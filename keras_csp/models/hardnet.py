"""HarDNet-138s: harmonic dense blocks, normalised and activated first.

A layer is as wide as the power of two in its number is high, and every
fourth one has a bottleneck before it (arXiv 1909.00948, section 3).
"""

import math

from keras_csp.layers.dense import gathered, harmonic_links
from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    TORCH_STEM,
    NetworkSpec,
    Stage,
    average_pool,
    dense_block,
    max_pool,
    norm_act,
    parallel,
    preactivated,
)

_GROWTH = 30
_MULTIPLIER = 1.6
_REDUCTION = 0.85


def _even(width):
    return int(int(width + 1) / 2) * 2


def _width(k):
    """growth x multiplier^n, 2^n the largest power of two that divides k."""
    return _even(_GROWTH * _MULTIPLIER ** ((k & -k).bit_length() - 1))


def _harmonic_block(channels, depth):
    """The block and its output channels."""
    widths = [channels, *(_width(k) for k in range(1, depth + 1))]
    layers = []
    for k in range(1, depth + 1):
        incoming = sum(widths[j] for j in harmonic_links(k))
        layer = preactivated(widths[k], 3)
        if k % 4 == 0:
            bottleneck = preactivated(_even(math.sqrt(incoming * widths[k])))
            layer = (bottleneck, layer)
        layers.append(layer)
    out = sum(widths[j] for j in gathered("harmonic", depth))
    return dense_block(tuple(layers), links="harmonic"), out


def _stages(channels, depths_per_stage):
    """Blocks with a transition to 0.85 of the channels between any two.

    Where the map is halved the transition is inverted: average and maximum,
    twice the channels, before the 1x1 convolution.
    """
    down = ()
    for depths in depths_per_stage:
        blocks = []
        for index, depth in enumerate(depths):
            if index:
                channels = int(_REDUCTION * channels)
                blocks.append(preactivated(channels))
            block, channels = _harmonic_block(channels, depth)
            blocks.append(block)
        yield Stage(down=down, blocks=tuple(blocks))
        channels = int(_REDUCTION * channels)
        down = (
            parallel((average_pool(2), max_pool(2))),
            preactivated(channels),
        )


HARDNET_138S = NetworkSpec(
    name="HarDNet138s",
    provenance=(
        "Published definition: the HarDNet paper, Table 1 and section 3; no "
        "code of this family is public. The multiplier 1.6 and the rounding "
        "of widths to even numbers are read, not printed."
    ),
    stem=TORCH_STEM,
    stages=tuple(_stages(64, ((8,), (16,), (16, 16, 16), (16, 16)))),
    head=(norm_act("relu"),),
)

HarDNet138s = factory(HARDNET_138S)
