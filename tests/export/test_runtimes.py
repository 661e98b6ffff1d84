"""Files as functions of batches, of one output and of several."""

import keras
import numpy as np
import pytest
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.export import load, save
from keras_csp.export.runtimes import KerasRuntime

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture(scope="module")
def model():
    """Two outputs of different shapes, by name."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, {"z_map": x, "a_vector": pooled})


@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "folder", "m.keras"])
@pytest.mark.parametrize("threads", [None, 1])
def test_several_outputs_by_name(name, threads, model, rng, tmp_path):
    path = tmp_path / name
    model.save(path) if name == "m.keras" else save(model, path)
    images = rng.random((3, 8, 8, 3))  # float64 is converted
    found = load(path, threads)(images)
    expected = model.predict_on_batch(images)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-6)


def test_a_saved_detector_gives_boxes(tmp_path, rng):
    detector = randomize(
        keras_csp.Detector(tiny_backbone(), classes=3, input_shape=(64, 64, 3))
    )
    detector.save(tmp_path / "d.keras")
    images = rng.random((2, 64, 64, 3), dtype="float32")
    expected = detector.predict(images, verbose=0)
    assert expected["count"].min() > 0
    for run in (load(tmp_path / "d.keras"), KerasRuntime(detector)):
        found = run(images)
        np.testing.assert_array_equal(found["count"], expected["count"])
        np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-5)


def test_open_sides_of_a_keras_file(tmp_path):
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    run = load(tmp_path / "m.keras")
    assert run.metadata.input_shape == (None, None, 3)
    assert run(np.zeros((1, 5, 7, 3))).shape == (1, 3)
