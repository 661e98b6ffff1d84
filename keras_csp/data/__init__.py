"""tf.data pipelines of images and labels, or boxes."""

from keras_csp.data.annotations import Fault
from keras_csp.data.augmentation import Augmentation, letterbox
from keras_csp.data.classification import (
    ClassificationData,
    load_classification,
)
from keras_csp.data.detection import DetectionData, load_detection

__all__ = [
    "Augmentation",
    "ClassificationData",
    "DetectionData",
    "Fault",
    "letterbox",
    "load_classification",
    "load_detection",
]
