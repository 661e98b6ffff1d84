"""The networks of the paper and of its authors' repository."""

from keras_csp.models.darknet import (
    CSPDarkNet53,
    CSPDarkNet53Elastic,
    DarkNet53,
    DarkNetReference,
)
from keras_csp.models.densenet import (
    CSPDenseNet201,
    CSPDenseNet201Elastic,
    CSPDenseNetbReference,
    CSPDenseNetReference,
    DenseNet201,
    DenseNet201Elastic,
    DenseNet264,
)
from keras_csp.models.hardnet import HarDNet138s
from keras_csp.models.mobilenet import CSPMobileNetV2, MobileNetV2
from keras_csp.models.network import get_factory, list_models
from keras_csp.models.peleenet import (
    CSPPeleeNet,
    CSPPeleeNetbReference,
    CSPPeleeNetReference,
    PeleeNet,
    SparsePeleeNet,
)
from keras_csp.models.resnet import (
    CSPResNet10,
    CSPResNet50,
    CSPResNet50Elastic,
    CSPResNeXt50,
    CSPResNeXt50Elastic,
    Res2NeXt50,
    ResNet10,
    ResNet50,
    ResNet152,
    ResNeXt50,
)

__all__ = [
    "CSPDarkNet53",
    "CSPDarkNet53Elastic",
    "CSPDenseNet201",
    "CSPDenseNet201Elastic",
    "CSPDenseNetReference",
    "CSPDenseNetbReference",
    "CSPMobileNetV2",
    "CSPPeleeNet",
    "CSPPeleeNetReference",
    "CSPPeleeNetbReference",
    "CSPResNeXt50",
    "CSPResNeXt50Elastic",
    "CSPResNet10",
    "CSPResNet50",
    "CSPResNet50Elastic",
    "DarkNet53",
    "DarkNetReference",
    "DenseNet201",
    "DenseNet201Elastic",
    "DenseNet264",
    "HarDNet138s",
    "MobileNetV2",
    "PeleeNet",
    "Res2NeXt50",
    "ResNeXt50",
    "ResNet10",
    "ResNet50",
    "ResNet152",
    "SparsePeleeNet",
    "get_factory",
    "list_models",
]
