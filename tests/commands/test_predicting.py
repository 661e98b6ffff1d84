"""`keras-csp predict`: printed, as JSON and as pictures."""

import json
import pathlib

import keras
import numpy as np
import pytest
from commands_models import COLOURS, DETECTOR_CFG, classifier, save_photographs
from PIL import Image
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.commands import main
from keras_csp.commands.predicting import picture_names
from keras_csp.layers import ConvNormAct, Preprocessing, YoloHead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier, a detector and photographs."""
    folder = tmp_path_factory.mktemp("cli")
    classifier().save(folder / "model.keras")
    detector = keras_csp.Detector(
        tiny_backbone(),
        classes=3,
        input_shape=(64, 64, 3),
        class_names=COLOURS,
    )
    randomize(detector).save(folder / "detector.keras")
    save_photographs(folder / "photos", 12)
    return folder


def predict(*arguments):
    return main(["predict", *map(str, arguments)])


def test_classes(folder, tmp_path, capsys):
    """Shrunk by Pillow's bilinear filter, which antialiases in the same way."""
    listed = tmp_path / "new" / "classes.json"
    arguments = (folder / "model.keras", folder / "photos", "--top", "2")
    assert predict(*arguments, "--json", listed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    model = keras.saving.load_model(folder / "model.keras")
    for line, record in zip(lines, json.loads(listed.read_text())):
        with Image.open(record["file"]) as photo:
            small = photo.resize((16, 16), Image.Resampling.BILINEAR)
        scores = model.predict(np.array(small)[None] / 255, verbose=0)[0]
        scores = dict(zip(COLOURS, scores))
        first, second = record["classes"]
        assert first["score"] >= second["score"]
        for found in (first, second):
            assert found["score"] == pytest.approx(
                scores[found["class"]], abs=5e-3
            )
        assert line.startswith(f"{record['file']}: {first['class']} 0.")


def test_boxes(tmp_path, folder, rng, capsys):
    """As the detector's own, in the photograph's pixels."""
    # With bars of 16 pixels above and below, and no enlargement.
    pixels = rng.integers(0, 256, (32, 64, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    pictures, listed = tmp_path / "pictures", tmp_path / "boxes.json"
    arguments = (folder / "detector.keras", tmp_path / "wide.png")
    assert predict(*arguments, "--pictures", pictures, "--json", listed) == 0
    said = capsys.readouterr().out
    assert [path.name for path in pictures.iterdir()] == ["wide.png"]
    with Image.open(pictures / "wide.png") as picture:
        assert picture.width == 2 * picture.height
    (record,) = json.loads(listed.read_text())
    assert (record["width"], record["height"]) == (64, 32)
    image = np.full((1, 64, 64, 3), 0.5, "float32")
    image[0, 16:48] = pixels / 255
    detector = keras.saving.load_model(folder / "detector.keras")
    expected = detector.predict(image, verbose=0)
    count = int(expected["count"][0])
    assert len(record["detections"]) == count > 0
    boxes = expected["boxes"][0, :count] - [0, 16, 0, 16]
    boxes = np.clip(boxes, 0, [64, 32, 64, 32])
    labels = [COLOURS.index(found["class"]) for found in record["detections"]]
    np.testing.assert_array_equal(labels, expected["classes"][0, :count])
    np.testing.assert_allclose(
        [found["box"] for found in record["detections"]], boxes, atol=0.02
    )
    first = record["detections"][0]
    assert first["score"] == pytest.approx(expected["scores"][0, 0], abs=1e-3)
    assert f"wide.png: {first['class']} {first['score']:.3f} at " in said


@pytest.mark.parametrize(
    "file",
    [
        "m.keras",
        "m.tflite",
        pytest.param("m.onnx", marks=pytest.mark.slow),
        pytest.param("served", marks=pytest.mark.slow),
    ],
)
def test_a_darknet_detector_that_is_not_square(file, tmp_path, rng, capsys):
    """Saved or exported, it gives the boxes of its cfg; nothing is resized."""
    if file == "m.onnx":
        pytest.importorskip("tf2onnx")
    cfg = tmp_path / "net.cfg"
    cfg.write_text(DETECTOR_CFG)
    detector = randomize(keras_csp.darknet.load(cfg))
    detector.save(tmp_path / "net.keras")
    path = tmp_path / "net.keras"
    if file != "m.keras":
        path = tmp_path / file
        assert main(["export", str(tmp_path / "net.keras"), str(path)]) == 0
    pixels = rng.integers(0, 256, (64, 96, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    listed = tmp_path / "boxes.json"
    assert predict(path, tmp_path / "photo.png", "--json", listed) == 0
    (record,) = json.loads(listed.read_text())
    expected = detector.predict(pixels[None] / np.float32(255), verbose=0)
    count = int(expected["count"][0])
    assert len(record["detections"]) == count > 0
    np.testing.assert_allclose(
        [found["box"] for found in record["detections"]],
        expected["boxes"][0, :count],
        atol=0.02,
    )
    assert "photo.png: class " in capsys.readouterr().out


def test_networks_of_four_channels(tmp_path, rng, capsys):
    """Their boxes are those of the four channels, drawn on the first three.

    Tall, so that the sides cannot be exchanged.
    """
    image = keras.Input((96, 64, 4))
    spec = keras_csp.ImageSpec(mean=[0.5] * 4, resize="stretch")
    x = Preprocessing(spec)(image)
    x = keras.layers.Conv2D(14, 16, 16)(x)
    x = YoloHead([(20, 30), (40, 20)], 2, 16, score_threshold=0.3)(x)
    detector = randomize(keras_csp.Detector(image, {"P4": x}))
    detector.save(tmp_path / "m.keras")
    pixels = rng.integers(0, 256, (96, 64, 4), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "four.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "three.png")
    listed, pictures = tmp_path / "boxes.json", tmp_path / "pictures"
    arguments = (tmp_path / "m.keras", tmp_path / "four.png")
    arguments += (tmp_path / "three.png", "--json", listed)
    assert predict(*arguments, "--pictures", pictures) == 1
    assert "three.png: it has no fourth channel" in capsys.readouterr().err
    (record,) = json.loads(listed.read_text())
    expected = detector.predict(pixels[None] / np.float32(255), verbose=0)
    count = int(expected["count"][0])
    assert len(record["detections"]) == count > 0
    np.testing.assert_allclose(
        [found["box"] for found in record["detections"]],
        np.clip(expected["boxes"][0, :count], 0, [64, 96, 64, 96]),
        atol=0.02,
    )
    with Image.open(pictures / "four.png") as picture:
        assert picture.getextrema()[-1] == (255, 255)  # nothing shines through


def test_a_photograph_that_cannot_be_read_is_named(folder, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = folder / "photos" / "00.png"
    path = folder / "model.keras"
    listed = tmp_path / "found.json"
    arguments = (tmp_path / "bad.png", good, "--json", listed)
    assert predict(path, *arguments) == 1
    said = capsys.readouterr()
    assert "cannot read" in said.err and "bad.png" in said.err
    assert said.err.count("\n") == 1
    assert said.out.startswith(str(good))
    assert [one["file"] for one in json.loads(listed.read_text())] == [
        str(good)
    ]


def test_photographs_of_one_name_keep_their_pictures(
    folder, tmp_path, monkeypatch
):
    """Turned as their EXIF data says."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/photo.JPG", "b/photo.png"):
        pathlib.Path(name).parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (40, 20)).save("a/photo.JPG", exif=exif)
    Image.new("L", (60, 20)).save("b/photo.png")
    path = folder / "detector.keras"
    assert predict(path, "a", "b", "--pictures", "out") == 0
    shapes = {}
    for file in pathlib.Path("out").iterdir():
        with Image.open(file) as picture:
            shapes[file.name] = picture.width / picture.height
    assert shapes == {
        "photo.png": pytest.approx(1 / 2, rel=0.01),
        "photo_2.png": pytest.approx(3, rel=0.01),
    }


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.png", "z/A.jpg"], ["a", "a_2", "A_3"]),
        (["x/a.jpg", "a_2.jpg", "y/a.jpg"], ["a", "a_2", "a_3"]),
        (["x/a.jpg", "y/a.jpg", "a_2.jpg"], ["a", "a_3", "a_2"]),
    ],
)
def test_names_of_pictures(files, names):
    assert picture_names(list(map(pathlib.Path, files))) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model.keras none", "no such file or folder: none"),
        ("model.keras photos --top 0", "--top must be 1"),
        ("model.keras photos --json photos", "--json must be a file"),
        ("model.keras photos --pictures out", "only valid for detectors"),
        ("detector.keras photos --pictures photos", "would overwrite"),
        ("detector.keras photos --size 96", "images of 64x64 only"),
        ("maps.keras photos", "nor boxes. Received: an output of P1 (1, 16,"),
        ("flat.keras photos", "images with 1, 3 or 4 channels"),
        ("open.keras photos", "of any size: give --size"),
    ],
)
def test_mistakes(arguments, message, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    inputs = keras.Input((16, 16, 3))
    maps = {"P1": ConvNormAct(4)(inputs), "P2": ConvNormAct(4, 3, 2)(inputs)}
    keras.Model(inputs, maps).save("maps.keras")
    flat = keras.Input((8,))
    keras.Model(flat, keras.layers.Dense(2)(flat)).save("flat.keras")
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, ConvNormAct(4)(inputs)).save("open.keras")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert predict(*arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert after == before


@pytest.fixture
def fastest(shared_data):
    folder = shared_data / "darknet" / "yolo-fastest-1.1"
    if not folder.is_dir():
        pytest.skip("no Yolo-Fastest here")
    return folder


def test_a_dog_a_car_and_a_person(fastest, tmp_path, capsys):
    """A published detector's files, as they come, on two photographs."""
    name = fastest / "yolo-fastest-1.1"
    listed, pictures = tmp_path / "found.json", tmp_path / "pictures"
    status = predict(
        *(f"{name}.cfg", "--weights", f"{name}.weights"),
        *("--names", fastest / "coco.names"),
        *(fastest / "dog.jpg", fastest / "person.jpg"),
        *("--json", listed, "--pictures", pictures),
    )
    assert status == 0
    dog, person = json.loads(listed.read_text())
    assert {"dog", "car"} <= {one["class"] for one in dog["detections"]}
    assert {"person", "dog"} <= {one["class"] for one in person["detections"]}
    boxes = {one["class"]: one["box"] for one in reversed(dog["detections"])}
    # Read off the photograph, 768 by 576: the dog, and the car behind.
    np.testing.assert_allclose(boxes["dog"], [130, 220, 310, 540], atol=60)
    np.testing.assert_allclose(boxes["car"], [465, 75, 685, 170], atol=20)
    assert sorted(path.name for path in pictures.iterdir()) == [
        "dog.png",
        "person.png",
    ]
    assert "dog.jpg: car 0." in capsys.readouterr().out
