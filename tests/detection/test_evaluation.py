"""AveragePrecision against pycocotools on COCO's own annotations."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest

from keras_csp.detection import AveragePrecision
from keras_csp.detection.evaluation import METRICS, original_boxes

SIDE = 416  # of the letterboxed images


class Coco:
    """The annotations of COCO's images, and detections made from them."""

    def __init__(self, path):
        self.path = path
        self.json = json.loads(path.read_text())
        self.images = sorted(self.json["images"], key=lambda image: image["id"])
        self.categories = [entry["id"] for entry in self.json["categories"]]
        self.names = [entry["name"] for entry in self.json["categories"]]
        rng = np.random.default_rng(0)
        self.detections = [
            row for image in self.images for row in self._found(image, rng)
        ]

    def objects(self, image):
        return [
            entry
            for entry in self.json["annotations"]
            if entry["image_id"] == image["id"]
        ]

    def _found(self, image, rng):
        """Most objects, moved a little, some as another; noise; doubles."""
        rows = []
        for entry in self.objects(image):
            x, y, w, h = entry["bbox"]
            for _ in range(rng.choice([0, 1, 1, 1, 1, 2])):
                category = entry["category_id"]
                if rng.random() < 0.1:
                    category = int(rng.choice(self.categories))
                moved = rng.normal(0, 0.08, 4) * [w, h, w, h]
                box = np.array([x, y, w, h]) + moved
                box[2:] = np.maximum(box[2:], 1)
                rows.append((category, box))
        for _ in range(5):
            box = rng.uniform(1, 200, 4)
            rows.append((int(rng.choice(self.categories)), box))
        return [
            {
                "image_id": image["id"],
                "category_id": category,
                # What single precision can hold, as a model gives it.
                "bbox": box.astype("float32").tolist(),
                "score": float(np.float32(rng.uniform(0.01, 1))),
            }
            for category, box in rows
        ]

    def evaluated(self):
        """pycocotools by itself, on the original file."""
        coco = pytest.importorskip("pycocotools.coco").COCO
        cocoeval = pytest.importorskip("pycocotools.cocoeval").COCOeval
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco(str(self.path))
            evaluation = cocoeval(truth, truth.loadRes(self.detections), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    def batches(self, letterbox=False, size=8):
        for start in range(0, len(self.images), size):
            yield self._batch(self.images[start : start + size], letterbox)

    def _batch(self, images, letterbox):
        targets = [self._targets(image, letterbox) for image in images]
        found = [self._detected(image, letterbox) for image in images]
        return _stacked(targets, labels=-1), _stacked(found, classes=-1)

    def _targets(self, image, letterbox):
        objects = self.objects(image)
        boxes = _corners([entry["bbox"] for entry in objects])
        row = {
            "boxes": boxes,
            "labels": np.array(
                [self.categories.index(e["category_id"]) for e in objects], int
            ),
            "crowd": np.array([e["iscrowd"] for e in objects], bool),
            "area": np.array([e["area"] for e in objects], "float32"),
        }
        if letterbox:
            row["original_boxes"] = boxes
            row["view"] = _view(image)
            row["boxes"] = _into(boxes, image)
        return row

    def _detected(self, image, letterbox):
        rows = [d for d in self.detections if d["image_id"] == image["id"]]
        rows = sorted(rows, key=lambda row: -row["score"])
        boxes = _corners([row["bbox"] for row in rows])
        return {
            "boxes": _into(boxes, image) if letterbox else boxes,
            "scores": np.array([row["score"] for row in rows], "float32"),
            "classes": np.array(
                [self.categories.index(row["category_id"]) for row in rows]
            ),
            "count": np.array(len(rows)),
        }


def _corners(boxes):
    boxes = np.reshape(np.array(boxes, "float64"), (-1, 4))
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _view(image):
    """(scale_x, scale_y, left, top), the image centred in the square."""
    scale = SIDE / max(image["width"], image["height"])
    left = (SIDE - image["width"] * scale) / 2
    top = (SIDE - image["height"] * scale) / 2
    return np.array([scale, scale, left, top])


def _into(boxes, image):
    view = _view(image)
    return boxes * np.tile(view[:2], 2) + np.tile(view[2:], 2)


def _stacked(rows, **padding):
    """One array of each key; shorter rows are padded."""
    batch = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        if values[0].ndim and key != "view":
            most = max(1, *map(len, values))
            values = [
                np.concatenate(
                    [
                        v,
                        np.full(
                            (most - len(v), *v.shape[1:]), padding.get(key, 0)
                        ),
                    ]
                )
                for v in values
            ]
        batch[key] = np.stack(values)
    return batch


@pytest.fixture(scope="module")
def coco():
    import os
    import pathlib

    path = os.environ.get("KERAS_CSP_DATA")
    if not path:
        pytest.skip("KERAS_CSP_DATA is not set: no shared images here")
    pytest.importorskip("pycocotools")
    folder = pathlib.Path(path) / "detection/coco_cc/annotations"
    return Coco(folder / "instances_val.json")


@pytest.fixture(scope="module")
def theirs(coco):
    return coco.evaluated()


def metric_of(coco, **options):
    metric = AveragePrecision(len(coco.names), coco.names)
    for targets, detections in coco.batches(**options):
        metric.update(targets, detections)
    return metric


@pytest.mark.parametrize("letterbox", [False, True])
def test_the_twelve_numbers_are_those_of_pycocotools(letterbox, coco, theirs):
    assert any(entry["iscrowd"] for entry in coco.json["annotations"])
    assert not all(coco.objects(image) for image in coco.images)
    metric = metric_of(coco, letterbox=letterbox)
    result = metric.result()
    assert tuple(result) == METRICS
    expected = dict(zip(METRICS, theirs.stats))
    assert all(0.05 < value < 0.95 for value in expected.values())
    assert result == pytest.approx(expected, abs=1e-6)
    assert metric.result() == result


def test_the_size_of_the_batches_does_not_matter(coco, theirs):
    result = metric_of(coco, size=1).result()
    assert result["AP"] == pytest.approx(theirs.stats[0], abs=1e-6)


def test_each_class_and_its_curve(coco, theirs):
    precision = theirs.eval["precision"][:, :, :, 0, 2]
    metric = metric_of(coco)
    table, curves = metric.per_class(), metric.curves()
    assert list(table) == coco.names
    defined = []
    for index, name in enumerate(coco.names):
        mine = precision[:, :, index]
        if (mine > -1).any():
            defined.append(name)
            expected = mine.mean(), mine[0].mean(), mine[5].mean()
            np.testing.assert_allclose(curves[name], mine[0], atol=1e-6)
        else:
            expected = -1, -1, -1
        answer = [table[name][key] for key in ("AP", "AP50", "AP75")]
        assert answer == pytest.approx(expected, abs=1e-6), name
    assert 10 < len(defined) < len(coco.names)
    assert list(curves) == defined
    at_75 = metric.curves(iou=0.75)
    for name in defined:
        expected = precision[5, :, coco.names.index(name)]
        np.testing.assert_allclose(at_75[name], expected, atol=1e-6)


def one_image(label=1, score=None, count=1):
    """One box, which is detected exactly if there is a `score`."""
    box = np.array([[[10, 10, 60, 60]]], "float32")
    targets = {"boxes": box, "labels": np.array([[label]])}
    return targets, {
        "boxes": box,
        "scores": np.array([[score or 0.0]]),
        "classes": np.array([[1]]),
        "count": np.array([count if score else 0]),
    }


def metric_after(*batches, **options):
    pytest.importorskip("pycocotools")
    metric = AveragePrecision(3, **options)
    for batch in batches:
        metric.update(*batch)
    return metric


def test_a_perfect_detection():
    metric = metric_after(one_image(score=0.5))
    result = metric.result()
    assert result["AP"] == pytest.approx(1)
    assert result["AP_medium"] == pytest.approx(1)
    assert result["AP_small"] == result["AP_large"] == -1
    assert metric.per_class()["1"] == pytest.approx(
        {"AP": 1, "AP50": 1, "AP75": 1}
    )
    assert metric.per_class()["0"]["AP"] == -1


def test_the_curves_need_no_result_before_them():
    curves = metric_after(one_image(score=0.5), names="abc").curves()
    assert list(curves) == ["b"]
    np.testing.assert_allclose(curves["b"], 1)


def test_what_is_behind_the_count_is_no_detection():
    batch = one_image(score=0.5, count=0)
    assert metric_after(batch).result()["AP"] == 0


def test_no_detection_at_all():
    assert metric_after(one_image()).result()["AP"] == 0


def test_an_update_after_a_result_counts():
    metric = metric_after(one_image(score=0.5))
    assert metric.result()["AR_100"] == pytest.approx(1)
    metric.update(*one_image())
    assert metric.result()["AR_100"] == pytest.approx(0.5)


def test_no_true_box_defines_nothing():
    metric = metric_after(one_image(label=-1))
    assert set(metric.result().values()) == {-1.0}
    assert metric.curves() == {}


def test_no_images():
    with pytest.raises(ValueError, match="There were no images to evaluate on"):
        metric_after().result()


def test_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    extra = r'pip install "keras-csp\[detection\]"'
    with pytest.raises(ImportError, match=extra):
        AveragePrecision(3)


def test_original_boxes():
    boxes = np.array([[8.0, 52, 108, 202]])
    assert original_boxes(boxes, None) is boxes
    original = original_boxes(boxes, np.array([0.5, 0.25, 8, 52]))
    np.testing.assert_array_equal(original, [[0, 0, 200, 600]])
