"""Detection sets: from a COCO JSON or TFDS to batches."""

import dataclasses
import functools
import json
import logging

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_csp.data import (
    DetectionAugmentation,
    DetectionData,
    ImageRecord,
    load_detection,
)
from keras_csp.data.resizing import fit_image, letterbox
from keras_csp.data.sources import tfds as module
from keras_csp.detection import fit_anchors
from keras_csp.layers import ImageSpec, Preprocessing, image_spec

# File, size, kind, and boxes as (x, y, w, h, category, crowd).
IMAGES = (
    ("a.png", (60, 40), "RGB", [(10, 5, 20, 30, 5, 0), (30, 10, 25, 25, 2, 1)]),
    ("b.png", (40, 60), "L", [(2, 2, 30, 50, 2, 0)]),
    ("c.png", (50, 50), "RGBA", []),
    ("d.jpg", (64, 48), "RGB", [(8, 8, 40, 30, 5, 0)] * 3),
    ("e.jpg", (64, 64), "L", [(1, 1, 60, 60, 2, 1)]),
)


@pytest.fixture
def json_path(tmp_path, rng):
    """The JSON of `IMAGES`, whose ids are 100, 101, ..."""
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 5, "name": "cell"}, {"id": 2, "name": "dot"}],
    }
    (tmp_path / "train").mkdir()
    for number, (name, (width, height), kind, boxes) in enumerate(IMAGES):
        channels = len(PIL.Image.new(kind, (1, 1)).getbands())
        pixels = rng.integers(0, 255, (height, width, channels), "uint8")
        picture = PIL.Image.fromarray(pixels.squeeze())
        assert picture.mode == kind
        picture.save(tmp_path / "train" / name)
        content["images"].append(
            {
                "id": 100 + number,
                "file_name": name,
                "width": width,
                "height": height,
            }
        )
        for *box, category, crowd in boxes:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": 100 + number,
                    "category_id": category,
                    "bbox": box,
                    "iscrowd": crowd,
                    "area": 0.5 * box[2] * box[3],
                }
            )
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(json.dumps(content))
    return path


def numpy_of(dataset):
    return list(dataset.as_numpy_iterator())


def same(one, two):
    """Whether two lists of batches are equal to the bit."""
    one, two = tf.nest.flatten(one), tf.nest.flatten(two)
    return len(one) == len(two) and all(map(np.array_equal, one, two))


def test_examples_are_the_files(json_path, tmp_path):
    data = load_detection(json_path)
    assert isinstance(data, DetectionData)
    assert (data.size, data.faults) == (5, ())
    assert data.class_names == ("dot", "cell")
    assert data.category_ids == (2, 5)
    examples = numpy_of(data.examples())
    for number, (example, (name, _size, kind, boxes)) in enumerate(
        zip(examples, IMAGES)
    ):
        picture = PIL.Image.open(tmp_path / "train" / name)
        expected = np.asarray(picture)
        if kind == "RGBA":
            expected = expected[..., :3]
        expected = np.broadcast_to(
            expected.reshape(*expected.shape[:2], -1), example["image"].shape
        )
        difference = np.abs(example["image"].astype(int) - expected)
        assert difference.max() <= (0 if name.endswith("png") else 6)
        table = np.reshape(boxes, (-1, 6))
        corners = np.hstack([table[:, :2], table[:, :2] + table[:, 2:4]])
        np.testing.assert_array_equal(example["boxes"], corners)
        assert example["labels"].tolist() == [int(c == 5) for c in table[:, 4]]
        np.testing.assert_array_equal(example["crowd"], table[:, 5] == 1)
        area = table[:, 2] * table[:, 3] / 2
        np.testing.assert_array_equal(example["area"], area)
        assert example["image_id"] == 100 + number
    types = {name: value.dtype.name for name, value in examples[0].items()}
    assert types == {
        "image": "uint8",
        "boxes": "float32",
        "labels": "int32",
        "crowd": "bool",
        "area": "float32",
        "image_id": "int64",
    }


def test_box_sizes_are_in_pixels_of_the_input(json_path):
    expected = [
        [20 / 60, 30 / 60],
        [30 / 60, 50 / 60],
        *[[40 / 64, 30 / 64]] * 3,
    ]
    data = load_detection(json_path)
    found = data.box_sizes(64)
    np.testing.assert_allclose(found, 64 * np.array(expected), rtol=1e-6)
    assert found.dtype == "float32"


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "crop"])
@pytest.mark.parametrize("size", [(64, 96), (128, 64)])
def test_box_sizes_are_those_of_the_batches(json_path, resize, size):
    data, spec = load_detection(json_path), ImageSpec(size, resize=resize)
    (_images, targets), *_ = numpy_of(data.evaluation(8, spec))
    boxes = targets["boxes"][(targets["labels"] >= 0) & ~targets["crowd"]]
    np.testing.assert_allclose(
        boxes[:, 2:] - boxes[:, :2], data.box_sizes(spec), rtol=1e-5
    )
    anchors = fit_anchors(data, 3, spec)
    assert anchors == fit_anchors(data, 3, spec.replace(size=32), size)
    # Three shapes there are, three anchors.
    shapes = np.unique(data.box_sizes(spec), axis=0)
    np.testing.assert_allclose(np.unique(anchors, axis=0), shapes, atol=0.06)


def test_training_batches(json_path):
    data = load_detection(json_path)
    dataset = data.training(2, (64,), DetectionAugmentation.none())
    assert dataset.element_spec[0].shape == (None, 64, 64, 3)
    batches = numpy_of(dataset)
    assert [len(images) for images, _targets in batches] == [2, 2, 1]
    originals = numpy_of(data.examples())
    expected = [letterbox(example["image"], 64)[0] for example in originals]
    seen = []
    for images, targets in batches:
        assert images.dtype == targets["boxes"].dtype == "float32"
        assert targets["labels"].dtype == "int32"
        assert set(targets) == {"boxes", "labels", "ignore"}
        counts = (targets["labels"] >= 0).sum(1)
        assert targets["labels"].shape[1] == max(1, counts.max())
        assert targets["boxes"].shape == (*targets["labels"].shape, 4)
        for image, boxes, labels, ignore, count in zip(
            images,
            targets["boxes"],
            targets["labels"],
            targets["ignore"],
            counts,
        ):
            (number,) = (
                i for i in range(5) if np.array_equal(image, expected[i])
            )
            seen.append(number)
            # No crowd box, and padding at the end.
            kept = ~originals[number]["crowd"]
            wanted = originals[number]["labels"][kept].tolist()
            assert labels.tolist() == wanted + [-1] * (len(labels) - count)
            assert not boxes[count:].any()
            view = letterbox(originals[number]["image"], 64)[1]
            np.testing.assert_array_equal(
                boxes[:count], view.boxes(originals[number]["boxes"][kept])
            )
            crowds = view.boxes(originals[number]["boxes"][~kept])
            assert ignore.dtype == "float32" and len(ignore) >= 1
            np.testing.assert_array_equal(ignore[: len(crowds)], crowds)
            assert not ignore[len(crowds) :].any()
    assert sorted(seen) == list(range(5))


def test_evaluation_batches(json_path):
    data = load_detection(json_path)
    batches = numpy_of(data.evaluation(3, 96))
    assert [len(images) for images, _targets in batches] == [3, 2]
    originals = iter(numpy_of(data.examples()))
    for images, targets in batches:
        padding = targets["labels"] < 0
        assert not targets["boxes"][padding].any()
        assert not targets["original_boxes"][padding].any()
        assert not targets["area"][padding].any()
        assert not targets["crowd"][padding].any()
        for i, image in enumerate(images):
            original = next(originals)
            count = len(original["labels"])
            assert (~padding[i]).sum() == count
            np.testing.assert_array_equal(
                image, letterbox(original["image"], 96)[0]
            )
            for name in ("labels", "crowd", "area"):
                np.testing.assert_array_equal(
                    targets[name][i, :count], original[name]
                )
            assert targets["image_id"][i] == original["image_id"]
            boxes = targets["original_boxes"][i, :count]
            np.testing.assert_array_equal(boxes, original["boxes"])
            scale, other, left, top = targets["view"][i]
            assert scale == other
            height, width, _channels = original["image"].shape
            np.testing.assert_allclose(scale, 96 / max(height, width))
            bars = (96 - width * scale) // 2, (96 - height * scale) // 2
            np.testing.assert_allclose((left, top), bars)
            np.testing.assert_allclose(
                targets["boxes"][i, :count],
                boxes * scale + [left, top, left, top],
                rtol=1e-5,
            )
    assert targets["image_id"].dtype == "int64"
    assert targets["crowd"].dtype == "bool"
    assert targets["view"].dtype == "float32"


def test_an_image_without_objects_has_one_padded_box(json_path):
    data = load_detection(json_path)
    content = json.loads(json_path.read_text())
    content["annotations"] = []
    json_path.write_text(json.dumps(content))
    data = load_detection(json_path)
    assert data.size == 5 and data.box_sizes().shape == (0, 2)
    for dataset in (data.training(5, 32), data.evaluation(5, 32)):
        ((images, targets),) = numpy_of(dataset)
        assert images.shape == (5, 32, 32, 3)
        assert targets["labels"].tolist() == [[-1]] * 5
        assert targets["boxes"].shape == (5, 1, 4)
        assert not targets["boxes"].any()
        if "ignore" in targets:
            assert targets["ignore"].shape == (5, 1, 4)
            assert not targets["ignore"].any()


def test_several_sizes(json_path):
    """A tuple in the place of the size is several; see the next for pairs."""
    dataset = load_detection(json_path).training(
        2, (32, 64, 96), repeat=True, seed=1
    )
    sides = []
    for images, targets in dataset.take(40).as_numpy_iterator():
        assert images.shape == (2, images.shape[1], images.shape[1], 3)
        sides.append(images.shape[1])
        assert targets["boxes"].max() <= sides[-1]
    counts = [sides.count(side) for side in (32, 64, 96)]
    assert sum(counts) == 40 and min(counts) >= 5
    assert len({tuple(sides[i : i + 3]) for i in range(0, 38)}) > 8


def test_images_need_not_be_square(json_path):
    """Stretched, as Darknet's detectors of 320 x 256 want them."""
    data = load_detection(json_path)
    spec = ImageSpec((64, 96), resize="stretch")
    quiet = DetectionAugmentation.none()
    for dataset in (
        data.evaluation(5, spec),
        data.training(5, spec, quiet),
        data.training(5, ((64, 96),), quiet),
        data.training(5, spec.replace(size=32), quiet, sizes=((64, 96),)),
    ):
        ((images, targets),) = numpy_of(dataset)
        assert images.shape == (5, 64, 96, 3)
        assert targets["boxes"][..., 2].max() > 60
        assert targets["boxes"][..., 3].max() <= 64
    one = next(iter(numpy_of(data.evaluation(1, spec))))
    original = next(iter(numpy_of(data.examples())))
    height, width, _ = original["image"].shape
    scale = np.tile([96 / width, 64 / height], 2)
    np.testing.assert_allclose(
        one[1]["boxes"][0], original["boxes"] * scale, rtol=1e-5
    )


RESIZED = {
    "letterbox": (lambda image, window: min(window / image), 0.5),
    "stretch": (lambda image, window: window / image, 0.0),
    "crop": (lambda image, window: max(window / image), 0.5),
}


@pytest.mark.parametrize("resize", RESIZED)
@pytest.mark.parametrize("size", [(128, 64), (32, 160)], ids=["tall", "wide"])
def test_boxes_land_where_numpy_puts_them(tmp_path, rng, resize, size):
    """A white rectangle on black, in the pixels and in the targets."""
    records = []
    for number, (width, height) in enumerate([(80, 60), (30, 100)]):
        picture = np.zeros((height, width, 3), "uint8")
        box = width // 3, height // 3, width // 3 + 12, height // 3 + 20
        picture[box[1] : box[3], box[0] : box[2]] = 255
        PIL.Image.fromarray(picture).save(tmp_path / f"{number}.png")
        records.append(ImageRecord(f"{number}.png", [box], [0]))
    data = DetectionData.from_records(records, ["white"], tmp_path)
    spec = ImageSpec(size, resize=resize)
    quiet = DetectionAugmentation.none()
    expected = []
    for record in data._records:
        image = np.array([record.width, record.height])
        window = np.array(size[::-1])
        rule, part = RESIZED[resize]
        scale = np.broadcast_to(rule(image, window), 2)
        bars = np.trunc((window - image * scale) * part)
        expected.append(record.boxes[0] * np.tile(scale, 2) + np.tile(bars, 2))
    limits = np.tile(size[::-1], 2)
    for dataset, cut in (
        (data.evaluation(2, spec), False),
        (data.training(2, spec, quiet, sizes=(size,)), True),
    ):
        ((images, targets),) = numpy_of(dataset)
        assert images.shape == (2, *size, 3)
        for image, (box,) in zip(images, targets["boxes"], strict=True):
            if not box.any():  # of a crop that shows less than a fifth
                continue
            candidates = np.clip(expected, 0, limits) if cut else expected
            wanted = min(candidates, key=lambda e: np.abs(e - box).max())
            np.testing.assert_allclose(box, wanted, atol=1e-3)
            inside = np.clip(wanted, 0, limits)
            rows, columns, _ = np.nonzero(image > 0.6)
            seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            np.testing.assert_allclose(inside, seen, atol=1.5)


def test_a_model_says_what_its_images_are(json_path):
    """Its size, its resizing, and whether they are grey."""
    image = keras.Input((64, 96, 1))
    spec = ImageSpec(resize="stretch")
    model = keras.Model(image, Preprocessing(spec)(image))
    data = load_detection(json_path)
    ((images, targets), *_) = numpy_of(data.evaluation(2, model))
    assert images.shape == (2, 64, 96, 1)
    assert targets["view"][0, 2:].tolist() == [0, 0]
    ((images, _), *_) = numpy_of(data.training(2, model))
    assert images.shape == (2, 64, 96, 1)
    ((images, _), *_) = numpy_of(data.training(2, model, sizes=((32, 64),)))
    assert images.shape == (2, 32, 64, 1)


def test_boxes_scale_with_the_size(json_path):
    for size in (32, 96):
        dataset = load_detection(json_path).training(
            5, (size,), DetectionAugmentation.none()
        )
        ((_images, targets),) = numpy_of(dataset)
        sides = targets["boxes"][..., 2:] - targets["boxes"][..., :2]
        np.testing.assert_allclose(sides.max(), size * 50 / 60, rtol=1e-5)


def test_a_seed_is_an_epoch(json_path):
    data = load_detection(json_path)

    def training(seed, augmentation):
        return data.training(2, 32, augmentation, seed, sizes=(32, 64))

    mosaics = DetectionAugmentation(mosaic=0.5)
    dataset = training(3, mosaics)
    first, second = numpy_of(dataset), numpy_of(dataset)
    assert not same(first, second)
    again = training(3, mosaics)
    assert same(first, numpy_of(again)) and same(second, numpy_of(again))
    one, other = (data.training(2, 32, seed=seed) for seed in (3, 4))
    assert not same(numpy_of(one), numpy_of(other))


def test_every_epoch_has_another_order(json_path):
    dataset = load_detection(json_path).training(
        1, 32, DetectionAugmentation.none()
    )
    orders = set()
    for _epoch in range(5):
        images = [images.tobytes() for images, _ in numpy_of(dataset)]
        assert len(set(images)) == 5
        orders.add(tuple(images))
    assert len(orders) >= 4


def test_an_image_alone_varies(json_path):
    """The draws are new in every epoch, not only for every place in it."""
    dataset = load_detection(json_path).training(1, 32, limit=1)
    epochs = [numpy_of(dataset) for _ in range(3)]
    assert [len(batches) for batches in epochs] == [1, 1, 1]
    assert not same(epochs[0], epochs[1]) and not same(*epochs[1:])


def test_first_and_limit(json_path):
    data = load_detection(json_path)
    assert data.first(2).size == 2 and data.first(9).size == 5
    assert len(data.first(1).box_sizes()) == 1
    ids = [e["image_id"] for e in numpy_of(data.first(2).examples())]
    assert ids == [100, 101]
    batches = numpy_of(data.training(2, 32, limit=3))
    assert [len(images) for images, _targets in batches] == [2, 1]


def test_repeat_fills_batches(json_path):
    dataset = load_detection(json_path).training(2, 32, repeat=True)
    batches = numpy_of(dataset.take(9))
    assert [len(images) for images, _targets in batches] == [2] * 9


def test_mosaics_take_boxes_of_others(json_path):
    dataset = load_detection(json_path).training(
        5, 96, DetectionAugmentation(mosaic=1.0, jitter=0.0)
    )
    ((images, targets),) = numpy_of(dataset)
    assert images.shape == (5, 96, 96, 3)
    # The images without boxes have those of the three others.
    assert ((targets["labels"] >= 0).sum(1) > 0).sum() >= 4


def _cut(path):
    path.write_bytes(path.read_bytes()[:-900])


def _text(path):
    path.write_text("no image")


def _other_size(path):
    PIL.Image.new("RGB", (48, 64)).save(path)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_cut, "Invalid JPEG data"),
        (_text, "Unknown image file format"),
        (lambda path: path.write_bytes(b""), "Input is empty."),
        (lambda path: path.unlink(), "No such file"),
        (_other_size, "it is 48x64 pixels, not 64x48 as annotated"),
    ],
    ids=["cut", "text", "empty", "gone", "other size"],
)
def test_an_unreadable_image_is_named_once_and_skipped(
    json_path, tmp_path, caplog, harm, reason
):
    data = load_detection(json_path)
    path = tmp_path / "train" / "d.jpg"
    harm(path)
    examples = data.examples()
    for _epoch in range(2):
        ids = [example["image_id"] for example in numpy_of(examples)]
        assert ids == [100, 101, 102, 104]
    ((_images, targets),) = numpy_of(data.evaluation(8, 32))
    assert targets["image_id"].tolist() == ids
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("keras_csp", logging.WARNING)
    message = record.getMessage()
    assert message.startswith(f"The image {path} is skipped: ")
    assert reason in message and "{{" not in message


def test_training_goes_on_without_an_image(json_path, tmp_path, caplog):
    data = load_detection(json_path)
    _text(tmp_path / "train" / "d.jpg")
    dataset = data.training(2, 32, DetectionAugmentation(mosaic=0.7))
    for _epoch in range(2):
        batches = numpy_of(dataset)
        assert [len(images) for images, _targets in batches] == [2, 2]
        for images, targets in batches:
            assert np.isfinite(images).all()
            assert np.isfinite(targets["boxes"]).all()
    assert len(caplog.records) == 1


def test_no_readable_image_ends(json_path, tmp_path, caplog):
    data = load_detection(json_path)
    for path in (tmp_path / "train").iterdir():
        _text(path)
    assert numpy_of(data.training(2, 32)) == []
    assert numpy_of(data.training(2, 32, repeat=True)) == []
    assert numpy_of(data.evaluation(2, 32)) == []
    assert len(caplog.records) == 5


def test_readable_images_need_no_python(json_path, monkeypatch):
    """A thread that waits for Python would hang the end of the program."""

    def refuse(*arguments):
        raise AssertionError(arguments)

    data = load_detection(json_path)
    monkeypatch.setattr(data._reader, "_warn", refuse)
    augmentation = DetectionAugmentation(
        mosaic=0.5, rotate90=True, vertical_flip=0.5
    )
    assert len(numpy_of(data.training(1, 32, augmentation))) == 5


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("training", (2, (416, 400)), "Received: sizes=400"),
        ("training", (2, ((32, 32, 64),)), r"sizes=\(32, 32, 64\)"),
        ("training", (2, (416.0,)), r"Received: size=416\.0"),
        ("training", (2, ()), r"must not be empty. Received: \(\)"),
        ("training", (2, ImageSpec()), "The images need a size"),
        ("training", (0,), "Received: batch_size=0"),
        ("training", (2, 32, "none"), "Received: augmentation='none'"),
        ("evaluation", (2, 100), r"Received: spec=100"),
        ("evaluation", ("2",), "Received: batch_size='2'"),
        ("first", (0,), "Received: number=0"),
    ],
)
def test_bad_arguments(json_path, method, arguments, message):
    data = load_detection(json_path)
    with pytest.raises(ValueError, match=message):
        getattr(data, method)(*arguments)


def test_real_sets(shared_data):
    path = shared_data / "detection" / "coco_cc" / "annotations"
    data = load_detection(path / "instances_val.json")
    assert data.size == 57 and len(data.category_ids) == 80
    seen = []
    for images, targets in data.evaluation(8, 96).as_numpy_iterator():
        seen += targets["image_id"].tolist()
        assert images.min() >= 0 and images.max() <= 1
        kept = targets["labels"] >= 0
        assert targets["boxes"][kept].min() >= -1e-3
        assert targets["boxes"][kept].max() <= 96 + 1e-3
    entries = json.loads((path / "instances_val.json").read_text())["images"]
    assert seen == [entry["id"] for entry in entries]
    crowds = sum(e["crowd"].sum() for e in numpy_of(data.examples()))
    assert crowds == 517 - len(data.box_sizes())


def test_tfds_is_the_coco_set(shared_data, caplog):
    """TFDS's own builder wrote the one, from VOC's XML; see both READMEs.

    Left and top are a pixel apart, and of the 9 boxes that the COCO set
    leaves out TFDS keeps 7 that are only superfluous.
    """
    pytest.importorskip("tensorflow_datasets")
    folder = shared_data / "detection" / "bccd" / "annotations"
    tfds = load_detection("tfds:bccd:validation", data_dir=shared_data / "tfds")
    coco = load_detection(folder / "instances_val.json")
    assert tfds.size == coco.size and tfds.category_ids == (0, 1, 2)
    by_pixels = {
        example["image"].tobytes(): example
        for example in numpy_of(coco.examples())
    }
    total = 0
    for example in tfds.examples().as_numpy_iterator():
        expected = by_pixels.pop(example["image"].tobytes())
        names = np.take(tfds.class_names, example["labels"])
        wanted = np.take(coco.class_names, expected["labels"])
        near = (
            np.abs(example["boxes"][None] - expected["boxes"][:, None])
            <= 1 + 1e-3
        ).all(-1) & (names[None] == wanted[:, None])
        assert near.any(1).all()
        total += len(example["boxes"]) - len(expected["boxes"])
    assert not by_pixels and 0 <= total <= 7


def test_tfds_trains(shared_data, caplog):
    pytest.importorskip("tensorflow_datasets")
    data = load_detection("tfds:bccd", data_dir=shared_data / "tfds")
    (fault,) = data.faults
    assert "no area" in fault.reason and fault.file_name.startswith("Blood")
    assert str(fault) in caplog.text
    with pytest.raises(ValueError, match="no area"):
        load_detection(
            "tfds:bccd", data_dir=shared_data / "tfds", on_error="raise"
        )
    data = data.first(6)
    dataset = data.training(4, 64, DetectionAugmentation(mosaic=0.5))
    (images, targets), _last = numpy_of(dataset)
    assert images.shape == (4, 64, 64, 3) and (targets["labels"] >= 0).any()


def squares(tfds, folder):
    """A set in the manner of TFDS's `coco` and `voc`, written by TFDS."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 40, 80, 3), "uint8")
    box = tfds.features.BBox
    objects = [
        (box(0.25, 0.25, 0.75, 0.5), 1, False, False, 321),
        (box(0.1, 0.2, 0.3, 0.4), 0, True, False, 7),
        (box(0.5, 0.5, 1.0, 1.0), 0, False, True, 8),
        (box(0.5, 0.5, 0.5, 1.0), 0, False, False, 9),  # no height
    ]
    names = ("bbox", "label", "is_crowd", "is_difficult", "area")

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = "keras_csp_boxes"
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder

        def _info(self):
            found = {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=["dark", "light"]),
                "is_crowd": np.bool_,
                "is_difficult": np.bool_,
                "area": np.int64,
            }
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "image/id": np.int64,
                "objects": tfds.features.Sequence(found),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, image in enumerate(noise):
                rows = objects if index != 2 else []
                yield (
                    index,
                    {
                        "image": image,
                        "image/id": 50 + index,
                        "objects": [dict(zip(names, row)) for row in rows],
                    },
                )

    return Builder, noise


def test_tfds_crowd_difficult_and_area(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    Builder, noise = squares(tfds, tmp_path)  # noqa: N806
    data = load_detection(f"tfds:{Builder.name}", data_dir=tmp_path)
    assert data.size == 4 and data.class_names == ("dark", "light")
    assert {fault.annotation_id for fault in data.faults} == {3}
    assert len(data.faults) == len(data.box_sizes()) == 3
    examples = {int(e["image_id"]): e for e in numpy_of(data.examples())}
    assert sorted(examples) == [50, 51, 52, 53]
    for number, example in examples.items():
        np.testing.assert_array_equal(example["image"], noise[number - 50])
    assert examples[52]["boxes"].shape == (0, 4)
    example = examples[50]
    np.testing.assert_allclose(
        example["boxes"],
        [[20, 10, 40, 30], [16, 4, 32, 12], [40, 20, 80, 40]],
        rtol=1e-5,
    )
    assert example["crowd"].tolist() == [False, True, True]
    assert example["labels"].tolist() == [1, 0, 0]
    assert example["area"].tolist() == [321, 7, 8]

    # One that is not an image is a fault, and the others keep their own boxes.
    read = module._record

    def harmed(number, example, faults):
        if number == 1:
            example["image"] = b"no image"
        return read(number, example, faults)

    monkeypatch.setattr(module, "_record", harmed)
    data = load_detection(f"tfds:{Builder.name}", data_dir=tmp_path)
    (fault,) = (f for f in data.faults if f.annotation_id is None)
    assert "Unknown image file format" in fault.reason
    kept = {int(e["image_id"]): e for e in numpy_of(data.examples())}
    assert set(examples) - set(kept) == {fault.image_id}
    assert same([examples[number] for number in kept], list(kept.values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tfds:no_such_set",), "'no_such_set' could not be loaded"),
        (("tfds:bccd", None, "dev"), "'bccd' has no split 'dev', only .*train"),
        (("tfds:bccd", "images"), "`images` is not an option of tfds: sources"),
        (("tfds:bccd:train", None, "test"), "A split is given twice"),
    ],
)
def test_tfds_errors(shared_data, arguments, message):
    pytest.importorskip("tensorflow_datasets")
    load = functools.partial(load_detection, data_dir=shared_data / "tfds")
    with pytest.raises(ValueError, match=message) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)


@pytest.fixture
def four(tmp_path, rng):
    """Three RGBA files whose fourth channel is data, and one in RGB."""
    records = []
    for number, channels in enumerate((4, 4, 3, 4)):
        pixels = rng.integers(0, 256, (40, 60, channels), "uint8")
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        records.append(ImageRecord(f"{number}.png", [(5, 5, 30, 35)], [0]))
    return records, tmp_path


def network(channels):
    image = keras.Input((32, 64, channels))
    spec = ImageSpec(resize="stretch", mean=[0.5] * channels)
    return keras.Model(image, Preprocessing(spec)(image))


def test_a_model_of_four_channels_gets_files_that_have_four(four, caplog):
    records, folder = four
    data = DetectionData.from_records(records, ["it"], folder)
    model = network(4)
    for augmentation in (
        DetectionAugmentation.none(),
        DetectionAugmentation(jitter=0, flip=0, mosaic=0.5),
    ):
        ((images, _),) = numpy_of(data.training(4, model, augmentation))
        assert images.shape == (3, 32, 64, 4)
    ((images, targets),) = numpy_of(data.evaluation(4, model))
    assert targets["image_id"].tolist() == [0, 1, 3]
    for image, number in zip(images, (0, 1, 3)):
        pixels = np.asarray(PIL.Image.open(folder / f"{number}.png"))
        expected = fit_image(pixels, image_spec(model))[0]
        np.testing.assert_array_equal(image, expected)
    (record,) = caplog.records
    assert "2.png is skipped: it has no fourth channel, but 3" in record.message
    # A model of colours takes them all, as before.
    ((images, _),) = numpy_of(data.evaluation(4, network(3)))
    assert images.shape == (4, 32, 64, 3)


def test_colours_vary_and_a_fourth_channel_does_not(four):
    records, folder = four
    data = DetectionData.from_records(records[:1], ["it"], folder)
    plain, coloured = (
        numpy_of(data.training(1, network(4), augmentation))[0][0][0]
        for augmentation in (
            DetectionAugmentation.none(),
            DetectionAugmentation(jitter=0, flip=0),
        )
    )
    np.testing.assert_array_equal(plain[..., 3], coloured[..., 3])
    assert (np.abs(plain - coloured).max((0, 1))[:3] > 0.05).all()


def test_channels_may_be_said_where_the_data_are_read(four, json_path):
    records, folder = four
    kept = [record for record in records if record.file_name != "2.png"]
    for channels, others in ((1, (3, 4)), (4, (1, 3))):
        data = DetectionData.from_records(
            kept, ["it"], folder, channels=channels
        )
        assert data.channels == channels
        (images, _), *_ = numpy_of(data.training(3, 32))
        assert images.shape == (3, 32, 32, channels)
        for wanted in others:
            (images, _), *_ = numpy_of(data.evaluation(3, network(wanted)))
            assert images.shape == (3, 32, 64, wanted)
    assert load_detection(json_path, channels=1).channels == 1
    with pytest.raises(ValueError, match="channels=2"):
        load_detection(json_path, channels=2)


def test_no_file_of_four_channels_is_an_error(four):
    records, folder = four
    data = DetectionData.from_records(records[2:3], ["it"], folder)
    for batches in (data.training, data.evaluation):
        with pytest.raises(ValueError, match=r"4 channels; .*2\.png"):
            batches(2, network(4))
    with pytest.raises(ValueError, match="of 5 channels"):
        data.evaluation(2, network(5))


def crowded(tmp_path, rng, number=4):
    """Images of noise, each with a white object and a black crowd."""
    records = []
    for index in range(number):
        picture = np.full((60, 90, 3), 128, "uint8")
        x, y = rng.integers(2, 12, 2)
        boxes = (x, y, x + 25, y + 30), (x + 40, y + 5, x + 75, y + 45)
        for (x1, y1, x2, y2), shade in zip(boxes, (255, 0)):
            picture[y1:y2, x1:x2] = shade
        PIL.Image.fromarray(picture).save(tmp_path / f"{index}.png")
        crowd = [False, True]
        records.append(ImageRecord(f"{index}.png", boxes, [0, 0], crowd))
    return DetectionData.from_records(records, ["it"], tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"jitter": 0.3, "flip": 0.5, "vertical_flip": 0.5, "rotate90": True},
        {"mosaic": 1.0, "flip": 0.5, "rotate90": True},
    ],
    ids=["single", "mosaic"],
)
def test_regions_to_ignore_follow_their_pixels(tmp_path, rng, change):
    """What is black lies in them, and nothing else is much of them."""
    augmentation = DetectionAugmentation(
        hue=0, saturation=1, brightness=1, **change
    )
    data = crowded(tmp_path, rng)
    dataset = data.training(4, 96, augmentation).repeat(4)
    regions = 0
    for images, targets in numpy_of(dataset):
        for image, ignore, boxes in zip(
            images, targets["ignore"], targets["boxes"]
        ):
            for shade, places in ((0.1, ignore), (0.9, boxes)):
                inside = np.zeros((96, 96), bool)
                for x1, y1, x2, y2 in places.round().astype(int):
                    inside[y1:y2, x1:x2] = True
                grey = image[..., 0]
                seen = grey < shade if shade < 0.5 else grey > shade
                assert (seen & inside).sum() >= 0.85 * inside.sum()
                if shade < 0.5:  # not even a small part of a crowd is lost
                    outside = seen & ~inside
                    assert outside[1:-1, 1:-1].sum() <= 0.05 * seen.sum() + 8
            regions += ignore.any(-1).sum()
    assert regions >= 10


def test_objects_are_the_same_with_and_without_regions(tmp_path, rng):
    """To the bit: no draw depends on the regions."""
    data = crowded(tmp_path, rng)
    records = [
        dataclasses.replace(
            record,
            boxes=record.boxes[:1],
            labels=record.labels[:1],
            crowd=None,
            area=None,
        )
        for record in data._records
    ]
    plain = DetectionData.from_records(records, ["it"], tmp_path)
    augmentation = DetectionAugmentation(mosaic=0.5)
    both = [
        numpy_of(each.training(4, 64, augmentation, seed=3))
        for each in (data, plain)
    ]
    assert any(targets["ignore"].any() for _, targets in both[0])
    for batches in both:
        for _images, targets in batches:
            targets.pop("ignore")
    assert same(*both)
