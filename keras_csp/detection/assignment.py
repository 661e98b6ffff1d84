"""Which prediction answers for which true box: YOLOv3, section 2.1.

A box belongs to an anchor by its shape, and to the cell that holds its centre.
"""

from keras import ops

from keras_csp.detection.boxes import centres, sides
from keras_csp.detection.decoding import stride_of


def padded(boxes, labels):
    """Boxes and labels with one row of padding more, and boxes of 0 in all.

    A batch without any box then needs no case of its own.
    """
    boxes = ops.pad(ops.cast(boxes, "float32"), [(0, 0), (0, 1), (0, 0)])
    labels = ops.cast(labels, "int32")
    labels = ops.pad(labels, [(0, 0), (0, 1)], constant_values=-1)
    return ops.where(labels[..., None] >= 0, boxes, 0.0), labels


def chosen_anchors(boxes, labels, anchors, threshold):
    """{level: `(batch, m, n)`}: 1 where an anchor answers for a box, else 0.

    That is the one whose shape has the largest IoU with the box's, over all
    levels, and those with more than `threshold`.

    Args:
        boxes: `(batch, m, 4)`, x1, y1, x2, y2 in pixels.
        labels: `(batch, m)`, below 0 for padding.
        anchors: {level: n pairs (width, height) in pixels}.
        threshold: of the IoU; 1 chooses the best alone.
    """
    levels = sorted(anchors)
    shapes = [pair for level in levels for pair in anchors[level]]
    shapes = ops.convert_to_tensor(shapes, "float32")
    true = sides(boxes)[:, :, None]
    common = ops.prod(ops.minimum(true, shapes), axis=-1)
    areas = ops.prod(true, axis=-1) + ops.prod(shapes, axis=-1)
    iou = common / (areas - common)
    best = iou >= ops.max(iou, axis=-1, keepdims=True)
    real = (labels >= 0) & (ops.prod(sides(boxes), axis=-1) > 0)
    chosen = ops.cast((best | (iou > threshold)) & real[..., None], "float32")
    result, start = {}, 0
    for level in levels:
        stop = start + len(anchors[level])
        result[level] = chosen[..., start:stop]
        start = stop
    return result


class Grid:
    """The cells of one level, and the n anchors in each.

    Args:
        level: its name, e.g. "P3".
        pairs: its n anchors (width, height) in pixels.
        height, width: of its map, in cells.

    Attributes:
        stride: pixels of the input for one cell.
        anchors: `pairs` as a tensor `(n, 2)`.
        pixels: (width, height) of the input as a tensor.
    """

    def __init__(self, level, pairs, height, width):
        self.level, self.pairs = level, pairs
        self.height, self.width = height, width
        self.stride = stride_of(level)
        self.anchors = ops.convert_to_tensor(pairs, "float32")
        self._sides = ops.cast(ops.stack([width, height]), "float32")
        self.pixels = self.stride * self._sides

    def rows(self, x):
        """A map `(batch, h, w, n c)` as predictions `(batch, h w n, c)`."""
        n = len(self.pairs)
        length = self.height * self.width * n
        return ops.reshape(x, (ops.shape(x)[0], length, x.shape[-1] // n))

    def places(self, boxes):
        """The row of each anchor in the cell of each box: `(batch, m, n)`."""
        cells = ops.cast(self._cells(boxes), "int32")
        cells = cells[..., 1] * self.width + cells[..., 0]
        n = len(self.pairs)
        return cells[..., None] * n + ops.arange(n, dtype="int32")

    def taken(self, rows, places):
        """The predictions at the places: `(batch, m, n, c)`."""
        batch, m, n = ops.shape(places)
        index = ops.reshape(places, (batch, m * n, 1))
        taken = ops.take_along_axis(rows, index, axis=1)
        return ops.reshape(taken, (batch, m, n, rows.shape[-1]))

    def scattered(self, chosen, places):
        """1 at the places of the chosen, else 0: `(batch, h w n)`."""
        batch = ops.shape(chosen)[0]
        length = self.height * self.width * len(self.pairs)
        first = ops.arange(batch, dtype="int32")[:, None, None] * length
        flat = ops.scatter(
            ops.reshape(places + first, (-1, 1)),
            ops.reshape(chosen, (-1,)),
            (batch * length,),
        )
        return ops.reshape(ops.minimum(flat, 1.0), (batch, length))

    def offsets(self, boxes):
        """Where in its cell each box has its centre: `(batch, m, 2)`."""
        offsets = centres(boxes) / self.stride - self._cells(boxes)
        return ops.clip(offsets, 0.0, 1.0)

    def log_sizes(self, boxes):
        """t_w and t_h of each box and anchor, `(batch, m, n, 2)`; sides are
        taken as 1 pixel at least."""
        true = ops.maximum(sides(boxes), 1.0)[:, :, None]
        return ops.log(true / self.anchors)

    def _cells(self, boxes):
        """(column, row) of each box's centre: `(batch, m, 2)`."""
        cells = ops.floor(centres(boxes) / self.stride)
        return ops.clip(cells, 0.0, self._sides - 1)
