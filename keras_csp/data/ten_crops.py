"""The paper's ten views of an image, for a classifier's test."""

import tensorflow as tf

SHIFT = 32  # of the paper's ten crops, pixels


def ten_crops(image, size, shift=SHIFT):
    """The paper's ten views of an image.

    It is squashed into a square of size + shift; squares of `size` are cut at
    `shift` to the four corners and at its upper left corner itself, pixels
    outside repeating the border; and the same five from its mirror image.
    Source: Darknet, src/classifier.c, validate_classifier_10.

    Args:
        image: `(h, w, channels)` uint8.
        size: side of the crops.
        shift: pixels. Default 32.

    Returns:
        float32 `(10, size, size, channels)` in [0, 1].
    """
    side = size + shift
    # Darknet's resize_image: bilinear, corner on corner, no antialiasing.
    squashed = tf.raw_ops.ResizeBilinear(
        images=image[None], size=[side, side], align_corners=True
    )[0]
    crops = [
        _crop(view / 255.0, size, top, left)
        for view in (squashed, tf.reverse(squashed, [1]))
        for left, top in _corners(shift)
    ]
    return tf.stack(crops)


def _corners(shift):
    """(left, top) in Darknet's order."""
    return (
        (-shift, -shift),
        (shift, -shift),
        (0, 0),
        (-shift, shift),
        (shift, shift),
    )


def _crop(image, size, top, left):
    limit = tf.shape(image)[0] - 1
    rows = tf.clip_by_value(tf.range(size) + top, 0, limit)
    columns = tf.clip_by_value(tf.range(size) + left, 0, limit)
    return tf.gather(tf.gather(image, rows), columns, axis=1)
