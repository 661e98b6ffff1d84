"""Keras layers of Cross Stage Partial Networks; all are channels-last."""

from keras_csp.layers.attention import SpatialAttention, SqueezeExcitation
from keras_csp.layers.batch_normalization import BatchNormalization
from keras_csp.layers.composite import Parallel, SequentialBlock
from keras_csp.layers.csp_stage import CSPStage
from keras_csp.layers.dense import DenseBlock, TwoWayDenseLayer
from keras_csp.layers.elastic import Elastic
from keras_csp.layers.fusion import FusionNode, PyramidFusion
from keras_csp.layers.grouped_convolution import GroupedConv2D
from keras_csp.layers.loss_options import LossOptions
from keras_csp.layers.new_classes import with_classes
from keras_csp.layers.pooling import (
    Maxout,
    PaddedMaxPooling2D,
    SpatialPyramidPooling,
)
from keras_csp.layers.preprocessing import (
    ImageSpec,
    Preprocessing,
    image_spec,
    with_image_spec,
)
from keras_csp.layers.residual import Res2Conv, ResidualBlock
from keras_csp.layers.units import ConvNormAct, NormAct, Transition
from keras_csp.layers.yolo_head import YoloHead

__all__ = [
    "BatchNormalization",
    "CSPStage",
    "ConvNormAct",
    "DenseBlock",
    "Elastic",
    "FusionNode",
    "GroupedConv2D",
    "ImageSpec",
    "LossOptions",
    "Maxout",
    "NormAct",
    "PaddedMaxPooling2D",
    "Parallel",
    "Preprocessing",
    "PyramidFusion",
    "Res2Conv",
    "ResidualBlock",
    "SequentialBlock",
    "SpatialAttention",
    "SpatialPyramidPooling",
    "SqueezeExcitation",
    "Transition",
    "TwoWayDenseLayer",
    "YoloHead",
    "image_spec",
    "with_classes",
    "with_image_spec",
]
