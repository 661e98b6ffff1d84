"""Networks from Darknet's .cfg and .weights files, and back.

    model = keras_csp.darknet.load("yolov4.cfg", "yolov4.weights")
    boxes = model.predict(images)      # one array for each [yolo]

Pixels are expected in [0, 1], in RGB order, as Darknet feeds them.
"""

import logging
import os
import pathlib

from keras_csp.darknet.build import build
from keras_csp.darknet.cfg import read
from keras_csp.darknet.plan import make_plan
from keras_csp.darknet.weights import (
    is_backbone,
    load_weights,
    save_weights,
)
from keras_csp.layers.initialization import kernels_replaced

__all__ = ["is_backbone", "load", "load_weights", "save_weights"]

_LOGGER = logging.getLogger("keras_csp")


def load(cfg, weights=None, input_shape=None):
    """The network of a Darknet .cfg file, with the weights of a file.

    Args:
        cfg: path of a .cfg file, a classifier's or a detector's with [yolo]
            sections.
        weights: path of its .weights file, or of a backbone `*.conv.NN` that
            holds the layers 0 to NN - 1, the rest staying new, which a
            warning of the "keras_csp" logger says. None (default): random
            initialisation.
        input_shape: (height, width, channels) instead of those in [net]. For
            a cfg without [yolo] the sides may be None: any size.

    Returns:
        A `keras.Model` named after the file; its layers are named
        `convolutional_0`, `route_3` ... with Darknet's indexes. A detector
        has a list of outputs, one for each [yolo] in the order of the file,
        of the shape (batch, boxes, 5 + classes): see
        `keras_csp.layers.YoloBoxes`. Any other network has the output of its
        last layer.

    Raises:
        ValueError: the cfg has a fault, or asks for what is not supported
            (the file, the line and the section are named); the weights do not
            belong to it.
    """
    sections = read(cfg)
    _check_shape(input_shape)
    plan = make_plan(sections, input_shape)
    if input_shape and None in input_shape and plan.is_detector:
        raise ValueError(
            f"{plan.source} has [yolo] sections, whose boxes are relative to "
            "the image, so its height and width must be given. Received: "
            f"input_shape={input_shape}"
        )
    shape = tuple(input_shape or plan.input_shape)
    complete = weights is not None and not is_backbone(weights)
    with kernels_replaced(complete):
        model = build(plan, shape, pathlib.Path(os.fsdecode(cfg)).stem)
    if weights is not None:
        _log_left(model, weights, load_weights(model, weights))
    return model


def _check_shape(shape):
    if shape is None:
        return
    good = isinstance(shape, (list, tuple)) and len(shape) == 3
    if not good or shape[2] is None or not all(map(_is_side, shape)):
        raise ValueError(
            "`input_shape` must be (height, width, channels), positive "
            "integers of which the first two may be None. Received: "
            f"input_shape={shape!r}"
        )


def _is_side(side):
    if side is None:
        return True
    return isinstance(side, int) and not isinstance(side, bool) and side > 0


def _log_left(model, path, left):
    names = dict.fromkeys(name.split("/")[0] for name in left)
    if names:
        _LOGGER.warning(
            "%s: not in %s, so left new: %s",
            model.name,
            os.fsdecode(path),
            ", ".join(names),
        )
