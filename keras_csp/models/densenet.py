"""DenseNet and DenseNet-Elastic, plain and CSP.

Layers are normalised and activated before their convolutions; a dense layer
is 1x1 to 4 x growth, 3x3 to growth, growth 32. The two "Reference" networks
are small and have Darknet's order, convolution first.
"""

from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    TORCH_STEM,
    NetworkSpec,
    Stage,
    average_pool,
    bare_conv,
    conv,
    csp,
    dense_block,
    elastic,
    max_pool,
    norm_act,
    preactivated,
)

_HEAD = (norm_act("relu"),)
_HALVE = (average_pool(2),)


def _dense(depth):
    return dense_block(depth * ((preactivated(128), preactivated(32, 3)),))


def _elastic_dense(depth, pool="average"):
    """Each layer at two resolutions, added; the input is normalised once."""
    path = (conv(64, activation="relu"), bare_conv(32, 3))
    two_paths = elastic(
        path, path, merge="add", pool=pool, interpolation="bilinear"
    )
    return dense_block(depth * ((norm_act("relu"), two_paths),))


def _densenet(name, provenance, blocks, widths):
    """`widths`: what the transitions between the blocks compress to."""
    first, *rest = blocks
    *between, last = rest
    return NetworkSpec(
        name=name,
        provenance=provenance,
        stem=TORCH_STEM,
        stages=(
            Stage(blocks=(first, preactivated(widths[0]))),
            *(
                Stage(down=_HALVE, blocks=(block, preactivated(width)))
                for block, width in zip(between, widths[1:])
            ),
            Stage(down=_HALVE, blocks=(last,)),
        ),
        head=_HEAD,
    )


DENSENET_201 = _densenet(
    "DenseNet201",
    "Exact: the PyTorch network, blocks of 6, 12, 48 and 32 layers.",
    blocks=(_dense(6), _dense(12), _dense(48), _dense(32)),
    widths=(128, 256, 896),
)

DENSENET_264 = _densenet(
    "DenseNet264",
    "Inferred: blocks of 6, 12, 64 and 32 layers, which give the published "
    "parameters to the digit; the DenseNet-264 of the literature has blocks "
    "of 6, 12, 64 and 48 and 33.3 million parameters.",
    blocks=(_dense(6), _dense(12), _dense(64), _dense(32)),
    widths=(128, 256, 1152),
)

DENSENET_201_ELASTIC = _densenet(
    "DenseNet201Elastic",
    "Exact in parameters: the Elastic authors' code, blocks of 10, 20, 40 and "
    "30 layers. How the published BFLOPs count the two paths is not known.",
    blocks=(
        _elastic_dense(10),
        _elastic_dense(20),
        _elastic_dense(40),
        _elastic_dense(30, pool=None),
    ),
    widths=(192, 416, 848),
)


def _csp_stages(blocks, widths, partial_widths, out):
    """Stages whose M is computed after the pooling, save the last.

    `widths`: of the input of each stage, which two 1x1 convolutions split in
    half; `partial_widths`: what T gives; `out`: what the last M gives.
    """
    last = len(blocks) - 1
    for index, (block, width) in enumerate(zip(blocks, widths)):
        half = preactivated(width // 2)
        final = {"transition": preactivated(out)} if index == last else {}
        yield Stage(
            down=(*_HALVE, preactivated(width)) if index else (),
            blocks=(
                csp(
                    blocks=(block,),
                    split=(half, half),
                    fusion="csp" if index == last else "last",
                    partial_transition=preactivated(partial_widths[index]),
                    **final,
                ),
            ),
        )


CSP_DENSENET_201 = NetworkSpec(
    name="CSPDenseNet201",
    provenance=(
        "Inferred, with low confidence: the authors published parameters and "
        "BFLOPs only. Known: DenseNet-201 with CSP stages. Inferred: the "
        "blocks, half of the channels on the shortcut, the transitions' widths."
    ),
    stem=TORCH_STEM,
    stages=tuple(
        _csp_stages(
            blocks=(_dense(6), _dense(12), _dense(48), _dense(32)),
            widths=(64, 128, 256, 896),
            partial_widths=(128, 256, 896, 960),
            out=1920,
        )
    ),
    head=_HEAD,
)

CSP_DENSENET_201_ELASTIC = NetworkSpec(
    name="CSPDenseNet201Elastic",
    provenance=(
        "Inferred, with low confidence: the authors published parameters and "
        "BFLOPs only. Known: DenseNet-201-Elastic with CSP stages. Inferred: "
        "the blocks, half of the channels on the shortcut, the transitions' "
        "widths, by another rule than CSPDenseNet-201's."
    ),
    stem=TORCH_STEM,
    stages=tuple(
        _csp_stages(
            blocks=(
                _elastic_dense(10),
                _elastic_dense(20),
                _elastic_dense(40),
                _elastic_dense(30, pool=None),
            ),
            widths=(64, 192, 416, 848),
            partial_widths=(32, 96, 208, 960),
            out=1808,
        )
    ),
    head=_HEAD,
)


def _reference_stage(layers, mixed):
    return csp(
        blocks=(dense_block(layers),),
        fusion="last",
        partial_transition=conv(mixed),
    )


def _bottleneck_layers(depth):
    return depth * ((conv(24), conv(24, 3)),)


CSP_DENSENET_REFERENCE = NetworkSpec(
    name="CSPDenseNetReference",
    provenance=(
        "Inferred: a numerical reconstruction that costs what the authors "
        "published; other widths and depths cost as much. Known: the kind of "
        "network, parameters and BFLOPs."
    ),
    stem=(conv(32, 3, 2), conv(96, 3, 2)),
    stages=(
        Stage(blocks=(_reference_stage(_bottleneck_layers(3), 120),)),
        Stage(
            down=(max_pool(2), conv(128)),
            blocks=(_reference_stage(_bottleneck_layers(4), 160),),
        ),
        Stage(
            down=(max_pool(2), conv(256)),
            blocks=(_reference_stage(_bottleneck_layers(8), 320),),
        ),
        Stage(down=(max_pool(2), conv(512)), blocks=(conv(512, 3),)),
    ),
)

CSP_DENSENETB_REFERENCE = NetworkSpec(
    name="CSPDenseNetbReference",
    provenance=(
        "Inferred: a numerical reconstruction that costs what the authors "
        "published, its widths other than CSPDenseNet Reference's. Known: the "
        "kind of network, parameters and BFLOPs."
    ),
    stem=(conv(32, 3, 2), conv(64, 3, 2)),
    stages=(
        Stage(blocks=(_reference_stage(3 * (conv(16, 3),), 32),)),
        Stage(
            down=(max_pool(2), conv(64)),
            blocks=(_reference_stage(4 * (conv(32, 3),), 32),),
        ),
        Stage(
            down=(max_pool(2), conv(128)),
            blocks=(_reference_stage(4 * (conv(64, 3),), 64),),
        ),
        Stage(down=(max_pool(2), conv(512)), blocks=(conv(512),)),
    ),
)

DenseNet201 = factory(DENSENET_201)
DenseNet264 = factory(DENSENET_264)
DenseNet201Elastic = factory(DENSENET_201_ELASTIC)
CSPDenseNet201 = factory(CSP_DENSENET_201)
CSPDenseNet201Elastic = factory(CSP_DENSENET_201_ELASTIC)
CSPDenseNetReference = factory(CSP_DENSENET_REFERENCE)
CSPDenseNetbReference = factory(CSP_DENSENETB_REFERENCE)
