"""YOLOv3's loss: the errors of boxes, objectness and classes."""

import keras
from keras import ops

from keras_csp._validation import check_choice, check_fraction
from keras_csp.detection.assignment import Grid, assign_anchors, padded
from keras_csp.detection.boxes import (
    box_ciou,
    box_diou,
    box_giou,
    box_iou,
    corners,
    pairwise_iou,
    sides,
)

_SIMILARITIES = {
    "iou": box_iou,
    "giou": box_giou,
    "diou": box_diou,
    "ciou": box_ciou,
}
BOX_LOSSES = ("mse", *_SIMILARITIES)


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

    def __call__(self, targets, maps, heads):
        """The three parts, weighted, each the mean over the images.

        Args:
            targets: {"boxes": `(batch, m, 4)` x1, y1, x2, y2 in pixels of the
                input, "labels": `(batch, m)`, below 0 for padding}.
            maps: the map of each head, `(batch, h, w, n (5 + classes))`.
            heads: as many `YoloHead`s.

        Returns:
            {"box_loss", "objectness_loss", "class_loss"}: scalars.
        """
        boxes, labels = padded(targets["boxes"], targets["labels"])
        chosen = assign_anchors(boxes, labels, heads, self.anchor_threshold)
        parts = [
            self._level(head, x, boxes, labels, mine)
            for head, x, mine in zip(heads, maps, chosen, strict=True)
        ]
        names = ("box_loss", "objectness_loss", "class_loss")
        weights = (self.box_weight, self.objectness_weight, self.class_weight)
        images = ops.cast(ops.shape(boxes)[0], "float32")
        return {
            name: weight * sum(values) / images
            for name, weight, values in zip(names, weights, zip(*parts))
        }

    def _level(self, head, x, boxes, labels, chosen):
        """Box, objectness and class loss of one head, summed."""
        grid = Grid(head, *ops.shape(x)[1:3])
        rows = head.rows(x)
        cells, place, size = head.encode(boxes, grid.height, grid.width)
        places = grid.places(cells)
        found = grid.gather(rows, places)
        objects = grid.scatter(chosen, places)
        counted = ops.maximum(objects, self._negatives(head, x, boxes))
        # With `new_coords` a map holds probabilities, not their logits.
        logits = not head.new_coords
        errors = self._box_loss(found[..., :4], grid, boxes, place, size)
        objectness = _cross_entropy(rows[..., 4], objects, logits)
        classes = _cross_entropy(
            found[..., 5:], self._class_targets(labels, head.classes), logits
        )
        return (
            ops.sum(chosen * errors),
            ops.sum(counted * objectness),
            ops.sum(chosen[..., None] * classes),
        )

    def _class_targets(self, labels, classes):
        targets = ops.one_hot(labels, classes, dtype="float32")[:, :, None]
        smoothing = self.label_smoothing
        return targets * (1 - smoothing) + smoothing / 2

    def _box_loss(self, t, grid, boxes, place, size):
        """The error of every anchor's prediction in the cell of every true box.

        Args:
            t: the predictions, `(batch, m, n, 4)`.
            place, size: what they should be, as `YoloHead.encode` gives it.
        """
        head = grid.head
        place = ops.broadcast_to(place[:, :, None], ops.shape(t[..., :2]))
        if self.box == "mse":
            error = _cross_entropy(t[..., :2], place, not head.new_coords)
            error = error + (t[..., 2:] - size) ** 2 / 2
            fraction = sides(boxes) / grid.pixels()
            scale = 2 - fraction[..., 0] * fraction[..., 1]
            return scale[..., None] * ops.sum(error, axis=-1)
        # In cells, from the corner of the cell that holds the centre.
        cell = ops.concatenate(head.decode_cell(t), axis=-1)
        true_size = sides(boxes)[:, :, None] / head.cell_size()
        true_size = ops.broadcast_to(true_size, ops.shape(size))
        true = ops.concatenate([head.offset(place), true_size], axis=-1)
        return 1 - _SIMILARITIES[self.box](corners(cell), corners(true))

    def _negatives(self, head, x, boxes):
        """1 for the predictions that no true box comes near, else 0."""
        predicted = head.decode_boxes(ops.stop_gradient(x))
        best = ops.max(pairwise_iou(predicted, boxes), axis=-1)
        return ops.cast(best <= self.ignore_threshold, "float32")

    def get_config(self):
        return dict(vars(self))

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _cross_entropy(x, targets, logits):
    """-t log p - (1 - t) log(1 - p) of each value, p = S(x) of logits."""
    targets = ops.broadcast_to(targets, ops.shape(x))
    return ops.binary_crossentropy(targets, x, from_logits=logits)


def _weight(argument, value):
    if isinstance(value, bool) or not value >= 0:
        raise ValueError(
            f"`{argument}` must be a number of at least 0. Received: "
            f"{argument}={value!r}"
        )
    return value
