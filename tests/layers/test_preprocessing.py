"""The first layer, and the `ImageSpec` that it holds."""

import importlib.util

import keras
import numpy as np
import pytest
from support import reload_config, run_python

import keras_csp
from keras_csp.layers import ImageSpec, Preprocessing

SPEC = ImageSpec(
    size=(32, 48),
    mean=(0.1, 0.2, 0.3),
    std=(0.5, 0.25, 0.2),
    resize="stretch",
    crop=0.875,
    interpolation="bicubic",
    antialias=False,
    class_names=("cat", "dog"),
)


def model_of(spec=SPEC, shape=(32, 48, 3), classes=2):
    image = keras.Input(shape)
    x = Preprocessing(spec, name="preprocessing")(image)
    x = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes)(x), name="small")


def test_pixels_are_normalised_by_channel(rng):
    x = rng.random((2, 4, 5, 3), dtype="float32")
    y = np.asarray(Preprocessing(SPEC)(x))
    np.testing.assert_allclose(y, (x - SPEC.mean) / SPEC.std, atol=1e-5)
    one = Preprocessing(ImageSpec(mean=0.5, std=2))(x)
    np.testing.assert_allclose(np.asarray(one), (x - 0.5) / 2, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(Preprocessing(ImageSpec())(x)), x)


def test_half_precision_is_taken_last(rng):
    """Pixels of half precision would be off by 1/512 before the division."""
    x = rng.random((2, 4, 5, 3), dtype="float32")
    layer = Preprocessing(SPEC, dtype="mixed_bfloat16")
    y = layer(x)
    assert y.dtype == "bfloat16"
    exact = (x - np.float32(SPEC.mean)) * (1 / np.float32(SPEC.std))
    expected = keras.ops.cast(exact, "bfloat16")
    np.testing.assert_array_equal(
        np.asarray(keras.ops.cast(y, "float32")),
        np.asarray(keras.ops.cast(expected, "float32")),
    )


def test_it_survives_what_keras_does_with_models(tmp_path, rng):
    model = model_of()
    assert keras_csp.image_spec(model) == SPEC
    assert reload_config(model.layers[1]).spec == SPEC
    copies = [keras.models.clone_model(model)]
    model.save(tmp_path / "m.keras")
    copies.append(keras.saving.load_model(tmp_path / "m.keras"))
    inside = keras.Input((32, 48, 3))
    copies.append(keras.Model(inside, model(inside)))
    for copy in copies:
        assert keras_csp.image_spec(copy) == SPEC


READ = """
import sys
import keras, keras_csp
model = keras.saving.load_model(sys.argv[1])
print(keras.backend.backend(), keras_csp.image_spec(model).get_config())
"""


@pytest.mark.parametrize(
    "backend", ["jax", pytest.param("torch", marks=pytest.mark.slow)]
)
def test_other_backends_read_it(backend, tmp_path):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    path = tmp_path / "m.keras"
    model_of().save(path)
    said = run_python(READ, path, KERAS_BACKEND=backend)
    assert said.strip() == f"{backend} {SPEC.get_config()}"


def test_class_names_go_with_their_classifier():
    """A new head of another number of classes does not inherit them."""
    model = model_of()
    features = model.layers[-2].output
    head = keras.layers.Dense(5)(features)
    other = keras.Model(model.input, head)
    assert keras_csp.image_spec(other) == SPEC.replace(class_names=None)


def test_the_size_is_that_of_the_input():
    opened = model_of(SPEC, (None, None, 3))
    assert keras_csp.image_spec(opened).size == (32, 48)
    assert keras_csp.image_spec(model_of(SPEC, (64, 64, 3))).size == (64, 64)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    assert keras_csp.image_spec(plain) is None


def test_with_image_spec_shares_all_other_layers(rng):
    model = model_of()
    other = keras_csp.with_image_spec(model, mean=0, std=1, class_names=None)
    assert keras_csp.image_spec(model) == SPEC
    found = keras_csp.image_spec(other)
    assert (found.mean, found.std, found.class_names) == ((0,), (1,), None)
    assert found.crop == SPEC.crop
    assert other.layers[2:] == model.layers[2:] and other.name == "small"
    x = rng.random((1, 32, 48, 3), dtype="float32")
    pixels = (x - np.float32(SPEC.mean)) / np.float32(SPEC.std)
    np.testing.assert_allclose(other(pixels), model(x), atol=1e-5)


def test_with_image_spec_of_any_functional_model(rng):
    backbone = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=2
    )
    spec = ImageSpec(mean=0.5, std=0.5, class_names=("a", "b"))
    model = keras_csp.with_image_spec(backbone, spec)
    assert keras_csp.image_spec(model).class_names == ("a", "b")
    x = rng.random((1, 32, 32, 3), dtype="float32")
    np.testing.assert_allclose(model(x), backbone(2 * x - 1), atol=1e-5)
    with pytest.raises(ValueError, match=r"must be a functional keras\.Model"):
        keras_csp.with_image_spec(keras.layers.Dense(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (1, 2, 3)}, r"size=\(1, 2, 3\)"),
        ({"size": 0}, "size=0"),
        ({"mean": "x"}, "finite number.*mean="),
        ({"mean": ()}, "finite number.*mean="),
        ({"std": (1, 0)}, "`std` must be positive"),
        ({"resize": "pad"}, "resize='pad'"),
        ({"crop": 0}, "crop=0"),
        ({"crop": True}, "crop=True"),
        ({"interpolation": "area"}, "interpolation='area'"),
        ({"antialias": "no"}, "antialias='no'"),
        ({"class_names": "cat"}, "class_names='cat'"),
        ({"class_names": ["a", 2]}, "class_names="),
        ({"class_names": ["a\nb"]}, "one line of text"),
    ],
)
def test_wrong_values_are_quoted(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageSpec(**fields)


def test_statistics_must_fit_the_channels():
    with pytest.raises(ValueError, match=r"each of the 1 channels.*mean=\(0.1"):
        model_of(SPEC, (32, 48, 1))
