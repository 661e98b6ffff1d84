"""A YOLO head: from the numbers of a map to boxes, and back."""

import math

import keras
from keras import ops

from keras_csp._validation import (
    check_choice,
    check_fraction,
    check_positive,
)
from keras_csp.layers.loss_options import as_loss_options

NMS_KINDS = ("iou", "diou")

# exp(t) beyond this is no size of a box, and would overflow.
LARGEST_T = 10.0


@keras.saving.register_keras_serializable(package="keras_csp")
class YoloHead(keras.layers.Layer):
    """x = (column + s(t_x)) stride, w = a_w exp(t_w); y and h alike.

    With the sigmoid S: s(t) = f S(t) - (f - 1) / 2 for f = `scale_x_y`; the
    objectness is S(t_o), the score of class c is S(t_o) S(t_c). With
    `new_coords` no sigmoid is taken (the convolution before has it as its
    activation), and w = a_w (2 t_w)^2.

    In a network's graph the layer stands after the convolution of a head and
    passes its map on as float32. It is the one place that knows what the
    numbers mean: `decode` gives boxes, `encode` what the numbers should be.

    Args:
        anchors: n pairs (a_w, a_h), in pixels of the network's input.
        classes: their number.
        stride: pixels of the input for one position of the map; a pair
            (vertical, horizontal) where the two differ.
        scale_x_y: f. Default 1.
        new_coords: as above. Default False.
        score_threshold, iou_threshold, nms, nms_beta: how a detector's boxes
            are chosen, unless it is told otherwise: as `NonMaxSuppression`.
            Default 0.25, 0.45, "iou", 0.6.
        loss: `LossOptions`, or a dict of some of them: how the head is
            trained, unless `YoloLoss` is told otherwise. Default: theirs.

    Shapes: `(batch, h, w, n (5 + classes))`, of which each anchor has t_x,
    t_y, t_w, t_h, t_o and its classes' t_c, to the same.
    Raises ValueError for arguments out of range, and at build for channels
    that are not n (5 + classes).
    Source: Darknet, src/yolo_layer.c; arXiv 1804.02767, section 2.1.
    """

    def __init__(
        self,
        anchors,
        classes,
        stride,
        scale_x_y=1.0,
        new_coords=False,
        score_threshold=0.25,
        iou_threshold=0.45,
        nms="iou",
        nms_beta=0.6,
        loss=None,
        dtype="float32",
        **kwargs,
    ):
        # Half precision is too coarse for coordinates and scores.
        super().__init__(dtype=dtype, **kwargs)
        self.anchors = _check_anchors(anchors)
        self.classes = check_positive("classes", classes)
        self.stride = _check_stride(stride)
        self.scale_x_y = _check_scale(scale_x_y)
        self.new_coords = check_choice("new_coords", new_coords, (True, False))
        self.score_threshold = check_fraction(
            "score_threshold", score_threshold
        )
        self.iou_threshold = check_fraction("iou_threshold", iou_threshold)
        self.nms = check_choice("nms", nms, NMS_KINDS)
        self.nms_beta = nms_beta
        self.loss = as_loss_options(loss)
        _check_class_weights(self.loss.class_weights, self.classes)

    @property
    def level(self):
        """The pyramid's level: "P3" for a stride of 8; else e.g. "S12"."""
        vertical, horizontal = self.strides
        if vertical != horizontal:
            return f"S{vertical:g}x{horizontal:g}"
        power = math.log2(vertical)
        return f"P{power:g}" if power.is_integer() else f"S{vertical:g}"

    @property
    def strides(self):
        """(vertical, horizontal)"""
        if isinstance(self.stride, tuple):
            return self.stride
        return (self.stride, self.stride)

    def build(self, input_shape):
        expected = len(self.anchors) * (5 + self.classes)
        if input_shape[-1] != expected:
            raise ValueError(
                f"Layer {self.name!r} needs {len(self.anchors)} anchors * (5 + "
                f"{self.classes} classes) = {expected} input channels. "
                f"Received: {input_shape[-1]}"
            )

    def call(self, x):
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def rows(self, x):
        """A map as predictions `(batch, h w n, 5 + classes)`.

        They are in the order of the positions, and at each of the anchors.
        """
        _, height, width, _ = ops.shape(x)
        rows = height * width * len(self.anchors)
        x = ops.cast(x, "float32")
        return ops.reshape(x, (-1, rows, 5 + self.classes))

    def decode(self, x):
        """The boxes of a map, and the score of each for each class.

        Args:
            x: `(batch, h, w, n (5 + classes))`.

        Returns:
            `(batch, h w n, 4)`, x1, y1, x2, y2 in pixels of the input, and
            `(batch, h w n, classes)`, from 0 to 1.
        """
        boxes = self.decode_boxes(x)
        rest = self.rows(x)[..., 4:]
        if not self.new_coords:
            rest = ops.sigmoid(rest)
        return boxes, rest[..., :1] * rest[..., 1:]

    def decode_boxes(self, x):
        """The boxes of `decode` alone."""
        _, height, width, _ = ops.shape(x)
        n = len(self.anchors)
        t = ops.reshape(
            ops.cast(x, "float32"), (-1, height, width, n, 5 + self.classes)
        )
        centre, size = self.decode_cell(t[..., :4])
        centre = (centre + _grid(height, width)) * self.cell_size()
        half = size * self.cell_size() / 2
        boxes = ops.concatenate([centre - half, centre + half], axis=-1)
        return ops.reshape(boxes, (-1, height * width * n, 4))

    def decode_cell(self, t):
        """Centre and size in cells, the centre from its own cell's corner.

        Args:
            t: t_x, t_y, t_w, t_h, `(..., n, 4)`.

        Returns:
            Two tensors of shape `(..., n, 2)`: x, y and width, height.
        """
        centre, size = t[..., :2], t[..., 2:]
        if self.new_coords:
            size = (2 * size) ** 2
        else:
            centre = ops.sigmoid(centre)
            size = ops.exp(ops.minimum(size, LARGEST_T))
        return self.offset(centre), size * self._anchors() / self.cell_size()

    def encode(self, boxes, height, width):
        """The numbers for which `decode` gives the boxes: its inverse.

        Args:
            boxes: `(..., 4)`, x1, y1, x2, y2 in pixels of the input.
            height, width: of the map.

        Returns:
            `(..., 2)`, the column and row of the cell that holds the centre;
            `(..., 2)`, S(t_x) and S(t_y) (with `new_coords` t_x and t_y),
            from 0 to 1; and `(..., n, 2)`, t_w and t_h for each anchor, sides
            being taken as 1 pixel at least.
        """
        boxes = ops.cast(boxes, "float32")
        most = ops.cast(ops.stack([width, height]), "float32") - 1
        cell = ops.clip(ops.floor(self._centre(boxes)), 0.0, most)
        place, size = self.encode_at(boxes[..., None, :], cell[..., None, :])
        least, most = (self._place(offset) for offset in (0.0, 1.0))
        return cell, ops.clip(place[..., 0, :], least, most), size

    def encode_at(self, boxes, cell):
        """The last two of `encode`, of boxes for any cell.

        Args:
            boxes: `(..., n or 1, 4)`, as of `encode`.
            cell: columns and rows, `(..., n or 1, 2)`.

        Returns:
            `(..., n or 1, 2)` and `(..., n, 2)`.
        """
        offset = self._centre(boxes) - cell
        place = self._place(offset)
        sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)
        ratio = sides / self._anchors()
        size = ops.sqrt(ratio) / 2 if self.new_coords else ops.log(ratio)
        return place, size

    def _place(self, offset):
        """The inverse of `offset`."""
        return (offset + (self.scale_x_y - 1) / 2) / self.scale_x_y

    def _centre(self, boxes):
        """Of boxes in pixels, in cells."""
        return (boxes[..., :2] + boxes[..., 2:]) / 2 / self.cell_size()

    def offset(self, place):
        """What `encode` gives as the place, as a distance from the cell."""
        return self.scale_x_y * place - (self.scale_x_y - 1) / 2

    def _anchors(self):
        return ops.convert_to_tensor(self.anchors, "float32")

    def cell_size(self):
        """Width and height of one cell in pixels, a tensor."""
        return ops.convert_to_tensor(self.strides[::-1], "float32")

    def get_config(self):
        return {**super().get_config(), **self.options()}

    def options(self):
        """The arguments that make the head, but those of every layer."""
        stride = self.stride
        return {
            "anchors": [list(pair) for pair in self.anchors],
            "classes": self.classes,
            "stride": list(stride) if isinstance(stride, tuple) else stride,
            "scale_x_y": self.scale_x_y,
            "new_coords": self.new_coords,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "nms": self.nms,
            "nms_beta": self.nms_beta,
            "loss": self.loss.get_config(),
        }


@keras.saving.register_keras_serializable(package="keras_csp")
class PriorBias(keras.initializers.Initializer):
    """Head biases for which every objectness starts at `probability`.

    Nearly all boxes are background: without it the first steps of a training
    do little but learn that. Source: arXiv 1708.02002, section 4.1.
    """

    def __init__(self, channels, probability=0.01):
        self.channels = channels
        self.probability = probability

    def __call__(self, shape, dtype=None):
        odds = math.log(self.probability / (1 - self.probability))
        anchor = [0.0] * 4 + [odds] + [0.0] * (self.channels - 5)
        bias = anchor * (shape[0] // self.channels)
        return keras.ops.convert_to_tensor(bias, dtype)

    def get_config(self):
        return {"channels": self.channels, "probability": self.probability}


def _grid(height, width):
    """(column, row) of each position: (height, width, 1, 2)."""
    columns, rows = ops.meshgrid(
        ops.arange(width, dtype="float32"), ops.arange(height, dtype="float32")
    )
    return ops.expand_dims(ops.stack([columns, rows], axis=-1), 2)


def _check_anchors(anchors):
    pairs = [tuple(map(float, pair)) for pair in anchors]
    if not pairs or any(len(pair) != 2 or min(pair) <= 0 for pair in pairs):
        raise ValueError(
            "`anchors` must be pairs of a positive width and height. "
            f"Received: anchors={anchors!r}"
        )
    return pairs


def _check_class_weights(weights, classes):
    if weights is not None and len(weights) != classes:
        raise ValueError(
            f"`class_weights` must have a weight for each of {classes} "
            f"classes. Received: {len(weights)} weights"
        )


def _check_stride(stride):
    pair = stride if isinstance(stride, (tuple, list)) else (stride, stride)
    if len(pair) != 2 or any(
        isinstance(side, bool) or not side > 0 for side in pair
    ):
        raise ValueError(
            "`stride` must be a positive number of pixels, or a pair of them. "
            f"Received: stride={stride!r}"
        )
    return pair[0] if pair[0] == pair[1] else tuple(pair)


def _check_scale(scale):
    if isinstance(scale, bool) or not scale >= 1:
        raise ValueError(
            "`scale_x_y` must be a number of at least 1. Received: "
            f"scale_x_y={scale!r}"
        )
    return scale
