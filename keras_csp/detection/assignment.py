"""Which prediction answers for which true box: YOLOv3, section 2.1.

A box belongs to an anchor by its shape, and to the cell that holds its centre.
"""

import dataclasses

from keras import ops

from keras_csp.detection.boxes import SIMILARITIES, sides


@dataclasses.dataclass(frozen=True)
class Truth:
    """The true boxes of a batch, with one row of padding more.

    A batch without any box then needs no case of its own.

    Attributes:
        boxes: `(batch, m, 4)`, zeros in padding.
        labels: `(batch, m)`, below 0 for padding.
        weights: `(batch, m)`, of the errors of each box.
        ignore: `(batch, k, 4)`, regions to ignore, or None.
    """

    boxes: object
    labels: object
    weights: object
    ignore: object


def truth_of(targets):
    """The `Truth` of the targets that `YoloLoss` takes."""
    labels = ops.cast(targets["labels"], "int32")
    labels = ops.pad(labels, [(0, 0), (0, 1)], constant_values=-1)
    boxes = ops.cast(targets["boxes"], "float32")
    boxes = ops.pad(boxes, [(0, 0), (0, 1), (0, 0)])
    boxes = ops.where(labels[..., None] >= 0, boxes, 0.0)
    weights = targets.get("box_weights")
    if weights is None:
        weights = ops.ones_like(boxes[..., 0])
    else:
        weights = ops.pad(ops.cast(weights, "float32"), [(0, 0), (0, 1)])
    ignore = targets.get("ignore")
    if ignore is not None:
        ignore = ops.pad(ops.cast(ignore, "float32"), [(0, 0), (0, 1), (0, 0)])
    return Truth(boxes, labels, weights, ignore)


def assign_anchors(truth, heads, options):
    """`(batch, m, n)` for each head: 1 where an anchor answers for a box.

    That is the one whose shape has the largest IoU with the box's, over all
    heads, and those with more than the head's `anchor_threshold` of its
    `anchor_similarity`.

    Args:
        truth: a `Truth`.
        heads: `YoloHead`s.
        options: the `LossOptions` of each.
    """
    shapes = [pair for head in heads for pair in head.anchors]
    true = sides(truth.boxes)
    iou = shape_similarity("iou", true, shapes)
    best = iou >= ops.max(iou, axis=-1, keepdims=True)
    real = (truth.labels >= 0) & (ops.prod(true, axis=-1) > 0)
    result, start = [], 0
    for head, its in zip(heads, options):
        stop = start + len(head.anchors)
        chosen = best[..., start:stop]
        if its.anchor_threshold < 1:
            like = shape_similarity(its.anchor_similarity, true, head.anchors)
            chosen |= like > its.anchor_threshold
        result.append(ops.cast(chosen & real[..., None], "float32"))
        start = stop
    return result


def shape_similarity(kind, true, shapes):
    """IoU, GIoU, DIoU or CIoU of shapes laid upon one centre.

    Args:
        kind: "iou", "giou", "diou" or "ciou".
        true: widths and heights, `(..., 2)`.
        shapes: n pairs.

    Returns:
        `(..., n)`
    """
    shapes = ops.convert_to_tensor(shapes, "float32")
    true = ops.broadcast_to(
        true[..., None, :], (*ops.shape(true)[:-1], *ops.shape(shapes))
    )
    shapes = ops.broadcast_to(shapes, ops.shape(true))
    return SIMILARITIES[kind](_at_origin(true), _at_origin(shapes))


def _at_origin(shapes):
    """Boxes of these widths and heights around 0."""
    return ops.concatenate([-shapes / 2, shapes / 2], axis=-1)


class Slots:
    """What true boxes share that one prediction answers for.

    A slot is an anchor in a cell. Several boxes may have the same; the
    prediction then has the classes of all.

    Args:
        cells: column and row of each box, `(batch, m, 2)`.
        chosen: of `assign_anchors`, `(batch, m, n)`.
        truth: a `Truth`.
        classes: their number.

    Attributes:
        share: `(batch, m, n)`; of the boxes in a slot it adds up to 1; 0
            where the anchor does not answer for the box.
        class_targets: `(batch, m, n, classes)`, 1 for each class of the slot.
    """

    def __init__(self, cells, chosen, truth, classes):
        alike = ops.all(cells[:, :, None] == cells[:, None], axis=-1)
        alike = ops.cast(alike, "float32")
        number = ops.matmul(alike, chosen)
        self.share = chosen / ops.maximum(number, 1)
        labels = ops.one_hot(truth.labels, classes, dtype="float32")
        batch, m, n = ops.shape(chosen)
        each = chosen[..., None] * labels[:, :, None]
        each = ops.reshape(each, (batch, m, n * classes))
        found = ops.reshape(ops.matmul(alike, each), (batch, m, n, classes))
        self.class_targets = ops.minimum(found, 1.0)

    def classes_in_slot(self):
        """How many different ones, `(batch, m, n)`."""
        return ops.sum(self.class_targets, axis=-1)


class Grid:
    """The rows of predictions of one head, and how boxes find theirs.

    Args:
        head: a `YoloHead`.
        height, width: of its map, in cells.
    """

    def __init__(self, head, height, width):
        self.head, self.height, self.width = head, height, width
        self.anchors = len(head.anchors)

    def cells(self, boxes):
        """Column and row of the cell that holds each centre, `(..., 2)`."""
        return self.head.encode(boxes, self.height, self.width)[0]

    def all_cells(self):
        """Column and row of every position, `(h w, 2)`."""
        rows, columns = ops.meshgrid(
            ops.arange(self.height, dtype="float32"),
            ops.arange(self.width, dtype="float32"),
            indexing="ij",
        )
        return ops.reshape(ops.stack([columns, rows], axis=-1), (-1, 2))

    def places(self, cells):
        """The row of each anchor in the cell of each box: `(batch, m, n)`.

        Args:
            cells: the column and row of each box, `(batch, m, 2)`.
        """
        cells = ops.cast(cells, "int32")
        cells = cells[..., 1] * self.width + cells[..., 0]
        anchors = ops.arange(self.anchors, dtype="int32")
        return cells[..., None] * self.anchors + anchors

    def gather(self, rows, places):
        """The predictions at the places: `(batch, m, n, c)`."""
        batch, m, n = ops.shape(places)
        index = ops.reshape(places, (batch, m * n, 1))
        found = ops.take_along_axis(rows, index, axis=1)
        return ops.reshape(found, (batch, m, n, rows.shape[-1]))

    def scatter(self, chosen, places):
        """The sum of the chosen at each place: `(batch, h w n)`."""
        batch = ops.shape(chosen)[0]
        length = self.height * self.width * self.anchors
        first = ops.arange(batch, dtype="int32")[:, None, None] * length
        flat = ops.scatter(
            ops.reshape(places + first, (-1, 1)),
            ops.reshape(chosen, (-1,)),
            (batch * length,),
        )
        return ops.reshape(flat, (batch, length))

    def size(self):
        """(width, height) of the map in cells, a tensor."""
        return ops.cast(ops.stack([self.width, self.height]), "float32")

    def pixels(self):
        """(width, height) of the input as a tensor."""
        vertical, horizontal = self.head.strides
        stride = ops.convert_to_tensor([horizontal, vertical], "float32")
        return self.size() * stride
