"""How well two boxes match: IoU, GIoU, DIoU and CIoU, and the losses 1 - them.

Boxes are (x1, y1, x2, y2), in any unit. Those without area, reversed ones
included, have an area of zero; no value or gradient is ever NaN.
"""

import math

from keras import ops

# Added to what is divided by: far below the square of a pixel or of 1/1000.
_EPSILON = 1e-9


def box_iou(boxes, others):
    """IoU = |A and B| / |A or B|.

    Args:
        boxes, others: `(..., 4)` each, paired one to one.

    Returns:
        `(...)`, from 0 to 1.
    """
    return _overlap(boxes, others)[0]


def pairwise_iou(boxes, others):
    """IoU of every box with every other one.

    `keras.utils.bounding_boxes.compute_iou` looks for TensorFlow on every
    backend, and fails where that cannot be imported.

    Args:
        boxes: `(..., n, 4)`.
        others: `(..., m, 4)`.

    Returns:
        `(..., n, m)`, from 0 to 1.
    """
    common = _common_area(boxes, others)
    area, other_area = _area(boxes)[..., None], _area(others)[..., None, :]
    return common / (area + other_area - common + _EPSILON)


def covered(boxes, regions):
    """The share of each box's area that lies in each region.

    Args:
        boxes: `(..., n, 4)`.
        regions: `(..., m, 4)`.

    Returns:
        `(..., n, m)`, from 0 to 1.
    """
    return _common_area(boxes, regions) / (_area(boxes)[..., None] + _EPSILON)


def distance_ratio(boxes, others):
    """d^2 / c^2 of every box with every other one.

    Centres d apart, in a hull of diagonal c; 0 where the hull is a point.

    Args:
        boxes: `(..., n, 4)`.
        others: `(..., m, 4)`.

    Returns:
        `(..., n, m)`, from 0 to 1.
    """
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    return centre_distance(boxes, others)


def box_giou(boxes, others):
    """GIoU = IoU - (|C| - |A or B|) / |C|, C the smallest box around both.

    Shapes as `box_iou`, from -1 to 1. Source: arXiv 1902.09630.
    """
    iou, union = _overlap(boxes, others)
    sides = _hull(boxes, others)
    hull = sides[..., 0] * sides[..., 1]
    return iou - ops.maximum(hull - union, 0) / (hull + _EPSILON)


def box_diou(boxes, others):
    """DIoU = IoU - d^2 / c^2: centres d apart, in a hull of diagonal c.

    Shapes as `box_iou`, from -1 to 1. Source: arXiv 1911.08287.
    """
    iou, _ = _overlap(boxes, others)
    return iou - centre_distance(boxes, others)


def box_ciou(boxes, others):
    """CIoU = DIoU - v^2 / (1 - IoU + v), v of the difference in shape.

    v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2; its weight v / (1 - IoU + v)
    is not differentiated. Shapes as `box_iou`. Source: arXiv 1911.08287.
    """
    iou, _ = _overlap(boxes, others)
    v = shape_difference(boxes, others)
    weight = ops.stop_gradient(ciou_weight(iou, v))
    return iou - centre_distance(boxes, others) - weight * v


def shape_difference(boxes, others):
    """CIoU's v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2."""
    return (4 / math.pi**2) * (_angle(boxes) - _angle(others)) ** 2


def ciou_weight(iou, v):
    """v / (1 - IoU + v), CIoU's weight of v; 0 where both boxes are equal."""
    # Not "+ _EPSILON": TensorFlow's graphs would add it to the 1, and lose it.
    return v / ops.maximum(1 - iou + v, _EPSILON)


SIMILARITIES = {
    "iou": box_iou,
    "giou": box_giou,
    "diou": box_diou,
    "ciou": box_ciou,
}


def sides(boxes):
    """Width and height `(..., 2)`, zero where a box is reversed."""
    return ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)


def centres(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def corners(boxes):
    """(x, y, width, height), x and y of the centre, to (x1, y1, x2, y2)."""
    half = boxes[..., 2:4] / 2
    centre = boxes[..., :2]
    return ops.concatenate([centre - half, centre + half], axis=-1)


def _area(boxes):
    width_height = sides(boxes)
    return width_height[..., 0] * width_height[..., 1]


def _common_area(boxes, others):
    """Of every box with every other one."""
    # By coordinate: of all pairs, no map is larger than the result.
    x1, y1, x2, y2 = (boxes[..., index, None] for index in range(4))
    u1, v1, u2, v2 = (others[..., None, :, index] for index in range(4))
    width = ops.maximum(ops.minimum(x2, u2) - ops.maximum(x1, u1), 0)
    height = ops.maximum(ops.minimum(y2, v2) - ops.maximum(y1, v1), 0)
    area, other_area = _area(boxes)[..., None], _area(others)[..., None, :]
    # Reversed boxes overlap nothing, whatever their corners say.
    return ops.minimum(width * height, ops.minimum(area, other_area))


def _overlap(boxes, others):
    """IoU and the area of the union."""
    top_left = ops.maximum(boxes[..., :2], others[..., :2])
    bottom_right = ops.minimum(boxes[..., 2:], others[..., 2:])
    common = ops.maximum(bottom_right - top_left, 0)
    intersection = common[..., 0] * common[..., 1]
    # Reversed boxes overlap nothing, whatever their corners say.
    area, other_area = _area(boxes), _area(others)
    intersection = ops.minimum(intersection, ops.minimum(area, other_area))
    union = area + other_area - intersection
    return intersection / (union + _EPSILON), union


def _hull(boxes, others):
    """Width and height of the smallest box around both."""
    corner_pairs = (boxes[..., 2:], others[..., :2], others[..., 2:])
    least = most = boxes[..., :2]
    for pair in corner_pairs:
        least, most = ops.minimum(least, pair), ops.maximum(most, pair)
    return most - least


def centre_distance(boxes, others):
    """d^2 / c^2: centres d apart, in a hull of diagonal c; `(...)`."""
    apart = ops.sum((centres(boxes) - centres(others)) ** 2, axis=-1)
    diagonal = ops.sum(_hull(boxes, others) ** 2, axis=-1)
    return apart / (diagonal + _EPSILON)


def _angle(boxes):
    """atan(w / h)."""
    width_height = sides(boxes)
    return ops.arctan(width_height[..., 0] / (width_height[..., 1] + _EPSILON))
