"""tf.data pipelines of images and labels, or boxes."""

from keras_csp._channels import to_grey
from keras_csp.data.classification import (
    CLASSIFICATION_SOURCES,
    ClassificationData,
    load_classification,
)
from keras_csp.data.classification_augmentation import (
    ClassificationAugmentation,
)
from keras_csp.data.detection import (
    DETECTION_SOURCES,
    DetectionData,
    load_detection,
)
from keras_csp.data.detection_augmentation import DetectionAugmentation
from keras_csp.data.resizing import View, centre_crop, fit_image, letterbox
from keras_csp.data.sources.records import Fault, ImageRecord
from keras_csp.data.ten_crops import ten_crops

__all__ = [
    "CLASSIFICATION_SOURCES",
    "DETECTION_SOURCES",
    "ClassificationAugmentation",
    "ClassificationData",
    "DetectionAugmentation",
    "DetectionData",
    "Fault",
    "ImageRecord",
    "View",
    "centre_crop",
    "fit_image",
    "letterbox",
    "load_classification",
    "load_detection",
    "ten_crops",
    "to_grey",
]
