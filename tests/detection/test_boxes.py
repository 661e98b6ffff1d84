"""IoU, GIoU, DIoU and CIoU against the papers' formulas."""

import functools
import math

import keras
import numpy as np
import pytest
from box_formulas import formulas
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_csp.detection import box_ciou, box_diou, box_giou, box_iou
from keras_csp.detection.boxes import (
    centres,
    corners,
    pairwise_iou,
    sides,
)

SIMILARITIES = {
    "iou": box_iou,
    "giou": box_giou,
    "diou": box_diou,
    "ciou": box_ciou,
}
# What two boxes may be to each other, at the scale of 1.
CASES = {
    "identical": ([0, 0, 2, 1], [0, 0, 2, 1]),
    "apart": ([0, 0, 1, 1], [3, 4, 5, 6]),
    "touching": ([0, 0, 1, 1], [1, 0, 2, 1]),
    "touching at a corner": ([0, 0, 1, 1], [1, 1, 2, 2]),
    "inside": ([0, 0, 4, 4], [1, 1, 2, 3]),
    "one without area": ([0, 0, 2, 2], [1, 1, 1, 1]),
    "one without width": ([0, 0, 2, 2], [1, 0, 1, 2]),
    "none with area, apart": ([0, 0, 0, 0], [1, 2, 1, 2]),
    "none with area, at one point": ([1, 1, 1, 1], [1, 1, 1, 1]),
    "all zero": ([0, 0, 0, 0], [0, 0, 0, 0]),
    "reversed": ([2, 2, 0, 0], [0, 0, 2, 2]),
    "both reversed": ([2, 1, 0, 0], [2, 1, 0, 0]),
    "reversed in x": ([2, 0, 0, 2], [0, 0, 1, 1]),
}


def random_boxes(rng, count):
    """Within a square of 10, sides from 0.5 to 6."""
    start = rng.uniform(0, 10, (count, 2))
    boxes = np.concatenate([start, start + rng.uniform(0.5, 6, (count, 2))], 1)
    return boxes.astype("float32")


def value(name, box, other):
    box, other = (np.array(b, "float32") for b in (box, other))
    return np.asarray(SIMILARITIES[name](box, other))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_random_pairs(name, rng):
    boxes, others = random_boxes(rng, 400), random_boxes(rng, 400)
    expected = [
        formulas(box, other)[name]
        for box, other in zip(boxes.tolist(), others.tolist())
    ]
    assert 50 < sum(iou == 0 for iou in value("iou", boxes, others)) < 350
    np.testing.assert_allclose(value(name, boxes, others), expected, atol=2e-6)


def test_iou_is_that_of_keras(rng):
    boxes, others = random_boxes(rng, 100), random_boxes(rng, 100)
    table = keras.utils.bounding_boxes.compute_iou(boxes, others, "xyxy")
    expected = np.diagonal(np.asarray(table))
    np.testing.assert_allclose(value("iou", boxes, others), expected, 1e-5)


def test_pairwise_is_one_to_one_of_every_pair(rng):
    """Of all kinds of boxes, reversed and empty ones too."""
    boxes = np.array([case[0] for case in CASES.values()], "float32")
    others = np.concatenate([random_boxes(rng, 9), boxes])[None]
    boxes = np.stack([boxes, boxes[::-1]])
    others = np.concatenate([others, others[:, ::-1]])
    found = keras.ops.convert_to_numpy(pairwise_iou(boxes, others))
    assert found.shape == (2, len(CASES), 9 + len(CASES))
    expected = box_iou(boxes[:, :, None], others[:, None])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pairwise_is_that_of_keras(rng):
    boxes, others = random_boxes(rng, 20), random_boxes(rng, 30)
    theirs = keras.utils.bounding_boxes.compute_iou(boxes, others, "xyxy")
    found = pairwise_iou(boxes, others)
    np.testing.assert_allclose(found, theirs, atol=1e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_symmetric_and_at_most_one(name, rng):
    boxes, others = random_boxes(rng, 100), random_boxes(rng, 100)
    forth, back = value(name, boxes, others), value(name, others, boxes)
    np.testing.assert_allclose(forth, back, atol=1e-6)
    assert forth.max() < 1
    np.testing.assert_allclose(value(name, boxes, boxes), 1, atol=1e-6)


def test_pairs_over_any_axes(rng):
    boxes, others = random_boxes(rng, 24), random_boxes(rng, 24)
    shape = (2, 3, 4, 4)
    for name in SIMILARITIES:
        y = value(name, boxes.reshape(shape), others.reshape(shape))
        flat = value(name, boxes, others)
        np.testing.assert_array_equal(y, flat.reshape(shape[:3]))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("identical", {"iou": 1, "giou": 1, "diou": 1, "ciou": 1}),
        # The hull is 5 x 6, the centres are 4 and 4.5 apart.
        (
            "apart",
            {
                "iou": 0,
                "giou": -(30 - 5) / 30,
                "diou": -(3.5**2 + 4.5**2) / 61,
                "ciou": -(3.5**2 + 4.5**2) / 61,
            },
        ),
        ("touching", {"iou": 0, "giou": 0, "diou": -1 / 5, "ciou": -1 / 5}),
        # 2 of 16; centres (2, 2) and (1.5, 2) in a hull of 4 x 4; v of the
        # angles 45 degrees and atan(1 / 2).
        ("inside", {"iou": 1 / 8, "giou": 1 / 8, "diou": 1 / 8 - 1 / 128}),
        ("one without area", {"iou": 0, "giou": 0, "diou": 0}),
        ("one without width", {"iou": 0, "giou": 0, "diou": 0}),
        ("reversed", {"iou": 0, "giou": 0}),
        ("both reversed", {"iou": 0}),
    ],
)
def test_known_values(case, expected):
    for name, number in expected.items():
        answer = value(name, *CASES[case])
        np.testing.assert_allclose(answer, number, atol=1e-6, err_msg=name)


def test_ciou_of_one_centre_and_two_shapes():
    """2 x 4 and 4 x 2 about one centre: nothing but the shape differs."""
    box, other = [-1, -2, 1, 2], [-2, -1, 2, 1]
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1 / 2)) ** 2
    assert value("diou", box, other) == pytest.approx(4 / 12)
    expected = 4 / 12 - v**2 / (1 - 4 / 12 + v)
    assert value("ciou", box, other) == pytest.approx(expected)


@functools.cache
def traced(name):
    """As a graph, whose optimiser may order the additions otherwise."""
    import tensorflow as tf

    pairs = tf.TensorSpec((None, 4), "float32")

    @tf.function(input_signature=[pairs, pairs])
    def value_and_gradients(boxes, others):
        with tf.GradientTape() as tape:
            tape.watch([boxes, others])
            y = SIMILARITIES[name](boxes, others)
        return y, *tape.gradient(y, [boxes, others])

    return value_and_gradients


def value_and_gradients(name, boxes, others):
    pytest.importorskip("tensorflow")
    pairs = (np.reshape(b, (-1, 4)).astype("float32") for b in (boxes, others))
    return [np.asarray(v) for v in traced(name)(*pairs)]


def assert_finite(name, boxes, others):
    y, *gradients = value_and_gradients(name, boxes, others)
    assert np.isfinite(y).all()
    assert (y >= (0 if name == "iou" else -2) - 1e-5).all()
    assert (y <= 1 + 1e-5).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1, 1e6, 1e-6])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_nothing_is_ever_nan(name, scale):
    boxes, others = zip(*CASES.values())
    boxes, others = scale * np.array(boxes), scale * np.array(others)
    for a, b in ((boxes, others), (others, boxes), (boxes, boxes)):
        assert_finite(name, a, b)


COORDINATES = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e6, -1e6, 1e-6]),
    st.floats(-1e6, 1e6, width=32),
)
BOXES = st.lists(COORDINATES, min_size=4, max_size=4)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(BOXES, BOXES)
def test_no_boxes_make_nan(box, other):
    for name in SIMILARITIES:
        assert_finite(name, box, other)


def test_the_weight_of_the_shape_is_not_differentiated():
    """The gradient is that of -alpha v with alpha held, as in the paper."""
    box, other = [-1, -2, 1, 2], [-2, -1, 2, 1]
    *_, gradient, _ = value_and_gradients("ciou", box, other)
    *_, without, _ = value_and_gradients("diou", box, other)
    angle = math.atan(1 / 2) - math.atan(2)
    v = 4 / math.pi**2 * angle**2
    alpha = v / (1 - 4 / 12 + v)
    # d atan(w / h) / dw = h / (w^2 + h^2), of w = 2 and h = 4.
    by_width = 8 / math.pi**2 * angle * 4 / (2**2 + 4**2)
    assert (gradient - without)[0, 2] == pytest.approx(
        -alpha * by_width, rel=1e-4
    )


@pytest.mark.parametrize("name", SIMILARITIES)
def test_boxes_move_towards_each_other(name):
    """Apart, GIoU, DIoU and CIoU still pull; IoU does not."""
    y, pull, _ = value_and_gradients(name, *CASES["apart"])
    assert y <= 0
    towards = pull[0, :2] + pull[0, 2:]
    assert (towards > 0).all() != (name == "iou")


def test_corners_centres_and_sides():
    boxes = np.array([[1.0, 2, 4, 8], [4, 2, 1, 8]], "float32")
    np.testing.assert_array_equal(np.asarray(sides(boxes)), [[3, 6], [0, 6]])
    middle = np.asarray(centres(boxes))
    np.testing.assert_array_equal(middle, [[2.5, 5], [2.5, 5]])
    wide = np.concatenate([middle, [[3, 6], [3, 6]]], axis=1)
    np.testing.assert_array_equal(np.asarray(corners(wide))[0], boxes[0])
