"""YOLO's loss: the errors of boxes, objectness and classes."""

import keras
from keras import ops

from keras_csp.detection.assignment import (
    Grid,
    Slots,
    assign_anchors,
    truth_of,
)
from keras_csp.detection.box_errors import box_error
from keras_csp.detection.boxes import covered, pairwise_iou
from keras_csp.layers.loss_options import as_loss_options

PARTS = ("box_loss", "objectness_loss", "class_loss")
# Of a prediction's area in a region to ignore, as COCO's crowds in training.
_IGNORED_SHARE = 0.5


@keras.saving.register_keras_serializable(package="keras_csp")
class YoloLoss:
    """box + objectness + class, each summed over an image: YOLOv3, section 2.

    Every true box belongs to the anchor whose shape has the largest IoU with
    its own, at that anchor's level, in the cell that holds its centre: that
    prediction answers for the box. (`anchor_threshold` takes further anchors.)

    - box, of those predictions: 1 - IoU, GIoU, DIoU or CIoU; or "mse", as
      Darknet: (2 - w h) times f times the cross-entropy of S(t_x), S(t_y) with
      the place within the cell, plus half the squared error of t_w, t_h, with
      w and h relative to the image and f = `scale_x_y`.
    - objectness, of all predictions: the cross-entropy with 1 for those and 0
      for the others, of which any whose IoU with some true box is above
      `ignore_threshold`, or of whose area more than half lies in a region to
      ignore, are left out.
    - class, of those predictions: the cross-entropy of each class alone. One
      that answers for boxes of several classes has all of them; with an
      `anchor_threshold` below 1 its error of the boxes is then divided by
      their number, as in Darknet.

    The squared error of probabilities, halved, takes the place of the cross-
    entropy for heads with `new_coords`, as in Darknet.

    A head has `LossOptions` of its own: the defaults, or those of its cfg. The
    arguments replace them in all heads.

    Darknet's gradient of the IoU losses is not that of any function: it leaves
    the derivative of the sigmoid and the anchor's size out. Its weights
    (`iou_normalizer`, 0.07 in YOLOv4) are made for that. So `gradient=
    "darknet"`, which heads of a cfg have, computes the same value and that
    gradient; "exact" is the gradient of the value. An anchor of a cfg that no
    `mask` names takes no box: its boxes go to the best of the others.

    Args:
        box: "mse", "iou", "giou", "diou" or "ciou". Default None: the head's.
        **options: others of `keras_csp.layers.LossOptions`.

    Raises ValueError for arguments out of range.
    Source: arXiv 1804.02767; Darknet, src/yolo_layer.c.
    """

    def __init__(self, box=None, **options):
        if box is not None:
            options["box"] = box
        options = {k: v for k, v in options.items() if v is not None}
        as_loss_options(options)  # checks them
        self.options = options

    def __call__(self, targets, maps, heads, sample_weight=None):
        """The three parts, weighted, each the mean over the images.

        Args:
            targets: {"boxes": `(batch, m, 4)` x1, y1, x2, y2 in pixels of the
                input, "labels": `(batch, m)`, below 0 for padding}; besides
                these, if wanted, "box_weights": `(batch, m)`, by which the
                errors of each box are multiplied, and "ignore": `(batch, k,
                4)`, regions in which nothing is trained as background.
            maps: the map of each head, `(batch, h, w, n (5 + classes))`.
            heads: as many `YoloHead`s.
            sample_weight: `(batch,)`, a weight of each image. Default 1.

        Returns:
            {"box_loss", "objectness_loss", "class_loss"}: scalars.
        """
        options = [head.loss.replace(**self.options) for head in heads]
        truth = truth_of(targets)
        chosen = assign_anchors(truth, heads, options)
        sums = [
            _HeadLoss(head, its, truth, ops.cast(x, "float32"), mine).sums()
            for head, its, x, mine in zip(
                heads, options, maps, chosen, strict=True
            )
        ]
        return {
            name: _mean(sum(values), sample_weight)
            for name, values in zip(PARTS, zip(*sums))
        }

    def get_config(self):
        return dict(self.options)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class _HeadLoss:
    """The three errors of one head.

    Args:
        head: a `YoloHead`.
        options: its `LossOptions`.
        truth: of `truth_of`.
        x: the map.
        chosen: of `assign_anchors`, `(batch, m, n)`.
    """

    def __init__(self, head, options, truth, x, chosen):
        self.head, self.options, self.truth = head, options, truth
        self.chosen = chosen
        self.grid = Grid(head, *ops.shape(x)[1:3])
        self.rows = head.rows(x)
        self.cells = self.grid.cells(truth.boxes)
        self.places = self.grid.places(self.cells)
        self.found = self.grid.gather(self.rows, self.places)
        self.slots = Slots(self.cells, chosen, truth, head.classes)
        # Of every prediction, without a gradient: only masks come of them.
        self.predicted = head.decode_boxes(ops.stop_gradient(x))
        self.weights = truth.weights
        if options.class_weights is not None:
            each = ops.convert_to_tensor(options.class_weights, "float32")
            labels = ops.maximum(truth.labels, 0)
            self.weights = self.weights * ops.take(each, labels)

    def sums(self):
        """Box, objectness and class error of each image, weighted."""
        boxes, objectness, classes = self.options.weights()
        overlap = pairwise_iou(self.predicted, self.truth.boxes)
        result = [
            boxes * self._box_errors(),
            objectness * self._objectness_errors(overlap),
            classes * self._class_errors(),
        ]
        if self.options.truth_threshold < 1:
            more = self._errors_of_near(overlap)
            result[0] = result[0] + boxes * more[0]
            result[2] = result[2] + classes * more[1]
        return result

    def _box_errors(self):
        errors = box_error(
            self.grid,
            self.options,
            self.found[..., :4],
            self.cells[:, :, None],
            self.truth.boxes[:, :, None],
        )
        weights = self.chosen * self.weights[..., None]
        if self.options.anchor_threshold < 1:
            weights = weights / ops.maximum(self.slots.classes_in_slot(), 1)
        return ops.sum(weights * errors, axis=(1, 2))

    def _class_errors(self):
        errors = self._errors_of_classes(
            self.found[..., 5:], self.slots.class_targets
        )
        weights = self.slots.share * self.truth.weights[..., None]
        return ops.sum(weights * errors, axis=(1, 2))

    def _errors_of_classes(self, x, hit):
        """Added up; `hit` is 1 for the classes of the boxes, else 0."""
        smoothing = self.options.label_smoothing
        targets = hit * (1 - smoothing) + smoothing / 2
        errors = self._error(x, targets)
        if self.options.class_weights is not None:
            each = ops.convert_to_tensor(self.options.class_weights, "float32")
            errors = errors * (1 - hit + hit * each)
        return ops.sum(errors, axis=-1)

    def _objectness_errors(self, overlap):
        """What each prediction's objectness should be, and whether it counts.

        The order is Darknet's: near a true box, very near, answering for one.
        """
        options = self.options
        best = ops.max(overlap, axis=-1)
        near = best > options.ignore_threshold
        if options.ignore_score > 0:
            near &= self._best_class() > options.ignore_score
        target = ops.zeros_like(best)
        counted = ops.ones_like(best)
        if options.iou_objectness:
            target = ops.where(near, best, target)
        else:
            counted = ops.where(near, 0.0, counted)
        counted = counted * self._outside_ignored()
        if options.truth_threshold < 1:
            hit = best > options.truth_threshold
            wanted = best**2 if options.iou_objectness else 1.0
            target = ops.where(hit, wanted, target)
            counted = ops.where(hit, 1.0, counted)
        if not options.iou_objectness:
            target, counted = self._with_objects(target, counted)
        errors = self._error(self.rows[..., 4], target)
        return ops.sum(counted * errors, axis=1)

    def _with_objects(self, target, counted):
        """1 where a prediction answers for a box, with the box's weight."""
        objects = self.grid.scatter(self.chosen, self.places)
        objects = ops.minimum(objects, 1.0)
        target = ops.maximum(target, objects)
        weights = self.slots.share * self.weights[..., None]
        weights = self.grid.scatter(weights, self.places)
        return target, ops.where(objects > 0, weights, counted)

    def _outside_ignored(self):
        if self.truth.ignore is None:
            return 1.0
        share = covered(self.predicted, self.truth.ignore)
        share = ops.max(share, axis=-1)
        return ops.cast(share <= _IGNORED_SHARE, "float32")

    def _errors_of_near(self, overlap):
        """Boxes and classes of predictions above `truth_threshold`.

        Those that answer for a box in any case are left out.
        """
        objects = self.grid.scatter(self.chosen, self.places)
        best = ops.max(overlap, axis=-1)
        hit = (best > self.options.truth_threshold) & (objects == 0)
        index = ops.argmax(overlap, axis=-1)
        boxes = ops.take_along_axis(self.truth.boxes, index[..., None], axis=1)
        labels = ops.take_along_axis(self.truth.labels, index, axis=1)
        weights = ops.take_along_axis(self.weights, index, axis=1)
        weights = ops.where(hit, weights, 0.0)
        shape = (-1, self.grid.height * self.grid.width, self.grid.anchors)
        errors = box_error(
            self.grid,
            self.options,
            ops.reshape(self.rows[..., :4], (*shape, 4)),
            self.grid.all_cells()[:, None],
            ops.reshape(boxes, (*shape, 4)),
        )
        classes = self._errors_of_classes(
            self.rows[..., 5:],
            ops.one_hot(labels, self.head.classes, dtype="float32"),
        )
        given = ops.take_along_axis(self.truth.weights, index, axis=1)
        given = ops.where(hit, given, 0.0)
        return (
            ops.sum(weights * ops.reshape(errors, ops.shape(weights)), axis=1),
            ops.sum(given * classes, axis=1),
        )

    def _best_class(self):
        best = ops.max(self.rows[..., 5:], axis=-1)
        return best if self.head.new_coords else ops.sigmoid(best)

    def _error(self, x, target):
        """Of a probability: cross-entropy; squared with `new_coords`."""
        if self.head.new_coords:
            return (x - target) ** 2 / 2
        target = ops.broadcast_to(target, ops.shape(x))
        return ops.binary_crossentropy(target, x, from_logits=True)


def _mean(values, sample_weight):
    """Of a value for each image, as Keras weights and averages them."""
    if sample_weight is not None:
        sample_weight = ops.cast(sample_weight, values.dtype)
        values = values * ops.reshape(sample_weight, ops.shape(values))
    return ops.mean(values)
