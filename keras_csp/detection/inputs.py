"""What a detector is given: images and targets, checked and completed."""

import contextlib
import warnings

import keras

from keras_csp._channels import check_channels, in_channels

# Targets with a row for each box, and the numbers of rows that are compiled.
_OF_BOXES = {"boxes", "labels", "crowd", "area", "original_boxes", "ignore"}
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


def as_batches(x, detector):
    """A data set of (images, {"boxes", "labels"}), of what `fit` is given."""
    if not hasattr(x, "element_spec"):
        return x
    spec = x.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            'A data set must give (images, {"boxes", "labels"}) or (images, '
            f"boxes, labels). Received: {spec}"
        )
    check_images(spec[0], detector)
    if len(spec) == 3:
        x = x.map(
            lambda images, boxes, labels: (
                images,
                {"boxes": boxes, "labels": labels},
            )
        )
    channels = detector.input_shape[-1]
    if spec[0].shape[-1] not in (None, channels):
        x = x.map(
            lambda images, targets: (in_channels(images, channels), targets)
        )
    return x.map(_rounded) if keras.backend.backend() == "jax" else x


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
