"""The networks of timm's cspnet.py that have published ImageNet weights.

Another lineage than the authors' Darknet files: leaky activations have
PyTorch's slope of 0.01, a CSP stage expands all of its input with one 1x1
convolution and then slices it, and its first stage is like the others. So
`CSPResNet50Timm` is not the paper's `CSPResNet50`. The CS3 networks have one
transition after the fusion alone, and SiLU.
"""

from keras_csp.models.blocks import bottleneck, dark_block
from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    NetworkSpec,
    Stage,
    average_pool,
    conv,
    csp,
    padded_max_pool,
    residual,
    squeeze_excitation,
)

_LEAKY = "torch_leaky"
_PROVENANCE = "Exact: timm's models/cspnet.py, {}."


def _bottleneck(inner, outer, groups=1):
    return bottleneck(
        inner, outer, 1, groups, activation=_LEAKY, shortcut="projection"
    )


def _dark_block(inner, outer):
    return dark_block(inner, outer, activation=_LEAKY)


def _csp_stage(block, depth, expanded, out, down=(), linear=False):
    """Expansion, slice into halves, blocks, T, concatenation, M."""
    expansion = conv(expanded, activation=None if linear else _LEAKY)
    return Stage(
        down=(*down, expansion),
        blocks=(
            csp(
                blocks=depth * (block,),
                partial_transition=conv(expanded // 2, activation=_LEAKY),
                transition=conv(out, activation=_LEAKY),
            ),
        ),
    )


def _down(filters, groups=1):
    return (conv(filters, 3, 2, groups=groups, activation=_LEAKY),)


_RESNET_STEM = (
    conv(64, 7, 2, activation=_LEAKY),
    padded_max_pool(3, 2, padding=1),
)

CSP_RESNET_50_TIMM = NetworkSpec(
    name="CSPResNet50Timm",
    provenance=_PROVENANCE.format("cspresnet50"),
    input_size=256,
    stem=_RESNET_STEM,
    stages=(
        _csp_stage(_bottleneck(64, 128), 3, 256, 128, linear=True),
        _csp_stage(_bottleneck(128, 256), 3, 512, 256, _down(128), True),
        _csp_stage(_bottleneck(256, 512), 5, 1024, 512, _down(256), True),
        _csp_stage(_bottleneck(512, 1024), 2, 2048, 1024, _down(512), True),
    ),
)

CSP_RESNEXT_50_TIMM = NetworkSpec(
    name="CSPResNeXt50Timm",
    provenance=_PROVENANCE.format("cspresnext50"),
    input_size=256,
    stem=_RESNET_STEM,
    stages=(
        _csp_stage(_bottleneck(128, 128, 32), 3, 256, 256, linear=True),
        _csp_stage(
            _bottleneck(256, 256, 32), 3, 512, 512, _down(256, 32), True
        ),
        _csp_stage(
            _bottleneck(512, 512, 32), 5, 1024, 1024, _down(512, 32), True
        ),
        _csp_stage(
            _bottleneck(1024, 1024, 32), 2, 2048, 2048, _down(1024, 32), True
        ),
    ),
)

_DARKNET_STEM = (conv(32, 3, activation=_LEAKY),)

CSP_DARKNET_53_TIMM = NetworkSpec(
    name="CSPDarkNet53Timm",
    provenance=_PROVENANCE.format("cspdarknet53"),
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        _csp_stage(_dark_block(32, 64), 1, 128, 64, _down(64)),
        _csp_stage(_dark_block(64, 64), 2, 128, 128, _down(128)),
        _csp_stage(_dark_block(128, 128), 8, 256, 256, _down(256)),
        _csp_stage(_dark_block(256, 256), 8, 512, 512, _down(512)),
        _csp_stage(_dark_block(512, 512), 4, 1024, 1024, _down(1024)),
    ),
)

DARKNET_53_TIMM = NetworkSpec(
    name="DarkNet53Timm",
    provenance=_PROVENANCE.format("darknet53"),
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(down=_down(64), blocks=1 * (_dark_block(32, 64),)),
        Stage(down=_down(128), blocks=2 * (_dark_block(64, 128),)),
        Stage(down=_down(256), blocks=8 * (_dark_block(128, 256),)),
        Stage(down=_down(512), blocks=8 * (_dark_block(256, 512),)),
        Stage(down=_down(1024), blocks=4 * (_dark_block(512, 1024),)),
    ),
)


def _averaging_down(filters):
    """timm's AvgPool2d(2) rounds an odd side down, then a 1x1."""
    return (
        average_pool(2, padding="valid"),
        conv(filters, activation=_LEAKY),
    )


DARKNET_AA_53 = NetworkSpec(
    name="DarkNetAA53",
    provenance=_PROVENANCE.format("darknetaa53"),
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(down=_averaging_down(64), blocks=1 * (_dark_block(32, 64),)),
        Stage(down=_averaging_down(128), blocks=2 * (_dark_block(64, 128),)),
        Stage(down=_averaging_down(256), blocks=8 * (_dark_block(128, 256),)),
        Stage(down=_averaging_down(512), blocks=8 * (_dark_block(256, 512),)),
        Stage(down=_averaging_down(1024), blocks=4 * (_dark_block(512, 1024),)),
    ),
)


_NONE = 4 * (None,)


def _silu(filters, kernel_size=1, strides=1, padding=None):
    return conv(
        filters, kernel_size, strides, activation="silu", padding=padding
    )


def _cs3_block(width, edge=None, squeezed=None):
    """1x1 then 3x3; with `edge`, a 3x3 to that width then 1x1."""
    first = _silu(edge, 3) if edge else _silu(width)
    last = _silu(width) if edge else _silu(width, 3)
    attention = (squeeze_excitation(squeezed, "silu"),) if squeezed else ()
    return residual((first, *attention, last), activation=None)


def _cs3(name, timm, stem, widths, depths, edges=_NONE, squeezed=_NONE):
    """One half of each stage's `widths` passes its `depths` blocks.

    Args:
        edges: width inside an edge block, for each stage.
        squeezed: reduced width of squeeze and excitation, for each stage.
    """
    inputs = (stem[-1].arguments["filters"], *widths)
    return NetworkSpec(
        name=name,
        provenance=_PROVENANCE.format(timm),
        input_size=256,
        stem=stem,
        stages=tuple(
            Stage(
                down=(_silu(channels, 3, 2), _silu(width)),
                blocks=(
                    csp(
                        blocks=depth * (_cs3_block(width // 2, edge, squeeze),),
                        fusion="first",
                        transition=_silu(width),
                    ),
                ),
            )
            for channels, width, depth, edge, squeeze in zip(
                inputs, widths, depths, edges, squeezed
            )
        ),
    )


_WIDTHS_M, _DEPTHS_M = (96, 192, 384, 768), (2, 4, 6, 2)
_WIDTHS_L, _DEPTHS_L = (128, 256, 512, 1024), (3, 6, 9, 3)
_WIDTHS_X, _DEPTHS_X = (160, 320, 640, 1280), (3, 7, 11, 3)
_STEM_M = (_silu(24, 3, 2), _silu(48, 3))
_STEM_L = (_silu(32, 3, 2), _silu(64, 3))
_STEM_X = (_silu(40, 3, 2), _silu(80, 3))


def _focus(filters):
    """YOLOv5's focus as the convolution that it equals."""
    return (_silu(filters, 6, 2, padding=2),)


CS3_DARKNET_M = _cs3(
    "CS3DarkNetM", "cs3darknet_m", _STEM_M, _WIDTHS_M, _DEPTHS_M
)
CS3_DARKNET_L = _cs3(
    "CS3DarkNetL", "cs3darknet_l", _STEM_L, _WIDTHS_L, _DEPTHS_L
)
CS3_DARKNET_X = _cs3(
    "CS3DarkNetX", "cs3darknet_x", _STEM_X, _WIDTHS_X, _DEPTHS_X
)
CS3_DARKNET_FOCUS_S = _cs3(
    "CS3DarkNetFocusS",
    "cs3darknet_focus_s",
    _focus(32),
    widths=(64, 128, 256, 512),
    depths=(1, 3, 4, 1),
)
CS3_DARKNET_FOCUS_M = _cs3(
    "CS3DarkNetFocusM", "cs3darknet_focus_m", _focus(48), _WIDTHS_M, _DEPTHS_M
)
CS3_DARKNET_FOCUS_L = _cs3(
    "CS3DarkNetFocusL", "cs3darknet_focus_l", _focus(64), _WIDTHS_L, _DEPTHS_L
)
CS3_SE_DARKNET_L = _cs3(
    "CS3SEDarkNetL",
    "cs3sedarknet_l",
    _STEM_L,
    _WIDTHS_L,
    _DEPTHS_L,
    squeezed=(16, 32, 64, 128),
)
CS3_SE_DARKNET_X = _cs3(
    "CS3SEDarkNetX",
    "cs3sedarknet_x",
    _STEM_X,
    _WIDTHS_X,
    _DEPTHS_X,
    squeezed=(8, 8, 24, 40),
)
CS3_EDGE_NET_X = _cs3(
    "CS3EdgeNetX",
    "cs3edgenet_x",
    _STEM_X,
    _WIDTHS_X,
    _DEPTHS_X,
    edges=(120, 240, 480, 960),
)
CS3_SE_EDGE_NET_X = _cs3(
    "CS3SEEdgeNetX",
    "cs3se_edgenet_x",
    _STEM_X,
    _WIDTHS_X,
    _DEPTHS_X,
    edges=(120, 240, 480, 960),
    squeezed=(32, 64, 120, 240),
)

CSPResNet50Timm = factory(CSP_RESNET_50_TIMM)
CSPResNeXt50Timm = factory(CSP_RESNEXT_50_TIMM)
CSPDarkNet53Timm = factory(CSP_DARKNET_53_TIMM)
DarkNet53Timm = factory(DARKNET_53_TIMM)
DarkNetAA53 = factory(DARKNET_AA_53)
CS3DarkNetM = factory(CS3_DARKNET_M)
CS3DarkNetL = factory(CS3_DARKNET_L)
CS3DarkNetX = factory(CS3_DARKNET_X)
CS3DarkNetFocusS = factory(CS3_DARKNET_FOCUS_S)
CS3DarkNetFocusM = factory(CS3_DARKNET_FOCUS_M)
CS3DarkNetFocusL = factory(CS3_DARKNET_FOCUS_L)
CS3SEDarkNetL = factory(CS3_SE_DARKNET_L)
CS3SEDarkNetX = factory(CS3_SE_DARKNET_X)
CS3EdgeNetX = factory(CS3_EDGE_NET_X)
CS3SEEdgeNetX = factory(CS3_SE_EDGE_NET_X)
