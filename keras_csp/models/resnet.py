"""ResNet, ResNeXt and Res2NeXt, plain, CSP and CSP-Elastic.

The Darknet networks (all but ResNet-152 and Res2NeXt-50) have leaky
activations, a 2x2 pooling in the stem and shortcuts without weights.
"""

from keras_csp.models.blocks import bottleneck, csp_stage
from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    TORCH_STEM,
    NetworkSpec,
    Stage,
    conv,
    csp,
    elastic,
    identity,
    max_pool,
    res2_conv,
    residual,
)

_DARKNET_STEM = (conv(64, 7, 2), max_pool(2))


def _basic(width, strides=1):
    layers = (conv(width, 3, strides), conv(width, 3, activation=None))
    return residual(layers, shortcut="partial")


def _stage(inner, outer, depth, strides=2, **options):
    first = bottleneck(inner, outer, strides, **options)
    rest = (depth - 1) * (bottleneck(inner, outer, **options),)
    return Stage(blocks=(first, *rest))


def _csp_stage(inner, width, depth, out, groups=1, split=None, linear=False):
    """`linear`: the two convolutions of the split have no activation."""
    return csp_stage(
        depth * (bottleneck(inner, width, groups=groups),),
        width,
        out,
        split,
        split_activation=None if linear else "leaky",
    )


def _elastic_stage(width, depth, out, groups=1, linear=False):
    """As `_csp_stage`, each block at two resolutions, half the width each."""
    half = width // 2
    path = (
        conv(half),
        conv(half, 3, groups=groups),
        conv(half, activation=None),
    )
    return csp_stage(
        depth * (residual(elastic(path, path)),),
        width,
        out,
        split_activation=None if linear else "leaky",
    )


def _csp_resnet_10_stage(width):
    """A quarter of ResNet-10's stage: one 3x3 on half of the channels."""
    half = width // 2
    return csp(
        blocks=(residual(conv(half, 3, activation=None)),),
        split=(conv(half), conv(half)),
        fusion="first",
        transition=identity(),  # the next strided 3x3 mixes the parts
    )


RESNET_10 = NetworkSpec(
    name="ResNet10",
    provenance="Exact: the authors' cfg/resnet10.cfg.",
    cfg="resnet10",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(blocks=(_basic(64),)),
        Stage(blocks=(_basic(128, 2),)),
        Stage(blocks=(_basic(256, 2),)),
        Stage(blocks=(_basic(512, 2),)),
    ),
)

CSP_RESNET_10 = NetworkSpec(
    name="CSPResNet10",
    provenance=(
        "Inferred: the authors published its parameters and BFLOPs only. "
        "Known: it is ResNet-10 with CSP stages. Inferred: widths, number of "
        "3x3 convolutions, and that stages 2 to 4 have no transition."
    ),
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(
            blocks=(
                csp(
                    blocks=(_basic(64),),
                    split=(conv(64), conv(64)),
                    fusion="first",
                    transition=conv(128),
                ),
            )
        ),
        Stage(down=(conv(128, 3, 2),), blocks=(_csp_resnet_10_stage(128),)),
        Stage(down=(conv(128, 3, 2),), blocks=(_csp_resnet_10_stage(256),)),
        Stage(down=(conv(256, 3, 2),), blocks=(_csp_resnet_10_stage(512),)),
    ),
    head=(conv(512),),
)

RESNET_50 = NetworkSpec(
    name="ResNet50",
    provenance="Exact: the authors' cfg/resnet50.cfg.",
    cfg="resnet50",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        _stage(64, 256, 3, strides=1),
        _stage(128, 512, 4),
        _stage(256, 1024, 6),
        _stage(512, 2048, 3),
    ),
)

CSP_RESNET_50 = NetworkSpec(
    name="CSPResNet50",
    provenance="Exact: the authors' cfg/csresnet50.cfg.",
    cfg="csresnet50",
    timm_counterpart="CSPResNet50Timm",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(blocks=(_csp_stage(64, 128, 3, 128, split=(128, 64)),)),
        Stage(
            down=(conv(128, 3, 2),),
            blocks=(_csp_stage(128, 256, 3, 256, linear=True),),
        ),
        Stage(
            down=(conv(256, 3, 2),),
            blocks=(_csp_stage(256, 512, 5, 512, linear=True),),
        ),
        Stage(
            down=(conv(512, 3, 2),), blocks=(_csp_stage(512, 1024, 2, 1024),)
        ),
    ),
)

CSP_RESNET_50_ELASTIC = NetworkSpec(
    name="CSPResNet50Elastic",
    provenance="Exact: the authors' cfg/csresnet50-elastic.cfg.",
    cfg="csresnet50-elastic",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(blocks=(_elastic_stage(128, 3, 128),)),
        Stage(
            down=(conv(128, 3, 2),),
            blocks=(_elastic_stage(256, 3, 256, linear=True),),
        ),
        Stage(
            down=(conv(256, 3, 2),),
            blocks=(_elastic_stage(512, 5, 512, linear=True),),
        ),
        Stage(down=(conv(512, 3, 2),), blocks=(_elastic_stage(1024, 2, 1024),)),
    ),
)

RESNEXT_50 = NetworkSpec(
    name="ResNeXt50",
    provenance="Exact: the authors' cfg/resnext50.cfg.",
    cfg="resnext50",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        _stage(128, 256, 3, strides=1, groups=32),
        _stage(256, 512, 4, groups=32),
        _stage(512, 1024, 6, groups=32),
        _stage(1024, 2048, 3, groups=32),
    ),
)

CSP_RESNEXT_50 = NetworkSpec(
    name="CSPResNeXt50",
    provenance="Exact: the authors' cfg/csresnext50.cfg.",
    cfg="csresnext50",
    timm_counterpart="CSPResNeXt50Timm",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(blocks=(_csp_stage(128, 128, 3, 256, 32, split=(128, 64)),)),
        Stage(
            down=(conv(256, 3, 2, groups=32),),
            blocks=(_csp_stage(256, 256, 3, 512, 32, linear=True),),
        ),
        Stage(
            down=(conv(512, 3, 2, groups=32),),
            blocks=(_csp_stage(512, 512, 5, 1024, 32, linear=True),),
        ),
        Stage(
            down=(conv(1024, 3, 2, groups=32),),
            blocks=(_csp_stage(1024, 1024, 2, 2048, 32),),
        ),
    ),
)

CSP_RESNEXT_50_ELASTIC = NetworkSpec(
    name="CSPResNeXt50Elastic",
    provenance="Exact: the authors' cfg/csresnext50-elastic.cfg.",
    cfg="csresnext50-elastic",
    input_size=256,
    stem=_DARKNET_STEM,
    stages=(
        Stage(blocks=(_elastic_stage(128, 3, 256, 16),)),
        Stage(
            down=(conv(256, 3, 2, groups=32),),
            blocks=(_elastic_stage(256, 3, 512, 16, linear=True),),
        ),
        Stage(
            down=(conv(512, 3, 2, groups=32),),
            blocks=(_elastic_stage(512, 5, 1024, 16, linear=True),),
        ),
        Stage(
            down=(conv(1024, 3, 2, groups=32),),
            blocks=(_elastic_stage(1024, 2, 2048, 16),),
        ),
    ),
)


def _torch_stage(inner, outer, depth, strides=2):
    return _stage(
        inner,
        outer,
        depth,
        strides,
        activation="relu",
        shortcut="projection",
    )


def _res2next_stage(inner, outer, depth, strides=2):
    def block(strides, entry):
        layers = (
            conv(inner, activation="relu"),
            res2_conv(
                inner,
                groups=8,
                strides=strides,
                entry=entry,
                activation="relu",
            ),
            conv(outer, activation=None),
        )
        return residual(layers, activation="relu")

    return Stage(
        blocks=(block(strides, True), *(depth - 1) * (block(1, False),))
    )


RESNET_152 = NetworkSpec(
    name="ResNet152",
    provenance=(
        "Exact in parameters: the usual PyTorch network (stride in the 3x3). "
        "The published BFLOPs are twice the 11.3 of the ResNet paper, whose "
        "stride is in the first 1x1."
    ),
    stem=TORCH_STEM,
    stages=(
        _torch_stage(64, 256, 3, strides=1),
        _torch_stage(128, 512, 8),
        _torch_stage(256, 1024, 36),
        _torch_stage(512, 2048, 3),
    ),
)

RES2NEXT_50 = NetworkSpec(
    name="Res2NeXt50",
    provenance=(
        "Published definition: Res2Net's code, base width 4, 8 groups, 4 "
        "scales. It has 24.67 million parameters; the published 24.27 is the "
        "number in the Res2Net paper."
    ),
    stem=TORCH_STEM,
    stages=(
        _res2next_stage(128, 256, 3, strides=1),
        _res2next_stage(256, 512, 4),
        _res2next_stage(512, 1024, 6),
        _res2next_stage(1024, 2048, 3),
    ),
)

ResNet10 = factory(RESNET_10)
CSPResNet10 = factory(CSP_RESNET_10)
ResNet50 = factory(RESNET_50)
CSPResNet50 = factory(CSP_RESNET_50)
CSPResNet50Elastic = factory(CSP_RESNET_50_ELASTIC)
ResNeXt50 = factory(RESNEXT_50)
CSPResNeXt50 = factory(CSP_RESNEXT_50)
CSPResNeXt50Elastic = factory(CSP_RESNEXT_50_ELASTIC)
ResNet152 = factory(RESNET_152)
Res2NeXt50 = factory(RES2NEXT_50)
