"""The boxes that a head's map stands for, in pixels of the input."""

from keras import ops

from keras_csp.detection.boxes import corners
from keras_csp.layers.yolo import YoloBoxes


def stride_of(level):
    """Pixels for one position of a level: "P3" is 8."""
    return 2 ** int(level[1:])


def decode(x, level, anchors):
    """Every box of a map and its score for each class.

    Args:
        x: `(batch, h, w, n (5 + classes))`.
        level: its name, e.g. "P3".
        anchors: n pairs (width, height) in pixels.

    Returns:
        `(batch, h w n, 4)`, x1, y1, x2, y2 in pixels, and
        `(batch, h w n, classes)`.
    """
    stride = stride_of(level)
    classes = x.shape[-1] // len(anchors) - 5
    layer = YoloBoxes(anchors, classes, stride=stride, dtype="float32")
    rows = layer(ops.cast(x, "float32"))
    _, height, width, _ = ops.shape(x)
    sides = stride * ops.cast(ops.stack([width, height] * 2), "float32")
    return corners(rows[..., :4]) * sides, rows[..., 5:]
