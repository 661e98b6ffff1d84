"""Which prediction answers for which true box: YOLOv3, section 2.1.

A box belongs to an anchor by its shape, and to the cell that holds its centre.
"""

from keras import ops

from keras_csp.detection.boxes import sides


def padded(boxes, labels):
    """Boxes and labels with one row of padding more, and boxes of 0 in all.

    A batch without any box then needs no case of its own.
    """
    boxes = ops.pad(ops.cast(boxes, "float32"), [(0, 0), (0, 1), (0, 0)])
    labels = ops.cast(labels, "int32")
    labels = ops.pad(labels, [(0, 0), (0, 1)], constant_values=-1)
    return ops.where(labels[..., None] >= 0, boxes, 0.0), labels


def assign_anchors(boxes, labels, heads, threshold):
    """`(batch, m, n)` for each head: 1 where an anchor answers for a box.

    That is the one whose shape has the largest IoU with the box's, over all
    heads, and those with more than `threshold`.

    Args:
        boxes: `(batch, m, 4)`, x1, y1, x2, y2 in pixels.
        labels: `(batch, m)`, below 0 for padding.
        heads: `YoloHead`s.
        threshold: of the IoU; 1 chooses the best alone.
    """
    shapes = [pair for head in heads for pair in head.anchors]
    shapes = ops.convert_to_tensor(shapes, "float32")
    true = sides(boxes)[:, :, None]
    common = ops.prod(ops.minimum(true, shapes), axis=-1)
    areas = ops.prod(true, axis=-1) + ops.prod(shapes, axis=-1)
    iou = common / (areas - common)
    best = iou >= ops.max(iou, axis=-1, keepdims=True)
    real = (labels >= 0) & (ops.prod(sides(boxes), axis=-1) > 0)
    chosen = ops.cast((best | (iou > threshold)) & real[..., None], "float32")
    result, start = [], 0
    for head in heads:
        stop = start + len(head.anchors)
        result.append(chosen[..., start:stop])
        start = stop
    return result


class Grid:
    """The rows of predictions of one head, and how boxes find theirs.

    Args:
        head: a `YoloHead`.
        height, width: of its map, in cells.
    """

    def __init__(self, head, height, width):
        self.head, self.height, self.width = head, height, width
        self.anchors = len(head.anchors)

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
        """1 at the places of the chosen, else 0: `(batch, h w n)`."""
        batch = ops.shape(chosen)[0]
        length = self.height * self.width * self.anchors
        first = ops.arange(batch, dtype="int32")[:, None, None] * length
        flat = ops.scatter(
            ops.reshape(places + first, (-1, 1)),
            ops.reshape(chosen, (-1,)),
            (batch * length,),
        )
        return ops.reshape(ops.minimum(flat, 1.0), (batch, length))

    def pixels(self):
        """(width, height) of the input as a tensor."""
        vertical, horizontal = self.head.strides
        sides = ops.cast(ops.stack([self.width, self.height]), "float32")
        return sides * ops.convert_to_tensor([horizontal, vertical], "float32")
