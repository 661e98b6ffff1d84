"""A detector for other classes: what its heads know of boxes stays."""

import logging

import keras
import numpy as np

from keras_csp._keras_internals import functional, nodes, producer
from keras_csp._structure import with_layers
from keras_csp._validation import check_choice, check_positive
from keras_csp.layers.preprocessing import image_spec, with_image_spec
from keras_csp.layers.yolo_head import PriorBias, YoloHead

STARTS = ("mean", "random")

_LOGGER = logging.getLogger("keras_csp")


def with_classes(model, class_names=None, classes=None, start="mean"):
    """`model` with heads for other classes: all else, and its weights, stay.

    A class that has the name of an old one takes its row of each head's
    convolution. Boxes and objectness are computed as before. A line in the
    "keras_csp" log says what is new.

    Args:
        model: a functional model with `YoloHead`s after convolutions.
        class_names: names of the new classes. Default None: none known.
        classes: their number, where no names are given.
        start: what the rows of new classes start from: "mean" (default), that
            of the rows of all old ones; or "random".

    Returns:
        A new, uncompiled model of the same class and name. It shares all other
        layers, and so their weights, with `model`.

    Raises:
        ValueError: neither names nor their number, or no convolution before a
            head.
    """
    check_choice("start", start, STARTS)
    names = None if class_names is None else tuple(class_names)
    classes = check_positive("classes", len(names) if names else classes)
    spec = image_spec(model)
    old_names = None if spec is None else spec.class_names
    rows = _rows(names, classes, old_names)
    pairs = heads_and_layers(model)
    _check_convolutions(model, pairs)
    heads = [(head, _head_of(head, classes)) for head, _ in pairs]
    layers = {layer: len(head.anchors) for head, layer in pairs}
    convolutions = [
        (layer, _layer_of(layer, anchors, classes))
        for layer, anchors in layers.items()
    ]
    new = with_layers(model, [*heads, *convolutions])
    for old, made in convolutions:
        _carry(old, made, layers[old], rows, start)
    _log(model, rows, names, start)
    if names is None and old_names is None:
        return new
    return with_image_spec(new, class_names=names)


def other_classes(array, anchors, rows, fresh=None):
    """A head's kernel or bias for other classes.

    Args:
        array: NumPy, its last axis the n (5 + C) filters of n anchors.
        anchors: n.
        rows: for each new class the old one whose filter it takes, or None.
        fresh: where None takes from, an array of n (5 + len(rows)) filters.
            Default None: the mean of the old classes.
    """
    parts = np.reshape(array, (*array.shape[:-1], anchors, -1))
    boxes, old = parts[..., :5], parts[..., 5:]
    mean = old.mean(axis=-1)
    if fresh is not None:
        fresh = np.reshape(fresh, (*fresh.shape[:-1], anchors, -1))[..., 5:]
    new = [
        old[..., row]
        if row is not None
        else (mean if fresh is None else fresh[..., number])
        for number, row in enumerate(rows)
    ]
    parts = np.concatenate([boxes, np.stack(new, axis=-1)], axis=-1)
    return np.reshape(parts, (*array.shape[:-1], -1))


def heads_and_layers(model):
    """Pairs of a `YoloHead` and the layer whose map it reads.

    None of a model that is not functional.
    """
    graph = functional(model)
    return [
        (call.operation, producer(call.input_tensors[0]))
        for call in ([] if graph is None else nodes(graph))
        if isinstance(call.operation, YoloHead)
    ]


def _check_convolutions(model, pairs):
    """Raises a ValueError where a layer before a head is not for heads alone.

    Several heads may read one convolution, whose weights they share.
    """
    if not pairs:
        raise ValueError(f"{model.name!r} has no YoloHead, so no classes")
    readers = [
        (producer(tensor), call.operation)
        for call in nodes(functional(model))
        for tensor in call.input_tensors
    ]
    for head, layer in pairs:
        mine = [reader for read, reader in readers if read is layer]
        alone = all(isinstance(reader, YoloHead) for reader in mine)
        if not hasattr(layer, "filters") or not alone:
            raise ValueError(
                f"The head {head.name!r} does not read a convolution of its "
                f"own, but {layer.name!r}, so its classes cannot be changed"
            )


def _rows(names, classes, old_names):
    """For each new class the old one of that name, or None."""
    if not names or not old_names:
        return [None] * classes
    old = {name: number for number, name in enumerate(old_names)}
    return [old.get(name) for name in names]


def _head_of(head, classes):
    config = head.get_config()
    if classes != head.classes:
        config["loss"]["class_weights"] = None
    return YoloHead.from_config({**config, "classes": classes})


def _layer_of(layer, anchors, classes):
    filters = anchors * (5 + classes)
    config = layer.get_config()
    new = type(layer).from_config({**config, "filters": filters})
    if isinstance(getattr(new, "bias_initializer", None), PriorBias):
        new.bias_initializer = PriorBias(5 + classes)
    return new


def _carry(old, new, anchors, rows, start):
    for variable, theirs in zip(new.weights, old.weights, strict=True):
        array = keras.ops.convert_to_numpy(theirs)
        fresh = keras.ops.convert_to_numpy(variable)
        fresh = None if start == "mean" else fresh
        variable.assign(other_classes(array, anchors, rows, fresh))


def _log(model, rows, names, start):
    new = [number for number, row in enumerate(rows) if row is None]
    if not new:
        return
    what = ", ".join(names[n] for n in new[:5]) if names else f"{len(new)}"
    more = f" and {len(new) - 5} more" if names and len(new) > 5 else ""
    _LOGGER.warning(
        "%s: new classes: %s%s. Their filters start from %s; all other weights "
        "are kept",
        model.name,
        what,
        more,
        "the mean of the old classes'" if start == "mean" else "random numbers",
    )
