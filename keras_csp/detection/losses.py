"""YOLOv3's loss: boxes to anchors and cells, and the error of each part."""

import keras
from keras import ops

from keras_csp.detection.anchors import split_anchors
from keras_csp.detection.boxes import (
    box_ciou,
    box_diou,
    box_giou,
    box_iou,
    centres,
    corners,
    sides,
)
from keras_csp.detection.decoding import decode, stride_of
from keras_csp.layers.composite import check_choice

_SIMILARITIES = {
    "iou": box_iou,
    "giou": box_giou,
    "diou": box_diou,
    "ciou": box_ciou,
}
BOX_LOSSES = ("mse", *_SIMILARITIES)

# exp(t) beyond this is no size of a box, and would overflow.
_LARGEST_T = 10.0


@keras.saving.register_keras_serializable(package="keras_csp")
class YoloLoss:
    """box + objectness + class, each summed over an image: YOLOv3, section 2.

    Every true box belongs to the anchor whose shape has the largest IoU with
    its own, at that anchor's level, in the cell that holds its centre.

    - box, of those predictions: 1 - IoU, GIoU, DIoU or CIoU; or "mse", as
      Darknet: (2 - w h) times the cross-entropy of S(t_x), S(t_y) with the
      place within the cell, plus half the squared error of t_w, t_h, with w
      and h relative to the image.
    - objectness, of all predictions: the cross-entropy with 1 for those and 0
      for the others, of which any whose IoU with some true box is above
      `ignore_threshold` are left out.
    - class, of those predictions: the cross-entropy of each class alone.

    Args:
        box: "mse", "iou", "giou", "diou" or "ciou" (default).
        ignore_threshold: default 0.7.
        anchor_threshold: other anchors whose shape has a larger IoU with the
            box's are taken as well. Default 1: only the best, as YOLOv3;
            Darknet's `iou_thresh`, 0.213 in YOLOv4.
        box_weight, objectness_weight, class_weight: of the three parts.
            Default 1 for "mse" boxes, 2 for others; 1; 1.
        label_smoothing: s: class targets become s / 2 and 1 - s / 2. Default
            0.

    Raises ValueError for arguments out of range.
    Source: arXiv 1804.02767; Darknet, src/yolo_layer.c.
    """

    def __init__(
        self,
        box="ciou",
        ignore_threshold=0.7,
        anchor_threshold=1.0,
        box_weight=None,
        objectness_weight=1.0,
        class_weight=1.0,
        label_smoothing=0.0,
    ):
        self.box = check_choice("box", box, BOX_LOSSES)
        if box_weight is None:
            box_weight = 1.0 if box == "mse" else 2.0
        self.ignore_threshold = _share("ignore_threshold", ignore_threshold)
        self.anchor_threshold = _share("anchor_threshold", anchor_threshold)
        self.label_smoothing = _share("label_smoothing", label_smoothing)
        self.box_weight = _weight("box_weight", box_weight)
        self.objectness_weight = _weight("objectness_weight", objectness_weight)
        self.class_weight = _weight("class_weight", class_weight)

    def __call__(self, targets, maps, anchors):
        """The three parts, weighted, each the mean over the images.

        Args:
            targets: {"boxes": `(batch, m, 4)` x1, y1, x2, y2 in pixels of the
                input, "labels": `(batch, m)`, below 0 for padding}.
            maps: {level: `(batch, h, w, n (5 + classes))`}, of the heads.
            anchors: {level: n pairs in pixels}.

        Returns:
            {"box_loss", "objectness_loss", "class_loss"}: scalars.
        """
        anchors = split_anchors(anchors, maps)
        boxes = ops.cast(targets["boxes"], "float32")
        labels = ops.cast(targets["labels"], "int32")
        # One more for padding: no boxes at all have no maximum of IoU.
        boxes = ops.pad(boxes, [(0, 0), (0, 1), (0, 0)])
        labels = ops.pad(labels, [(0, 0), (0, 1)], constant_values=-1)
        boxes = ops.where(labels[..., None] >= 0, boxes, 0.0)
        chosen = _chosen_anchors(boxes, labels, anchors, self.anchor_threshold)
        parts = [
            self._level(
                ops.cast(maps[level], "float32"),
                level,
                anchors[level],
                boxes,
                labels,
                chosen[level],
            )
            for level in sorted(maps)
        ]
        names = ("box_loss", "objectness_loss", "class_loss")
        weights = (self.box_weight, self.objectness_weight, self.class_weight)
        images = ops.cast(ops.shape(boxes)[0], "float32")
        return {
            name: weight * sum(values) / images
            for name, weight, values in zip(names, weights, zip(*parts))
        }

    def _level(self, x, level, anchors, boxes, labels, chosen):
        """Box, objectness and class loss of one level, summed."""
        negatives = self._negatives(x, level, anchors, boxes)
        stride = stride_of(level)
        batch, height, width, channels = ops.shape(x)
        n, m = len(anchors), ops.shape(boxes)[1]
        x = ops.reshape(x, (batch, height * width * n, channels // n))
        places = _places(boxes, stride, height, width, n)
        taken = ops.take_along_axis(
            x, ops.reshape(places, (batch, m * n, 1)), axis=1
        )
        taken = ops.reshape(taken, (batch, m, n, channels // n))
        offsets, wanted = _offsets(boxes, stride, height, width, anchors)
        box_loss = self._box_loss(
            taken[..., :4],
            offsets,
            wanted,
            boxes,
            stride,
            (height, width),
            anchors,
        )
        class_loss = ops.sum(
            _cross_entropy(taken[..., 5:], self._class_targets(labels, taken)),
            axis=-1,
        )
        objects = _scattered(chosen, places, height * width * n)
        objectness_loss = _cross_entropy(x[..., 4], objects)
        return (
            ops.sum(chosen * box_loss),
            ops.sum(ops.maximum(objects, negatives) * objectness_loss),
            ops.sum(chosen * class_loss),
        )

    def _class_targets(self, labels, taken):
        classes = taken.shape[-1] - 5
        targets = ops.one_hot(labels, classes, dtype="float32")[:, :, None]
        smoothing = self.label_smoothing
        return targets * (1 - smoothing) + smoothing / 2

    def _box_loss(self, t, offsets, wanted, boxes, stride, shape, anchors):
        """Of every anchor's prediction in the cell of every true box."""
        if self.box == "mse":
            place = _cross_entropy(t[..., :2], offsets)
            size = (t[..., 2:] - wanted) ** 2 / 2
            share = sides(boxes) / _pixels(stride, *shape)
            scale = 2 - share[..., 0] * share[..., 1]
            return scale[..., None] * ops.sum(place + size, axis=-1)
        # In cells, from the corner of the cell that holds the centre.
        centre = ops.sigmoid(t[..., :2])
        size = _sizes(t[..., 2:], anchors) / stride
        predicted = corners(ops.concatenate([centre, size], axis=-1))
        true_size = ops.broadcast_to(
            sides(boxes)[:, :, None] / stride, ops.shape(size)
        )
        true = corners(ops.concatenate([offsets, true_size], axis=-1))
        return 1 - _SIMILARITIES[self.box](predicted, true)

    def _negatives(self, x, level, anchors, boxes):
        """1 for the predictions that no true box comes near, else 0."""
        predicted, _ = decode(ops.stop_gradient(x), level, anchors)
        iou = keras.utils.bounding_boxes.compute_iou(predicted, boxes, "xyxy")
        best = ops.max(iou, axis=-1)
        return ops.cast(best <= self.ignore_threshold, "float32")

    def get_config(self):
        return dict(vars(self))

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _pixels(stride, height, width):
    """(width, height) of the input, as floats."""
    return stride * ops.cast(ops.stack([width, height]), "float32")


def _chosen_anchors(boxes, labels, anchors, threshold):
    """{level: `(batch, m, n)`}: 1 where an anchor answers for a box, else 0."""
    shapes = [pair for level in sorted(anchors) for pair in anchors[level]]
    shapes = ops.convert_to_tensor(shapes, "float32")
    true = sides(boxes)[:, :, None]
    common = ops.prod(ops.minimum(true, shapes), axis=-1)
    areas = ops.prod(true, axis=-1) + ops.prod(shapes, axis=-1)
    iou = common / (areas - common)
    best = iou >= ops.max(iou, axis=-1, keepdims=True)
    real = (labels >= 0) & (ops.prod(sides(boxes), axis=-1) > 0)
    chosen = (best | (iou > threshold)) & real[..., None]
    chosen = ops.cast(chosen, "float32")
    result, start = {}, 0
    for level in sorted(anchors):
        stop = start + len(anchors[level])
        result[level] = chosen[..., start:stop]
        start = stop
    return result


def _cells(boxes, stride, height, width):
    """(column, row) of the cell that holds each box's centre: (batch, m, 2)."""
    last = ops.cast(ops.stack([width, height]), "float32") - 1
    return ops.clip(ops.floor(centres(boxes) / stride), 0.0, last)


def _places(boxes, stride, height, width, n):
    """Index of each box's cell and each anchor in the flat map."""
    cells = ops.cast(_cells(boxes, stride, height, width), "int32")
    cells = cells[..., 1] * width + cells[..., 0]
    return cells[..., None] * n + ops.arange(n, dtype="int32")


def _offsets(boxes, stride, height, width, anchors):
    """What S(t_x), S(t_y) and t_w, t_h should be: (batch, m, n, 2) each."""
    cells = _cells(boxes, stride, height, width)
    offsets = ops.clip(centres(boxes) / stride - cells, 0.0, 1.0)
    shapes = ops.convert_to_tensor(anchors, "float32")
    true = ops.maximum(sides(boxes), 1.0)[:, :, None]
    wanted = ops.log(true / shapes)
    offsets = ops.broadcast_to(offsets[:, :, None], ops.shape(wanted))
    return offsets, wanted


def _sizes(t, anchors):
    """Width and height in pixels."""
    shapes = ops.convert_to_tensor(anchors, "float32")
    return shapes * ops.exp(ops.minimum(t, _LARGEST_T))


def _scattered(chosen, places, length):
    """1 at the places of the chosen, (batch, length)."""
    batch = ops.shape(chosen)[0]
    first = ops.arange(batch, dtype="int32")[:, None, None] * length
    flat = ops.scatter(
        ops.reshape(places + first, (-1, 1)),
        ops.reshape(chosen, (-1,)),
        (batch * length,),
    )
    return ops.reshape(ops.minimum(flat, 1.0), (batch, length))


def _cross_entropy(logits, targets):
    """-t log S(x) - (1 - t) log(1 - S(x)), without overflow."""
    return (
        ops.maximum(logits, 0)
        - logits * targets
        + ops.log1p(ops.exp(-ops.abs(logits)))
    )


def _share(argument, value):
    if isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(
            f"`{argument}` must be between 0 and 1. Received: "
            f"{argument}={value!r}"
        )
    return value


def _weight(argument, value):
    if isinstance(value, bool) or not value >= 0:
        raise ValueError(
            f"`{argument}` must be a number of at least 0. Received: "
            f"{argument}={value!r}"
        )
    return value
