"""What the commands take for a model."""

import os
import pathlib

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
from fake_hub import fake_hub
from support import randomize, run_python, tiny_backbone

import keras_csp
from keras_csp import export
from keras_csp.commands import models, parser
from keras_csp.layers import ConvNormAct

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports are TensorFlow's"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    classifier().save(folder / "model.keras")
    export.to_tflite(classifier(), folder / "model.tflite")
    (folder / "broken.keras").write_bytes(b"no model")
    (folder / "net.cfg").write_text(DETECTOR_CFG)
    network = keras_csp.darknet.load(folder / "net.cfg")
    keras_csp.darknet.save_weights(certain(network), folder / "net.weights")
    (folder / "two.names").write_text("cat\n\ndög\n", "utf-8")
    (folder / "three.names").write_text("rot\ngrün\nblau\n", "utf-8")
    (folder / "empty.names").write_text("\n")
    (folder / "latin.names").write_bytes("grün\n".encode("latin-1"))
    detector = keras_csp.Detector(
        tiny_backbone(None),
        classes=2,
        input_shape=(None, None, 3),
        class_names=("cat", "dog"),
    )
    randomize(detector).save(folder / "open.keras")
    return folder


def options(*arguments):
    return parser().parse_args(["predict", *map(str, arguments), "photo.jpg"])


def run_of(*arguments):
    return models.load_runtime(options(*arguments))


@pytest.mark.parametrize("file", ["model.keras", "model.tflite"])
def test_a_file_knows_its_classes(file, folder, rng):
    run = run_of(folder / file)
    assert run.metadata.class_names == COLOURS
    images = rng.random((2, 16, 16, 3), dtype="float32")
    expected = classifier().predict_on_batch(images)
    np.testing.assert_allclose(run(images), expected, atol=1e-5)


def test_other_names(folder):
    run = run_of(folder / "model.keras", "--names", folder / "three.names")
    assert run.metadata.class_names == ("rot", "grün", "blau")


def test_a_network_with_weights_of_the_users(folder, tmp_path, rng):
    factory = keras_csp.CSPDenseNetbReference
    model = factory(weights=None, classes=3, input_shape=(64, 64, 3))
    path = tmp_path / "mine.weights.h5"
    model.save_weights(path)
    run = run_of(
        *("CSPDenseNetbReference", "--weights", path, "--size", "64"),
        *("--names", folder / "three.names"),
    )
    assert run.metadata.class_names == ("rot", "grün", "blau")
    images = rng.random((1, 64, 64, 3), dtype="float32")
    np.testing.assert_allclose(
        run(images), model.predict_on_batch(images), atol=1e-6
    )


def test_a_darknet_detector(folder, rng):
    arguments = [folder / "net.cfg", "--weights", folder / "net.weights"]
    run = run_of(*arguments, "--names", folder / "two.names", "--score", "0.1")
    assert run.metadata.class_names == ("cat", "dög")
    assert run.metadata.input_shape == (64, 96, 3)
    assert run.metadata.image.resize == "stretch"
    detector = keras_csp.Detector.from_darknet(
        folder / "net.cfg", folder / "net.weights"
    )
    images = rng.random((1, 64, 96, 3), dtype="float32")
    expected = detector.predict(images, verbose=0, score_threshold=0.1)
    found = run(images)
    assert expected["count"][0] > 0
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-5)
    other = run_of(*arguments, "--size", "96x64")
    assert other.metadata.input_shape == (96, 64, 3)
    assert other.metadata.class_names is None


@pytest.mark.parametrize(
    ("name", "value"), [("--score", "0.4"), ("--iou", "0.01")]
)
def test_thresholds_are_those_of_the_detector(name, value, folder, rng):
    run = run_of(folder / "open.keras", "--size", "64", name, value)
    images = rng.random((1, 64, 64, 3), dtype="float32")
    detector = keras.saving.load_model(folder / "open.keras")
    key = {"--score": "score_threshold", "--iou": "iou_threshold"}[name]
    default = detector.predict(images, verbose=0)
    expected = detector.predict(images, verbose=0, **{key: float(value)})
    found = run(images)
    assert default["count"] != expected["count"] == found["count"]
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "pair"),
    [("416", (416, 416)), ("320x256", (320, 256)), (None, None)],
)
def test_sizes(text, pair):
    assert models.parse_size(text) == pair


@pytest.mark.parametrize("text", ["0", "12x", "1x2x3", "-4", "4.5", "x"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=f"HEIGHTxWIDTH.* Received: {text}"):
        models.parse_size(text)


def test_the_size_of_open_sides():
    spec = keras_csp.ImageSpec(size=(64, 96))
    metadata = export.Metadata("net", (None, None, 3), spec)
    assert models.input_size(metadata, None) == (64, 96)
    assert models.input_size(metadata, (32, 32)) == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none.keras", "no such model: none.keras"),
        ("broken.keras", "cannot read broken.keras"),
        ("none.h5", "no such model: none.h5; expected a .keras"),
        ("none.tflite", "no such model: none.tflite"),
        ("two.names", "Expected a .tflite"),
        ("CSPDenseNetb", "There is no network named 'CSPDenseNetb'. Did you"),
        ("CSPResNet10", "CSPResNet10 has random weights without --weights"),
        ("net.cfg", "net.cfg has random weights without --weights"),
        ("none.cfg --weights net.weights", "no such model: none.cfg"),
        ("net.cfg --weights net.weights --names three.names", "3 names"),
        ("model.keras --weights net.weights", "model.keras has its own"),
        ("model.keras --names two.names", "2 names for an output of (None, 3)"),
        (
            "model.keras --names none.names",
            "Cannot read the names of the classes in none.names",
        ),
        (
            "model.keras --names empty.names",
            "empty.names must have the name of a class in each line",
        ),
        ("model.keras --names latin.names", "utf-8"),
        ("model.keras --score 0.5", "only valid for detectors. Received: mod"),
        ("model.keras --size 1.5", "--size must be a side"),
        ("open.keras --size 100", "--size must be a multiple of 32. Received:"),
        ("open.keras --score 2", "`--score` must be between 0 and 1"),
        ("model.tflite --score 0.5", "--score cannot change an exported file"),
        ("model.tflite --names two.names", "--names cannot change an exported"),
        ("hf://someone", "must be hf://user/name or"),
    ],
)
def test_mistakes(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError) as caught:
        run_of(*arguments.split())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model.tflite", "model.tflite is not a Keras model"),
        ("photos", "photos is not a Keras model"),
    ],
)
def test_what_cannot_be_exported(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    save_photographs(folder / "photos", 1)
    with pytest.raises(ValueError, match=message):
        models.load_model(options(*arguments.split()))


def test_a_file_that_says_nothing_of_itself(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, ConvNormAct(4)(inputs))
    model.export(tmp_path / "served", verbose=False)
    with pytest.raises(ValueError, match="does not say what its images are"):
        run_of(tmp_path / "served")


HUB = """
import sys
from keras_csp.commands import main
for name in sys.argv[2:]:
    status = main(["predict", name, sys.argv[1], "--top", "1"])
    print(name, status)
"""


def test_models_of_the_hub(tmp_path, folder):
    """In a process of its own, which reads the address when it starts."""
    model = classifier()
    keras.saving.save_model(model, tmp_path / "folder", zipped=False)
    for repository, files in {"one": "a", "two": "ab", "none": ""}.items():
        (tmp_path / repository).mkdir()
        for name in files:
            model.save(tmp_path / repository / f"{name}.keras")
    (tmp_path / "none" / "README.md").write_text("Nothing here")
    save_photographs(tmp_path / "photos", 1)
    names = ("me/folder", "me/one", "me/two", "me/two/b.keras", "me/none")
    with fake_hub(
        {f"me/{path.name}": path for path in tmp_path.iterdir()}
    ) as server:
        said = run_python(
            "import sys; sys.stderr = sys.stdout\n" + HUB,
            tmp_path / "photos",
            *(f"hf://{name}" for name in (*names, "me/other")),
            HF_ENDPOINT=server.url,
            HF_HOME=str(tmp_path / "home"),
        )
    lines = [line for line in said.splitlines() if ": " in line or "hf" in line]
    lines = [line for line in lines if "Fetching" not in line]
    photo = tmp_path / "photos" / "00.png"
    best = [line for line in lines if line.startswith(f"{photo}: ")]
    assert len(best) == 3 and len(set(best)) == 1
    statuses = dict(line.split() for line in lines if line[:5] == "hf://")
    assert statuses == {
        **{f"hf://{name}": "0" for name in ("me/folder", "me/one")},
        **{"hf://me/two": "2", "hf://me/two/b.keras": "0"},
        **{"hf://me/none": "2", "hf://me/other": "2"},
    }
    errors = "\n".join(x for x in lines if x.startswith("keras-csp: "))
    assert "Found: a.keras, b.keras" in errors
    assert "Found: none" in errors
    assert "there is no such repository" in errors


def test_a_name_is_a_network_even_where_a_folder_is_called_so(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("CSPResNet10").mkdir()
    assert os.path.isdir("CSPResNet10")
    with pytest.raises(ValueError, match="has random weights"):
        run_of("CSPResNet10")
