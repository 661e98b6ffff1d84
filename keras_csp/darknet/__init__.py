"""Networks from Darknet's .cfg and .weights files, and back.

    detector = keras_csp.darknet.load("yolov4.cfg", "yolov4.weights")
    found = detector.predict(images)["boxes"]
    keras_csp.darknet.save(detector, "mine.cfg", "mine.weights")

Pixels are expected in [0, 1], in RGB order, as Darknet feeds them.
"""

import logging
import os
import pathlib

from keras_csp._files import read_names
from keras_csp._validation import check_input_shape
from keras_csp.darknet.build import build
from keras_csp.darknet.cfg import parse, read_bytes
from keras_csp.darknet.plan import make_plan
from keras_csp.darknet.weights import (
    is_backbone,
    load_weights,
    save_weights,
)
from keras_csp.darknet.writing import save
from keras_csp.layers.initialization import kernels_replaced

__all__ = ["is_backbone", "load", "load_weights", "save", "save_weights"]

_LOGGER = logging.getLogger("keras_csp")


def load(cfg, weights=None, input_shape=None, class_names=None):
    """The network of a Darknet .cfg file, with the weights of a file.

    Args:
        cfg: path of a .cfg file, a classifier's or a detector's with [yolo]
            sections.
        weights: path of its .weights file, or of one cut after layer NN - 1
            and called `*.NN` (`darknet53.conv.74`); the rest stays new, which
            a warning of the "keras_csp" logger says. None (default): random
            initialisation.
        input_shape: (height, width, channels) instead of those in [net]; the
            sides may be None: any size (of a detector, any that its strides
            divide).
        class_names: a list of names, or the path of a text file with one a
            line, e.g. coco.names. Default: none known.

    Returns:
        A functional model named after the file; its layers are named
        `convolutional_0`, `route_3` ... with Darknet's indexes. A
        `keras_csp.Detector` where there are [yolo] sections; any other
        network has the output of its last layer.

    Raises:
        ValueError: the cfg has a fault, or asks for what is not supported
            (the file, the line and the section are named); the weights do not
            belong to it; or names that are not as many as its classes.
    """
    data = read_bytes(cfg)
    sections = parse(data, os.fsdecode(cfg))
    if input_shape is not None:
        input_shape = check_input_shape(input_shape)
    plan = make_plan(sections, input_shape)
    shape = input_shape or plan.input_shape
    if None in shape and plan.is_detector:
        _check_strides(plan)
    names = _class_names(class_names, plan)
    complete = weights is not None and not is_backbone(weights)
    with kernels_replaced(complete):
        stem = pathlib.Path(os.fsdecode(cfg)).stem
        model = build(plan, shape, stem, names, data.decode())
    if weights is not None:
        _log_left(model, weights, load_weights(model, weights))
    return model


def _check_strides(plan):
    for index in plan.outputs:
        stride = plan.steps[index].arguments["stride"]
        if not all(isinstance(side, int) for side in stride):
            raise ValueError(
                f"{plan.source}: open sides need a size in [net] that the "
                f"stride of each [yolo] divides. Received: {stride[0]:g} x "
                f"{stride[1]:g} pixels for a position"
            )


def _class_names(given, plan):
    """The names of the classes as a tuple, None where none are given."""
    if given is None:
        return None
    names, source = given, "class_names"
    if isinstance(given, (str, os.PathLike)):
        source = os.fsdecode(given)
        names = read_names(source)
    names = tuple(names)
    last = plan.steps[plan.outputs[0]]
    classes = last.arguments["classes"] if plan.is_detector else last.shape[-1]
    if len(names) != classes:
        raise ValueError(
            f"{plan.source} has {classes} classes. Received: {len(names)} "
            f"names in {source}"
        )
    return names


def _log_left(model, path, left):
    names = dict.fromkeys(name.split("/")[0] for name in left)
    if names:
        _LOGGER.warning(
            "%s: not in %s, so left new: %s",
            model.name,
            os.fsdecode(path),
            ", ".join(names),
        )
