"""A detector for other classes: boxes, objectness and all the rest stay."""

import keras
import numpy as np
import pytest
from support import tiny_backbone

import keras_csp
from keras_csp.layers import ConvNormAct, YoloHead, with_classes
from keras_csp.layers.new_classes import other_classes

NAMES = ("cat", "dog", "bird")
SHAPE = (64, 64, 3)


@pytest.fixture(scope="module")
def detector():
    keras.utils.set_random_seed(3)
    made = keras_csp.Detector(
        tiny_backbone(), "prn", input_shape=SHAPE, class_names=NAMES
    )
    rng = np.random.default_rng(3)
    for layer in made.layers:
        if layer.name.startswith("head_"):
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return made


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, *SHAPE), "float32")


def parts(detector, images):
    """{level: t_x ... t_o, and those of the classes}."""
    width = 5 + detector.classes
    found = {}
    for level, x in detector(images).items():
        rows = np.asarray(x).reshape(len(images), -1, width)
        found[level] = rows[..., :5], rows[..., 5:]
    return found


@pytest.mark.parametrize("names", [("a", "b"), tuple("abcdefg")])
def test_boxes_and_objectness_are_the_same(names, detector, images):
    new = detector.with_classes(names)
    assert type(new) is type(detector)
    assert new.classes == len(names)
    assert keras_csp.image_spec(new).class_names == names
    before = parts(detector, images)
    for level, (boxes, classes) in parts(new, images).items():
        np.testing.assert_array_equal(boxes, before[level][0])
        mean = before[level][1].mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(
            classes, np.broadcast_to(mean, classes.shape), atol=1e-5
        )


def test_a_class_of_the_same_name_keeps_its_row(detector, images, caplog):
    new = detector.with_classes(("horse", "bird", "cat"))
    before = parts(detector, images)
    for level, (_, classes) in parts(new, images).items():
        old = before[level][1]
        np.testing.assert_array_equal(classes[..., 1], old[..., 2])
        np.testing.assert_array_equal(classes[..., 2], old[..., 0])
    assert "new classes: horse. Their filters" in caplog.text


def test_the_same_classes_are_nothing_new(detector, images, caplog):
    new = detector.with_classes(NAMES[::-1])
    assert "new classes" not in caplog.text
    before = parts(detector, images)
    for level, (_, classes) in parts(new, images).items():
        np.testing.assert_array_equal(classes, before[level][1][..., ::-1])


def test_a_random_start(detector, images):
    new = detector.with_classes(("a", "b"), start="random")
    before = parts(detector, images)
    for level, (boxes, classes) in parts(new, images).items():
        np.testing.assert_array_equal(boxes, before[level][0])
        assert not np.allclose(classes[..., 0], classes[..., 1])


def test_a_number_without_names(detector):
    new = detector.with_classes(classes=5)
    assert new.classes == 5
    assert keras_csp.image_spec(new).class_names is None


@pytest.mark.slow
def test_saved_and_read_and_trained(detector, images, tmp_path):
    new = detector.with_classes(("a", "b"))
    new.compile("adam")
    targets = {
        "boxes": np.float32([[[8, 8, 40, 40]], [[8, 8, 40, 40]]]),
        "labels": np.int32([[0], [1]]),
    }
    new.fit(images, targets, verbose=0)
    new.save(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    assert again.classes == 2
    for level, x in new(images).items():
        np.testing.assert_array_equal(x, again(images)[level])


def test_weights_of_a_file_of_other_classes(detector, images, tmp_path, caplog):
    """`Detector(..., weights="mine.keras", class_names=[...])`."""
    detector.save(tmp_path / "mine.keras")
    new = keras_csp.Detector(
        tiny_backbone(),
        "prn",
        input_shape=SHAPE,
        class_names=("dog", "fish"),
        weights=tmp_path / "mine.keras",
    )
    assert "new classes: fish" in caplog.text
    before = parts(detector, images)
    for level, (boxes, classes) in parts(new, images).items():
        np.testing.assert_array_equal(boxes, before[level][0])
        np.testing.assert_array_equal(classes[..., 0], before[level][1][..., 1])
    same = keras_csp.Detector(
        tiny_backbone(),
        "prn",
        input_shape=SHAPE,
        weights=tmp_path / "mine.keras",
    )
    assert same.classes == 3


def test_weights_of_classes_in_a_loss_go_with_their_classes():
    image = keras.Input((64, 64, 3))
    x = ConvNormAct(8, 1, 32)(image)
    x = ConvNormAct(14, normalize=False, activation=None)(x)
    head = YoloHead(
        [(8, 9), (20, 20)],
        2,
        32,
        loss={"class_weights": (1, 3), "box": "giou"},
    )
    model = keras_csp.Detector(image, {"P5": head(x)})
    (new,) = with_classes(model, classes=4).heads
    assert new.loss.class_weights is None
    assert new.loss.box == "giou"
    (same,) = with_classes(model, classes=2).heads
    assert same.loss.class_weights == (1, 3)


def test_rows_by_numpy(rng):
    """Of a kernel of two anchors and three classes."""
    kernel = rng.normal(size=(1, 1, 4, 16))
    new = other_classes(kernel, 2, [2, None])
    assert new.shape == (1, 1, 4, 14)
    for anchor in range(2):
        old, mine = kernel[..., 8 * anchor :], new[..., 7 * anchor :]
        np.testing.assert_array_equal(mine[..., :5], old[..., :5])
        np.testing.assert_array_equal(mine[..., 5], old[..., 7])
        np.testing.assert_allclose(mine[..., 6], old[..., 5:8].sum(axis=-1) / 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`classes` must be a positive integer. Received: classes=None"),
        ({"classes": 0}, "Received: classes=0"),
        ({"classes": 2, "start": "zero"}, "`start` must be one of 'mean'"),
    ],
)
def test_wrong_arguments(arguments, message, detector):
    with pytest.raises(ValueError, match=message):
        detector.with_classes(**arguments)


def test_heads_that_share_a_convolution(rng):
    """One layer on two maps, and two heads on one of them."""
    image = keras.Input((64, 64, 3))
    shared = ConvNormAct(14, 1, normalize=False, activation=None)
    fine = ConvNormAct(8, 1, 16)(image)
    coarse = ConvNormAct(8, 1, 2)(fine)
    maps = {"P4": shared(fine), "P5": shared(coarse)}
    maps["P5_2"] = maps["P5"]
    outputs = {
        level: YoloHead([(8, 9), (20, 20)], 2, stride)(maps[level])
        for level, stride in (("P4", 16), ("P5", 32), ("P5_2", 32))
    }
    model = keras_csp.Detector(image, outputs)
    images = rng.random((2, 64, 64, 3), "float32")
    before = parts(model, images)
    new = model.with_classes(classes=4)
    for level, (boxes, classes) in parts(new, images).items():
        np.testing.assert_array_equal(boxes, before[level][0])
        assert classes.shape[-1] == 4


def test_a_head_without_a_convolution_of_its_own():
    image = keras.Input((64, 64, 3))
    x = ConvNormAct(14, 1, 32, normalize=False, activation=None)(image)
    head = YoloHead([(8, 9), (20, 20)], 2, 32)
    for outputs in (head(keras.layers.ReLU()(x)), head(x + 0 * x)):
        model = keras_csp.Detector(image, {"P5": outputs})
        with pytest.raises(ValueError, match="not read a convolution of its"):
            model.with_classes(classes=3)
    both = keras_csp.Detector(image, {"P5": head(x + head(x))})
    with pytest.raises(ValueError, match="not read a convolution of its"):
        both.with_classes(classes=3)
    plain = keras_csp.CSPPeleeNet(input_shape=(64, 64, 3), classes=2)
    with pytest.raises(ValueError, match="has no YoloHead"):
        with_classes(plain, classes=3)
