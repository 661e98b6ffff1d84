"""What is written, and what it is compared on."""

import keras
import numpy as np
import pytest
from export_networks import little, small

import keras_csp
from keras_csp.export import load, save, to_tflite
from keras_csp.export.inputs import exportable, photographs

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.mark.parametrize(
    "shape", [(64, 64, 3), (0, 64, 64, 3), (2, 32, 64, 3), (2, 64, 64, 1)]
)
def test_samples_must_fit(shape, tmp_path):
    with pytest.raises(ValueError, match="samples"):
        to_tflite(small("SmallMobile"), tmp_path / "m.tflite", np.zeros(shape))


def test_a_model_of_open_sides(tmp_path, rng):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    outputs = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, outputs)
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match=r"`input_shape=\(height, width"):
        to_tflite(model, path)
    with pytest.raises(ValueError, match=r"input_shape=\(8, 8, 1\)"):
        to_tflite(model, path, input_shape=(8, 8, 1))
    to_tflite(model, path, input_shape=(8, 12, 3))
    assert load(path).metadata.input_shape == (8, 12, 3)
    samples = rng.random((2, 10, 9, 3), dtype="float32")
    check = to_tflite(model, path, samples)
    assert (check.samples, check.largest_difference < 1e-5) == (2, True)
    assert load(path).metadata.input_shape == (10, 9, 3)
    batches = [samples, samples]
    with pytest.raises(ValueError, match=r"`input_shape=\(height, width"):
        to_tflite(model, path, quantize="int8", representative=batches)


def test_without_photographs_samples_are_asked_for(tmp_path):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match=r"shape \(8,\) are not photographs"):
        to_tflite(model, tmp_path / "m.tflite")
    two = keras.Model([inputs, keras.Input((8,))], inputs)
    with pytest.raises(ValueError, match="must have one input"):
        to_tflite(two, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_the_size_of_the_spec_is_that_of_open_sides(tmp_path):
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, outputs)
    model = keras_csp.with_image_spec(model, size=(12, 8))
    to_tflite(model, tmp_path / "m.tflite")
    metadata = load(tmp_path / "m.tflite").metadata
    assert metadata.input_shape == (12, 8, 3)
    assert metadata.image.size == (12, 8)


@pytest.mark.parametrize("file", ["m.tflite", "m.onnx", "served"])
def test_a_list_of_outputs_gets_names(file, tmp_path, rng):
    """In the model's order, whatever the format calls them."""
    model = little()
    two = keras.Model(
        model.inputs, [model.layers[-1].output, model.layers[1].output]
    )
    images = rng.random((2, 8, 8, 3), dtype="float32")
    check = save(two, tmp_path / file, images)
    assert check.largest_difference < 1e-5
    found = load(tmp_path / file)(images)
    expected = two.predict_on_batch(images)
    assert sorted(found) == ["output_0", "output_1"]
    for index, values in enumerate(expected):
        np.testing.assert_allclose(found[f"output_{index}"], values, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "functional keras.Model or a keras_csp.Detector. Received"),
        (keras.layers.Dense(2), "of type Dense"),
        (keras.Sequential([keras.layers.Dense(2)]), "of type Sequential"),
    ],
)
def test_what_is_no_functional_model(model, message):
    with pytest.raises(ValueError, match=message):
        exportable(model, "TFLite")


def test_outputs_within_outputs_are_refused():
    model = little()
    maps = [layer.output for layer in model.layers[1:]]
    nested = keras.Model(model.inputs, {"a": maps[0], "b": maps[1:]})
    with pytest.raises(ValueError, match="a list or dict of tensors"):
        exportable(nested, "ONNX")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_photographs_are_pixels_up_to_one(channels):
    found = photographs((20, 30, channels), count=3)
    assert found.shape == (3, 20, 30, channels)
    assert found.dtype == np.float32
    assert 0 <= found.min() < 0.1 and 0.8 < found.max() <= 1
