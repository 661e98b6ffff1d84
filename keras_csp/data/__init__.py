"""tf.data pipelines of images and labels, or boxes."""

from keras_csp.data.classification import (
    ClassificationData,
    load_classification,
)
from keras_csp.data.classification_augmentation import (
    ClassificationAugmentation,
)
from keras_csp.data.crops import centre_crop, ten_crops
from keras_csp.data.detection import DetectionData, load_detection
from keras_csp.data.detection_augmentation import DetectionAugmentation
from keras_csp.data.letterbox import letterbox
from keras_csp.data.sources.coco import Fault

__all__ = [
    "ClassificationAugmentation",
    "ClassificationData",
    "DetectionAugmentation",
    "DetectionData",
    "Fault",
    "centre_crop",
    "letterbox",
    "load_classification",
    "load_detection",
    "ten_crops",
]
