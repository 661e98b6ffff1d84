"""`keras-csp export`: what is written, read again."""

import keras
import numpy as np
import pytest
from commands_models import (
    COLOURS,
    DETECTOR_CFG,
    certain,
    classifier,
    save_photographs,
)

import keras_csp
from keras_csp.commands import main
from keras_csp.export import load
from keras_csp.layers import ConvNormAct

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    classifier().save(folder / "model.keras")
    save_photographs(folder / "photos", 12)
    (folder / "net.cfg").write_text(DETECTOR_CFG)
    network = certain(keras_csp.darknet.load(folder / "net.cfg"))
    keras_csp.darknet.save_weights(network, folder / "net.weights")
    (folder / "two.names").write_text("cat\ndog\n")
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, ConvNormAct(4)(inputs)).save(folder / "open.keras")
    return folder


def export(*arguments):
    return main(["export", *map(str, arguments)])


@pytest.mark.parametrize("file", ["m.tflite", "m.onnx", "saved"])
def test_a_file_of_each_format(file, folder, tmp_path, capsys, rng):
    if file == "m.onnx":
        pytest.importorskip("tf2onnx")
    path = tmp_path / file
    assert export(folder / "model.keras", path) == 0
    assert f"{path}: " in capsys.readouterr().out
    run = load(path)
    assert run.metadata.class_names == COLOURS
    images = rng.random((2, 16, 16, 3), dtype="float32")
    expected = classifier().predict_on_batch(images)
    np.testing.assert_allclose(run(images), expected, atol=1e-5)


def test_int8(folder, tmp_path, capsys):
    path = tmp_path / "i.tflite"
    arguments = (
        *(folder / "model.keras", path, "--quantize", "int8"),
        *("--images", folder / "photos", "--minimum-match-rate", "0.5"),
    )
    assert export(*arguments) == 0
    said = capsys.readouterr().out
    assert "TFLite int8" in said and "of 12 samples match" in said
    widest = path.read_bytes()
    assert export(*arguments, "--calibration", "mse") == 0
    assert path.read_bytes() != widest


def test_a_network_by_name(tmp_path):
    path = tmp_path / "m.tflite"
    difference = ("--maximum-difference", "1e-3")
    arguments = ("CSPDenseNetbReference", path, *difference)
    assert export(*arguments, "--size", "64x32") == 0
    metadata = load(path).metadata
    assert metadata.input_shape == (64, 32, 3)
    assert metadata.network == "cspdensenetbreference"


def test_a_darknet_detector_with_its_thresholds(folder, tmp_path, rng):
    """Its scores are near 0.25, which the cfg's 0.2 would let by."""
    path = tmp_path / "m.tflite"
    files = folder / "net.cfg", folder / "net.weights"
    more = ("--weights", files[1], "--names", folder / "two.names")
    assert export(files[0], path, *more, "--score", "0.9") == 0
    run = load(path)
    assert run.metadata.class_names == ("cat", "dog")
    assert run.metadata.input_shape == (64, 96, 3)
    images = rng.random((1, 64, 96, 3), dtype="float32")
    assert run(images)["count"][0] == 0
    detector = keras_csp.Detector.from_darknet(*files)
    assert detector.predict(images, verbose=0)["count"][0] > 0


def test_the_size_of_open_sides(tmp_path):
    classifier(None).save(tmp_path / "open.keras")
    path = tmp_path / "m.tflite"
    assert export(tmp_path / "open.keras", path, "--size", "32x64") == 0
    assert load(path).metadata.input_shape == (32, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ResNet11 m.tflite", "'ResNet11'. Did you mean"),
        ("none.keras m.tflite", "no such model: none.keras"),
        ("model.keras m.pb", "Expected a .tflite or .onnx file or the folder"),
        ("model.keras m.onnx --quantize int8", "only valid for .tflite files"),
        ("model.keras m.tflite --quantize int8", "needs --images"),
        (
            "model.keras m.tflite --calibration mse",
            "only valid with --quantize int8",
        ),
        ("model.keras m.tflite --minimum-match-rate 1", "quantised files"),
        ("model.keras m.tflite --maximum-difference 2", "0 and 1"),
        ("model.keras m.tflite --images none", "no such file or folder"),
        ("model.keras m.tflite --weights imagenet", "has its own"),
        ("model.keras m.tflite --size 64", "images of 16x16 only"),
        ("model.keras m.tflite --score 0.5", "only valid for detectors"),
        ("open.keras m.tflite", "of any size: give --size"),
        ("model.keras photos", "must be new or a SavedModel"),
    ],
)
def test_mistakes(arguments, message, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert export(*arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
