"""Fig. 6 as functions: how each detector fuses the levels of its pyramid.

A neck is a table of nodes, each of which reads levels or nodes before it:

    def top_down(levels=("P4", "P5")):
        fine, coarse = levels
        return Neck(
            name="top_down",
            nodes=(
                node("top", coarse, conv(128), up()),
                node("fine_out", ("top", fine), conv(128, 3)),
                node("coarse_out", coarse, conv(256, 3)),
            ),
            outputs={fine: "fine_out", coarse: "coarse_out"},
        )

    keras_csp.Detector(neck=top_down())

The functions below make such tables for two to five levels, with options.
Widths and joints are those of the authors' cfg files where there are any, and
else reconstructions that cost what Table 2 says; each states its provenance.
"""

import dataclasses
import itertools
import re

from keras import layers as keras_layers

from keras_csp import layers
from keras_csp._validation import check_choice, check_positive
from keras_csp.models.spec import LayerSpec, conv, layer_spec

up = layer_spec(keras_layers.UpSampling2D, size=2)
leaky = layer_spec(keras_layers.LeakyReLU, negative_slope=0.1)
mean = layer_spec(keras_layers.GlobalAveragePooling2D, keepdims=True)
maxout = layer_spec(layers.Maxout)
sam = layer_spec(layers.SpatialAttention)
spatial_pyramid_pooling = layer_spec(layers.SpatialPyramidPooling)

THREE_LEVELS = ("P3", "P4", "P5")
_LEVEL = re.compile(r"P[2-7]")


@dataclasses.dataclass(frozen=True)
class Node:
    """The specification of a `keras_csp.layers.FusionNode`: see `node`."""

    name: str
    inputs: tuple
    layers: tuple
    merge: str

    def make(self):
        """The layer."""
        arguments = {
            "inputs": self.inputs,
            "layers": self.layers,
            "merge": self.merge,
        }
        return LayerSpec(layers.FusionNode, arguments).make(self.name)


def node(name, inputs, *specs, merge="concat"):
    """The specification of a `keras_csp.layers.FusionNode`.

    Args:
        name: of its own.
        inputs: the name of a level or of a node before it, or a tuple of them.
        *specs: of layers, applied in order, e.g. `conv(128, 3)`, `up()`.
        merge: "concat" (default), "sum" or "shortcut".
    """
    inputs = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    return Node(name, inputs, specs, merge)


@dataclasses.dataclass(frozen=True)
class Neck:
    """A fusion table: its nodes, and the node that each level's head reads.

    Attributes:
        name: of the neck.
        nodes: what `node` gives, in order.
        outputs: {level: name of the node}.
        provenance: where the definition comes from; "Exact" or "Inferred"
            first.
    """

    name: str
    nodes: tuple
    outputs: dict
    provenance: str = "The user's."

    @property
    def levels(self):
        """The levels of the pyramid that the nodes read, finest first."""
        known, read = set(), set()
        for one in self.nodes:
            read |= set(one.inputs) - known
            known.add(one.name)
        return tuple(sorted(read))

    def make(self, name):
        """The table as a `keras_csp.layers.PyramidFusion`."""
        nodes = [one.make() for one in self.nodes]
        return layers.PyramidFusion(nodes, self.outputs, name=name)


def fpn(levels=("P4", "P5"), widths=None, attention=None, spp=False):
    """Feature pyramid network: each level reads the one above, enlarged.

        P5 -- 1x1 ----- 3x3 --> P5
               |
               '- 1x1, up -- [ , P4] -- 3x3 --> P4
                                         |
                                         '- 1x1, up -- [ , P3] -- 3x3 --> P3

    Args:
        levels: two to five, finest first, each half as large as the one
            before. Default ("P4", "P5").
        widths: channels of each level, one number or {level: number}.
            Default 128 for P4 and finer, 256 for P5, 512 for P6, ...
        attention: None (default), or "sam": spatial attention on each output.
        spp: whether the coarsest level has spatial pyramid pooling. Default
            False.
    """
    levels = check_levels(levels)
    widths = _widths(levels, widths, least=128)
    last = levels[-1]
    extra = (spatial_pyramid_pooling(), conv(widths[last])) if spp else ()
    end = _attention(attention)
    reduced = f"{last}_reduced"
    nodes = [
        node(reduced, last, conv(widths[last]), *extra),
        node(f"{last}_out", reduced, conv(widths[last], 3), *end),
    ]
    above = reduced
    for level in levels[-2::-1]:
        width, top = widths[level], f"{level}_top"
        nodes += [
            node(top, above, conv(width), up()),
            node(f"{level}_out", (top, level), conv(width, 3), *end),
        ]
        above = f"{level}_out"
    return Neck(
        name="fpn",
        nodes=tuple(nodes),
        outputs=_outputs(levels),
        provenance="Inferred: costs exactly what is published of Pelee-FPN, "
        "whose 3x3 over the concatenation is the bottleneck of the paper's "
        "Fig. 7; a third level is as yolov3-tiny_3l.cfg has it.",
    )


def prn(levels=("P4", "P5"), widths=None, attention=None, spp=False):
    """Partial residual network: every level adds what the backbone has.

        P5 -- 1x1 -- 3x3 -(+)--> P5
               |------|----'
                      '- 1x1, up -(+)-- 3x3 -(+)-(+)--> P4
                            |      P4        |    P4
                            '----------------'

    A sum has the width of its first map; of wider ones the first channels are
    added.

    Args:
        levels, widths, attention, spp: as of `fpn`.
    """
    levels = check_levels(levels)
    widths = _widths(levels, widths, least=128)
    last = levels[-1]
    extra = (spatial_pyramid_pooling(), conv(widths[last])) if spp else ()
    end = (leaky(), *_attention(attention))
    reduced, above = f"{last}_reduced", f"{last}_conv"
    nodes = [
        node(reduced, last, conv(widths[last]), *extra),
        node(above, reduced, conv(widths[last], 3)),
        node(f"{last}_out", (above, reduced), *end, merge="shortcut"),
    ]
    for level in levels[-2::-1]:
        top, total, inner = f"{level}_top", f"{level}_sum", f"{level}_inner"
        convolved = f"{level}_conv"
        nodes += [
            node(top, above, conv(widths[level]), up()),
            node(total, (top, level), leaky(), merge="shortcut"),
            node(convolved, total, conv(widths[level], 3)),
            node(inner, (convolved, top), leaky(), merge="shortcut"),
            node(f"{level}_out", (inner, level), *end, merge="shortcut"),
        ]
        above = convolved
    exact = levels == ("P4", "P5")
    return Neck(
        name="prn",
        nodes=tuple(nodes),
        outputs=_outputs(levels),
        provenance="Exact: yolov3-tiny-prn.cfg and enet-coco.cfg of the "
        "authors."
        if exact
        else "Inferred: P4 and P5 as the authors' cfg files, exactly; the "
        "third level from the author's words, and confirmed by the published "
        "BFLOPs and parameters.",
    )


def cem(levels=THREE_LEVELS, widths=None, attention=None, spp=False):
    """Context enhancement: one global map of all levels and the image's mean.

        P3 -- 1x1, 3x3/2 --.            .-- up ------> P3
        P4 -- 1x1 ---------(+)- 1x1, 3x3 -------------> P4
        P5 -- 1x1, up -----(+)           '-- 3x3/2 ---> P5
        P5 -- mean, 1x1 ---'

    Its finest map is the global one enlarged, which finds small objects badly
    (benchmarks/results/necks.md); the authors' may differ there.

    Args:
        levels, attention, spp: as of `fpn`. Default three levels.
        widths: one number: channels of every map. Default 128.
    """
    levels = check_levels(levels)
    width = _one_width("cem", widths, 128)
    last, middle = levels[-1], _middle(levels)
    nodes = []
    for level in levels[::-1]:
        reduce = (conv(width),)
        if spp and level == last:
            reduce += (spatial_pyramid_pooling(), conv(width))
        steps = _steps(level, middle, width)
        nodes.append(node(f"{level}_lateral", level, *reduce, *steps))
    laterals = [f"{level}_lateral" for level in _from(middle, levels)]
    end = _attention(attention)
    nodes += [
        node("image", last, mean(), conv(width)),
        node(
            "global",
            (*laterals, "image"),
            conv(width),
            conv(width, 3),
            merge="sum",
        ),
    ]
    for level in levels:
        steps = _steps(middle, level, width)
        nodes.append(node(f"{level}_out", "global", *steps, *end))
    return Neck(
        name="cem",
        nodes=tuple(nodes),
        outputs=_outputs(levels),
        provenance="Inferred: ThunderNet's module at the width that costs "
        "what Table 2 says; that SAM is 128 wide at each level follows from "
        "its cost.",
    )


def gfm(levels=THREE_LEVELS, widths=None, attention=None, spp=False):
    """Global fusion model: all levels meet in one map, which all then read.

        P3 -- 1x1 -- 3x3/2 ----.              .-- 1x1, up -- [ , P3] --> P3
        P4 -- 1x1 ------------ [ ] max, 3x3 -- [ , P4] ----------------> P4
        P5 -- 1x1 -- 1x1, up --'              '-- 3x3/2 ---- [ , P5] --> P5

    Args:
        levels, attention, spp: as of `fpn`. Default three levels.
        widths: as of `fpn`. Default 64 for P3, 128 for P4, 256 for P5, ...
    """
    levels = check_levels(levels)
    widths = _widths(levels, widths)
    middle = _middle(levels)
    width = widths[middle]
    nodes = [
        node(f"{level}_lateral", level, conv(widths[level]))
        for level in levels[::-1]
    ]
    for level in levels[::-1]:
        if level != middle:
            name = f"{level}_to_{middle}"
            steps = _resample(level, middle, width)
            nodes.append(node(name, f"{level}_lateral", *steps))
    meeting = [
        f"{level}_lateral" if level == middle else f"{level}_to_{middle}"
        for level in levels
    ]
    nodes.append(node("global", meeting, maxout(width), conv(width, 3)))
    for level in levels:
        if level != middle:
            steps = _resample(middle, level, widths[level])
            nodes.append(node(f"global_{level}", "global", *steps))
    for level in levels:
        nodes += _gfm_end(level, levels, widths, attention, spp)
    return Neck(
        name="gfm",
        nodes=tuple(nodes),
        outputs=_outputs(levels),
        provenance="Inferred: EFM's laterals and exchanges, gathered in one "
        "map.",
    )


def _gfm_end(level, levels, widths, attention, spp):
    """The nodes in which a level reads the global map."""
    seen = "global" if level == _middle(levels) else f"global_{level}"
    inputs, width = (seen, f"{level}_lateral"), widths[level]
    end = (conv(width, 3), *_attention(attention))
    if level != levels[-1]:
        return [node(f"{level}_out", inputs, conv(width), *end)]
    extra = (spatial_pyramid_pooling(), conv(width)) if spp else ()
    return [
        node(f"{level}_mixed", inputs, conv(width), *extra),
        node(f"{level}_out", f"{level}_mixed", *end),
    ]


def efm(levels=THREE_LEVELS, widths=None, attention=None, spp=False):
    """Exact fusion model: each level reads itself and its two neighbours.

        P3 -- 1x1 -----.------------ [ ] max, 3x3, 3x3 --> P3
               | 3x3/2 |  ^ 1x1, up
        P4 -- 1x1 -----.------------ [ ] max, 3x3, 3x3 --> P4
               | 3x3/2 |  ^ 1x1, up
        P5 -- 1x1 -----.------------ [ ] max, 3x3, 3x3 --> P5

    Each level has its own width, so that all cost the same. An end reads
    itself in the place of the neighbour it lacks: maxout does not see it, SAM
    keeps three inputs. Source: section 3.3, Fig. 6 (d) of the CSPNet paper.

    Args:
        levels, attention, spp: as of `fpn`. Default three levels.
        widths: as of `fpn`. Default 64 for P3, 128 for P4, 256 for P5, ...
    """
    levels = check_levels(levels)
    widths = _widths(levels, widths)
    check_choice("attention", attention, (None, "sam"))
    nodes = [
        node(f"{level}_lateral", level, conv(widths[level]))
        for level in levels[::-1]
    ]
    pairs = list(itertools.pairwise(levels))
    for fine, coarse in pairs[::-1]:
        nodes.append(_exchange(coarse, fine, widths))
    for fine, coarse in pairs:
        nodes.append(_exchange(fine, coarse, widths))
    for finer, level, coarser in zip(
        (None, *levels), levels, (*levels[1:], None)
    ):
        own = f"{level}_lateral"
        inputs = (
            f"{finer}_to_{level}" if finer else own,
            own,
            f"{coarser}_to_{level}" if coarser else own,
        )
        fused = maxout(widths[level])
        if attention:
            fused = sam(fused)
        nodes.append(node(f"{level}_fused", inputs, fused))
    for level in levels:
        last = spp and level == levels[-1]
        made = _efm_end(widths[level], last)
        nodes.append(node(f"{level}_out", f"{level}_fused", *made))
    return Neck(
        name="efm",
        nodes=tuple(nodes),
        outputs=_outputs(levels),
        provenance="Inferred: the three-level exchange and maxout are the "
        "paper's and its author's words; the widths are those that cost what "
        "Table 2 says with the same computation at each level.",
    )


def _exchange(level, other, widths):
    """The node that brings a level to its neighbour's size and width."""
    steps = _resample(level, other, widths[other])
    return node(f"{level}_to_{other}", f"{level}_lateral", *steps)


def _efm_end(width, spp):
    if not spp:
        return (conv(width, 3), conv(width, 3))
    pooled = (spatial_pyramid_pooling(), conv(2 * width), maxout(width))
    return (*pooled, conv(width, 3))


def panet(levels=THREE_LEVELS, widths=None, attention=None, spp=False):
    """Path aggregation network: top-down as FPN, then bottom-up.

        P5 -- 1x1 ------------------------.------------ [ ] 1x1, 3x3 --> P5
               '- 1x1, up                 |                ^ 3x3/2
        P4 -- 1x1 -- [ ] 1x1, 3x3 --------.------- [ ] 1x1, 3x3 -------> P4
                      '- 1x1, up                     ^ 3x3/2
        P3 -- 1x1 ------- [ ] 1x1, 3x3 --------------.-----------------> P3

    Args:
        levels, attention, spp: as of `fpn`. Default three levels.
        widths: as of `fpn`. Default 64 for P3, 128 for P4, 256 for P5, ...
    Source: arXiv 1803.01534, section 3.1, with concatenations in the place of
    sums, as YOLOv4 has it (arXiv 2004.10934, Fig. 6).
    """
    levels = check_levels(levels)
    widths = _widths(levels, widths)
    end = _attention(attention)
    last = levels[-1]
    extra = (spatial_pyramid_pooling(), conv(widths[last])) if spp else ()
    nodes = [node(f"{last}_down", last, conv(widths[last]), *extra)]
    for level, coarser in zip(levels[-2::-1], levels[:0:-1]):
        width, top = widths[level], f"{coarser}_to_{level}"
        nodes += [
            node(f"{level}_lateral", level, conv(width)),
            node(top, f"{coarser}_down", conv(width), up()),
            node(
                f"{level}_down",
                (top, f"{level}_lateral"),
                conv(width),
                conv(width, 3),
            ),
        ]
    first = levels[0]
    nodes.append(node(f"{first}_up", f"{first}_down"))
    for finer, level in itertools.pairwise(levels):
        width, bottom = widths[level], f"{finer}_to_{level}"
        nodes += [
            node(bottom, f"{finer}_up", conv(width, 3, 2)),
            node(
                f"{level}_up",
                (bottom, f"{level}_down"),
                conv(width),
                conv(width, 3),
            ),
        ]
    nodes += [node(f"{level}_out", f"{level}_up", *end) for level in levels]
    return Neck(
        name="panet",
        nodes=tuple(nodes),
        outputs=_outputs(levels),
        provenance="Inferred: the joints are those of the papers, the widths "
        "those of efm.",
    )


NECKS = {
    "fpn": fpn,
    "prn": prn,
    "cem": cem,
    "gfm": gfm,
    "efm": efm,
    "panet": panet,
}


def get_neck(neck, levels=None, attention=None, spp=False):
    """The `Neck` that `Detector(neck=..., ...)` means.

    Args:
        neck: a name in `NECKS`, or a `Neck`, which is returned as it is.
        levels, attention, spp: of the function of that name.

    Raises:
        ValueError: an unknown name, options for a `Neck` that is already
            made, or an option out of range.
    """
    if isinstance(neck, Neck):
        if levels is not None or attention is not None or spp:
            raise ValueError(
                "`levels`, `attention` and `spp` are options of the necks "
                "that are given by name; a Neck has them in its nodes. "
                f"Received: levels={levels!r}, attention={attention!r}, "
                f"spp={spp!r}"
            )
        return neck
    if not isinstance(neck, str) or neck not in NECKS:
        raise ValueError(
            f"`neck` must be one of {', '.join(map(repr, NECKS))}, or a "
            f"keras_csp.detection.Neck. Received: neck={neck!r}"
        )
    options = {} if levels is None else {"levels": levels}
    return NECKS[neck](attention=attention, spp=spp, **options)


def check_levels(levels):
    """The levels as a tuple.

    Raises:
        ValueError: not two to five of P2 to P7, each half as large as the
            one before.
    """
    good = not isinstance(levels, str) and all(
        isinstance(level, str) and _LEVEL.fullmatch(level) for level in levels
    )
    numbers = [int(level[1:]) for level in levels] if good else []
    if not 2 <= len(numbers) <= 5 or numbers != list(
        range(numbers[0], numbers[0] + len(numbers))
    ):
        raise ValueError(
            "`levels` must be two to five of P2 to P7, finest first, without "
            f'a gap, e.g. ("P3", "P4", "P5"). Received: levels={levels!r}'
        )
    return tuple(levels)


def _widths(levels, widths, least=0):
    """{level: channels}"""
    if widths is None:
        return {level: max(least, 8 * 2 ** int(level[1:])) for level in levels}
    if isinstance(widths, dict):
        if set(widths) != set(levels):
            raise ValueError(
                f"`widths` must have the levels {levels}. Received: "
                f"widths={widths!r}"
            )
        return {k: check_positive("widths", widths[k]) for k in levels}
    return dict.fromkeys(levels, check_positive("widths", widths))


def _one_width(neck, widths, default):
    if isinstance(widths, dict):
        raise ValueError(
            f"The maps of {neck!r} have one width: `widths` must be a number. "
            f"Received: widths={widths!r}"
        )
    return default if widths is None else check_positive("widths", widths)


def _attention(attention):
    check_choice("attention", attention, (None, "sam"))
    return (sam(),) if attention else ()


def _outputs(levels):
    return {level: f"{level}_out" for level in levels}


def _middle(levels):
    return levels[(len(levels) - 1) // 2]


def _from(middle, levels):
    """The middle level first, then the others, coarsest first."""
    return (middle, *(x for x in levels[::-1] if x != middle))


def _steps(level, other, width):
    """Layers that bring a map of one level to the size of another."""
    times = int(other[1:]) - int(level[1:])
    return times * (conv(width, 3, 2),) if times > 0 else -times * (up(),)


def _resample(level, other, width):
    """The same, to a width of its own."""
    steps = _steps(level, other, width)
    enlarges = int(other[1:]) < int(level[1:])
    return (conv(width), *steps) if enlarges else steps
