"""What a detector is given: images and targets, checked and completed."""

import contextlib
import warnings

import keras
import numpy as np

from keras_csp._channels import check_channels, in_channels
from keras_csp._validation import is_integer

# Targets with a row for each box, and the numbers of rows that are compiled.
_OF_BOXES = {
    "boxes",
    "labels",
    "box_weights",
    "crowd",
    "area",
    "original_boxes",
    "ignore",
}
_ROWS = [16 * 2**power for power in range(12)]


def check_images(images, detector):
    """`images`, unless their shape or type shows that they cannot be right.

    Args:
        images: an array, a tensor, or the specification of one; anything
            without a shape is returned as it is.
        detector: a `Detector`.

    Raises:
        ValueError: not batches of images, sides or channels that do not fit,
            or integers.
    """
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", "")
    if shape is None:  # a data set, a generator
        return images
    shape = tuple(shape)
    channels = detector.input_shape[-1]
    if len(shape) != 4:
        raise ValueError(
            "Images must come in batches of shape (batch, height, width, "
            f"{channels}). Received: images of shape {shape}"
        )
    if shape[-1] is not None:
        check_channels(shape, channels)
    sides = detector.input_shape[1:3]
    stride = detector.largest_stride
    if None in sides and any(side and side % stride for side in shape[1:3]):
        raise ValueError(
            f"The sides of images must divide by {stride}; "
            "keras_csp.data.letterbox fits one into such a square. Received: "
            f"images of shape {shape}"
        )
    if None not in sides and any(
        side not in (None, own) for side, own in zip(shape[1:3], sides)
    ):
        raise ValueError(
            f"{detector.name!r} takes images of {sides[0]}x{sides[1]}; "
            "keras_csp.data.fit_image brings one to that size. Received: "
            f"images of shape {shape}"
        )
    if "int" in str(dtype):
        raise ValueError(
            "Images must be floating-point numbers in [0, 1]; divide by 255. "
            f"Received: images of type {dtype}"
        )
    return images


def as_batches(x, detector, class_weight=None):
    """A data set of (images, targets), of what `fit` is given.

    Weights of the images are one of the targets then, "sample_weight".

    Raises:
        ValueError: a data set of other parts, or images that do not fit.
    """
    if not hasattr(x, "element_spec"):
        return x
    spec = x.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            'A data set must give (images, {"boxes", "labels"}), with or '
            "without a weight of each image, or (images, boxes, labels). "
            f"Received: {spec}"
        )
    check_images(spec[0], detector)
    if len(spec) == 3:
        weighted = isinstance(spec[1], dict)
        x = x.map(_with_sample_weight if weighted else _with_names)
    channels = detector.input_shape[-1]
    if spec[0].shape[-1] not in (None, channels):
        x = x.map(
            lambda images, targets: (in_channels(images, channels), targets)
        )
    if class_weight is not None:
        weights = class_weights(class_weight, detector)
        x = x.map(
            lambda images, targets: (images, weigh_boxes(targets, weights))
        )
    return x.map(_rounded) if keras.backend.backend() == "jax" else x


def _with_sample_weight(images, targets, sample_weight):
    return images, {**targets, "sample_weight": sample_weight}


def _with_names(images, boxes, labels):
    return images, {"boxes": boxes, "labels": labels}


def as_targets(targets, detector, sample_weight=None, class_weight=None):
    """Targets of arrays with the weights that `fit` is given.

    Raises:
        ValueError: targets that are not a dict, or weights that do not fit.
    """
    if sample_weight is None and class_weight is None:
        return targets
    if not isinstance(targets, dict):
        raise ValueError(
            "`sample_weight` and `class_weight` need images and targets as "
            'arrays, or a tf.data.Dataset; else put "sample_weight" `(batch,)` '
            'or "box_weights" `(batch, m)` into the targets. Received: targets '
            f"of type {type(targets).__name__}"
        )
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, "float32")
        if sample_weight.shape != (len(targets["labels"]),):
            raise ValueError(
                "`sample_weight` must have one number for each of "
                f"{len(targets['labels'])} images. Received: shape "
                f"{sample_weight.shape}"
            )
        targets = {**targets, "sample_weight": sample_weight}
    if class_weight is not None:
        targets = weigh_boxes(targets, class_weights(class_weight, detector))
    return targets


def class_weights(class_weight, detector):
    """The weight of each class, 1 where `class_weight` does not name it.

    Raises:
        ValueError: not a dict from labels of the detector to numbers of at
            least 0.
    """
    weights = np.ones(detector.classes, "float32")
    if not isinstance(class_weight, dict):
        raise ValueError(
            "`class_weight` must be a dict from labels to numbers. Received: "
            f"class_weight={class_weight!r}"
        )
    for label, weight in class_weight.items():
        known = is_integer(label) and 0 <= label < detector.classes
        if not known or isinstance(weight, bool) or not weight >= 0:
            raise ValueError(
                "`class_weight` must be a dict from labels, 0 to "
                f"{detector.classes - 1}, to numbers of at least 0. Received: "
                f"{label!r}: {weight!r}"
            )
        weights[label] = weight
    return weights


def weigh_boxes(targets, weights):
    """The targets with each box's weight multiplied by that of its class."""
    labels = targets["labels"]
    if not keras.ops.is_tensor(labels) and not isinstance(labels, np.ndarray):
        labels = np.asarray(labels)
    if isinstance(labels, np.ndarray):
        found = weights[np.maximum(labels, 0)]
    else:
        import tensorflow as tf  # of a data set

        found = tf.gather(weights, tf.maximum(labels, 0))
    before = targets.get("box_weights")
    found = found if before is None else found * before
    return {**targets, "box_weights": found}


def as_images(x, detector):
    """Arrays of images as the detector takes them, checked."""
    check_images(x, detector)
    if getattr(x, "shape", None) is None:  # a data set, a generator
        return x
    return in_channels(x, detector.input_shape[-1])


def slices(images, targets, batch_size):
    """Batches of (images, targets) of arrays."""
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        yield images[rows], {key: y[rows] for key, y in targets.items()}


@contextlib.contextmanager
def unknown_length():
    """Without Keras' warning that a data set has ended.

    One that leaves unreadable images out cannot know its length before.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


def _rounded(images, targets):
    """Targets padded to the next of `_ROWS`: JAX compiles a step for each."""
    import tensorflow as tf  # which has made the data set

    padded = dict(targets)
    for key in padded.keys() & _OF_BOXES:
        rows = tf.shape(targets[key])[1]
        longer = tf.boolean_mask(_ROWS, tf.constant(_ROWS) >= rows)
        missing = tf.concat([longer, [rows]], axis=0)[0] - rows
        rank = targets[key].shape.rank
        padded[key] = tf.pad(
            targets[key],
            [[0, 0], [0, missing]] + [[0, 0]] * (rank - 2),
            constant_values=tf.cast(
                -1 if key == "labels" else 0, targets[key].dtype
            ),
        )
    return images, padded
