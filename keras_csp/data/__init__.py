"""tf.data pipelines of images and labels."""

from keras_csp.data.classification import (
    ClassificationData,
    load_classification,
)

__all__ = ["ClassificationData", "load_classification"]
