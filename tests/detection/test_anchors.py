"""Anchors: k-means of 1 - IoU on boxes made and real, and the published."""

import json

import numpy as np
import pytest

from keras_csp.detection import fit_anchors
from keras_csp.detection.anchors import (
    YOLOV3,
    YOLOV3_TINY,
    default_anchors,
    shape_iou,
    split_anchors,
)

LEVELS = ("P3", "P4", "P5")


def clusters(rng, centres, each=40):
    boxes = np.repeat(np.array(centres, "float64"), each, axis=0)
    return rng.permutation(boxes * rng.uniform(0.97, 1.03, boxes.shape))


def mean_best_iou(boxes, anchors):
    """Of each box with its best anchor, one anchor at a time."""
    w, h = np.transpose(boxes)
    best = 0
    for a_w, a_h in anchors:
        common = np.minimum(w, a_w) * np.minimum(h, a_h)
        best = np.maximum(best, common / (w * h + a_w * a_h - common))
    return np.mean(best)


@pytest.mark.parametrize("seed", range(3))
def test_clusters_far_apart_are_found(seed, rng):
    centres = [(0.05, 0.04), (0.1, 0.5), (0.3, 0.3), (0.9, 0.2)]
    boxes = clusters(rng, centres)
    anchors = fit_anchors(boxes, 4, spec=100, seed=seed)
    by_area = sorted(centres, key=np.prod)
    np.testing.assert_allclose(anchors, np.array(by_area) * 100, rtol=0.03)
    assert all(isinstance(side, float) for pair in anchors for side in pair)


def test_an_anchor_is_the_median_of_its_boxes():
    boxes = [(0.1, 0.1), (0.12, 0.1), (0.13, 0.11), (0.8, 0.9)]
    anchors = fit_anchors(boxes, 2, spec=1000)
    assert anchors == ((120.0, 100.0), (800.0, 900.0))


def test_as_many_anchors_as_shapes():
    boxes = [(0.2, 0.1), (0.1, 0.1), (0.2, 0.1), (0.3, 0.5)]
    anchors = fit_anchors(boxes, 3)
    assert anchors == ((41.6, 41.6), (83.2, 41.6), (124.8, 208.0))


@pytest.mark.parametrize(
    "shapes",
    [
        [(0.1, 0.2)],
        [(1, 1)],
        [(0.0001, 0.0001)],  # less than a tenth of a pixel
        [(0.5, 0.02), (0.02, 0.5), (0.02, 0.5001)],  # two of them are alike
        [(0.01 * n, 0.3) for n in range(1, 9)],
    ],
)
@pytest.mark.parametrize("count", [1, 6, 9, 40])
def test_too_few_shapes_are_completed(shapes, count, caplog):
    spec = (96, 192)
    anchors = fit_anchors(5 * shapes, count, spec=spec)
    assert len(set(anchors)) == count == len(anchors)
    areas = np.prod(anchors, axis=1)
    assert (np.diff(areas) >= 0).all() and areas.min() > 0
    assert (np.array(anchors) <= (192, 96)).all()
    pixels = np.maximum(np.multiply(shapes, (192, 96)).round(1), 0.1)
    distinct = len(np.unique(pixels, axis=0))
    assert len(caplog.records) == (count > distinct)
    if count < distinct:
        return
    # The true shapes are among them, and the others have their proportions.
    assert {tuple(shape) for shape in pixels.tolist()} <= set(anchors)
    if count > distinct:
        assert f"for the anchors: {distinct} for {count}." in caplog.text
        assert caplog.records[0].name == "keras_csp"
        assert anchors == fit_anchors(shapes, count, spec=spec, seed=7)


def test_copies_are_on_both_sides_of_the_shape_where_there_is_room():
    """So that the finest and the coarsest heads have anchors of their own."""
    shape = (20.0, 20.0)
    places = {
        size: fit_anchors([(20 / size, 20 / size)], 9, spec=size).index(shape)
        for size in (20, 96, 416)
    }
    # In the middle; last where nothing larger fits into the input.
    assert places == {20: 8, 96: 4, 416: 4}


def test_boxes_alike_but_for_rounding():
    boxes = 0.1 + 1e-9 * np.random.default_rng(0).random((50, 2))
    assert len(set(fit_anchors(boxes, 9))) == 9
    near = np.nextafter(0.1, 1) - 0.1
    boxes = [(0.1, 0.1 + near * n) for n in range(20)]
    assert len(set(fit_anchors(boxes, 9, spec=int(1e6)))) == 9


def test_the_seed_decides(rng):
    boxes = rng.uniform(0.02, 0.9, (300, 2))
    assert fit_anchors(boxes, seed=3) == fit_anchors(boxes, seed=3)
    assert len({fit_anchors(boxes, seed=seed) for seed in range(4)}) > 1


def test_the_input_is_not_written_to(rng):
    boxes = rng.uniform(0.02, 0.9, (50, 2))
    before = boxes.copy()
    fit_anchors(boxes, 5)
    np.testing.assert_array_equal(boxes, before)


def test_more_iterations_match_better(rng):
    boxes = rng.uniform(0.02, 0.9, (500, 2))
    few, many = (
        mean_best_iou(boxes * 416, fit_anchors(boxes, 6, iterations=n))
        for n in (0, 300)
    )
    assert many > few + 0.02


def test_a_data_set_is_asked_for_its_boxes(rng):
    class DataSet:
        def box_sizes(self, spec):
            assert (spec.size, spec.resize) == ((100, 200), "letterbox")
            return sizes * (200, 100)

    sizes = clusters(rng, [(0.1, 0.2), (0.4, 0.5)])
    anchors = fit_anchors(DataSet(), 2, spec=(100, 200))
    assert anchors == fit_anchors(sizes, 2, spec=(100, 200))
    np.testing.assert_allclose(anchors, [(20, 20), (80, 50)], rtol=0.03)


@pytest.mark.parametrize("count", [3, 6, 9])
def test_real_boxes_are_matched_as_well_as_by_euclid(count, shared_data):
    """BCCD's, and the k-means of scikit-learn, which knows no IoU."""
    cluster = pytest.importorskip("sklearn.cluster")
    path = shared_data / "detection/bccd/annotations/instances_train.json"
    objects = json.loads(path.read_text())["annotations"]
    boxes = np.array([entry["bbox"][2:] for entry in objects])
    boxes = boxes * (416 / 640)  # The longer side of all its images.
    euclid = cluster.KMeans(count, n_init=10, random_state=0).fit(boxes)
    theirs = mean_best_iou(boxes, euclid.cluster_centers_)
    ours = mean_best_iou(boxes, fit_anchors(boxes / 416, count))
    assert ours >= theirs


def test_shape_iou(rng):
    boxes, others = rng.uniform(0.1, 9, (7, 2)), rng.uniform(0.1, 9, (5, 2))
    table = shape_iou(boxes, others)
    assert table.shape == (7, 5)
    for box, row in zip(boxes, table):
        best = mean_best_iou([box], others)
        assert row.max() == pytest.approx(best)
    np.testing.assert_allclose(np.diagonal(shape_iou(boxes, boxes)), 1)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((0, 2)), "at least one box. Received: none"),
        ([0.1, 0.2], r"shape \(boxes, 2\). Received: shape \(2,\)"),
        (np.ones((3, 4)), r"Received: shape \(3, 4\)"),
        (
            [(0.1, 0.1), (0.2, 0.0)],
            r"must be positive and finite. Received: \[0.2, 0.0\] among",
        ),
        ([(0.1, 0.1), (-0.2, 0.1)], r"Received: \[-0.2, 0.1\] among"),
        ([(0.1, float("nan")), (0.1, 0.2)], r"Received: \[0.1, nan\] among"),
        ([(float("inf"), 0.1), (0.1, 0.2)], r"Received: \[inf, 0.1\] among"),
    ],
)
def test_boxes_that_cannot_be_clustered_are_quoted(boxes, message):
    with pytest.raises(ValueError, match=message):
        fit_anchors(boxes, 2)


def test_wrong_numbers():
    boxes = [(0.1, 0.1), (0.2, 0.2)]
    with pytest.raises(ValueError, match="anchors=0"):
        fit_anchors(boxes, 0)
    with pytest.raises(ValueError, match=r"size=0.5"):
        fit_anchors(boxes, 2, spec=0.5)
    with pytest.raises(ValueError, match=r"9999 anchors, width.*\[4.0, 2.0\]"):
        fit_anchors(boxes, 9999, spec=(2, 4))


def test_the_published_anchors():
    """As the masks of yolov3.cfg and yolov3-tiny-prn.cfg share them out."""
    anchors = default_anchors(LEVELS)
    assert anchors == {
        "P3": YOLOV3[:3],
        "P4": YOLOV3[3:6],
        "P5": YOLOV3[6:],
    }
    tiny = default_anchors(("P5", "P4"))
    assert tiny == {"P4": YOLOV3_TINY[1:4], "P5": YOLOV3_TINY[3:]}


def test_small_anchors_go_to_the_finest_level():
    pairs = [(9, 9), (1, 2), (30, 1), (2, 2), (7, 8), (50, 60)]
    for levels in (LEVELS, LEVELS[::-1]):
        assert split_anchors(pairs, levels) == {
            "P3": ((1.0, 2.0), (2.0, 2.0)),
            "P4": ((30.0, 1.0), (7.0, 8.0)),
            "P5": ((9.0, 9.0), (50.0, 60.0)),
        }
    assert list(split_anchors(np.array(pairs), ("P4",))) == ["P4"]


def test_a_dict_is_taken_as_it_is():
    anchors = {"P5": [[1, 2]], "P4": [(90, 80), (1, 1)]}
    split = split_anchors(anchors, ("P5", "P4"))
    assert split == {"P4": ((90.0, 80.0), (1.0, 1.0)), "P5": ((1.0, 2.0),)}
    assert list(split) == ["P4", "P5"]


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([(1, 2)] * 4, r"3 levels \['P3', 'P4', 'P5'\]. Received: 4 anchors"),
        ([(1, 2, 3)] * 3, r"pairs .*Received: \(1, 2, 3\) among anchors="),
        ([(1, 0)] * 3, r"Received: \(1, 0\) among"),
        ([1, 2, 3], "Received: 1 among"),
        ([], "`anchors` is empty"),
        ({"P3": [(1, 2)]}, r"levels \['P3', 'P4', 'P5'\]. Received: \['P3'\]"),
        ({"P3": [(1, 2)], "P4": [], "P5": [(1, 1)]}, "`anchors` is empty"),
    ],
)
def test_wrong_anchors_are_quoted(anchors, message):
    with pytest.raises(ValueError, match=message):
        split_anchors(anchors, LEVELS)
