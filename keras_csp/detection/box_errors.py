"""The error of a predicted box: 1 - IoU or its kin, or Darknet's "mse"."""

from keras import ops

from keras_csp.detection.boxes import (
    SIMILARITIES,
    centre_distance,
    ciou_weight,
    corners,
    shape_difference,
    sides,
)
from keras_csp.layers.yolo_head import LARGEST_T


def box_error(grid, options, t, cell, boxes):
    """The error of predictions of boxes, each for a cell and an anchor.

    Args:
        grid: of the head's map.
        options: `LossOptions`.
        t: t_x, t_y, t_w, t_h, `(..., n, 4)`.
        cell: column and row, `(..., 1, 2)`.
        boxes: x1, y1, x2, y2 in pixels, `(..., n or 1, 4)`.

    Returns:
        `(..., n)`
    """
    head = grid.head
    place, size = head.encode_at(boxes, cell)
    place = ops.broadcast_to(place, ops.shape(t[..., :2]))
    if options.box == "mse":
        return _squared(grid, t, boxes, place, size)
    # In cells, from the corner of the cell that holds the centre.
    centre, predicted = head.decode_cell(t)
    wanted = ops.broadcast_to(sides(boxes) / head.cell_size(), ops.shape(size))
    true = [head.offset(place), wanted]
    if options.gradient == "exact":
        found = corners(ops.concatenate([centre, predicted], axis=-1))
        true = corners(ops.concatenate(true, axis=-1))
        return 1 - SIMILARITIES[options.box](found, true)
    whole = grid.size()
    true = corners(ops.concatenate([part / whole for part in true], axis=-1))
    return 1 - _as_darknet(
        options.box, head, t, centre / whole, predicted / whole, true
    )


def _squared(grid, t, boxes, place, size):
    """Darknet's "mse", whose gradient by t is the difference of t."""
    head = grid.head
    if head.new_coords:
        error = (t[..., :2] - place) ** 2 / 2
    else:
        error = ops.binary_crossentropy(place, t[..., :2], from_logits=True)
    error = head.scale_x_y * error + (t[..., 2:] - size) ** 2 / 2
    fraction = sides(boxes) / grid.pixels()
    scale = 2 - fraction[..., 0] * fraction[..., 1]
    return scale * ops.sum(error, axis=-1)


def _as_darknet(kind, head, t, centre, size, true):
    """IoU or its kin with the gradient of Darknet's dx_box_iou.

    By x and y it goes to t_x and t_y as it is, by w and h to exp(t_w) and
    exp(t_h), or with `new_coords` to t_w and t_h. In the part of the overlap
    the derivative by w and h counts twice (the edges' are not halved), and
    that of CIoU's angle is multiplied by w^2 + h^2.
    """
    steps = ops.minimum(t[..., 2:], LARGEST_T)
    steps = t[..., 2:] if head.new_coords else ops.exp(steps)
    centre = _with_gradient(centre, t[..., :2])
    once = corners(
        ops.concatenate([centre, _with_gradient(size, steps)], axis=-1)
    )
    twice = corners(
        ops.concatenate([centre, _with_gradient(size, 2 * steps)], axis=-1)
    )
    overlap = SIMILARITIES["giou" if kind == "giou" else "iou"](twice, true)
    if kind in ("iou", "giou"):
        return overlap
    value = overlap - centre_distance(once, true)
    if kind == "diou":
        return value
    v = shape_difference(once, true)
    weight = ciou_weight(ops.stop_gradient(overlap), ops.stop_gradient(v))
    diagonal = ops.sum(ops.stop_gradient(size) ** 2, axis=-1)
    return value - _with_gradient(weight * v, weight * diagonal * v)


def _with_gradient(value, other):
    """`value`, with the gradient of `other`."""
    return ops.stop_gradient(value - other) + other
