"""NonMaxSuppression against TensorFlow's and a greedy one in Python."""

import keras
import numpy as np
import pytest
from support import reload_config

from keras_csp.detection import NonMaxSuppression
from keras_csp.layers import YoloHead

ANCHORS = {"P3": ((10, 14), (23, 27)), "P4": ((37, 58),)}
CLASSES = 3


def heads_of(anchors, classes=CLASSES, **options):
    return [
        YoloHead(pairs, classes, 2 ** int(level[1:]), **options)
        for level, pairs in sorted(anchors.items())
    ]


def listed(maps):
    """The maps in the order of `heads_of`."""
    return [maps[level] for level in sorted(maps)]


def logit(p):
    return np.log(p) - np.log1p(-p)


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def maps_of(rng, batch=2, sides=(3, 4), shift=0.0):
    """Random head outputs for an image of so many times 16 pixels."""
    maps = {}
    for level, pairs in ANCHORS.items():
        height, width = (16 * side // 2 ** int(level[1:]) for side in sides)
        shape = (batch, height, width, len(pairs), 5 + CLASSES)
        t = rng.normal(size=shape)
        t[..., 2:4] += 0.7  # Large enough to meet each other.
        t[..., 4:] = 2 * t[..., 4:] + shift
        t = t.reshape(*shape[:3], -1).astype("float32")
        maps[level] = t
    return maps


def decoded(maps):
    """Boxes and scores of every prediction, in float64."""
    boxes, scores = [], []
    for level in sorted(maps):
        t, stride = maps[level].astype("float64"), 2 ** int(level[1:])
        batch, height, width, _ = t.shape
        t = t.reshape(batch, height, width, -1, 5 + CLASSES)
        rows, columns = np.mgrid[:height, :width]
        x = (sigmoid(t[..., 0]) + columns[..., None]) * stride
        y = (sigmoid(t[..., 1]) + rows[..., None]) * stride
        half_w, half_h = (
            np.array(ANCHORS[level])[:, k] * np.exp(t[..., 2 + k]) / 2
            for k in range(2)
        )
        box = np.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)
        boxes.append(box.reshape(batch, -1, 4))
        score = sigmoid(t[..., 4:5]) * sigmoid(t[..., 5:])
        scores.append(score.reshape(batch, -1, CLASSES))
    return np.concatenate(boxes, 1), np.concatenate(scores, 1)


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height or 1)


def greedy(boxes, scores, score_threshold, iou_threshold, overlap=iou):
    """[(score, class, box)] of one image, by falling score."""
    kept = []
    for c in range(scores.shape[1]):
        mine = []
        for i in np.argsort(-scores[:, c], kind="stable"):
            if scores[i, c] < score_threshold:
                break
            if all(overlap(boxes[i], b) <= iou_threshold for _, _, b in mine):
                mine.append((scores[i, c], c, boxes[i]))
        kept += mine
    return sorted(kept, key=lambda row: -row[0])


def layer_for(**options):
    options = {"candidates": 2000, **options}
    return NonMaxSuppression(heads_of(ANCHORS), **options)


def assert_detections(answer, image, expected, k, size=(64, 48)):
    """`expected` are (score, class, box), the best first.

    Their boxes are then cut at the edges of the input of `size`.
    """
    answer = {key: np.asarray(value)[image] for key, value in answer.items()}
    expected = expected[:k]
    n = len(expected)
    assert answer["count"] == n
    assert [len(answer[key]) for key in ("boxes", "scores")] == [k, k]
    assert answer["classes"].tolist() == (
        [int(row[1]) for row in expected] + [-1] * (k - n)
    )
    scores = [row[0] for row in expected]
    np.testing.assert_allclose(answer["scores"][:n], scores, 1e-5)
    boxes = np.reshape([row[2] for row in expected], (-1, 4))
    boxes = np.clip(boxes, 0, 2 * size)
    np.testing.assert_allclose(answer["boxes"][:n], boxes, 1e-4, 1e-3)
    assert not answer["scores"][n:].any()
    assert not answer["boxes"][n:].any()


@pytest.mark.parametrize(
    ("score_threshold", "iou_threshold", "k"),
    [(0.25, 0.45, 400), (0.05, 0.1, 400), (0.02, 0.7, 700), (0.05, 0.6, 20)],
)
def test_random_boxes_against_a_greedy_loop(
    score_threshold, iou_threshold, k, rng
):
    maps = maps_of(rng)
    boxes, scores = decoded(maps)
    layer = layer_for(
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=k,
    )
    answer = layer(listed(maps))
    for image in range(2):
        expected = greedy(
            boxes[image], scores[image], score_threshold, iou_threshold
        )
        candidates = (scores[image] >= score_threshold).sum()
        assert 5 < len(expected) < candidates
        assert (len(expected) > k) == (k == 20)
        assert_detections(answer, image, expected, k)


def test_random_boxes_against_tensorflow(rng):
    tf = pytest.importorskip("tensorflow")
    maps = maps_of(rng, batch=3, shift=-0.5)
    boxes, scores = (x.astype("float32") for x in decoded(maps))
    theirs = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        scores,
        max_output_size_per_class=60,
        max_total_size=60,
        iou_threshold=0.5,
        score_threshold=0.2,
        clip_boxes=False,
    )
    layer = layer_for(score_threshold=0.2, iou_threshold=0.5, max_detections=60)
    answer = layer(listed(maps))
    for image in range(3):
        n = int(theirs.valid_detections[image])
        rows = zip(
            np.asarray(theirs.nmsed_scores[image])[:n],
            np.asarray(theirs.nmsed_classes[image])[:n],
            np.asarray(theirs.nmsed_boxes[image])[:n],
        )
        assert n > 10
        assert_detections(answer, image, list(rows), 60)


def placed(rows, anchor=(16, 16), levels=("P3",)):
    """Maps with the boxes [(x, y, w, h, {class: score})], one to a cell."""
    side = 8
    t = np.zeros((1, side, side, 5 + CLASSES))
    t[..., 4:] = -30
    for x, y, w, h, scores in rows:
        cell = t[0, int(y // 8), int(x // 8)]
        cell[:2] = logit(x % 8 / 8), logit(y % 8 / 8)
        cell[2:4] = np.log(w / anchor[0]), np.log(h / anchor[1])
        cell[4] = 30
        for c, score in scores.items():
            cell[5 + c] = logit(score)
    return {"P3": t.astype("float32")}


def one_level(**options):
    options = {"candidates": 50, "max_detections": 10, **options}
    return NonMaxSuppression(heads_of({"P3": ((16, 16),)}), **options)


def kept(maps, **options):
    """[(class, x of the centre)] of the detections."""
    answer = {
        k: np.asarray(v)[0]
        for k, v in one_level(**options)(listed(maps)).items()
    }
    n = int(answer["count"])
    x = answer["boxes"][:n, ::2].mean(axis=1)
    return list(zip(answer["classes"][:n].tolist(), np.round(x).tolist()))


# Three 20 x 20 in a row: neighbours have an IoU of 1/3, the ends of 0.
A, B, C = ((x, 20, 20, 20) for x in (11, 21, 31))


def test_a_suppressed_box_suppresses_nothing():
    """A takes B, which would have taken C: C stays."""
    rows = [(*A, {0: 0.9}), (*B, {0: 0.8}), (*C, {0: 0.7})]
    assert kept(placed(rows), iou_threshold=0.3) == [(0, 11), (0, 31)]
    assert kept(placed(rows), iou_threshold=0.4) == [(0, 11), (0, 21), (0, 31)]
    rows = [(*A, {0: 0.8}), (*B, {0: 0.9}), (*C, {0: 0.7})]
    assert kept(placed(rows), iou_threshold=0.3) == [(0, 21)]


def test_a_long_chain():
    """Every second one of a row of boxes, each of which beats the next."""
    rows = [(12 + 8 * i, 20, 16, 20, {1: 0.9 - 0.05 * i}) for i in range(6)]
    expected = [(1, 12 + 8 * i) for i in range(0, 6, 2)]
    assert kept(placed(rows), iou_threshold=0.3) == expected


def test_boxes_are_cut_at_the_edges_of_the_input():
    rows = [(4, 20, 30, 10, {0: 0.9}), (60, 62, 16, 16, {1: 0.8})]
    boxes = np.asarray(one_level()(listed(placed(rows)))["boxes"])[0]
    expected = [[0, 15, 19, 25], [52, 54, 64, 64]]
    np.testing.assert_allclose(boxes[:2], expected, atol=1e-3)


def test_classes_do_not_suppress_each_other():
    rows = [(*A, {0: 0.9, 2: 0.6}), (*B, {1: 0.8, 2: 0.7})]
    expected = [(0, 11), (1, 21), (2, 21)]
    assert kept(placed(rows), iou_threshold=0.3) == expected


def test_two_boxes_of_one_place_and_score():
    """One of them stays: a tie is no reason to keep or lose both."""
    t = placed([(*A, {0: 0.9})])["P3"]
    maps = {"P3": np.concatenate([t, t], axis=-1)}
    layer = NonMaxSuppression(heads_of({"P3": ((16, 16),) * 2}), candidates=100)
    answer = layer(listed(maps))
    assert np.asarray(answer["count"]).tolist() == [1]


def test_a_score_at_the_threshold_is_a_detection():
    rows = [(*A, {0: 0.5})]
    maps = placed(rows)
    score = float(one_level()(listed(maps))["scores"][0, 0])
    assert kept(maps, score_threshold=score) == [(0, 11)]
    assert kept(maps, score_threshold=score + 1e-6) == []


def test_nothing_above_the_threshold(rng):
    maps = maps_of(rng, shift=-4)
    answer = layer_for(score_threshold=0.99, max_detections=7)(listed(maps))
    for image in range(2):
        assert_detections(answer, image, [], 7)


def test_images_do_not_mix(rng):
    """Each image of a batch as alone, nothing found in one of them."""
    maps = maps_of(rng, batch=3)
    for x in maps.values():
        x[1] = -20
    layer = layer_for(max_detections=30)
    together = layer(listed(maps))
    assert np.asarray(together["count"])[1] == 0
    for image in range(3):
        alone = layer([x[image : image + 1] for x in listed(maps)])
        for key, value in together.items():
            np.testing.assert_allclose(
                np.asarray(value)[image], np.asarray(alone[key])[0], 1e-5, 1e-5
            )


def test_only_the_best_are_candidates():
    """The boxes of the most probable pairs, whatever the suppression does."""
    rows = [(*A, {0: 0.9, 1: 0.85}), (*B, {0: 0.8}), (*C, {2: 0.7, 0: 0.4})]
    maps = placed(rows)
    options = {"iou_threshold": 0.3, "max_detections": 3}
    assert kept(maps, candidates=3, **options) == [(0, 11), (1, 11)]
    expected = [(0, 11), (1, 11), (2, 31)]
    assert kept(maps, candidates=4, **options) == expected


def test_fewer_rows_than_candidates():
    rows = [(*A, {0: 0.9}), (*C, {1: 0.7})]
    for candidates in (100, 1000):
        options = {"candidates": candidates, "max_detections": 90}
        answer = one_level(**options)(listed(placed(rows)))
        assert answer["boxes"].shape == (1, 90, 4)
        assert kept(placed(rows), **options) == [(0, 11), (1, 31)]


@pytest.mark.parametrize("candidates", [40, 500])
def test_open_sides(candidates, rng):
    """One model for maps of all sizes, of which some are below `candidates`."""
    inputs = [
        keras.Input((None, None, len(pairs) * (5 + CLASSES)), name=level)
        for level, pairs in sorted(ANCHORS.items())
    ]
    layer = layer_for(candidates=candidates, max_detections=15)
    model = keras.Model(inputs, layer(inputs))
    shapes = {key: tuple(x.shape) for key, x in model.output.items()}
    assert shapes == {
        "boxes": (None, 15, 4),
        "scores": (None, 15),
        "classes": (None, 15),
        "count": (None,),
    }
    for sides in ((3, 4), (2, 2)):
        maps = maps_of(rng, sides=sides)
        answer = model(listed(maps))
        for key, value in layer(listed(maps)).items():
            np.testing.assert_array_equal(
                np.asarray(answer[key]), np.asarray(value)
            )


def test_in_a_tf_function_of_open_sides(rng):
    tf = pytest.importorskip("tensorflow")
    layer = layer_for(max_detections=15)
    signature = [
        tf.TensorSpec((None, None, None, 8 * len(pairs)), "float32")
        for _, pairs in sorted(ANCHORS.items())
    ]
    compiled = tf.function(layer, input_signature=[signature])
    for sides in ((3, 4), (1, 2)):
        maps = maps_of(rng, sides=sides)
        boxes, scores = decoded(maps)
        answer = compiled(listed(maps))
        for image in range(2):
            expected = greedy(boxes[image], scores[image], 0.25, 0.45)
            size = (16 * sides[1], 16 * sides[0])
            assert_detections(answer, image, expected, 15, size)


def test_the_layer_comes_back(rng):
    layer = layer_for(
        score_threshold=0.3,
        iou_threshold=0.6,
        max_detections=9,
        candidates=60,
        name="detections",
    )
    again = reload_config(layer)
    assert again.get_config() == layer.get_config()
    maps = maps_of(rng)
    for key, value in layer(listed(maps)).items():
        np.testing.assert_array_equal(
            np.asarray(again(listed(maps))[key]), np.asarray(value)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"score_threshold": 1.5},
            "between 0 and 1. Received: score_thre.*1.5",
        ),
        ({"iou_threshold": -0.1}, "iou_threshold=-0.1"),
        ({"iou_threshold": True}, "iou_threshold=True"),
        ({"max_detections": 0}, "max_detections=0"),
        ({"candidates": 2.5}, "candidates=2.5"),
        (
            {"candidates": 5, "max_detections": 6},
            "at least `max_detections`. Received: candidates=5, max_det.*=6",
        ),
    ],
)
def test_wrong_arguments_are_quoted(options, message):
    with pytest.raises(ValueError, match=message):
        layer_for(**options)
    heads = [*heads_of({"P3": ((1, 2),)}), *heads_of({"P4": ((1, 2),)}, 4)]
    with pytest.raises(ValueError, match=r"one number of classes.*\[3, 4\]"):
        NonMaxSuppression(heads)


def diou(a, b, beta):
    """box_diounms of Darknet's src/box.c."""
    width = max(a[2], b[2]) - min(a[0], b[0])
    height = max(a[3], b[3]) - min(a[1], b[1])
    diagonal = width**2 + height**2
    apart = sum(
        ((a[k] + a[k + 2]) / 2 - (b[k] + b[k + 2]) / 2) ** 2 for k in (0, 1)
    )
    return iou(a, b) - (apart / diagonal) ** beta


# Width and height of the input: Darknet's boxes are relative to it.
SIDES = np.array([64, 48, 64, 48])


@pytest.mark.parametrize("beta", [0.6, 1.0])
def test_diou_keeps_what_stands_side_by_side(beta, rng):
    maps = maps_of(rng)
    boxes, scores = decoded(maps)
    options = {"score_threshold": 0.05, "iou_threshold": 0.3}
    layer = layer_for(nms="diou", nms_beta=beta, max_detections=400, **options)
    answer = layer(listed(maps))
    for image in range(2):
        few = greedy(boxes[image], scores[image], 0.05, 0.3)
        more = greedy(
            boxes[image],
            scores[image],
            0.05,
            0.3,
            lambda a, b: diou(a / SIDES, b / SIDES, beta),
        )
        assert len(few) < len(more)
        assert_detections(answer, image, more, 400)


def test_the_last_heads_thresholds_are_the_default():
    anchors = {"P3": ((16, 16),), "P4": ((16, 16),)}
    first, _ = heads_of(anchors)
    _, last = heads_of(
        anchors,
        score_threshold=0.4,
        iou_threshold=0.7,
        nms="diou",
        nms_beta=0.9,
    )
    layer = NonMaxSuppression([first, last], iou_threshold=0.5)
    config = reload_config(layer).get_config()
    keys = ("score_threshold", "iou_threshold", "nms", "nms_beta")
    assert [config[key] for key in keys] == [0.4, 0.5, "diou", 0.9]
