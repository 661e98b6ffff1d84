"""The contents of TFLite files: what others find in them."""

import zipfile

import keras
import pytest
from export_networks import little

import keras_csp
from keras_csp.export import to_tflite

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)

NAMES = ("cat", "dög", "green frog")


@pytest.fixture(scope="module")
def model():
    return keras_csp.with_image_spec(little(), class_names=NAMES)


def test_any_zip_reader_finds_the_names_of_the_classes(model, tmp_path):
    to_tflite(model, tmp_path / "m.tflite")
    with zipfile.ZipFile(tmp_path / "m.tflite") as archive:
        assert archive.testzip() is None
        text = archive.read("labels.txt").decode()
    assert tuple(text.splitlines()) == NAMES


def test_the_same_file_each_time(model, tmp_path):
    paths = [tmp_path / "first.tflite", tmp_path / "second.tflite"]
    for path in paths:
        to_tflite(model, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
