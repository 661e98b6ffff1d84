"""YoloLoss against loops over everything, written from Darknet's words."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest
from box_formulas import formulas
from yolo_loss_loops import (
    PARTS,
    PLAIN,
    Geometry,
    cell,
    loops,
    predicted,
    responsible,
)

from keras_csp.detection import BOX_LOSSES, YoloLoss
from keras_csp.layers import LossOptions, YoloHead

ANCHORS = {"P4": ((30, 20), (18, 40)), "P5": ((90, 60), (60, 110))}
CLASSES = 3
HEIGHT, WIDTH = 64, 96


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


def assert_equals_loops(loss, targets, maps, anchors=ANCHORS, geometry=PLAIN):
    options = LossOptions(**loss.options)
    expected = loops(targets, maps, anchors, options, geometry)
    weights = options.weights()
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
        {"ignore_threshold": 0.2, "ignore_score": 0.6},
        {"truth_threshold": 0.4, "ignore_threshold": 0.3},
        {"truth_threshold": 0.4, "ignore_threshold": 0.2, "box": "mse"},
        {"iou_objectness": True, "ignore_threshold": 0.2},
        {
            "iou_objectness": True,
            "ignore_threshold": 0.2,
            "truth_threshold": 0.4,
        },
        {"anchor_threshold": 0.2, "anchor_similarity": "giou"},
        {"class_weights": (0.5, 1, 4), "anchor_threshold": 0.3},
        {"gradient": "darknet"},
        {"gradient": "darknet", "box": "diou"},
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
        ({"ignore_threshold": 0.2}, "objectness_loss"),
        ({"ignore_threshold": 0.2, "ignore_score": 0.6}, "objectness_loss"),
        ({"truth_threshold": 0.4}, "box_loss"),
        ({"truth_threshold": 0.4}, "objectness_loss"),
        ({"truth_threshold": 0.4}, "class_loss"),
        (
            {"iou_objectness": True, "ignore_threshold": 0.2},
            "objectness_loss",
        ),
        ({"class_weights": (0.5, 1, 4)}, "class_loss"),
        ({"class_weights": (0.5, 1, 4)}, "objectness_loss"),
        ({"gradient": "darknet"}, "box_loss"),
    ):
        assert answer(YoloLoss(**options), TARGETS, maps)[part] != (
            pytest.approx(default[part], rel=1e-4)
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
            for place, index in responsible(box, anchors, LossOptions()):
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

    def gradients(targets, maps):
        maps = {level: tf.constant(x) for level, x in maps.items()}
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


def slope_of(loss, targets, maps, **options):
    """The gradient of the sum of the three parts by every map."""
    tf = pytest.importorskip("tensorflow")
    heads = heads_of(ANCHORS, **options)
    tensors = {level: tf.constant(x) for level, x in maps.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        parts = loss(targets, list(tensors.values()), heads)
        total = sum(parts.values())
    return {k: x.numpy() for k, x in tape.gradient(total, tensors).items()}


GEOMETRIES = (PLAIN, Geometry(1.2), Geometry(2.0, new_coords=True))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("box", BOX_LOSSES)
def test_the_gradient_is_that_of_the_loops(box, geometry, rng):
    """By finite differences, CIoU's weight of the angle being constant."""
    maps = maps_of(rng, 3, spread=0.3)
    if geometry.new_coords:
        maps = {k: 1 / (1 + np.exp(-x)) for k, x in maps.items()}
    loss = YoloLoss(box, anchor_threshold=0.5, label_smoothing=0.1)
    slopes = slope_of(loss, TARGETS, maps, **dataclasses.asdict(geometry))
    options = LossOptions(**loss.options)
    alphas = {}

    def total(maps):
        sums = loops(TARGETS, maps, ANCHORS, options, geometry, alphas)
        weighted = zip(options.weights(), (sums[part] for part in PARTS))
        return sum(w * value for w, value in weighted) / 3

    total(maps)
    for level, slope in slopes.items():
        largest = np.argsort(-np.abs(slope.ravel()))[:40:4]
        for place in largest:
            ends = []
            for step in (1e-4, -1e-4):
                moved = {k: x.astype("float64") for k, x in maps.items()}
                moved[level].ravel()[place] += step
                ends.append(total(moved))
            expected = (ends[0] - ends[1]) / 2e-4
            found = slope.ravel()[place]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def darknets_delta(box, t, slot, anchors, maps, options, geometry):
    """What Darknet adds to t_x, t_y, t_w and t_h: delta_yolo_box.

    From the derivatives of the overlap, of the distance of the centres and
    of the angle by x, y, w and h, relative to the image: src/box.c,
    dx_box_iou, which does not halve the overlap's by w and h, and leaves
    1 / (w^2 + h^2) of the angle's out.
    """
    level, row, column, index = slot
    stride = 2 ** int(level[1:])
    _, height, width, _ = maps[level].shape
    whole = (width * stride, height * stride)
    x1, y1, x2, y2 = predicted(
        t, column, row, anchors[level][index], stride, geometry
    )
    at = [
        (x1 + x2) / 2 / whole[0],
        (y1 + y2) / 2 / whole[1],
        (x2 - x1) / whole[0],
        (y2 - y1) / whole[1],
    ]
    true = [n / side for n, side in zip(box, 2 * whole)]

    def parts(x, y, w, h):
        where = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        found = formulas(where, true)
        overlap = found["giou" if options.box == "giou" else "iou"]
        return overlap, found["iou"] - found["diou"], found["v"]

    def slopes(n):
        ends = []
        for step in (1e-6, -1e-6):
            moved = list(at)
            moved[n] += step
            ends.append(parts(*moved))
        return [(a - b) / 2e-6 for a, b in zip(*ends)]

    corners = (
        at[0] - at[2] / 2,
        at[1] - at[3] / 2,
        at[0] + at[2] / 2,
        at[1] + at[3] / 2,
    )
    alpha = formulas(corners, true)["alpha"]
    result = []
    for n in range(4):
        overlap, distance, angle = slopes(n)
        delta = overlap * (2 if n > 1 else 1)
        if options.box in ("diou", "ciou"):
            delta -= distance
        if options.box == "ciou":
            delta -= alpha * angle * (at[2] ** 2 + at[3] ** 2)
        if n > 1 and not geometry.new_coords:
            delta *= math.exp(t[n])
        result.append(delta)
    return result


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("box", BOX_LOSSES[1:])
def test_darknets_gradient(box, geometry, rng):
    maps = maps_of(rng, 1, spread=0.3)
    if geometry.new_coords:
        maps = {k: 1 / (1 + np.exp(-x)) for k, x in maps.items()}
    options = LossOptions(
        box=box,
        gradient="darknet",
        box_weight=0.07,
        objectness_weight=0.0,
        class_weight=0.0,
    )
    targets = targets_of([(10, 12, 43, 30, 0), (3, 3, 90, 58, 1)])
    loss = YoloLoss(**dataclasses.asdict(options))
    slopes = slope_of(loss, targets, maps, **dataclasses.asdict(geometry))
    total = 0
    for values in targets["boxes"][0].tolist():
        ((level, index),) = responsible(values, ANCHORS, options)
        row, column = cell(values, level, maps[level].shape)
        slot = level, row, column, index
        t = maps[level][0, row, column].reshape(2, -1)[index].tolist()
        delta = darknets_delta(
            values, t, slot, ANCHORS, maps, options, geometry
        )
        found = slopes[level][0, row, column].reshape(2, -1)[index, :4]
        expected = [-0.07 * value for value in delta]
        assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
        total += np.abs(found).sum()
    whole = sum(np.abs(slope).sum() for slope in slopes.values())
    assert total == pytest.approx(whole)


def test_weights_of_boxes_and_of_images(rng):
    """A weight of 2 counts as the box twice would, and so does an image's."""
    maps = maps_of(rng, 3)
    loss = YoloLoss()
    weights = np.ones(TARGETS["labels"].shape, "float32")
    same = answer(loss, {**TARGETS, "box_weights": weights}, maps)
    assert same == pytest.approx(answer(loss, TARGETS, maps))
    one = targets_of([(10, 10, 41, 33, 0), (2, 3, 92, 60, 1)])
    maps = {level: x[:1] for level, x in maps.items()}
    parts = {
        weight: answer(
            loss, {**one, "box_weights": np.float32([[weight, 1]])}, maps
        )
        for weight in (0, 1, 3)
    }
    for name in PARTS:
        at_0, at_1, at_3 = (parts[weight][name] for weight in (0, 1, 3))
        assert at_3 - at_0 == pytest.approx(3 * (at_1 - at_0), rel=1e-4)
        assert at_1 > at_0


def test_an_image_of_no_weight_does_not_count(rng):
    maps = maps_of(rng, 3)
    heads, tensors = heads_of(ANCHORS), list(maps.values())
    each = [
        YoloLoss()(TARGETS, tensors, heads, np.eye(3)[index])
        for index in range(3)
    ]
    mixed = YoloLoss()(TARGETS, tensors, heads, np.array([0.5, 2, 0]))
    for name in PARTS:
        expected = 0.5 * float(each[0][name]) + 2 * float(each[1][name])
        assert float(mixed[name]) == pytest.approx(expected, rel=1e-5)


def test_regions_to_ignore(rng):
    """Predictions of which more than half lies there are not background."""
    maps = maps_of(rng, 1)
    regions = np.float32([[[0, 0, 50, 64], [0, 0, 0, 0]]])
    targets = {**targets_of([(55, 8, 90, 60, 1)]), "ignore": regions}
    left, all_of_it = 0.0, 0.0
    objects = {
        (level, *cell((55, 8, 90, 60), level, maps[level].shape), index)
        for level, index in responsible((55, 8, 90, 60), ANCHORS, LossOptions())
    }
    for level, pairs in ANCHORS.items():
        _, height, width, _ = maps[level].shape
        for row, column, index in np.ndindex(height, width, len(pairs)):
            t = maps[level][0, row, column].reshape(2, -1)[index].tolist()
            x1, y1, x2, y2 = predicted(
                t, column, row, pairs[index], 2 ** int(level[1:])
            )
            inside = (min(x2, 50) - max(x1, 0)) * (min(y2, 64) - max(y1, 0))
            share = max(0, inside) / ((x2 - x1) * (y2 - y1))
            mine = (level, row, column, index) in objects
            error = PLAIN.error(t[4], float(mine))
            all_of_it += error
            if mine or share <= 0.5:
                left += error
    loss = YoloLoss(ignore_threshold=1.0)
    found = answer(loss, targets, maps)["objectness_loss"]
    assert found == pytest.approx(left, rel=1e-5)
    assert left < 0.8 * all_of_it


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
