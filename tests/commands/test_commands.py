import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.commands import main, models, parser
from keras_csp.export import load
from keras_csp.layers import ConvNormAct
from keras_csp.weights import find_record


def test_list(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == keras_csp.list_models()


def test_weights(capsys):
    assert main(["weights"]) == 0
    assert "timm/cspresnext50.ra_in1k" in capsys.readouterr().out


def test_count(capsys):
    assert main(["count", "ResNet10", "--total"]) == 0
    out = capsys.readouterr().out
    assert "5.2400 M parameters, 2.2733 BFLOPs" in out
    assert main(["count", "ResNet10", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert "GlobalAveragePooling2D" in out
    assert "64x64x3" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["count", "ResNet11"], "'ResNet11'. Did you mean ResNet10"),
        (["count", "ResNet10", "--size", "8"], "(8, 8, 3)"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "table" in capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model's file, its classes and some photographs."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("cli")
    inputs = keras.Input((16, 16, 3))
    x = ConvNormAct(8, 3, strides=2)(inputs)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(3, activation="softmax")(x)
    keras.Model(inputs, outputs, name="little").save(folder / "model.keras")
    noted = {"names": ["red", "green", "blue"], "size": 16}
    (folder / "classes.json").write_text(json.dumps(noted))
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(12):
        pixels = rng.integers(0, 256, (30, 30, 3), dtype="uint8")
        Image.fromarray(pixels).save(folder / "photos" / f"{index:02}.png")
    return folder


@pytest.mark.parametrize("file", ["m.tflite", "m.onnx", "saved"])
def test_export_and_predict(file, folder, capsys):
    path = str(folder / file)
    assert main(["export", str(folder / "model.keras"), path]) == 0
    assert f"{path}: " in capsys.readouterr().out
    assert load(path).metadata.labels == ("red", "green", "blue")
    arguments = ["predict", path, str(folder / "photos"), "--top", "2"]
    listed = folder / f"{file}.json"
    assert main([*arguments, "--json", str(listed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    model = keras.saving.load_model(folder / "model.keras")
    for line, row in zip(lines, json.loads(listed.read_text())):
        with Image.open(row["file"]) as photo:
            small = photo.resize((16, 16), Image.Resampling.BILINEAR)
        # Shrunk by Pillow, whose antialiased bilinear filter is the same.
        scores = model.predict(np.array(small)[None] / 255, verbose=0)[0]
        scores = dict(zip(("red", "green", "blue"), scores))
        first, second = row["classes"]
        assert first["score"] >= second["score"]
        for found in (first, second):
            assert found["score"] == pytest.approx(
                scores[found["class"]], abs=5e-3
            )
        assert line.startswith(f"{row['file']}: {first['class']} 0.")


def test_export_int8(folder, capsys):
    arguments = [
        *("export", str(folder / "model.keras"), str(folder / "i.tflite")),
        *("--quantize", "int8", "--images", str(folder / "photos")),
        *("--minimum-agreement", "0.5"),
    ]
    assert main(arguments) == 0
    assert "TFLite int8" in capsys.readouterr().out
    widest = (folder / "i.tflite").read_bytes()
    assert main([*arguments, "--calibration", "mse"]) == 0
    assert (folder / "i.tflite").read_bytes() != widest


def test_export_a_network_by_name(tmp_path, capsys):
    arguments = ["export", "CSPResNet10", str(tmp_path / "m.tflite")]
    arguments += ["--maximum-difference", "1e-3"]
    assert main([*arguments, "--size", "64"]) == 0
    metadata = load(tmp_path / "m.tflite").metadata
    assert metadata.input_shape == (64, 64, 3)
    assert metadata.network == "cspresnet10"


def test_predict_boxes(tmp_path, folder, rng, capsys):
    """By the file as by the detector, in the photograph's own pixels."""
    detector = keras_csp.Detector(
        tiny_backbone(), classes=3, input_shape=(64, 64, 3)
    )
    randomize(detector).save(tmp_path / "d.keras")
    shutil.copy(folder / "classes.json", tmp_path / "classes.json")
    # With bars of 16 pixels above and below, and no enlargement.
    pixels = rng.integers(0, 256, (32, 64, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    path, pictures = tmp_path / "d.tflite", tmp_path / "pictures"
    listed = tmp_path / "boxes.json"
    assert main(["export", str(tmp_path / "d.keras"), str(path)]) == 0
    capsys.readouterr()
    arguments = [path, tmp_path / "wide.png", "--pictures", pictures]
    assert main(["predict", *map(str, arguments), "--json", str(listed)]) == 0
    said = capsys.readouterr().out
    assert len(list(pictures.iterdir())) == 1
    (row,) = json.loads(listed.read_text())
    assert (row["width"], row["height"]) == (64, 32)
    image = np.full((1, 64, 64, 3), 0.5, "float32")
    image[0, 16:48] = pixels / 255
    expected = detector.predict(image, verbose=0)
    count = int(expected["count"][0])
    assert len(row["detections"]) == count > 0
    boxes = expected["boxes"][0, :count] - [0, 16, 0, 16]
    boxes = np.clip(boxes, 0, [64, 32, 64, 32])
    names = ["red", "green", "blue"]
    labels = [names.index(found["class"]) for found in row["detections"]]
    np.testing.assert_array_equal(labels, expected["classes"][0, :count])
    np.testing.assert_allclose(
        [found["box"] for found in row["detections"]], boxes, atol=0.02
    )
    first = row["detections"][0]
    assert first["score"] == pytest.approx(expected["scores"][0, 0], abs=1e-3)
    assert f"wide.png: {first['class']} {first['score']:.3f} at " in said


def test_a_photograph_that_cannot_be_read_is_named(folder, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = str(folder / "photos" / "00.png")
    path = str(folder / "model.keras")
    assert main(["predict", path, str(tmp_path / "bad.png"), good]) == 1
    said = capsys.readouterr()
    assert "cannot read" in said.err and "bad.png" in said.err
    assert said.out.startswith(good)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export ResNet11 m.tflite", "'ResNet11'. Did you mean"),
        ("export none.keras m.tflite", "no such model: none.keras"),
        ("export model.keras m.pb", "must end in .tflite or .onnx"),
        ("export model.keras m.onnx --quantize int8", "is of .tflite files"),
        ("export model.keras m.tflite --quantize int8", "needs --images"),
        ("export model.keras m.tflite --calibration mse", "--quantize int8"),
        ("export model.keras m.tflite --maximum-difference 2", "0 and 1"),
        ("export model.keras m.tflite --images none", "no such file or folder"),
        ("export model.keras m.tflite --labels none", "no such file of labels"),
        ("export model.keras m.tflite --labels model.keras", "utf-8"),
        ("export model.keras m.tflite --weights imagenet", "has its own"),
        ("export model.keras photos", "must be new or a SavedModel"),
        ("predict m.tflit photos", "There is no file"),
        ("predict photos photos", "Cannot read"),
        ("predict model.keras photos --top 0", "--top must be 1"),
        ("predict model.keras none", "no such file or folder: none"),
    ],
)
def test_mistakes_of_deployment(
    arguments, message, folder, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("weights", "checkpoint"),
    [
        ("imagenet", "cspresnext50"),
        ("files/mine.safetensors", "cspresnext50"),
        ("csresnext50.weights", None),
        ("mine.weights.h5", None),
        (None, None),
    ],
)
def test_what_weights_expect_of_pixels(weights, checkpoint):
    """Also by the paper's name, which builds timm's network for them."""
    network = find_record("CSPResNeXt50Timm").network.lower()
    assert models._checkpoint(weights, network) == checkpoint


def test_the_name_that_weights_build(monkeypatch, tmp_path):
    built = keras_csp.CSPResNeXt50Timm(weights=None, input_shape=(64, 64, 3))
    monkeypatch.setattr(keras_csp, "get_factory", lambda _: lambda **_: built)
    arguments = ["export", "CSPResNeXt50", "m.onnx", "--weights", "imagenet"]
    options = parser().parse_args(arguments)
    assert models.load_model(options)[2] == "cspresnext50"


@pytest.mark.parametrize(
    ("file", "text", "size"),
    [
        ("words.txt", "rot\n\ngrün\nblau\n", None),
        ("words.json", '{"names": ["rot", "grün", "blau"], "size": 24}', 24),
    ],
)
def test_labels_instead_of_those_beside_the_model(
    file, text, size, folder, tmp_path
):
    path = tmp_path / file
    path.write_text(text, "utf-8")
    arguments = ["export", str(folder / "model.keras"), "m.onnx"]
    options = parser().parse_args([*arguments, "--labels", str(path)])
    _model, found, _preprocessing, labels = models.load_model(options)
    assert (labels, found) == (["rot", "grün", "blau"], size)


def test_json_of_labels_needs_names(folder, tmp_path, capsys):
    path = tmp_path / "words.json"
    arguments = ["export", str(folder / "model.keras"), "m.onnx"]
    for text in ('["rot"]', '{"name": "rot"}', "rot"):
        path.write_text(text)
        assert main([*arguments, "--labels", str(path)]) == 2
        assert "no JSON with `names`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CSPPeleeNet", "m.tflite", "--size", "0"], "--size must be 1 or"),
        (["model.keras", "m.tflite", "--size", "64"], "images of 16x16 only"),
        (["none.keras", "m.tflite"], "no such model"),
        (["broken.keras", "m.tflite"], "cannot read broken.keras"),
        (["open.keras", "m.tflite"], "of any size: give --size"),
    ],
)
def test_mistakes_of_export(
    arguments, message, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "model.keras", "model.keras")
    pathlib.Path("broken.keras").write_bytes(b"no model")
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, ConvNormAct(4)(inputs)).save("open.keras")
    assert main(["export", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not pathlib.Path("m.tflite").exists()


def test_predict_needs_a_classifier_or_a_detector(folder, tmp_path, capsys):
    inputs = keras.Input((16, 16, 3))
    maps = {"P1": ConvNormAct(4)(inputs), "P2": ConvNormAct(4, 3, 2)(inputs)}
    keras.Model(inputs, maps).save(tmp_path / "maps.keras")
    photos = str(folder / "photos")
    assert main(["predict", str(tmp_path / "maps.keras"), photos]) == 2
    assert "no detector: it gives P1, P2" in capsys.readouterr().err
