import csv
import json

import keras
import numpy as np
import pytest

import keras_csp
from keras_csp.preprocessing import darknet_classes


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
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
    y = keras_csp.preprocess_input(tensor, data_format="channels_last")
    np.testing.assert_allclose(np.asarray(y), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3),), r"shape \(3,\)"),
        ((np.zeros((1, 2, 2, 3)), "channels"), "data_format='channels'"),
    ],
)
def test_bad_arguments_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_csp.preprocess_input(*arguments)


@pytest.fixture
def class_names(monkeypatch, tmp_path):
    """The list of names as keras.applications keeps it, without a network."""
    from keras.src.applications import imagenet_utils

    names = {
        str(index): [wordnet_id, f"name{index}"]
        for index, wordnet_id in enumerate(sorted(darknet_classes()))
    }
    path = tmp_path / "imagenet_class_index.json"
    path.write_text(json.dumps(names))
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    monkeypatch.setattr(
        imagenet_utils.file_utils, "get_file", lambda *a, **k: str(path)
    )


def test_decode_predictions(class_names):
    scores = np.zeros((1, 1000), "float32")
    scores[0, [7, 3]] = 0.9, 0.1
    ((first, second),) = keras_csp.decode_predictions(scores, top=2)
    assert first[1:] == ("name7", np.float32(0.9))
    assert second[1] == "name3"


def test_decode_predictions_in_darknets_order(class_names):
    """Darknet's first classes: kit fox, English setter, Siberian husky."""
    scores = np.zeros((1, 1000), "float32")
    scores[0, :3] = 0.5, 0.3, 0.2
    (decoded,) = keras_csp.decode_predictions(scores, 3, order="darknet")
    ids = [wordnet_id for wordnet_id, _, _ in decoded]
    assert ids == ["n02119789", "n02100735", "n02110185"]
    assert [round(float(score), 1) for *_, score in decoded] == [0.5, 0.3, 0.2]


def test_darknets_classes_are_imagenets(shared_data):
    """The index of each sample's class, written down by others."""
    path = shared_data / "classification" / "imagenet_sample" / "index.csv"
    ids = sorted(darknet_classes())
    assert len(set(ids)) == 1000
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            assert ids[int(row["class_index"])] == row["wnid"]


def test_decode_predictions_wants_1000_classes():
    with pytest.raises(ValueError, match=r"\(2, 10\)"):
        keras_csp.decode_predictions(np.zeros((2, 10)))


@pytest.mark.parametrize("name", ["cspresnext50", "cs3darknet_focus_s"])
def test_statistics_of_a_checkpoint(name, rng):
    record = keras_csp.weights.find_record(name)
    images = rng.integers(0, 256, (2, 4, 5, 3), dtype="uint8")
    expected = (images / 255 - record.mean) / record.std
    for x in (images, keras.ops.convert_to_tensor(images)):
        for alias in (name, record.hub_id, record.network):
            y = keras_csp.preprocess_input(x, weights=alias)
            assert keras.backend.standardize_dtype(y.dtype) == "float32"
            np.testing.assert_allclose(np.asarray(y), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "weights", "message"),
    [
        ((4, 5, 3), "imagenet", "depends on the network.*cspresnext50"),
        ((4, 5, 3), "cspresnext5", "'cspresnext5'.*'cspresnext50'"),
        ((4, 5, 1), "cspresnext50", r"3 channels.*\(4, 5, 1\)"),
    ],
)
def test_statistics_that_do_not_fit(shape, weights, message):
    with pytest.raises(ValueError, match=message):
        keras_csp.preprocess_input(np.zeros(shape), weights=weights)


def test_unknown_order_of_classes():
    with pytest.raises(ValueError, match="order='torch'"):
        keras_csp.decode_predictions(np.zeros((1, 1000)), order="torch")
