"""Class folders as people have them."""

import os

import numpy as np
import PIL.Image

from keras_csp.data import load_classification
from keras_csp.data.sources.folder import read_folder, splits_of


def add(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 8), (shade,) * 3).save(
        path, {".JPG": "jpeg", "": "png"}.get(path.suffix)
    )


def test_classes_take_turns(tmp_path):
    for name in ("b/1.png", "a/2.png", "a/1.png", "b/3.png", "a/4.png"):
        add(tmp_path / name)
    add(tmp_path / "a" / "deeper" / "9.png")
    names, files, labels = read_folder(tmp_path)
    assert names == ("a", "b")
    assert labels == [0, 1, 0, 1, 0, 0]
    assert files == [
        "a/1.png",
        "b/1.png",
        "a/2.png",
        "b/3.png",
        "a/4.png",
        "a/deeper/9.png",
    ]


def test_splits(tmp_path):
    assert splits_of(tmp_path) == (tmp_path, None)
    (tmp_path / "train").mkdir()
    assert splits_of(tmp_path) == (tmp_path, None)
    for name in ("validation", "val", "test"):
        (tmp_path / name).mkdir()
        assert splits_of(tmp_path) == (tmp_path / "train", tmp_path / name)


def test_odd_names(tmp_path, caplog):
    names = ["été 50% {0} {{x}}", "a*b?[c]", "日本", "a\nb", "%s %d", "plain"]
    for number, name in enumerate(names):
        add(tmp_path / name / f"{name}.JPG", 40 * number)
        add(tmp_path / name / "2.jpeg", 40 * number)
    train, test = load_classification(tmp_path, validation_split=0.5)
    assert set(train.class_names) == set(names)
    for data in (train, test):
        shades = {
            data.class_names[label]: round(float(np.mean(image)) / 40)
            for image, label in data.examples()
        }
        assert shades == {name: number for number, name in enumerate(names)}
    assert not caplog.records


def test_names_that_are_no_text(tmp_path, caplog):
    """Bytes that are not UTF-8, as old archives have them."""
    for name in ("a", "b"):
        for index in range(3):
            add(tmp_path / name / f"{index}.png")
    raw = os.fsdecode(b"\xff\xfe.png")
    add(tmp_path / "a" / raw)
    (tmp_path / "b" / raw).write_bytes(b"no image")
    train, test = load_classification(tmp_path, validation_split=0.5)
    assert sum(1 for data in (train, test) for _ in data.examples()) == 7
    # As text that any terminal and log file takes.
    shown = str(tmp_path / "b" / r"\xff\xfe.png")
    assert train.skipped + test.skipped == (shown,)
    (record,) = caplog.records
    assert f"{shown} is skipped: Unknown image file" in record.getMessage()


def test_an_empty_class_stays_and_is_named(tmp_path, caplog):
    for name in ("a/1.png", "a/2.png", "c/1.png", "c/2.png"):
        add(tmp_path / name)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("none yet")
    (tmp_path / "c" / "scan.tiff").write_bytes(b"II*")
    train, _test = load_classification(tmp_path, validation_split=0.5)
    assert train.class_names == ("a", "b", "c")
    assert {int(label) for _image, label in train.examples()} == {0, 2}
    empty, others = (record.getMessage() for record in caplog.records)
    assert empty == f"The class folder {tmp_path / 'b'} has no images"
    assert "left out 2 files" in others and "b/notes.txt" in others


def test_what_is_hidden_is_passed_over(tmp_path, caplog):
    for name in ("a/1.png", "b/1.png"):
        add(tmp_path / name)
    for name in (".cache/1.png", "a/.thumbs/1.png", "a/._1.png"):
        add(tmp_path / name)
    names, files, _labels = read_folder(tmp_path)
    assert names == ("a", "b") and files == ["a/1.png", "b/1.png"]
    assert not caplog.records
