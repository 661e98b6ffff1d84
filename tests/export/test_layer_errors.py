"""The errors of single layers, against the outputs of two files in numpy."""

import keras
import numpy as np
import pytest
from support import randomize

from keras_csp.export import layer_errors, load, to_tflite
from keras_csp.export.layer_errors import report
from keras_csp.layers import ConvNormAct

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((20, 16, 16, 3), dtype="float32")


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    """{quantize: path}"""
    folder = tmp_path_factory.mktemp("files")
    x = inputs = keras.Input((16, 16, 3))
    for index, filters in enumerate((8, 8, 16)):
        x = ConvNormAct(filters, 3, name=f"unit_{index}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(4, name="logits")(x)
    model = randomize(keras.Model(inputs, outputs))
    paths = {}
    for quantize in (None, "int8"):
        paths[quantize] = folder / f"{quantize}.tflite"
        options = {}
        if quantize:
            options = {"representative": images, "minimum_match_rate": 0.0}
        to_tflite(model, paths[quantize], images, quantize=quantize, **options)
    return paths


def test_layer_errors_against_numpy(files, images):
    """Of the last operation: the outputs of both files, compared here."""
    errors = layer_errors(files[None], files["int8"], images)
    exact, found = load(files[None])(images), load(files["int8"])(images)
    expected = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert errors[-1].error == pytest.approx(expected, rel=1e-3)
    convolutions = [e for e in errors if e.operation == "CONV_2D"]
    assert [e.layer.split("/")[0] for e in convolutions] == [
        *("unit_0", "unit_1", "unit_2")
    ]
    assert all(0 < e.error < 0.5 for e in convolutions)
    # The first operation is given the same image but for its rounding.
    assert convolutions[0].added == pytest.approx(
        convolutions[0].error, abs=0.01
    )
    worst = max(errors, key=lambda e: e.added)
    assert worst.layer in report(errors, 1)


def test_files_of_different_models(files, tmp_path):
    inputs = keras.Input((8,))
    other = keras.Model(inputs, keras.layers.Dense(2, name="else")(inputs))
    to_tflite(other, tmp_path / "m.tflite", np.ones((2, 8)))
    images = np.ones((1, 16, 16, 3))
    with pytest.raises(ValueError, match="must be of the same model"):
        layer_errors(tmp_path / "m.tflite", files["int8"], images)
