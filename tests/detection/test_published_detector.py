"""Yolo-Fastest-1.1 with its published weights, beside OpenCV's reader."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from support import run_python

import keras_csp

cv2 = pytest.importorskip("cv2")
from opencv_detector import (  # noqa: E402
    THRESHOLD,
    OpenCVDetector,
    assert_same_boxes,
)

SIDE = 320


@pytest.fixture(scope="module")
def files(shared_data):
    """The folder of the detector's files."""
    return shared_data / "darknet" / "yolo-fastest-1.1"


@pytest.fixture(scope="module")
def detector(files):
    return keras_csp.Detector.from_darknet(
        files / "yolo-fastest-1.1.cfg",
        files / "yolo-fastest-1.1.weights",
        files / "coco.names",
    )


@pytest.fixture(scope="module")
def photographs(files):
    """The two, stretched to the network's size: `(2, 320, 320, 3)`."""
    images = [cv2.imread(str(files / f"{n}.jpg")) for n in ("dog", "person")]
    images = [cv2.resize(image, (SIDE, SIDE)) for image in images]
    return np.stack(images)[..., ::-1].astype("float32") / 255


@pytest.fixture(scope="module")
def opencv(files):
    return OpenCVDetector(
        *(files / f"yolo-fastest-1.1.{kind}" for kind in ("cfg", "weights"))
    )


def test_boxes_are_opencvs(detector, photographs, opencv):
    """After the same suppression."""
    for photograph in photographs:
        assert_same_boxes(detector, photograph, opencv)


def test_it_sees_what_is_in_the_photographs(detector, photographs):
    names = keras_csp.image_spec(detector).class_names
    answers = detector.predict(photographs, verbose=0)
    seen = [
        {names[label] for label in labels[:count]}
        for labels, count in zip(answers["classes"], answers["count"])
    ]
    assert {"dog", "car", "bicycle"} <= seen[0]
    assert {"person", "dog"} <= seen[1]


AGAIN = """
import sys
import keras, keras_csp, numpy as np
folder, = sys.argv[1:]
detector = keras.saving.load_model(f"{folder}/m.keras", compile=False)
found = detector.predict(np.load(f"{folder}/x.npy"), verbose=0)
np.savez(f"{folder}/{keras.backend.backend()}.npz", **found)
print(keras_csp.image_spec(detector).class_names[16], detector.heads[0].nms)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_new_process_finds_the_same(backend, detector, photographs, tmp_path):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    detector.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", photographs)
    said = run_python(AGAIN, tmp_path, KERAS_BACKEND=backend)
    assert said.strip().endswith("dog diou")
    found = np.load(tmp_path / f"{backend}.npz")
    assert_same(found, detector.predict(photographs, verbose=0))


def assert_same(found, expected):
    assert found["count"].tolist() == expected["count"].tolist()
    np.testing.assert_array_equal(found["classes"], expected["classes"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(
        found["boxes"], expected["boxes"], atol=1e-3 * SIDE
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_exported_files_find_the_same(suffix, detector, photographs, tmp_path):
    from keras_csp import export

    path = tmp_path / f"m.{suffix}"
    write = {"tflite": export.to_tflite, "onnx": export.to_onnx}[suffix]
    write(detector, path, photographs)
    found = export.load(path)(photographs)
    assert_same(found, detector.predict(photographs, verbose=0))


def test_the_file_is_written_back_byte_by_byte(detector, files, tmp_path):
    """1,384,268 bytes; 14,231,680 images seen."""
    path = tmp_path / "again.weights"
    keras_csp.darknet.save_weights(detector, path)
    theirs = (files / "yolo-fastest-1.1.weights").read_bytes()
    assert path.read_bytes() == theirs
    assert int.from_bytes(theirs[12:20], "little") == 14_231_680


def coco(folder):
    """The 104 photographs of coco_cc, in one set."""
    from keras_csp.data import load_detection

    return [
        load_detection(folder / f"annotations/instances_{part}.json")
        for part in ("train", "val")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resize", "expected"), [("stretch", 26.8), ("letterbox", 26.6)]
)
def test_average_precision_is_the_independent_programs(
    resize, expected, detector, shared_data
):
    """Of all scores; the pack's README says what was counted there."""
    from keras_csp.detection import AveragePrecision

    spec = keras_csp.image_spec(detector).replace(resize=resize)
    precision = AveragePrecision(detector.classes)
    for data in coco(shared_data / "detection" / "coco_cc"):
        results = detector.evaluate(
            data.evaluation(16, spec), precision=precision, verbose=0
        )
    assert 100 * results["AP50"] == pytest.approx(expected, abs=0.5)


@pytest.mark.slow
def test_average_precision_at_the_threshold_is_opencvs(detector, shared_data):
    """With OpenCV's suppression: no DIoU, no score below 0.2."""
    spec = keras_csp.image_spec(detector)
    found = [
        detector.evaluate(
            data.evaluation(16, spec),
            score_threshold=THRESHOLD,
            iou_threshold=0.45,
            nms="iou",
            verbose=0,
        )["AP50"]
        for data in coco(shared_data / "detection" / "coco_cc")
    ]
    assert [round(100 * value, 1) for value in found] == [21.5, 22.3]


def test_class_names_are_in_the_saved_file(detector, tmp_path):
    detector.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert keras_csp.image_spec(again) == keras_csp.image_spec(detector)
    json.dumps(keras_csp.image_spec(again).get_config())
