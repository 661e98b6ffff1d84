"""Darknet's networks, plain, CSP and CSP-Elastic.

A block is 1x1, 3x3, + input, all leaky; a stage starts with a strided 3x3.
"""

from keras_csp.models.blocks import csp_stage, dark_block
from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    NetworkSpec,
    Stage,
    conv,
    elastic,
    max_pool,
    residual,
)


def _csp_stage(inner, width, depth, out):
    return csp_stage(depth * (dark_block(inner, width),), width, out)


def _elastic_stage(width, depth, out):
    """As `_csp_stage`, each block at two resolutions, half the width each."""
    path = (conv(width // 2), conv(width // 2, 3))
    block = residual(elastic(path, path), activation=None)
    return csp_stage(depth * (block,), width, out)


DARKNET_REFERENCE = NetworkSpec(
    name="DarkNetReference",
    provenance="Exact: the authors' cfg/darknet.cfg.",
    cfg="darknet",
    input_size=256,
    stem=(conv(16, 3), max_pool(2), conv(32, 3)),
    stages=(
        Stage(down=(max_pool(2),), blocks=(conv(64, 3),)),
        Stage(down=(max_pool(2),), blocks=(conv(128, 3),)),
        Stage(down=(max_pool(2),), blocks=(conv(256, 3),)),
        Stage(down=(max_pool(2),), blocks=(conv(512, 3),)),
        Stage(down=(max_pool(2),), blocks=(conv(1024, 3),)),
    ),
)

DARKNET_53 = NetworkSpec(
    name="DarkNet53",
    provenance="Exact: the authors' cfg/darknet53.cfg.",
    cfg="darknet53",
    timm_counterpart="DarkNet53Timm",
    input_size=256,
    stem=(conv(32, 3),),
    stages=(
        Stage(down=(conv(64, 3, 2),), blocks=1 * (dark_block(32, 64),)),
        Stage(down=(conv(128, 3, 2),), blocks=2 * (dark_block(64, 128),)),
        Stage(down=(conv(256, 3, 2),), blocks=8 * (dark_block(128, 256),)),
        Stage(down=(conv(512, 3, 2),), blocks=8 * (dark_block(256, 512),)),
        Stage(down=(conv(1024, 3, 2),), blocks=4 * (dark_block(512, 1024),)),
    ),
)

CSP_DARKNET_53 = NetworkSpec(
    name="CSPDarkNet53",
    provenance="Exact: the authors' cfg/csdarknet53.cfg.",
    cfg="csdarknet53",
    timm_counterpart="CSPDarkNet53Timm",
    input_size=256,
    stem=(conv(32, 3),),
    stages=(
        Stage(down=(conv(64, 3, 2),), blocks=(_csp_stage(32, 64, 1, 64),)),
        Stage(down=(conv(128, 3, 2),), blocks=(_csp_stage(64, 64, 2, 128),)),
        Stage(down=(conv(256, 3, 2),), blocks=(_csp_stage(128, 128, 8, 256),)),
        Stage(down=(conv(512, 3, 2),), blocks=(_csp_stage(256, 256, 8, 512),)),
        Stage(
            down=(conv(1024, 3, 2),), blocks=(_csp_stage(512, 512, 4, 1024),)
        ),
    ),
)

CSP_DARKNET_53_ELASTIC = NetworkSpec(
    name="CSPDarkNet53Elastic",
    provenance="Exact: the authors' cfg/csdarknet53-elastic.cfg.",
    cfg="csdarknet53-elastic",
    input_size=256,
    stem=(conv(32, 3),),
    stages=(
        Stage(down=(conv(64, 3, 2),), blocks=(_elastic_stage(64, 1, 64),)),
        Stage(down=(conv(128, 3, 2),), blocks=(_elastic_stage(64, 2, 128),)),
        Stage(down=(conv(256, 3, 2),), blocks=(_elastic_stage(128, 8, 256),)),
        Stage(down=(conv(512, 3, 2),), blocks=(_elastic_stage(256, 8, 512),)),
        Stage(
            down=(conv(1024, 3, 2),),
            blocks=(_elastic_stage(512, 4, 1024),),
        ),
    ),
)

DarkNetReference = factory(DARKNET_REFERENCE)
DarkNet53 = factory(DARKNET_53)
CSPDarkNet53 = factory(CSP_DARKNET_53)
CSPDarkNet53Elastic = factory(CSP_DARKNET_53_ELASTIC)
