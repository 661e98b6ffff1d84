"""YoloLoss against loops over everything, written from Darknet's words."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest
from box_formulas import formulas

from keras_csp.detection import BOX_LOSSES, YoloLoss
from keras_csp.layers import YoloHead

ANCHORS = {"P4": ((30, 20), (18, 40)), "P5": ((90, 60), (60, 110))}
CLASSES = 3
HEIGHT, WIDTH = 64, 96
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

    def cross_entropy(self, t, target):
        """Of the probability that t stands for, in Python's floats."""
        p = min(max(self.probability(t), 1e-300), 1 - 1e-16)
        return -target * math.log(p) - (1 - target) * math.log(1 - p)


def shape_iou(w, h, anchor):
    common = min(w, anchor[0]) * min(h, anchor[1])
    return common / (w * h + anchor[0] * anchor[1] - common)


def predicted(t, column, row, anchor, stride, geometry=Geometry()):
    """The box of one prediction, in pixels."""
    x = (column + geometry.place(t[0])) * stride
    y = (row + geometry.place(t[1])) * stride
    w, h = (side * geometry.times(n) for side, n in zip(anchor, t[2:4]))
    return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def loops(targets, maps, anchors, loss, geometry):
    """The three sums over all images, before the weights and the mean."""
    sums = dict.fromkeys(PARTS, 0.0)
    for image, (boxes, labels) in enumerate(
        zip(targets["boxes"].tolist(), targets["labels"].tolist())
    ):
        real = [(box, c) for box, c in zip(boxes, labels) if c >= 0]
        objects = set()
        for box, label in real:
            for level, index in responsible(box, anchors, loss):
                row, column = cell(box, level, maps[level].shape)
                objects.add((level, row, column, index))
                t = prediction(maps, anchors, image, level, row, column, index)
                sums["box_loss"] += box_error(
                    box,
                    t,
                    column,
                    row,
                    level,
                    anchors[level][index],
                    maps,
                    loss,
                    geometry,
                )
                for c in range(CLASSES):
                    target = loss.label_smoothing / 2
                    if c == label:
                        target = 1 - target
                    sums["class_loss"] += geometry.cross_entropy(
                        t[5 + c], target
                    )
        for level, pairs in anchors.items():
            _, height, width, _ = maps[level].shape
            for row, column, index in np.ndindex(height, width, len(pairs)):
                t = prediction(maps, anchors, image, level, row, column, index)
                mine = (level, row, column, index) in objects
                where = predicted(
                    t, column, row, pairs[index], 2 ** int(level[1:]), geometry
                )
                ious = [formulas(where, box)["iou"] for box, _ in real]
                near = any(iou > loss.ignore_threshold for iou in ious)
                if mine or not near:
                    sums["objectness_loss"] += geometry.cross_entropy(
                        t[4], float(mine)
                    )
    return sums


def responsible(box, anchors, loss):
    """The anchors of a box: the best of all, and any above the threshold."""
    w, h = box[2] - box[0], box[3] - box[1]
    iou = {
        (level, index): shape_iou(w, h, anchor)
        for level, pairs in anchors.items()
        for index, anchor in enumerate(pairs)
    }
    best = max(iou, key=iou.get)
    return {best} | {k for k, v in iou.items() if v > loss.anchor_threshold}


def cell(box, level, shape):
    stride = 2 ** int(level[1:])
    column = math.floor((box[0] + box[2]) / 2 / stride)
    row = math.floor((box[1] + box[3]) / 2 / stride)
    return min(row, shape[1] - 1), min(column, shape[2] - 1)


def prediction(maps, anchors, image, level, row, column, index):
    n = len(anchors[level])
    t = maps[level][image, row, column].reshape(n, -1)[index]
    return t.astype("float64").tolist()


def box_error(box, t, column, row, level, anchor, maps, loss, geometry):
    stride = 2 ** int(level[1:])
    w, h = box[2] - box[0], box[3] - box[1]
    if loss.box != "mse":
        where = predicted(t, column, row, anchor, stride, geometry)
        return 1 - formulas(where, box)[loss.box]
    x = (box[0] + box[2]) / 2 / stride - column
    y = (box[1] + box[3]) / 2 / stride - row
    _, height, width, _ = maps[level].shape
    scale = 2 - w / (width * stride) * h / (height * stride)
    return scale * (
        geometry.cross_entropy(t[0], geometry.target(x))
        + geometry.cross_entropy(t[1], geometry.target(y))
        + (t[2] - geometry.size(w / anchor[0])) ** 2 / 2
        + (t[3] - geometry.size(h / anchor[1])) ** 2 / 2
    )


def maps_of(rng, batch, anchors=ANCHORS, spread=1.0, classes=CLASSES):
    maps = {}
    for level, pairs in anchors.items():
        stride = 2 ** int(level[1:])
        shape = (batch, HEIGHT // stride, WIDTH // stride)
        t = rng.normal(0, spread, (*shape, len(pairs) * (5 + classes)))
        maps[level] = t.astype("float32")
    return maps


def targets_of(*images):
    """Each image a list of (x1, y1, x2, y2, label), padded to the longest."""
    most = max(1, *map(len, images))
    boxes = np.zeros((len(images), most, 4), "float32")
    labels = np.full((len(images), most), -1, "int32")
    for index, image in enumerate(images):
        for place, (*box, label) in enumerate(image):
            boxes[index, place] = box
            labels[index, place] = label
    return {"boxes": boxes, "labels": labels}


# Of all sizes; twice two in one cell, of which one pair has one anchor, and
# one pair one box and two classes; an image without boxes; padding.
TARGETS = targets_of(
    [
        (10, 10, 41, 33, 0),
        (12, 11, 42, 30, 2),
        (2, 3, 92, 60, 1),
        (50, 20, 66, 60, 2),
        (50, 20, 66, 60, 0),
    ],
    [],
    [(70, 1, 95.5, 63.5, 1), (0, 40, 17, 47, 0)],
)


def heads_of(anchors, classes=CLASSES, **options):
    return [
        YoloHead(pairs, classes, 2 ** int(level[1:]), **options)
        for level, pairs in anchors.items()
    ]


def answer(loss, targets, maps, anchors=ANCHORS, **options):
    classes = next(iter(maps.values())).shape[-1]
    classes = classes // len(next(iter(anchors.values()))) - 5
    heads = heads_of(anchors, classes, **options)
    parts = loss(targets, [maps[level] for level in anchors], heads)
    assert tuple(parts) == PARTS
    return {name: float(value) for name, value in parts.items()}


def assert_equals_loops(
    loss, targets, maps, anchors=ANCHORS, geometry=Geometry()
):
    expected = loops(targets, maps, anchors, loss, geometry)
    weights = (loss.box_weight, loss.objectness_weight, loss.class_weight)
    parts = answer(loss, targets, maps, anchors, **dataclasses.asdict(geometry))
    for name, weight in zip(PARTS, weights):
        mean = weight * expected[name] / len(targets["labels"])
        assert parts[name] == pytest.approx(mean, rel=2e-5), name


@pytest.mark.parametrize("box", BOX_LOSSES)
def test_every_box_loss_equals_loops(box, rng):
    maps = maps_of(rng, 3)
    assert_equals_loops(YoloLoss(box), TARGETS, maps)


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_threshold": 0.3},
        {"ignore_threshold": 0.0},
        {"ignore_threshold": 1.0},
        {"anchor_threshold": 0.213},
        {"anchor_threshold": 0.6, "box": "mse"},
        {"anchor_threshold": 0.0, "ignore_threshold": 0.5, "box": "giou"},
        {"label_smoothing": 0.2},
        {"label_smoothing": 1.0, "box": "mse"},
        {"box_weight": 0.07, "objectness_weight": 3, "class_weight": 0.5},
        {"box": "mse", "box_weight": 5},
    ],
)
def test_every_option_equals_loops(options, rng):
    maps = maps_of(rng, 3, spread=0.5)
    assert_equals_loops(YoloLoss(**options), TARGETS, maps)


@pytest.mark.parametrize("box", ["mse", "ciou"])
@pytest.mark.parametrize(
    "geometry", [Geometry(1.2), Geometry(2.0, new_coords=True)]
)
def test_every_geometry_equals_loops(box, geometry, rng):
    """YOLOv4's and scaled-YOLOv4's heads can be trained, too."""
    maps = maps_of(rng, 3)
    if geometry.new_coords:  # probabilities, by the convolution's activation
        maps = {k: 1 / (1 + np.exp(-x)) for k, x in maps.items()}
    assert_equals_loops(YoloLoss(box), TARGETS, maps, geometry=geometry)
    plain = answer(YoloLoss(box), TARGETS, maps)["box_loss"]
    options = dataclasses.asdict(geometry)
    other = answer(YoloLoss(box), TARGETS, maps, **options)["box_loss"]
    assert other != pytest.approx(plain, rel=1e-3)


def test_the_options_above_change_something(rng):
    maps = maps_of(rng, 3, spread=0.5)
    default = answer(YoloLoss(), TARGETS, maps)
    for options, part in (
        ({"ignore_threshold": 0.3}, "objectness_loss"),
        ({"anchor_threshold": 0.213}, "box_loss"),
        ({"anchor_threshold": 0.213}, "class_loss"),
        ({"label_smoothing": 0.2}, "class_loss"),
    ):
        assert answer(YoloLoss(**options), TARGETS, maps)[part] != (
            pytest.approx(default[part], rel=1e-3)
        )


@pytest.mark.parametrize("levels", [("P5",), ("P3", "P4", "P5")])
def test_other_levels(levels, rng):
    pairs = [(8, 9), (20, 15), (40, 30), (30, 60), (70, 50), (80, 60)]
    each = len(pairs) // len(levels)
    anchors = {
        level: tuple(pairs[i * each : (i + 1) * each])
        for i, level in enumerate(levels)
    }
    maps = maps_of(rng, 3, anchors)
    loss = YoloLoss("ciou", ignore_threshold=0.5)
    assert_equals_loops(loss, TARGETS, maps, anchors)


def test_a_tiny_case_by_hand():
    """One cell, one anchor of half the image, all maps zero."""
    maps = {"P5": np.zeros((1, 1, 1, 7), "float32")}
    anchors = {"P5": ((16, 16),)}
    targets = targets_of([(4, 4, 20, 28, 1)])
    log2 = math.log(2)
    parts = answer(YoloLoss("mse"), targets, maps, anchors)
    scale = 2 - 16 / 32 * 24 / 32
    size = math.log(24 / 16) ** 2 / 2
    assert parts["box_loss"] == pytest.approx(scale * (2 * log2 + size))
    assert parts["objectness_loss"] == pytest.approx(log2)
    assert parts["class_loss"] == pytest.approx(2 * log2)
    # The prediction is (8, 8, 24, 24): 12 x 16 of 256 + 384 - 192.
    parts = answer(YoloLoss("iou", box_weight=1), targets, maps, anchors)
    assert parts["box_loss"] == pytest.approx(1 - 192 / 448)


def test_padding_is_nothing(rng):
    """Neither its place nor its content counts."""
    maps = maps_of(rng, 3)
    loss = YoloLoss("mse", ignore_threshold=0.1, anchor_threshold=0.3)
    expected = answer(loss, TARGETS, maps)
    boxes = np.pad(TARGETS["boxes"], [(0, 0), (1, 2), (0, 0)])
    boxes[:, -1] = predicted([0, 0, 0, 0], 2, 1, ANCHORS["P4"][0], 16)
    labels = np.pad(TARGETS["labels"], [(0, 0), (1, 2)], constant_values=-1)
    parts = answer(loss, {"boxes": boxes, "labels": labels}, maps)
    assert parts == pytest.approx(expected, rel=1e-6)


def test_images_are_averaged(rng):
    maps = maps_of(rng, 3)
    loss = YoloLoss()
    total = dict.fromkeys(PARTS, 0.0)
    for index in range(3):
        one = {key: value[index : index + 1] for key, value in TARGETS.items()}
        alone = answer(
            loss, one, {k: x[index : index + 1] for k, x in maps.items()}
        )
        total = {name: total[name] + alone[name] / 3 for name in PARTS}
    assert answer(loss, TARGETS, maps) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("most", [0, 2])
def test_no_boxes_at_all(most, rng):
    """All is background: the cross-entropy of every objectness with 0."""
    targets = {
        "boxes": np.zeros((2, most, 4), "float32"),
        "labels": np.full((2, most), -1, "int32"),
    }
    maps = maps_of(rng, 2)
    parts = answer(YoloLoss(), targets, maps)
    t = [x.reshape(2, -1, 5 + CLASSES)[..., 4].ravel() for x in maps.values()]
    expected = np.logaddexp(0, np.concatenate(t)).sum() / 2
    assert parts["box_loss"] == parts["class_loss"] == 0
    assert parts["objectness_loss"] == pytest.approx(expected, rel=1e-5)


def perfect(targets, anchors=ANCHORS, certain=20.0):
    """The maps whose boxes are the targets': the decoding's inverse."""
    rng = np.random.default_rng(0)
    maps = maps_of(rng, len(targets["labels"]), anchors, spread=0.0)
    for level, pairs in anchors.items():
        t = maps[level].reshape(*maps[level].shape[:3], len(pairs), -1)
        t[..., 4:] = -certain
        stride = 2 ** int(level[1:])
        for image, label in np.argwhere(targets["labels"] >= 0):
            box = targets["boxes"][image, label].tolist()
            row, column = cell(box, level, maps[level].shape)
            x = (box[0] + box[2]) / 2 / stride - column
            y = (box[1] + box[3]) / 2 / stride - row
            w, h = box[2] - box[0], box[3] - box[1]
            for place, index in responsible(box, anchors, YoloLoss()):
                if place != level:
                    continue
                anchor = pairs[index]
                t[image, row, column, index, :5] = (
                    math.log(x / (1 - x)),
                    math.log(y / (1 - y)),
                    math.log(w / anchor[0]),
                    math.log(h / anchor[1]),
                    certain,
                )
                c = 5 + targets["labels"][image, label]
                t[image, row, column, index, c] = certain
        maps[level] = t.reshape(maps[level].shape)
    return maps


APART = targets_of(
    [(10, 10, 41, 33, 0), (2, 3, 92, 60, 1)], [(50, 20, 66, 61, 2)]
)


@pytest.mark.parametrize("box", BOX_LOSSES)
def test_perfect_maps_have_the_least_loss(box):
    maps = perfect(APART)
    loss = YoloLoss(box)
    parts = answer(loss, APART, maps)
    assert parts["objectness_loss"] < 1e-5
    assert parts["class_loss"] < 1e-5
    if box == "mse":  # The entropy of the places within the cells is left.
        assert parts["box_loss"] > 0
        for moved in (0.1, -0.1):
            worse = {level: x + moved for level, x in maps.items()}
            assert answer(loss, APART, worse)["box_loss"] > parts["box_loss"]
    else:
        assert parts["box_loss"] < 1e-4


# On the borders and in the corners, outside, without area, reversed.
STRANGE = targets_of(
    [(-20, -10, 20, 10, 0), (76, 44, 116, 84, 1), (0, 0, 96, 64, 2)],
    [(96, 64, 96, 64, 0), (30, 30, 30, 30, 1), (10, 10, 10, 40, 2)],
    [(40, 40, 20, 20, 0), (200, 300, 240, 330, 1), (-90, -90, -50, -60, 2)],
    [],
)


@pytest.mark.parametrize("box", BOX_LOSSES)
def test_gradients_are_finite(box, rng):
    tf = pytest.importorskip("tensorflow")
    loss = YoloLoss(box, anchor_threshold=0.2)
    anchors = {"P5": ANCHORS["P5"], "P4": ANCHORS["P4"]}
    heads = heads_of(anchors)

    @tf.function(reduce_retracing=True)
    def gradients(targets, maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            parts = loss(targets, [maps[k] for k in anchors], heads)
            total = sum(parts.values())
        return total, tape.gradient(total, maps)

    def check(targets, maps):
        total, slopes = gradients(targets, maps)
        assert np.isfinite(total)
        for level, slope in slopes.items():
            assert np.isfinite(slope).all(), level
            assert np.abs(slope).max() > 0, level

    check(STRANGE, maps_of(rng, 4))
    check(STRANGE, maps_of(rng, 4, spread=30))
    check(STRANGE, maps_of(rng, 4, spread=0))
    check(targets_of([], [], [], []), maps_of(rng, 4))
    # Exactly the anchors: the angles of CIoU and the sizes are the same.
    same = targets_of([(1, 2, 31, 22, 0)], [(3, 2, 93, 62, 1)], [], [])
    check(same, maps_of(rng, 4, spread=0))


def test_a_box_without_area_is_not_learned(rng):
    maps = maps_of(rng, 1)
    targets = targets_of([(30, 30, 30, 30, 1), (10, 40, 60, 20, 2)])
    parts = answer(YoloLoss(), targets, maps)
    nothing = answer(YoloLoss(), targets_of([]), maps)
    assert parts == pytest.approx(nothing)


def test_a_centre_on_the_far_border_is_of_the_last_cell(rng):
    """Of the bottom right cell, with its whole side as the offset."""
    maps = maps_of(rng, 1)
    targets = targets_of([(76, 54, 116, 74, 1)])
    assert_equals_loops(YoloLoss("mse"), targets, maps)


def test_the_ignored_are_not_pushed_down():
    """A prediction on a box that another anchor answers for."""
    maps = perfect(APART)
    x = maps["P4"].reshape(2, 4, 6, 2, -1)
    row, column, best = (int(i[0]) for i in np.nonzero(x[0, ..., 4] > 0))
    other = 1 - best
    w, h = 31, 23
    x[0, row, column, other, :2] = x[0, row, column, best, :2]
    a_w, a_h = ANCHORS["P4"][other]
    x[0, row, column, other, 2:4] = math.log(w / a_w), math.log(h / a_h)
    x[0, row, column, other, 4] = 20
    assert answer(YoloLoss(), APART, maps)["objectness_loss"] < 1e-5
    strict = answer(YoloLoss(ignore_threshold=1.0), APART, maps)
    assert strict["objectness_loss"] == pytest.approx(20 / 2, rel=1e-4)


def test_half_precision_maps_are_computed_in_single(rng):
    maps = {k: x.astype("float16") for k, x in maps_of(rng, 3).items()}
    single = {k: x.astype("float32") for k, x in maps.items()}
    assert answer(YoloLoss(), TARGETS, maps) == answer(
        YoloLoss(), TARGETS, single
    )


def test_the_default_weight_of_the_boxes():
    assert YoloLoss("mse").box_weight == 1
    assert YoloLoss("giou").box_weight == YoloLoss().box_weight == 2
    assert YoloLoss().box == "ciou"


def test_configuration_round_trip(rng):
    loss = YoloLoss(
        "diou",
        ignore_threshold=0.4,
        anchor_threshold=0.3,
        box_weight=0.5,
        objectness_weight=2,
        class_weight=3,
        label_smoothing=0.1,
    )
    text = json.dumps(keras.saving.serialize_keras_object(loss))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert again.get_config() == loss.get_config()
    maps = maps_of(rng, 3)
    assert answer(again, TARGETS, maps) == answer(loss, TARGETS, maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": "l2"}, "`box` must be one of 'mse', 'iou', .*box='l2'"),
        ({"ignore_threshold": 1.1}, "0 and 1. Received: ignore_threshold=1.1"),
        ({"anchor_threshold": -1}, "0 and 1. Received: anchor_threshold=-1"),
        ({"label_smoothing": True}, "Received: label_smoothing=True"),
        ({"box_weight": -0.5}, "at least 0. Received: box_weight=-0.5"),
        ({"class_weight": float("nan")}, "Received: class_weight=nan"),
        ({"objectness_weight": True}, "Received: objectness_weight=True"),
    ],
)
def test_wrong_arguments_are_quoted(options, message):
    with pytest.raises(ValueError, match=message):
        YoloLoss(**options)
