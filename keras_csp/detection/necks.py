"""Fig. 6 as rows: how each detector fuses the levels of its pyramid.

Widths and joints are those of the authors' cfg files where there are any, and
else reconstructions that cost what Table 2 says; each row states its evidence.
"""

import dataclasses

from keras import layers as keras_layers

from keras_csp import layers
from keras_csp._validation import check_choice
from keras_csp.models.spec import Spec, conv, spec

up = spec(keras_layers.UpSampling2D, size=2)
leaky = spec(keras_layers.LeakyReLU, negative_slope=0.1)
mean = spec(keras_layers.GlobalAveragePooling2D, keepdims=True)
maxout = spec(layers.Maxout)
sam = spec(layers.SpatialAttention)
spatial_pyramid_pooling = spec(layers.SpatialPyramidPooling)


@dataclasses.dataclass(frozen=True)
class Node:
    """One `FusionNode`; `attention` and `spp` are layers that take the place
    of `layers` in the variants with SAM and with SPP."""

    name: str
    inputs: tuple
    layers: tuple
    merge: str
    attention: tuple | None
    spp: tuple | None

    def spec(self, attention, spp):
        chosen = self.layers
        if attention and self.attention is not None:
            chosen = self.attention
        if spp and self.spp is not None:
            chosen = self.spp
        arguments = {
            "inputs": self.inputs,
            "layers": chosen,
            "merge": self.merge,
        }
        return Spec(layers.FusionNode, arguments)


def node(name, inputs, *specs, merge="concat", attention=None, spp=None):
    inputs = (inputs,) if isinstance(inputs, str) else inputs
    return Node(name, inputs, specs, merge, attention, spp)


@dataclasses.dataclass(frozen=True)
class Neck:
    """A fusion table: its nodes, and the node that each level's head reads.

    `status` is "exact" or "inferred": where the definition comes from, which
    `evidence` tells in words.
    """

    name: str
    nodes: tuple
    outputs: dict
    status: str
    evidence: str

    def make(self, name, attention=None, spp=False):
        """The table as a `PyramidFusion`."""
        nodes = [
            node.spec(attention == "sam", spp).make(node.name)
            for node in self.nodes
        ]
        return layers.PyramidFusion(nodes, self.outputs, name=name)


_SPP_256 = (spatial_pyramid_pooling(), conv(256))

# PRN: every level adds, in its own width, what the backbone has for it.
_PRN_NODES = (
    node("P5_reduced", "P5", conv(256), spp=(conv(256), *_SPP_256)),
    node("P5_conv", "P5_reduced", conv(256, 3)),
    node(
        "P5_out",
        ("P5_conv", "P5_reduced"),
        leaky(),
        merge="shortcut",
        attention=(leaky(), sam()),
    ),
    node("P4_top", "P5_conv", conv(128), up()),
    node("P4_sum", ("P4_top", "P4"), leaky(), merge="shortcut"),
    node("P4_conv", "P4_sum", conv(128, 3)),
    node("P4_inner", ("P4_conv", "P4_top"), leaky(), merge="shortcut"),
    node(
        "P4_out",
        ("P4_inner", "P4"),
        leaky(),
        merge="shortcut",
        attention=(leaky(), sam()),
    ),
)

PRN = Neck(
    name="prn",
    nodes=_PRN_NODES,
    outputs={"P4": "P4_out", "P5": "P5_out"},
    status="exact",
    evidence="yolov3-tiny-prn.cfg and enet-coco.cfg of the authors.",
)

PRN_3L = Neck(
    name="prn-3l",
    nodes=(
        *_PRN_NODES,
        node("P3_top", "P4_conv", conv(128), up()),
        node("P3_sum", ("P3_top", "P3"), leaky(), merge="shortcut"),
        node("P3_conv", "P3_sum", conv(128, 3)),
        node("P3_inner", ("P3_conv", "P3_top"), leaky(), merge="shortcut"),
        node(
            "P3_out",
            ("P3_inner", "P3"),
            leaky(),
            merge="shortcut",
            attention=(leaky(), sam()),
        ),
    ),
    outputs={"P3": "P3_out", "P4": "P4_out", "P5": "P5_out"},
    status="inferred",
    evidence="P4 and P5 as PRN, exactly; P3 inferred from the author's "
    "words, and confirmed by the published BFLOPs and parameters.",
)

_FPN_NODES = (
    node("P5_reduced", "P5", conv(256), spp=(conv(256), *_SPP_256)),
    node(
        "P5_out",
        "P5_reduced",
        conv(256, 3),
        attention=(conv(256, 3), sam()),
    ),
    node("P4_top", "P5_reduced", conv(128), up()),
    node(
        "P4_out",
        ("P4_top", "P4"),
        conv(128, 3),
        attention=(conv(128, 3), sam()),
    ),
)

FPN = Neck(
    name="fpn",
    nodes=_FPN_NODES,
    outputs={"P4": "P4_out", "P5": "P5_out"},
    status="inferred",
    evidence="Costs exactly what is published of Pelee-FPN, whose 3x3 over the "
    "concatenation is the bottleneck of the paper's Fig. 7.",
)

FPN_3L = Neck(
    name="fpn-3l",
    nodes=(
        *_FPN_NODES,
        node("P3_top", "P4_out", conv(128), up()),
        node(
            "P3_out",
            ("P3_top", "P3"),
            conv(128, 3),
            attention=(conv(128, 3), sam()),
        ),
    ),
    outputs={"P3": "P3_out", "P4": "P4_out", "P5": "P5_out"},
    status="inferred",
    evidence="FPN with a third level as yolov3-tiny_3l.cfg has it.",
)

# CEM: one global map of three levels and the whole image's mean.
CEM = Neck(
    name="cem",
    nodes=(
        node(
            "P5_lateral",
            "P5",
            conv(128),
            up(),
            spp=(conv(128), spatial_pyramid_pooling(), conv(128), up()),
        ),
        node("P4_lateral", "P4", conv(128)),
        node("P3_lateral", "P3", conv(128), conv(128, 3, 2)),
        node("image", "P5", mean(), conv(128)),
        node(
            "global",
            ("P4_lateral", "P5_lateral", "P3_lateral", "image"),
            conv(128),
            conv(128, 3),
            merge="sum",
        ),
        node("P3_out", "global", up(), attention=(up(), sam())),
        node("P4_out", "global", attention=(sam(),)),
        node(
            "P5_out",
            "global",
            conv(128, 3, 2),
            attention=(conv(128, 3, 2), sam()),
        ),
    ),
    outputs={"P3": "P3_out", "P4": "P4_out", "P5": "P5_out"},
    status="inferred",
    evidence="ThunderNet's module at the width that costs what "
    "Table 2 says; that SAM is 128 wide at each level follows from its cost. "
    "Its P3 map is its P4 map enlarged, which finds small objects badly "
    "(benchmarks/results/necks.md); the authors' may differ there.",
)

_LATERALS = (
    node("P5_lateral", "P5", conv(256)),
    node("P4_lateral", "P4", conv(128)),
    node("P3_lateral", "P3", conv(64)),
)

# GFM: all levels meet in one map, which every level then reads.
GFM = Neck(
    name="gfm",
    nodes=(
        *_LATERALS,
        node("P5_to_P4", "P5_lateral", conv(128), up()),
        node("P3_to_P4", "P3_lateral", conv(128, 3, 2)),
        node(
            "global",
            ("P3_to_P4", "P4_lateral", "P5_to_P4"),
            maxout(128),
            conv(128, 3),
        ),
        node("global_P3", "global", conv(64), up()),
        node("global_P5", "global", conv(256, 3, 2)),
        node(
            "P3_out",
            ("global_P3", "P3_lateral"),
            conv(64),
            conv(64, 3),
            attention=(conv(64), conv(64, 3), sam()),
        ),
        node(
            "P4_out",
            ("global", "P4_lateral"),
            conv(128),
            conv(128, 3),
            attention=(conv(128), conv(128, 3), sam()),
        ),
        node(
            "P5_mixed",
            ("global_P5", "P5_lateral"),
            conv(256),
            spp=(conv(256), *_SPP_256),
        ),
        node(
            "P5_out",
            "P5_mixed",
            conv(256, 3),
            attention=(conv(256, 3), sam()),
        ),
    ),
    outputs={"P3": "P3_out", "P4": "P4_out", "P5": "P5_out"},
    status="inferred",
    evidence="EFM's laterals and exchanges, gathered in one map.",
)

# EFM: every level reads itself and its two neighbours, at its own width, so
# that all levels cost the same. An end reads itself in the place of the
# neighbour it lacks: maxout does not see it, SAM keeps three inputs.
EFM = Neck(
    name="efm",
    nodes=(
        *_LATERALS,
        node("P5_to_P4", "P5_lateral", conv(128), up()),
        node("P4_to_P3", "P4_lateral", conv(64), up()),
        node("P3_to_P4", "P3_lateral", conv(128, 3, 2)),
        node("P4_to_P5", "P4_lateral", conv(256, 3, 2)),
        node(
            "P3_fused",
            ("P3_lateral", "P3_lateral", "P4_to_P3"),
            maxout(64),
            attention=(sam(maxout(64)),),
        ),
        node(
            "P4_fused",
            ("P3_to_P4", "P4_lateral", "P5_to_P4"),
            maxout(128),
            attention=(sam(maxout(128)),),
        ),
        node(
            "P5_fused",
            ("P4_to_P5", "P5_lateral", "P5_lateral"),
            maxout(256),
            attention=(sam(maxout(256)),),
        ),
        node("P3_out", "P3_fused", conv(64, 3), conv(64, 3)),
        node("P4_out", "P4_fused", conv(128, 3), conv(128, 3)),
        node(
            "P5_out",
            "P5_fused",
            conv(256, 3),
            conv(256, 3),
            spp=(
                spatial_pyramid_pooling(),
                conv(512),
                maxout(256),
                conv(256, 3),
            ),
        ),
    ),
    outputs={"P3": "P3_out", "P4": "P4_out", "P5": "P5_out"},
    status="inferred",
    evidence="The three-level exchange and maxout are the paper's "
    "and its author's words; the widths are those that cost what Table 2 "
    "says with the same computation at each level.",
)

NECKS = {neck.name: neck for neck in (FPN, FPN_3L, PRN, PRN_3L, CEM, GFM, EFM)}


def get_neck(name):
    """The fusion table called `name`, e.g. "efm"."""
    return NECKS[check_choice("neck", name, tuple(NECKS))]
