"""From photographs to a network's input, and from its outputs to names."""

import csv

import keras
import numpy as np
import pytest

import keras_csp
from keras_csp.data import fit_image
from keras_csp.layers import Preprocessing
from keras_csp.weights.imagenet import darknet_classes


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_pixels_to_unit_range(dtype):
    x = np.array([[[0, 51, 255]]], dtype)
    y = keras_csp.preprocess_input(x)
    assert y.dtype == "float32"
    np.testing.assert_allclose(y, [[[0, 0.2, 1]]], rtol=1e-6)
    np.testing.assert_array_equal(x, [[[0, 51, 255]]])  # left as it was


def test_tensors_and_models():
    inputs = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(inputs, keras_csp.preprocess_input(inputs))
    y = model(np.full((1, 2, 2, 3), 255, "uint8"))
    np.testing.assert_array_equal(np.asarray(y), 1)
    tensor = keras.ops.convert_to_tensor(np.full((2, 2, 3), 127.5))
    for options in ({"data_format": "channels_last"}, {"model": None}):
        y = keras_csp.preprocess_input(tensor, **options)
        np.testing.assert_allclose(np.asarray(y), 0.5)


def test_second_argument_of_keras_applications_is_the_data_format():
    x = np.full((3, 2, 2), 255, "uint8")
    y = keras_csp.preprocess_input(x, "channels_first")
    np.testing.assert_array_equal(y, 1)


def network(size=(32, 48), channels=3, classes=3, **fields):
    """The least that has a spec, and says which pixels it got."""
    image = keras.Input((*size, channels))
    spec = keras_csp.ImageSpec(size=None if None in size else size, **fields)
    x = Preprocessing(spec)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes)(x))


@pytest.fixture
def photograph(rng):
    """Patches of uniform colours: no resizing leaves them as they are."""
    patches = rng.integers(0, 256, (6, 5, 3), dtype="uint8")
    return patches.repeat(11, axis=0).repeat(15, axis=1)


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_images_are_brought_to_the_models_size_as_it_says(resize, photograph):
    """As the pipelines bring them."""
    model = network(resize=resize, crop=0.875, interpolation="bicubic")
    spec = keras_csp.image_spec(model)
    expected = np.asarray(fit_image(photograph, spec)[0])
    for x in (photograph, photograph[None], [photograph]):
        y = keras_csp.preprocess_input(x, model)
        assert y.dtype == "float32"
        np.testing.assert_array_equal(y, expected[None])


def test_images_of_that_size_are_only_scaled(rng):
    x = rng.integers(0, 256, (2, 32, 48, 3), dtype="uint8")
    model = network(crop=0.5)
    for images in (x, list(x), keras.ops.convert_to_tensor(x)):
        y = keras_csp.preprocess_input(images, model)
        np.testing.assert_allclose(np.asarray(y), x / 255, atol=1e-7)


def test_a_list_holds_images_of_any_sizes(photograph):
    from PIL import Image

    other = photograph[:20, :31]
    model = network()
    y = keras_csp.preprocess_input([photograph, Image.fromarray(other)], model)
    for found, image in zip(y, (photograph, other), strict=True):
        alone = keras_csp.preprocess_input(image, model)
        np.testing.assert_array_equal(found, alone[0])


def test_grey_and_colour_become_what_the_model_takes(photograph):
    grey = np.asarray(photograph[..., 0])
    colour = keras_csp.preprocess_input(grey, network())
    assert colour.shape == (1, 32, 48, 3)
    assert (colour == colour[..., :1]).all()
    one = keras_csp.preprocess_input(photograph, network(channels=1))
    assert one.shape == (1, 32, 48, 1)
    same = keras_csp.preprocess_input(
        np.repeat(grey[..., None], 3, -1), network(channels=1)
    )
    np.testing.assert_allclose(same, colour[..., :1], atol=1e-6)


def test_open_sides_take_any_one_size(photograph):
    model = network((None, None))
    y = keras_csp.preprocess_input([photograph, photograph], model)
    np.testing.assert_allclose(y[1], photograph / 255, atol=1e-6)
    with pytest.raises(ValueError, match=r"different sizes.*\(20, 75, 3\)"):
        keras_csp.preprocess_input([photograph, photograph[:20]], model)


def test_a_pipeline_scales_batches():
    tf = pytest.importorskip("tensorflow")
    model = network()
    data = tf.data.Dataset.from_tensors(np.full((2, 32, 48, 3), 255, "uint8"))
    for x in data.map(lambda x: keras_csp.preprocess_input(x, model)):
        np.testing.assert_array_equal(x, 1)
    small = tf.data.Dataset.from_tensors(np.zeros((2, 8, 8, 3), "uint8"))
    with pytest.raises(ValueError, match="fit_image brings an image"):
        small.map(lambda x: keras_csp.preprocess_input(x, model))


def without_spec():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(1, 1)(image))


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros(3), {}, r"shape \(3,\)"),
        (np.zeros((2, 2, 3)), {"data_format": "last"}, "data_format='last'"),
        (np.zeros((2, 2, 3)), {"model": "nchw"}, "data_format='nchw'"),
        (
            np.zeros((1, 8, 8, 3)),
            {"model": network(), "data_format": "channels_first"},
            "channels last.*'channels_first'",
        ),
        (np.zeros((8, 8, 4)), {"model": network()}, r"3 channels.*8, 8, 4"),
        (
            np.zeros((8, 8, 1)),
            {"model": network(channels=4)},
            r"4 channels.*8, 8, 1",
        ),
        (np.zeros(8), {"model": network()}, r"An image must.*shape \(\)"),
        ([], {"model": network()}, "no image"),
        ([np.zeros((0, 4, 3))], {"model": network()}, r"shape \(0, 4, 3\)"),
        (np.zeros((8, 8, 3)), {"model": without_spec()}, "has no ImageSpec"),
        (keras.Input((8, 8, 3)), {"model": network()}, "Symbolic images"),
    ],
)
def test_what_cannot_be_prepared(x, options, message):
    with pytest.raises(ValueError, match=message):
        keras_csp.preprocess_input(x, **options)


def scores(classes, *best):
    """One row, in which the classes `best` are the best ones, in order."""
    row = np.zeros((1, classes), "float32")
    row[0, list(best)] = [0.5 / (1 + index) for index in range(len(best))]
    return row


def test_imagenet_in_the_order_of_keras(shared_data):
    """Against the number and the id of each class, written by others."""
    path = shared_data / "classification" / "imagenet_sample" / "index.csv"
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            (((found, name, _),),) = keras_csp.decode_predictions(
                scores(1000, int(row["class_index"])), top=1
            )
            assert found == row["wnid"]
            assert name.split()[-1].lower() in row["name"].lower()


def test_best_first_with_their_scores():
    y = np.concatenate([scores(1000, 7, 3), scores(1000, 0, 999)])
    first, second = keras_csp.decode_predictions(y, top=2)
    assert [name for _, name, _ in first] == [
        "cock",
        "tiger shark",
    ]
    assert [score for *_, score in second] == [0.5, 0.25]
    assert second[1][0] == "n15075141"  # toilet tissue, the last
    assert keras_csp.decode_predictions(y, 2) == [first, second]
    assert [len(row) for row in keras_csp.decode_predictions(y)] == [5, 5]


def test_names_of_the_model():
    model = network(class_names=("cat", "dog", "bird"))
    (found,) = keras_csp.decode_predictions(scores(3, 2, 0), model)
    assert found == [(2, "bird", 0.5), (0, "cat", 0.25), (1, "dog", 0)]
    (found,) = keras_csp.decode_predictions(scores(3, 1), model, top=1)
    assert found == [(1, "dog", 0.5)]


def test_darknets_order_of_imagenet():
    """Its first classes are kit fox, English setter and Siberian husky."""
    model = network(classes=1000, class_names=darknet_classes().values())
    (found,) = keras_csp.decode_predictions(scores(1000, 0, 1, 2), model, 3)
    assert [(i, name) for i, name, _ in found] == [
        ("n02119789", "kit fox"),
        ("n02100735", "English setter"),
        ("n02110185", "Siberian husky"),
    ]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 10), {}, r"1000\).*\(2, 10\)"),
        ((1000,), {}, r"\(1000,\)"),
        ((1, 1000), {"top": 0}, "top=0"),
        ((1, 3), {"model": network()}, "have no names.*with_image_spec"),
        (
            (1, 4),
            {"model": network(classes=2, class_names=("a", "b"))},
            r"2\).*\(1, 4\)",
        ),
    ],
)
def test_predictions_that_have_no_names(shape, options, message):
    with pytest.raises(ValueError, match=message):
        keras_csp.decode_predictions(np.zeros(shape), **options)
