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
    read_heads,
    save_weights,
)
from keras_csp.darknet.writing import save
from keras_csp.layers.initialization import kernels_replaced
from keras_csp.layers.new_classes import (
    heads_and_layers,
    other_classes,
    with_classes,
)
from keras_csp.layers.yolo_head import PriorBias

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
            line, e.g. coco.names. Default: none known. A detector gets as many
            classes: where the cfg has another number, all weights but those of
            the classes are kept, see `keras_csp.layers.with_classes`, which
            says so in the log. The same holds where the weights are of another
            number of classes than the cfg.

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
    names = _class_names(class_names)
    classes = _classes(plan)
    if names and len(names) != classes and not plan.is_detector:
        raise ValueError(
            f"{plan.source} has {classes} classes. Received: {len(names)} names"
        )
    complete = weights is not None and not is_backbone(weights)
    with kernels_replaced(complete):
        stem = pathlib.Path(os.fsdecode(cfg)).stem
        known = names if names and len(names) == classes else None
        model = build(plan, shape, stem, known, data.decode())
    if plan.is_detector and not complete:
        _start_heads(model)
    if weights is not None:
        _load(model, weights)
    if names and len(names) != classes:
        model = with_classes(model, names)
    return model


def _start_heads(model):
    """As `PriorBias` says: nearly all boxes are background."""
    for head, layer in heads_and_layers(model):
        width = len(head.anchors) * (5 + head.classes)
        for variable in layer.weights:
            if tuple(variable.shape) == (width,):
                variable.assign(PriorBias(5 + head.classes)((width,)))


def _load(model, path):
    """The weights of a file, of another number of classes if it has one."""
    heads = _other_heads(model, path)
    if not heads:
        _log_left(model, path, load_weights(model, path))
        return
    load_weights(model, path, classifier=False)
    for head in heads:
        for variable, array in head.arrays:
            classes = variable.shape[-1] // head.anchors - 5
            rows = [None] * classes
            variable.assign(other_classes(array, head.anchors, rows))
    _LOGGER.warning(
        "%s: %s is of %d classes, and the cfg of %d. Their filters start from "
        "the mean of the old classes'; all other weights are kept",
        model.name,
        os.fsdecode(path),
        heads[0].classes,
        classes,
    )


def _other_heads(model, path):
    """Those of a file of another number of classes; else none."""
    try:
        heads = read_heads(model, path)
    except ValueError:
        return []  # `load_weights` says what is wrong
    return [
        head
        for head in heads
        if any(
            array.shape[-1] != variable.shape[-1]
            for variable, array in head.arrays
        )
    ]


def _check_strides(plan):
    for index in plan.outputs:
        stride = plan.steps[index].arguments["stride"]
        if not all(isinstance(side, int) for side in stride):
            raise ValueError(
                f"{plan.source}: open sides need a size in [net] that the "
                f"stride of each [yolo] divides. Received: {stride[0]:g} x "
                f"{stride[1]:g} pixels for a position"
            )


def _class_names(given):
    """The names of the classes as a tuple, None where none are given."""
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        given = read_names(given)
    return tuple(given)


def _classes(plan):
    last = plan.steps[plan.outputs[0]]
    return last.arguments["classes"] if plan.is_detector else last.shape[-1]


def _log_left(model, path, left):
    names = dict.fromkeys(name.split("/")[0] for name in left)
    if names:
        _LOGGER.warning(
            "%s: not in %s, so left new: %s",
            model.name,
            os.fsdecode(path),
            ", ".join(names),
        )
