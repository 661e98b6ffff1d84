"""Photographs to inputs, and answers to words."""

import csv

import keras
import numpy as np
import pytest

import keras_csp
from keras_csp.data import fit_image
from keras_csp.layers import ImageSpec, Preprocessing
from keras_csp.weights.imagenet import darknet_classes, imagenet_classes


def model_of(spec, shape=(32, 48, 3), classes=3):
    image = keras.Input(shape)
    x = Preprocessing(spec, name="preprocessing")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes)(x), name="small")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 5, 3)])
def test_pixels_are_divided_by_255(dtype, shape, rng):
    x = rng.integers(0, 256, shape).astype(dtype)
    y = keras_csp.preprocess_input(x)
    assert y.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(y, x / 255, rtol=1e-6)
    assert x.max() > 1  # left as it is
    tensor = keras.ops.convert_to_tensor(x)
    y = keras_csp.preprocess_input(tensor, data_format="channels_last")
    np.testing.assert_allclose(np.asarray(y), x / 255, rtol=1e-5)


def test_symbolic_tensors():
    inputs = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(inputs, keras_csp.preprocess_input(inputs))
    assert model.output.dtype == "float32"


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_a_model_brings_photographs_to_its_size(resize, rng):
    """A list of any sizes; one that has the size is only scaled."""
    spec = ImageSpec(resize=resize, mean=0.5, std=0.25, interpolation="bicubic")
    model = model_of(spec)
    images = [
        rng.integers(0, 256, shape, "uint8")
        for shape in ((60, 40, 3), (32, 48, 3), (20, 90, 3))
    ]
    x = keras_csp.preprocess_input(images, model)
    assert x.shape == (3, 32, 48, 3) and x.dtype == "float32"
    spec = spec.replace(size=(32, 48))
    for ours, image in zip(x[[0, 2]], images[::2]):
        np.testing.assert_array_equal(ours, fit_image(image, spec)[0])
    np.testing.assert_allclose(x[1], images[1] / 255, rtol=1e-6)
    # The network itself normalises them.
    found = model.get_layer("preprocessing")(x)
    np.testing.assert_allclose(found, (x - 0.5) / 0.25, atol=1e-5)
    one = keras_csp.preprocess_input(images[0], model)
    np.testing.assert_array_equal(one, x[:1])


def test_grey_models_and_grey_photographs(rng):
    colour = rng.integers(0, 256, (32, 48, 3), "uint8")
    x = keras_csp.preprocess_input(colour, model_of(ImageSpec(), (32, 48, 1)))
    weights = [0.299, 0.587, 0.114]
    np.testing.assert_allclose(x[0, ..., 0], colour @ weights / 255, rtol=1e-5)
    grey = keras_csp.preprocess_input(colour[..., :1], model_of(ImageSpec()))
    assert grey.shape == (1, 32, 48, 3) and not np.ptp(grey, axis=-1).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.zeros((4, 5)),),
            r"3D or 4D. Received: an array of shape \(4, 5\)",
        ),
        ((np.zeros((4, 5, 3)), None, "channels"), "data_format='channels'"),
        ((np.zeros((4, 5, 2)), model_of(ImageSpec())), r"shape \(4, 5, 2\)"),
        (
            (np.zeros((4, 5, 3)), keras.Sequential([keras.Input((4, 5, 3))])),
            "does not say what its images are",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_csp.preprocess_input(*arguments)


def test_imagenets_classes_without_a_model():
    scores = np.zeros((1, 1000), "float32")
    scores[0, [7, 3]] = 0.9, 0.1
    ((first, second),) = keras_csp.decode_predictions(scores, top=2)
    assert first == ("n01514668", "cock", np.float32(0.9))
    assert second[1] == "tiger shark"


def test_darknets_order_is_that_of_the_model():
    """Darknet's first classes: kit fox, English setter, Siberian husky."""
    names = tuple(darknet_classes().values())
    model = model_of(ImageSpec(class_names=names), classes=1000)
    scores = np.zeros((1, 1000), "float32")
    scores[0, :3] = 0.5, 0.3, 0.2
    (decoded,) = keras_csp.decode_predictions(scores, model, top=3)
    ids = [wordnet_id for wordnet_id, _, _ in decoded]
    assert ids == ["n02119789", "n02100735", "n02110185"]
    assert decoded[0][1] == "kit fox"


def test_other_classes_have_their_number():
    model = model_of(ImageSpec(class_names=("cat", "dog", "cow")))
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
    first, second = keras_csp.decode_predictions(scores, model, top=2)
    assert first == [(1, "dog", 0.7), (2, "cow", 0.2)]
    assert second == [(0, "cat", 0.5), (2, "cow", 0.4)]


def test_imagenets_order_is_that_of_others(shared_data):
    """The index and the name of each sample's class, written by others."""
    path = shared_data / "classification" / "imagenet_sample" / "index.csv"
    classes = list(imagenet_classes().items())
    assert sorted(darknet_classes()) == [number for number, _ in classes]
    same = 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        number, name = classes[int(row["class_index"])]
        assert number == row["wnid"]
        same += name.lower() == row["name"].lower()
    assert same > 0.9 * len(rows)


def test_predictions_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(samples, 1000\).*\(2, 10\)"):
        keras_csp.decode_predictions(np.zeros((2, 10)))
    model = model_of(ImageSpec(class_names=("a", "b", "c")))
    with pytest.raises(ValueError, match=r"\(samples, 3\).*\(2, 4\)"):
        keras_csp.decode_predictions(np.zeros((2, 4)), model)
    with pytest.raises(ValueError, match="does not know the names"):
        keras_csp.decode_predictions(np.zeros((2, 3)), model_of(ImageSpec()))
