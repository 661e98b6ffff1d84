"""YOLOv3's loss: the errors of boxes, objectness and classes."""

import keras
from keras import ops

from keras_csp._validation import check_choice, check_fraction
from keras_csp.detection.anchors import split_anchors
from keras_csp.detection.assignment import Grid, chosen_anchors, padded
from keras_csp.detection.boxes import (
    box_ciou,
    box_diou,
    box_giou,
    box_iou,
    corners,
    pairwise_iou,
    sides,
)
from keras_csp.detection.decoding import decode

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
        self.ignore_threshold = check_fraction(
            "ignore_threshold", ignore_threshold
        )
        self.anchor_threshold = check_fraction(
            "anchor_threshold", anchor_threshold
        )
        self.label_smoothing = check_fraction(
            "label_smoothing", label_smoothing
        )
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
        boxes, labels = padded(targets["boxes"], targets["labels"])
        chosen = chosen_anchors(boxes, labels, anchors, self.anchor_threshold)
        parts = []
        for level in sorted(maps):
            x = ops.cast(maps[level], "float32")
            grid = Grid(level, anchors[level], *ops.shape(x)[1:3])
            parts.append(self._level(x, grid, boxes, labels, chosen[level]))
        names = ("box_loss", "objectness_loss", "class_loss")
        weights = (self.box_weight, self.objectness_weight, self.class_weight)
        images = ops.cast(ops.shape(boxes)[0], "float32")
        return {
            name: weight * sum(values) / images
            for name, weight, values in zip(names, weights, zip(*parts))
        }

    def _level(self, x, grid, boxes, labels, chosen):
        """Box, objectness and class loss of one level, summed."""
        rows = grid.rows(x)
        places = grid.places(boxes)
        taken = grid.taken(rows, places)
        objects = grid.scattered(chosen, places)
        counted = ops.maximum(objects, self._negatives(x, grid, boxes))
        class_loss = _cross_entropy(
            taken[..., 5:], self._class_targets(labels, taken.shape[-1] - 5)
        )
        return (
            ops.sum(chosen * self._box_loss(taken[..., :4], grid, boxes)),
            ops.sum(counted * _cross_entropy(rows[..., 4], objects)),
            ops.sum(chosen[..., None] * class_loss),
        )

    def _class_targets(self, labels, classes):
        targets = ops.one_hot(labels, classes, dtype="float32")[:, :, None]
        smoothing = self.label_smoothing
        return targets * (1 - smoothing) + smoothing / 2

    def _box_loss(self, t, grid, boxes):
        """Of every anchor's prediction in the cell of every true box."""
        offsets = ops.broadcast_to(
            grid.offsets(boxes)[:, :, None], ops.shape(t[..., :2])
        )
        if self.box == "mse":
            place = _cross_entropy(t[..., :2], offsets)
            size = (t[..., 2:] - grid.log_sizes(boxes)) ** 2 / 2
            share = sides(boxes) / grid.pixels
            scale = 2 - share[..., 0] * share[..., 1]
            return scale[..., None] * ops.sum(place + size, axis=-1)
        # In cells, from the corner of the cell that holds the centre.
        size = ops.exp(ops.minimum(t[..., 2:], _LARGEST_T))
        size = size * grid.anchors / grid.stride
        true_size = ops.broadcast_to(
            sides(boxes)[:, :, None] / grid.stride, ops.shape(size)
        )
        centre = ops.sigmoid(t[..., :2])
        predicted = corners(ops.concatenate([centre, size], axis=-1))
        true = corners(ops.concatenate([offsets, true_size], axis=-1))
        return 1 - _SIMILARITIES[self.box](predicted, true)

    def _negatives(self, x, grid, boxes):
        """1 for the predictions that no true box comes near, else 0."""
        predicted, _ = decode(ops.stop_gradient(x), grid.level, grid.pairs)
        best = ops.max(pairwise_iou(predicted, boxes), axis=-1)
        return ops.cast(best <= self.ignore_threshold, "float32")

    def get_config(self):
        return dict(vars(self))

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _cross_entropy(logits, targets):
    """-t log S(x) - (1 - t) log(1 - S(x)), of each value."""
    targets = ops.broadcast_to(targets, ops.shape(logits))
    return ops.binary_crossentropy(targets, logits, from_logits=True)


def _weight(argument, value):
    if isinstance(value, bool) or not value >= 0:
        raise ValueError(
            f"`{argument}` must be a number of at least 0. Received: "
            f"{argument}={value!r}"
        )
    return value
