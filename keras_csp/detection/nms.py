"""From head outputs to a fixed number of boxes, inside the graph."""

import keras
from keras import ops

from keras_csp._validation import (
    check_choice,
    check_fraction,
    check_positive,
)
from keras_csp.detection.boxes import distance_ratio, pairwise_iou
from keras_csp.layers.yolo_head import NMS_KINDS, YoloHead


@keras.saving.register_keras_serializable(package="keras_csp")
class NonMaxSuppression(keras.layers.Layer):
    """Boxes, scores, classes and count of each image: decoding and NMS.

    In the order of falling score, box i is kept unless a box j < i that is
    kept, of the same class, has an overlap with it above `iou_threshold`:

        keep_i = not any_{j < i} (keep_j and overlap_ij > threshold)

    The overlap is the IoU; or, with nms="diou", IoU - (d^2 / c^2)^beta for
    centres d apart in a hull of diagonal c, both relative to the sides of the
    input, so that boxes of one class side by side are kept.

    The equation is solved by iteration, all images at once: after n rounds
    the first n are right, and a round that changes nothing has found the
    solution. TensorFlow's own suppression takes one image at a time, or is an
    operation that LiteRT lacks, and other backends have none.

    Args:
        heads: `YoloHead`s, one for each map.
        score_threshold: boxes below it are not detections. Default: that of
            the last head, 0.25 for a detector of this package.
        iou_threshold: default: that of the last head, 0.45.
        nms: "iou" or "diou". Default: that of the last head, "iou".
        nms_beta: of "diou". Default: that of the last head, 0.6.
        max_detections: k, per image. Default 100.
        candidates: how many of the best-scored pairs of box and class are
            looked at. Default 512.

    Shapes: a list of maps `(batch, h, w, n (5 + classes))`, one for each head,
    to a dict of "boxes" `(batch, k, 4)` float32, x1, y1, x2, y2 in pixels of
    the input, cut at its edges after the suppression; "scores" `(batch, k)`
    float32; "classes" `(batch, k)` int32; "count" `(batch,)` int32. The rows
    from `count` on are 0, their class -1.
    Raises ValueError for arguments out of range, and for heads of different
    numbers of classes.
    Source: Darknet, src/box.c, do_nms_sort and diounms_sort.
    """

    # Boxes in 8 bits would lie on a grid of a 256th of the image.
    quantizable = False

    def __init__(
        self,
        heads,
        score_threshold=None,
        iou_threshold=None,
        nms=None,
        nms_beta=None,
        max_detections=100,
        candidates=512,
        dtype="float32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        # Configurations: a head is a layer of the network, and no part of
        # this one.
        self._head_configs = tuple(_config(head) for head in heads)
        built = self.heads()
        last = built[-1]
        if {head.classes for head in built} != {last.classes}:
            raise ValueError(
                "`heads` must have one number of classes. Received: "
                f"{[head.classes for head in built]}"
            )
        self.classes = last.classes

        def chosen(value, default):
            return default if value is None else value

        self.score_threshold = check_fraction(
            "score_threshold", chosen(score_threshold, last.score_threshold)
        )
        self.iou_threshold = check_fraction(
            "iou_threshold", chosen(iou_threshold, last.iou_threshold)
        )
        self.nms = check_choice("nms", chosen(nms, last.nms), NMS_KINDS)
        self.nms_beta = chosen(nms_beta, last.nms_beta)
        self.max_detections = check_positive("max_detections", max_detections)
        self.candidates = check_positive("candidates", candidates)
        if candidates < max_detections:
            raise ValueError(
                "`candidates` must be at least `max_detections`. Received: "
                f"candidates={candidates}, max_detections={max_detections}"
            )

    def heads(self):
        """The `YoloHead`s whose maps are decoded."""
        return [YoloHead.from_config(dict(c)) for c in self._head_configs]

    def call(self, maps):
        heads = self.heads()
        decoded = [head.decode(x) for head, x in zip(heads, maps, strict=True)]
        boxes, scores = (
            ops.concatenate(parts, axis=1) for parts in zip(*decoded)
        )
        boxes, scores, classes = self._best(boxes, scores)
        valid = (scores >= self.score_threshold) & (scores > 0)
        sides = _sides(heads[0], maps[0])
        keep = self._suppressed(boxes, classes, valid, sides)
        scores = ops.where(keep, scores, 0.0)
        scores, order = ops.top_k(scores, self.max_detections)
        real = scores > 0
        boxes = ops.minimum(ops.maximum(_rows(boxes, order), 0.0), sides)
        return {
            "boxes": ops.where(real[..., None], boxes, 0.0),
            "scores": scores,
            "classes": ops.where(
                real, ops.take_along_axis(classes, order, axis=1), -1
            ),
            "count": ops.sum(ops.cast(real, "int32"), axis=1),
        }

    def _best(self, boxes, scores):
        """The best pairs of box and class, by falling score.

        They are among the boxes whose best score is one of as many best, so
        that the many other pairs need not be sorted.
        """
        boxes, scores = self._filled(boxes), self._filled(scores)
        _, order = ops.top_k(ops.max(scores, axis=-1), self.candidates)
        boxes, scores = _rows(boxes, order), _rows(scores, order)
        scores = ops.reshape(scores, (-1, self.candidates * self.classes))
        scores, order = ops.top_k(scores, self.candidates)
        return _rows(boxes, order // self.classes), scores, order % self.classes

    def _filled(self, x):
        """Rows of zeros below, where there are fewer than candidates."""
        rows = x.shape[1]
        if rows is not None and rows >= self.candidates:
            return x
        return ops.pad(x, [(0, 0), (0, self.candidates - (rows or 0)), (0, 0)])

    def _suppressed(self, boxes, classes, valid, sides):
        """`keep` of the formula, of boxes sorted by score."""
        overlap = pairwise_iou(boxes, boxes)
        if self.nms == "diou":
            relative = boxes / sides
            overlap -= distance_ratio(relative, relative) ** self.nms_beta
        rank = ops.arange(self.candidates)
        beats = (
            (overlap > self.iou_threshold)
            & (classes[:, :, None] == classes[:, None, :])
            & (rank[None, :] < rank[:, None])
        )
        beats = ops.cast(beats, "float32")  # (batch, i, j): j beats i

        def round_(keep):
            lost = ops.matmul(beats, ops.cast(keep, "float32")[..., None])
            return valid & (lost[..., 0] == 0)

        def unsettled(keep, previous):
            return ops.any(keep != previous)

        keep, _ = ops.while_loop(
            unsettled,
            lambda keep, previous: (round_(keep), keep),
            (round_(valid), valid),
            maximum_iterations=self.candidates,
        )
        return keep

    def compute_output_spec(self, maps):
        batch = maps[0].shape[0]
        k = self.max_detections
        return {
            "boxes": keras.KerasTensor((batch, k, 4), "float32"),
            "scores": keras.KerasTensor((batch, k), "float32"),
            "classes": keras.KerasTensor((batch, k), "int32"),
            "count": keras.KerasTensor((batch,), "int32"),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "heads": [dict(config) for config in self._head_configs],
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "nms": self.nms,
            "nms_beta": self.nms_beta,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
        }


def _config(head):
    """What makes a head, of a `YoloHead` or as `get_config` gives it."""
    # Not `get_config`: Keras looks for TensorFlow to write a dtype.
    if isinstance(head, YoloHead):
        return {"name": head.name, **head.options()}
    config = dict(head)
    return {k: v for k, v in config.items() if k not in ("dtype", "trainable")}


def _sides(head, x):
    """(width, height, width, height) of the input that the map `x` is of."""
    _, height, width, _ = ops.shape(x)
    vertical, horizontal = head.strides
    sides = ops.cast(ops.stack([width, height] * 2), "float32")
    return sides * ops.convert_to_tensor([horizontal, vertical] * 2, "float32")


def _rows(x, order):
    return ops.take_along_axis(x, order[..., None], axis=1)
