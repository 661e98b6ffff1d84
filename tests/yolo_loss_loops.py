"""YOLO's loss in loops over everything, in Python's floats.

Written from Darknet's words (src/yolo_layer.c), for the tests to compare with.
"""

import collections
import dataclasses
import math

import numpy as np
from box_formulas import formulas

PARTS = ("box_loss", "objectness_loss", "class_loss")


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What the numbers of a map mean: Darknet's options of [yolo]."""

    scale_x_y: float = 1.0
    new_coords: bool = False

    def probability(self, t):
        return t if self.new_coords else sigmoid(t)

    def place(self, t):
        scale = self.scale_x_y
        return scale * self.probability(t) - (scale - 1) / 2

    def times(self, t):
        return (2 * t) ** 2 if self.new_coords else math.exp(t)

    def target(self, place):
        return (place + (self.scale_x_y - 1) / 2) / self.scale_x_y

    def size(self, ratio):
        return math.sqrt(ratio) / 2 if self.new_coords else math.log(ratio)

    def error(self, t, target):
        """Of the probability that t stands for: what the gradient is of.

        Darknet's is target - probability, which it passes to t: to the number
        before the sigmoid, or with new_coords to the probability itself.
        """
        p = self.probability(t)
        if self.new_coords:
            return (p - target) ** 2 / 2
        p = min(max(p, 1e-300), 1 - 1e-16)
        return -target * math.log(p) - (1 - target) * math.log(1 - p)


PLAIN = Geometry()


def predicted(t, column, row, anchor, stride, geometry=PLAIN):
    """The box of one prediction, in pixels."""
    x = (column + geometry.place(t[0])) * stride
    y = (row + geometry.place(t[1])) * stride
    w, h = (side * geometry.times(n) for side, n in zip(anchor, t[2:4]))
    return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def loops(targets, maps, anchors, options, geometry=PLAIN, alphas=None):
    """The three sums over all images, before the weights and the mean.

    `alphas`: a dict, to be filled with CIoU's weight of each box, or whose
    weights are taken: they are not differentiated.

    As Darknet's process_batch goes: over all predictions, then over the true
    boxes and the anchors that answer for them, then over what they share.
    """
    sums = dict.fromkeys(PARTS, 0.0)
    for image, (boxes, labels) in enumerate(
        zip(targets["boxes"].tolist(), targets["labels"].tolist())
    ):
        real = [(box, c) for box, c in zip(boxes, labels) if c >= 0]
        slots = collections.defaultdict(list)
        for box, label in real:
            for level, index in responsible(box, anchors, options):
                row, column = cell(box, level, maps[level].shape)
                slots[level, row, column, index].append((box, label))
        for slot, mine in slots.items():
            t = prediction(maps, anchors, image, *slot)
            classes = {label for _, label in mine}
            shared = len(classes) if options.anchor_threshold < 1 else 1
            for box, label in mine:
                error = box_error(
                    box, t, slot, anchors, maps, options, geometry, alphas
                )
                sums["box_loss"] += weight(options, label) * error / shared
            sums["class_loss"] += class_error(t, classes, options, geometry)
        for level, pairs in anchors.items():
            _, height, width, _ = maps[level].shape
            for place in np.ndindex(height, width, len(pairs)):
                slot = (level, *place)
                t = prediction(maps, anchors, image, *slot)
                sums["objectness_loss"] += objectness_error(
                    t, slot, slots.get(slot), real, anchors, options, geometry
                )
                near = nearest(t, slot, real, anchors, geometry)
                if slot in slots or not near:
                    continue
                iou, box, label = near
                if iou > options.truth_threshold:
                    sums["box_loss"] += weight(options, label) * box_error(
                        box, t, slot, anchors, maps, options, geometry
                    )
                    sums["class_loss"] += class_error(
                        t, {label}, options, geometry
                    )
    return sums


def weight(options, label):
    return 1 if options.class_weights is None else options.class_weights[label]


def nearest(t, slot, real, anchors, geometry):
    """(IoU, box, label) of the true box that a prediction overlaps most."""
    level, row, column, index = slot
    where = predicted(
        t,
        column,
        row,
        anchors[level][index],
        2 ** int(level[1:]),
        geometry,
    )
    found = [(formulas(where, box)["iou"], box, c) for box, c in real]
    return max(found, default=None, key=lambda item: item[0])


def objectness_error(t, slot, mine, real, anchors, options, geometry):
    target, factor = 0.0, 1.0
    near = nearest(t, slot, real, anchors, geometry)
    iou = near[0] if near else 0.0
    certain = max(map(geometry.probability, t[5:])) > options.ignore_score
    if iou > options.ignore_threshold and certain:
        target = iou if options.iou_objectness else 0.0
        factor = 1.0 if options.iou_objectness else 0.0
    if iou > options.truth_threshold:
        target, factor = iou**2 if options.iou_objectness else 1.0, 1.0
    if mine and not options.iou_objectness:
        weights = [weight(options, label) for _, label in mine]
        target, factor = 1.0, sum(weights) / len(weights)
    return factor * geometry.error(t[4], target)


def class_error(t, classes, options, geometry):
    total = 0.0
    for c in range(len(t) - 5):
        target = options.label_smoothing / 2
        if c in classes:
            target = 1 - target
        factor = weight(options, c) if c in classes else 1
        total += factor * geometry.error(t[5 + c], target)
    return total


def responsible(box, anchors, options):
    """The anchors of a box: the best of all, and any above the threshold."""
    w, h = box[2] - box[0], box[3] - box[1]
    like = {
        (level, index): formulas((0, 0, w, h), centred(w, h, anchor))
        for level, pairs in anchors.items()
        for index, anchor in enumerate(pairs)
    }
    best = max(values["iou"] for values in like.values())
    return {
        key
        for key, values in like.items()
        if values["iou"] == best
        or values[options.anchor_similarity] > options.anchor_threshold
    }


def centred(w, h, anchor):
    """A box of the anchor's size in the middle of one at 0."""
    left, top = (w - anchor[0]) / 2, (h - anchor[1]) / 2
    return (left, top, left + anchor[0], top + anchor[1])


def cell(box, level, shape):
    stride = 2 ** int(level[1:])
    column = math.floor((box[0] + box[2]) / 2 / stride)
    row = math.floor((box[1] + box[3]) / 2 / stride)
    return min(row, shape[1] - 1), min(column, shape[2] - 1)


def prediction(maps, anchors, image, level, row, column, index):
    n = len(anchors[level])
    t = maps[level][image, row, column].reshape(n, -1)[index]
    return t.astype("float64").tolist()


def box_error(
    box, t, slot, anchors, maps, options, geometry=PLAIN, alphas=None
):
    level, row, column, index = slot
    anchor = anchors[level][index]
    stride = 2 ** int(level[1:])
    _, height, width, _ = maps[level].shape
    height, width = height * stride, width * stride
    w, h = box[2] - box[0], box[3] - box[1]
    if options.box != "mse":
        where = predicted(t, column, row, anchor, stride, geometry)
        if options.gradient == "darknet":  # relative to the image
            where, box = (
                [n / side for n, side in zip(b, 2 * (width, height))]
                for b in (where, box)
            )
        found = formulas(where, box)
        if options.box != "ciou" or alphas is None:
            return 1 - found[options.box]
        alpha = alphas.setdefault((slot, tuple(box)), found["alpha"])
        return 1 - found["diou"] + alpha * found["v"]
    x = (box[0] + box[2]) / 2 / stride - column
    y = (box[1] + box[3]) / 2 / stride - row
    scale = 2 - w / width * h / height
    return scale * (
        geometry.scale_x_y * geometry.error(t[0], geometry.target(x))
        + geometry.scale_x_y * geometry.error(t[1], geometry.target(y))
        + (t[2] - geometry.size(w / anchor[0])) ** 2 / 2
        + (t[3] - geometry.size(h / anchor[1])) ** 2 / 2
    )
