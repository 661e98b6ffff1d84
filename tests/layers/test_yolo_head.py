"""YoloBoxes against its formulas, one box at a time."""

import keras
import numpy as np
import pytest
from keras_csp.layers.yolo import YoloBoxes
from support import reload_config

ANCHORS = [(10, 14), (23, 27), (37, 58)]
CLASSES = 4
IMAGE = (96, 160)  # height, width


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def boxes(t, scale=1.0, new_coords=False):
    """Darknet's get_yolo_box, after its forward_yolo_layer."""
    height, width, _ = t.shape
    rows = []
    for row in range(height):
        for column in range(width):
            for n, (a_w, a_h) in enumerate(ANCHORS):
                start = n * (5 + CLASSES)
                t_x, t_y, t_w, t_h, t_o, *t_c = t[
                    row, column, start : start + 5 + CLASSES
                ]
                if new_coords:
                    x, y, objectness, scores = t_x, t_y, t_o, np.array(t_c)
                    w, h = (2 * t_w) ** 2 * a_w, (2 * t_h) ** 2 * a_h
                else:
                    x, y, objectness = sigmoid(t_x), sigmoid(t_y), sigmoid(t_o)
                    scores = sigmoid(np.array(t_c))
                    w, h = np.exp(t_w) * a_w, np.exp(t_h) * a_h
                x, y = (scale * v - (scale - 1) / 2 for v in (x, y))
                rows.append(
                    [
                        (column + x) / width,
                        (row + y) / height,
                        w / IMAGE[1],
                        h / IMAGE[0],
                        objectness,
                        *(objectness * scores),
                    ]
                )
    return np.array(rows)


def layer_for(**options):
    return YoloBoxes(ANCHORS, CLASSES, IMAGE, **options)


@pytest.mark.parametrize("scale", [1.0, 1.05, 2.0])
@pytest.mark.parametrize("new_coords", [False, True])
def test_boxes_are_those_of_the_formulas(scale, new_coords, rng):
    t = rng.normal(size=(2, 3, 5, 3 * (5 + CLASSES))).astype("float32")
    layer = layer_for(scale_x_y=scale, new_coords=new_coords)
    y = np.asarray(layer(t))
    assert y.shape == layer.compute_output_shape(t.shape) == (2, 45, 9)
    for ours, one in zip(y, t):
        theirs = boxes(one.astype("float64"), scale, new_coords)
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)


def test_open_sides(rng):
    image = keras.Input((None, None, 3 * (5 + CLASSES)))
    model = keras.Model(image, layer_for()(image))
    assert model.output_shape == (None, None, 9)
    t = rng.normal(size=(1, 2, 3, 27)).astype("float32")
    np.testing.assert_allclose(
        np.asarray(model(t))[0], boxes(t[0].astype("float64")), 1e-5, 1e-6
    )


def test_the_layer_comes_back(rng):
    layer = layer_for(scale_x_y=1.2, new_coords=True)
    again = reload_config(layer)
    t = rng.normal(size=(1, 2, 3, 27)).astype("float32")
    np.testing.assert_array_equal(np.asarray(again(t)), np.asarray(layer(t)))


@pytest.mark.parametrize("new_coords", [False, True])
def test_a_stride_stands_for_the_image_size(new_coords, rng):
    """For every size of map, where `image_size` knows one."""
    options = {"scale_x_y": 1.1, "new_coords": new_coords}
    layer = YoloBoxes(ANCHORS, CLASSES, stride=32, **options)
    for shape in ((2, 3, 5), (1, 4, 2)):
        t = rng.normal(size=(*shape, 27)).astype("float32")
        sides = tuple(32 * side for side in shape[1:])
        same = YoloBoxes(ANCHORS, CLASSES, sides, **options)
        y = np.asarray(layer(t))
        np.testing.assert_allclose(y, np.asarray(same(t)), 1e-6, 1e-7)
        assert y.shape == layer.compute_output_shape(t.shape)


def test_a_stride_and_open_sides(rng):
    image = keras.Input((None, None, 27))
    layer = YoloBoxes(ANCHORS, CLASSES, stride=32)
    model = keras.Model(image, layer(image))
    t = rng.normal(size=(1, 3, 5, 27)).astype("float32")
    expected = np.asarray(layer_for()(t))
    np.testing.assert_allclose(np.asarray(model(t)), expected, 1e-6, 1e-7)
    again = reload_config(layer)
    assert (again.stride, again.image_size) == (32, None)
    np.testing.assert_allclose(np.asarray(again(t)), expected, 1e-6, 1e-7)


def test_either_a_stride_or_an_image_size():
    one_of = "One of `image_size` and `stride` must be given. Received: "
    with pytest.raises(ValueError, match=one_of + "image_size=None, stride=No"):
        YoloBoxes(ANCHORS, CLASSES)
    with pytest.raises(ValueError, match=one_of + r".*\(96, 160\), stride=32"):
        YoloBoxes(ANCHORS, CLASSES, IMAGE, stride=32)
    for stride in (0, -8, 1.5, True):
        with pytest.raises(ValueError, match="`stride` must be a positive"):
            YoloBoxes(ANCHORS, CLASSES, stride=stride)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"= 27 input channels\. Received: 28"):
        layer_for().build((None, 3, 3, 28))
    for anchors in ([], [(1, 2, 3)], [(0, 2)]):
        with pytest.raises(ValueError, match="`anchors` must be pairs"):
            YoloBoxes(anchors, 4, IMAGE)
    with pytest.raises(ValueError, match="`classes` must be a positive"):
        YoloBoxes(ANCHORS, 0, IMAGE)
    with pytest.raises(ValueError, match="`image_size` must be a positive"):
        YoloBoxes(ANCHORS, 4, (96, None))
