"""YoloHead against its formulas, one box at a time."""

import keras
import numpy as np
import pytest
from support import reload_config

from keras_csp.layers import YoloHead

ANCHORS = [(10, 14), (23, 27), (37, 58)]
CLASSES = 4
STRIDE = 32


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def boxes(t, scale=1.0, new_coords=False, strides=(STRIDE, STRIDE)):
    """Darknet's get_yolo_box, after its forward_yolo_layer, in pixels."""
    height, width, _ = t.shape
    corners, scores = [], []
    for row in range(height):
        for column in range(width):
            for n, (a_w, a_h) in enumerate(ANCHORS):
                start = n * (5 + CLASSES)
                t_x, t_y, t_w, t_h, t_o, *t_c = t[
                    row, column, start : start + 5 + CLASSES
                ]
                if new_coords:
                    x, y, objectness, classes = t_x, t_y, t_o, np.array(t_c)
                    w, h = (2 * t_w) ** 2 * a_w, (2 * t_h) ** 2 * a_h
                else:
                    x, y, objectness = sigmoid(t_x), sigmoid(t_y), sigmoid(t_o)
                    classes = sigmoid(np.array(t_c))
                    w, h = np.exp(t_w) * a_w, np.exp(t_h) * a_h
                x, y = (scale * v - (scale - 1) / 2 for v in (x, y))
                x, y = (column + x) * strides[1], (row + y) * strides[0]
                corners.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                scores.append(objectness * classes)
    return np.array(corners), np.array(scores)


def head_for(**options):
    return YoloHead(ANCHORS, CLASSES, **{"stride": STRIDE, **options})


def assert_decodes(head, t, **options):
    found, scores = map(np.asarray, head.decode(t))
    for ours, ours_scores, one in zip(found, scores, t):
        theirs, their_scores = boxes(one.astype("float64"), **options)
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-4)
        np.testing.assert_allclose(ours_scores, their_scores, 1e-5, 1e-6)


@pytest.mark.parametrize("scale", [1.0, 1.05, 2.0])
@pytest.mark.parametrize("new_coords", [False, True])
@pytest.mark.parametrize("stride", [32, (16, 20.5)])
def test_boxes_are_those_of_the_formulas(scale, new_coords, stride, rng):
    t = rng.normal(size=(2, 3, 5, 3 * (5 + CLASSES))).astype("float32")
    head = head_for(scale_x_y=scale, new_coords=new_coords, stride=stride)
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    assert_decodes(head, t, scale=scale, new_coords=new_coords, strides=strides)


@pytest.mark.parametrize("scale", [1.0, 1.2])
@pytest.mark.parametrize("new_coords", [False, True])
def test_encode_is_the_inverse_of_decode(scale, new_coords, rng):
    """The maps made of what `encode` gives have the boxes that went in."""
    head = head_for(
        scale_x_y=scale, new_coords=new_coords, stride=(STRIDE, 2 * STRIDE)
    )
    height, width = 4, 3
    corner = rng.uniform(0, 70, (6, 2))
    true = np.concatenate([corner, corner + rng.uniform(9, 70, (6, 2))], -1)
    cells, place, size = map(np.asarray, head.encode(true, height, width))
    for box, cell, at, sides in zip(true, cells, place, size):
        t = np.zeros((1, height, width, len(ANCHORS), 5 + CLASSES), "float32")
        column, row = cell.astype(int)
        t_xy = at if new_coords else np.log(at / (1 - at))
        t[0, row, column, :, :2] = t_xy
        t[0, row, column, :, 2:4] = sides
        found = np.asarray(head.decode_boxes(t.reshape(1, height, width, -1)))
        found = found.reshape(height, width, len(ANCHORS), 4)[row, column]
        for one in found:
            np.testing.assert_allclose(one, box, rtol=1e-4, atol=1e-3)


def test_in_a_graph_it_passes_the_map_on(rng):
    image = keras.Input((None, None, 27), dtype="float16")
    model = keras.Model(image, head_for()(image))
    assert model.output.dtype == "float32"
    t = rng.normal(size=(1, 2, 3, 27)).astype("float16")
    np.testing.assert_array_equal(np.asarray(model(t)), t.astype("float32"))
    assert not model.weights


@pytest.mark.parametrize(
    ("stride", "level"),
    [(8, "P3"), (16.0, "P4"), (12, "S12"), ((8, 16), "S8x16"), ([4, 4], "P2")],
)
def test_the_level_is_named_by_the_stride(stride, level):
    assert head_for(stride=stride).level == level


def test_the_layer_comes_back(rng):
    head = head_for(
        scale_x_y=1.2,
        new_coords=True,
        stride=(16, 8),
        nms="diou",
        iou_threshold=0.7,
    )
    again = reload_config(head)
    t = rng.normal(size=(1, 2, 3, 27)).astype("float32")
    for ours, theirs in zip(again.decode(t), head.decode(t)):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert (again.nms, again.iou_threshold) == ("diou", 0.7)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"= 27 input channels\. Received: 28"):
        head_for().build((None, 3, 3, 28))
    for anchors in ([], [(1, 2, 3)], [(0, 2)]):
        with pytest.raises(ValueError, match="`anchors` must be pairs"):
            YoloHead(anchors, 4, STRIDE)
    with pytest.raises(ValueError, match="`classes` must be a positive"):
        YoloHead(ANCHORS, 0, STRIDE)
    for stride in (0, -8, True, (8, 0), (8, 8, 8)):
        with pytest.raises(ValueError, match="`stride` must be a positive"):
            head_for(stride=stride)
    with pytest.raises(ValueError, match=r"scale_x_y=0\.5"):
        head_for(scale_x_y=0.5)
    with pytest.raises(ValueError, match="nms='soft'"):
        head_for(nms="soft")
