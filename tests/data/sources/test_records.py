"""Records of a user's own: completed, and every fault named."""

import numpy as np
import pytest
from PIL import Image

from keras_csp.data import DetectionData, ImageRecord


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 80), "red").save(tmp_path / name)
    return tmp_path


def test_what_a_record_leaves_out_is_found(folder):
    records = [
        ImageRecord("a.png", [(1, 2, 30, 40)], ["cat"]),
        ImageRecord("b.png", np.zeros((0, 4)), [], image_id=77),
    ]
    data = DetectionData.from_records(records, ["dog", "cat"], folder)
    first, second = data.examples().as_numpy_iterator()
    assert first["image"].shape == (80, 100, 3)
    assert first["labels"].tolist() == [1]
    assert first["area"].tolist() == [29 * 38]
    assert first["crowd"].tolist() == [False]
    assert (first["image_id"], second["image_id"]) == (0, 77)
    assert second["boxes"].shape == (0, 4)
    assert not data.faults


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (ImageRecord("c.png"), "the file is missing"),
        (ImageRecord("a.png", image_id=7), "7 is used twice"),
        (ImageRecord("b.png"), "'b.png' is used twice"),
        (ImageRecord(""), "file name is ''"),
        (ImageRecord("a.png", image_id="x"), "an integer of 64 bits: 'x'"),
        (ImageRecord("broken.png"), "the file cannot be read"),
        (ImageRecord("a.png", [(5, 5, 5, 9)], [0]), "the box has no area"),
        (ImageRecord("a.png", [(5, 5, 300, 9)], [0]), "leaves its 100x80"),
        (ImageRecord("a.png", [(5, 5, 9, 9)], ["cow"]), "no class 'cow'"),
        (ImageRecord("a.png", [(5, 5, 9, 9)], [2]), "there is no class 2"),
        (ImageRecord("a.png", [(5, 5, 9, 9)], [-1]), "there is no class -1"),
        (ImageRecord("a.png", [(5, 5, 9, 9)], [True]), "no class True"),
        (ImageRecord("a.png", [(5, 5, 9, 9)], [[0]]), r"no class [0]"),
        (ImageRecord("a.png", [(5, 5, 9)], [0]), "is not four numbers: (5,"),
        (ImageRecord("a.png", [None], [0]), "is not four numbers: None"),
        (ImageRecord("a.png", ["abcd"], [0]), "is not four numbers: 'abcd'"),
        (ImageRecord("a.png", width=-5, height=80), "the image's width is -5"),
        (ImageRecord("a.png", width=100, height="80"), "height is '80'"),
        (ImageRecord("a.png", [(5, 5, 60, 9)], [0], width=7), "its 7x80"),
    ],
)
def test_faults_are_named(record, reason, folder, caplog):
    (folder / "broken.png").write_bytes(b"no picture")
    records = [ImageRecord("b.png", [(1, 2, 3, 4)], [0], image_id=7), record]
    data = DetectionData.from_records(records, ["dog", "cat"], folder)
    (fault,) = data.faults
    assert reason in str(fault) and reason in caplog.text
    with pytest.raises(ValueError, match="1 faulty"):
        DetectionData.from_records(
            records, ["dog", "cat"], folder, on_error="raise"
        )


def test_an_area_that_makes_no_sense_is_the_boxs(folder):
    areas = [7.5, None, -1, float("nan"), float("inf"), "much"]
    record = ImageRecord("a.png", [(1, 2, 4, 6)] * 6, [0] * 6, area=areas)
    data = DetectionData.from_records([record], ["dog"], folder)
    (example,) = data.examples().as_numpy_iterator()
    assert example["area"].tolist() == [7.5] + [12] * 5


def test_what_no_record_could_mean_is_an_error(folder):
    good = ImageRecord("a.png")
    with pytest.raises(ValueError, match=r"at position 1: \('a.png',\)"):
        DetectionData.from_records([good, ("a.png",)], ["dog"], folder)
    uneven = ImageRecord("a.png", [(1, 2, 3, 4)], [0, 0])
    with pytest.raises(ValueError, match=r"'a.png' has 2 labels and 1 boxes"):
        DetectionData.from_records([uneven], ["dog"], folder)
    with pytest.raises(ValueError, match="names, each once"):
        DetectionData.from_records([good], ["dog", "dog"], folder)
    with pytest.raises(ValueError, match=r"names, each once.*='dog'"):
        DetectionData.from_records([good], "dog", folder)
    with pytest.raises(ValueError, match=r"does not exist: .*none"):
        DetectionData.from_records([good], ["dog"], folder / "none")
    with pytest.raises(ValueError, match="no usable image; first fault"):
        DetectionData.from_records([ImageRecord("x")], ["dog"], folder)
