"""COCO's JSON: what is read, and every fault that is found."""

import json
import math
import re

import numpy as np
import pytest

from keras_csp.data import load_detection
from keras_csp.data.sources.coco import read_coco


def coco():
    """Three images of 100x80, one of them without objects."""
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 3, "file_name": "b.jpg", "width": 100, "height": 80},
            {"id": 9, "file_name": "c.jpg", "width": 100, "height": 80},
        ],
        "annotations": [
            annotation(1, 7, 40, [10, 20, 30, 40], area=900.5),
            annotation(2, 3, 2, [0, 0, 100, 80], iscrowd=1),
            annotation(3, 7, 2, [50.5, 1, 2, 3]),
        ],
        "categories": [{"id": 40, "name": "cat"}, {"id": 2, "name": "ant"}],
    }


def annotation(number, image_id, category_id, bbox, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        **more,
    }


@pytest.fixture
def written(tmp_path):
    """Writes the content as set/annotations/instances_val.json."""

    def write(content):
        for folder in ("annotations", "val"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for name in "abc":
            (tmp_path / "val" / f"{name}.jpg").touch()
        path = tmp_path / "annotations" / "instances_val.json"
        if not isinstance(content, str):
            content = json.dumps(content)
        path.write_text(content)
        return path

    return write


def test_records_are_what_the_json_says(written, tmp_path):
    found, folder = read_coco(written(coco()))
    assert folder == tmp_path / "val"
    assert found.class_names == ("ant", "cat")
    assert found.category_ids == (2, 40)
    assert found.faults == ()
    first, second, third = found.records
    assert [r.image_id for r in found.records] == [7, 3, 9]
    assert (first.file_name, first.width, first.height) == ("a.jpg", 100, 80)
    np.testing.assert_array_equal(
        first.boxes, np.float32([[10, 20, 40, 60], [50.5, 1, 52.5, 4]])
    )
    assert first.labels.tolist() == [1, 0]
    assert first.area.tolist() == [900.5, 6.0]  # without `area`: w * h
    assert first.crowd.tolist() == [False, False]
    assert second.crowd.tolist() == [True]
    assert third.boxes.shape == (0, 4)
    assert [first.boxes.dtype, first.labels.dtype] == ["float32", "int32"]
    assert [first.area.dtype, first.crowd.dtype] == ["float32", "bool"]


BAD_BOXES = {
    "null": (None, "not four finite numbers: None"),
    "three": ([1, 2, 3], r"not four finite numbers: \[1, 2, 3\]"),
    "text": ([1, 2, "3", 4], "not four finite numbers"),
    "truth": ([1, 2, True, 4], "not four finite numbers"),
    "nan": ([1, 2, math.nan, 4], r"not four finite numbers: \[1, 2, nan, 4\]"),
    "infinity": ([1, 2, math.inf, 4], "not four finite numbers"),
    "none": ([None, 2, 3, 4], "not four finite numbers"),
    "huge": ([1, 2, 10**400, 4], "not four finite numbers"),
    "zero width": ([1, 2, 0, 4], "no area: 0 x 4 pixels"),
    "zero height": ([1, 2, 3, 0], "no area: 3 x 0 pixels"),
    "negative width": ([50, 2, -3, 4], "no area: -3 x 4 pixels"),
    "negative height": ([50, 9, 3, -4], "no area: 3 x -4 pixels"),
    "left": ([-1.5, 2, 9, 4], "leaves its 100x80 image by 1.5 pixels"),
    "top": ([1, -2, 9, 4], "leaves its 100x80 image by 2 pixels"),
    "right": ([90, 2, 12, 4], "leaves its 100x80 image by 2 pixels"),
    "bottom": ([1, 70, 9, 12], "leaves its 100x80 image by 2 pixels"),
    "beside": ([100, 2, 1, 4], "lies outside its image"),
}


def _annotation(key, value):
    def change(content):
        content["annotations"][2][key] = value

    return change


def _image(key, value):
    def change(content):
        content["images"][2][key] = value

    return change


# What is done to annotation 3 or to image 9, the fault's annotation id, and
# its reason.
FAULTS = {
    **{
        f"box: {name}": (_annotation("bbox", box), 3, reason)
        for name, (box, reason) in BAD_BOXES.items()
    },
    "unknown image": (_annotation("image_id", 5), 3, "no image of id 5"),
    "image as text": (_annotation("image_id", "7"), 3, "no image of id '7'"),
    "unknown class": (_annotation("category_id", 5), 3, "no category of id 5"),
    "no class": (_annotation("category_id", None), 3, "category of id None"),
    "repeated box": (_annotation("id", 1), 1, "id 1 is used twice"),
    "box without id": (_annotation("id", None), "?", "not an integer: None"),
    "repeated image": (_image("id", 7), None, "image id 7 is used twice"),
    "image without id": (_image("id", None), None, "not an integer: None"),
    "missing file": (_image("file_name", "d.jpg"), None, r"missing: .*d\.jpg"),
    "no file name": (_image("file_name", None), None, "`file_name` is None"),
    "no width": (_image("width", None), None, "`width` is None"),
    "no height": (_image("height", 0), None, "`height` is 0"),
}


@pytest.mark.parametrize(
    ("change", "number", "reason"), FAULTS.values(), ids=FAULTS
)
def test_a_fault_is_skipped_or_raised(written, caplog, change, number, reason):
    content = coco()
    change(content)
    path = written(content)
    data = load_detection(path)
    (fault,) = data.faults
    assert fault.annotation_id == number
    assert fault.image_id == (
        content["images"][2]["id"]
        if number is None
        else content["annotations"][2]["image_id"]
    )
    _matches(fault.reason, reason)
    (record,) = caplog.records
    assert record.name == "keras_csp"
    _matches(record.getMessage(), reason)
    _matches(record.getMessage(), f"image {fault.image_id}")
    counts = "0 faulty boxes and 1 faulty images"
    if number is not None:
        counts = "1 faulty boxes and 0 faulty images"
    _matches(record.getMessage(), counts)
    # Nothing else is left out, and nothing faulty is in.
    assert data.size == (2 if number is None else 3)
    assert len(data.box_sizes()) == (2 if number is None else 1)
    with pytest.raises(ValueError, match=reason) as caught:
        load_detection(path, on_error="raise")
    _matches(str(caught.value), counts)


def _matches(text, pattern):
    assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"


def test_the_warning_names_the_first_few(written, caplog):
    content = coco()
    content["annotations"] += [
        annotation(number, 7, 2, [0, 0, 0, 0]) for number in range(10, 20)
    ]
    data = load_detection(written(content))
    assert len(data.faults) == 10
    (record,) = caplog.records
    message = record.getMessage()
    assert "10 faulty boxes and 0 faulty images" in message
    assert "image 7 (a.jpg), annotation 12: " in message
    assert "annotation 13" not in message and message.endswith("...")


def test_boxes_of_a_faulty_image_are_no_faults(written):
    content = coco()
    content["images"][0]["file_name"] = "d.jpg"
    data = load_detection(written(content))
    assert [fault.image_id for fault in data.faults] == [7]
    assert data.size == 2 and len(data.box_sizes()) == 0  # a crowd is left


def test_a_pixel_over_the_edge_is_rounding(written):
    content = coco()
    content["annotations"][0]["bbox"] = [-1, -0.5, 102, 81]
    found, _folder = read_coco(written(content))
    assert found.faults == ()
    assert found.records[0].boxes[0].tolist() == [0, 0, 100, 80]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON: "),
        ("[1]", "it holds a list, not an object"),
        ({"images": []}, "`annotations` must be a list"),
        ({**coco(), "images": {}}, "`images` must be a list"),
        ({**coco(), "annotations": [1]}, "`annotations` must be a list"),
        ({**coco(), "categories": []}, "has no categories"),
        ({**coco(), "categories": [{"id": 1}]}, "an integer `id` and a `name`"),
        (
            {**coco(), "categories": [{"id": 1, "name": "x"}] * 2},
            "two categories of id 1",
        ),
        ({**coco(), "images": []}, "None of the 0 images"),
    ],
)
def test_what_is_not_cocos_format(written, content, message):
    path = written(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_detection(path)
    assert str(path) in str(caught.value)


def test_no_json_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json is not valid JSON"):
        load_detection(tmp_path / "none.json")


def test_where_the_images_are(written, tmp_path):
    path = written(coco())
    files = [f"{name}.jpg" for name in "abc"]
    places = [tmp_path / "val", tmp_path / "annotations" / "val", path.parent]
    for place, following in zip(places, [*places[1:], tmp_path]):
        _found, folder = read_coco(path)
        assert folder == place
        following.mkdir(exist_ok=True)
        for file in files:
            (place / file).rename(following / file)
    with pytest.raises(ValueError, match=r"3 images of .*`images=`") as caught:
        read_coco(path)
    assert all(f"{place}" in str(caught.value) for place in places)
    assert read_coco(path, str(tmp_path))[1] == tmp_path
    with pytest.raises(ValueError, match="does not exist: nowhere"):
        read_coco(path, "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "ignore"}, "Received: on_error='ignore'"),
        ({"split": "val"}, "split='val'"),
        ({"data_dir": "x"}, "data_dir='x'"),
    ],
)
def test_bad_arguments(written, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_detection(written(coco()), **arguments)


@pytest.mark.parametrize("name", ["bccd", "coco_cc"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_sets_read_by_hand(shared_data, name, split):
    path = shared_data / "detection" / name / "annotations"
    path = path / f"instances_{split}.json"
    content = json.loads(path.read_text())
    found, folder = read_coco(path)
    assert found.faults == ()
    assert folder == shared_data / "detection" / name / split
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    assert len(names) == {"bccd": 3, "coco_cc": 80}[name]
    assert found.class_names == tuple(names[i] for i in found.category_ids)
    assert list(found.category_ids) == sorted(names)
    files = {entry["id"]: entry["file_name"] for entry in content["images"]}
    assert {r.image_id: r.file_name for r in found.records} == files
    for record in found.records:
        expected = [
            entry
            for entry in content["annotations"]
            if entry["image_id"] == record.image_id
        ]
        assert len(expected) == len(record.boxes)
        for entry, box, label, crowd, area in zip(
            expected, record.boxes, record.labels, record.crowd, record.area
        ):
            x, y, w, h = entry["bbox"]
            np.testing.assert_allclose(box, [x, y, x + w, y + h], atol=1)
            np.testing.assert_allclose(box[2:] - box[:2], [w, h], atol=1)
            assert found.category_ids[label] == entry["category_id"]
            assert crowd == bool(entry["iscrowd"])
            np.testing.assert_allclose(area, entry["area"], rtol=1e-6)
