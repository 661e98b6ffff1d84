"""From head outputs to a fixed number of boxes, inside the graph."""

import keras
from keras import ops

from keras_csp._validation import check_fraction, check_positive
from keras_csp.detection.boxes import pairwise_iou
from keras_csp.detection.decoding import decode, stride_of


@keras.saving.register_keras_serializable(package="keras_csp")
class Detections(keras.layers.Layer):
    """Boxes, scores, classes and count of each image: decoding and NMS.

    In the order of falling score, box i is kept unless a box j < i that is
    kept, of the same class, has an IoU with it above `iou_threshold`:

        keep_i = not any_{j < i} (keep_j and IoU_ij > threshold)

    This is solved by iteration, all images at once: after n rounds the first
    n are right, and a round that changes nothing has found the solution.
    TensorFlow's own suppression takes one image at a time, or is an operation
    that LiteRT lacks, and other backends have none.

    Args:
        anchors: {level: pairs (width, height) in pixels of the input}.
        classes: their number.
        score_threshold: boxes below it are not detections. Default 0.25.
        iou_threshold: default 0.45.
        max_detections: k, per image. Default 100.
        candidates: how many of the best-scored pairs of box and class are
            looked at. Default 512.

    Shapes: {level: `(batch, h, w, n (5 + classes))`} to a dict of "boxes"
    `(batch, k, 4)` float32, x1, y1, x2, y2 in pixels of the input, cut at its
    edges after the suppression; "scores" `(batch, k)` float32; "classes"
    `(batch, k)` int32; "count" `(batch,)` int32. The rows from `count` on are
    0, their class -1.
    """

    # Boxes in 8 bits would lie on a grid of a 256th of the image.
    quantizable = False

    def __init__(
        self,
        anchors,
        classes,
        score_threshold=0.25,
        iou_threshold=0.45,
        max_detections=100,
        candidates=512,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.anchors = dict(anchors)
        self.classes = check_positive("classes", classes)
        self.score_threshold = check_fraction(
            "score_threshold", score_threshold
        )
        self.iou_threshold = check_fraction("iou_threshold", iou_threshold)
        self.max_detections = check_positive("max_detections", max_detections)
        self.candidates = check_positive("candidates", candidates)
        if candidates < max_detections:
            raise ValueError(
                "`candidates` must be at least `max_detections`. Received: "
                f"candidates={candidates}, max_detections={max_detections}"
            )

    def call(self, maps):
        boxes, scores, classes = self._best(*self._decoded(maps))
        valid = (scores >= self.score_threshold) & (scores > 0)
        keep = self._suppressed(boxes, classes, valid)
        scores = ops.where(keep, scores, 0.0)
        scores, order = ops.top_k(scores, self.max_detections)
        real = scores > 0
        boxes = _inside(_rows(boxes, order), maps)
        return {
            "boxes": ops.where(real[..., None], boxes, 0.0),
            "scores": scores,
            "classes": ops.where(
                real, ops.take_along_axis(classes, order, axis=1), -1
            ),
            "count": ops.sum(ops.cast(real, "int32"), axis=1),
        }

    def _decoded(self, maps):
        """All boxes in pixels, and their scores of each class."""
        decoded = [
            decode(maps[level], level, pairs)
            for level, pairs in sorted(self.anchors.items())
        ]
        boxes, scores = zip(*decoded)
        return ops.concatenate(boxes, axis=1), ops.concatenate(scores, axis=1)

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

    def _suppressed(self, boxes, classes, valid):
        """`keep` of the formula, of boxes sorted by score."""
        iou = pairwise_iou(boxes, boxes)
        rank = ops.arange(self.candidates)
        beats = (
            (iou > self.iou_threshold)
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
        batch = next(iter(maps.values())).shape[0]
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
            "anchors": self.anchors,
            "classes": self.classes,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
        }


def _inside(boxes, maps):
    """The boxes cut at the edges of the input that the maps are of."""
    level, x = next(iter(maps.items()))
    _, height, width, _ = ops.shape(x)
    sides = ops.cast(ops.stack([width, height] * 2), "float32")
    return ops.minimum(ops.maximum(boxes, 0.0), sides * stride_of(level))


def _rows(x, order):
    return ops.take_along_axis(x, order[..., None], axis=1)
