"""benchmarks/fine_tuning.py: its runs, its rows and its page."""

import json

import fine_tuning
import keras
import numpy as np
import pytest
from harness.results import read_rows
from PIL import Image

from keras_csp import darknet

CONVOLUTION = """[convolutional]
batch_normalize=1
filters=8
size=3
stride={}
pad=1
activation=leaky
"""
CFG = (
    "[net]\nwidth=64\nheight=64\nchannels=3\nmax_batches=10\n"
    + "".join(CONVOLUTION.format(stride) for stride in (8, 2, 2))
    + "[convolutional]\nfilters=14\nactivation=linear\n[yolo]\nclasses=2\n"
    "anchors=20,20,40,40\nnum=2\nmask=0,1\n"
)


def write_boxes(folder):
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(4):
        pixels = rng.integers(0, 256, (64, 64, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
        image = {"id": number, "file_name": f"{number}.png"}
        images.append({**image, "width": 64, "height": 64})
        for side in range(10, 22):
            box = {"id": 100 * number + side, "image_id": number}
            boxes.append({**box, "category_id": 1, "bbox": [9, 9, side, side]})
    content = {"images": images, "annotations": boxes}
    content["categories"] = [{"id": 1, "name": "cell"}]
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_every_run_is_measured_once(tmp_path, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's job")
    boxes = write_boxes(tmp_path)
    (tmp_path / "a.cfg").write_text(CFG)
    network = darknet.load(tmp_path / "a.cfg")
    darknet.save_weights(network, tmp_path / "a.weights")
    output = tmp_path / "results"
    arguments = ["fine_tuning.py", "--epochs", "2", "--output", str(output)]
    arguments += ["--cfg", str(tmp_path / "a.cfg"), "--seeds", "0"]
    arguments += ["--weights", str(tmp_path / "a.weights")]
    arguments += ["--detectors", "the cfg's"]  # EFM's takes minutes
    for split in ("train", "validation", "test"):
        arguments += [f"--{split}", str(boxes)]
    monkeypatch.setattr("sys.argv", arguments)
    fine_tuning.main()
    rows = read_rows(output / "fine_tuning.csv")
    found = [(row["detector"], row["start"]) for row in rows]
    assert found == [
        (fine_tuning.DETECTORS[0], start) for start in fine_tuning.STARTS
    ]
    assert len(read_rows(output / "fine_tuning_epochs.csv")) == 2 * len(rows)
    for name in ("", "_cfg_published", "_cfg_scratch"):
        picture = Image.open(output / f"fine_tuning{name}.png")
        assert np.asarray(picture).std() > 5
    before = (output / "fine_tuning.csv").stat().st_mtime_ns
    monkeypatch.setattr(fine_tuning, "train_one", None)  # nothing is left
    fine_tuning.main()
    assert (output / "fine_tuning.csv").stat().st_mtime_ns == before


def test_the_summary_is_over_the_seeds():
    rows = [
        {
            "detector": detector,
            "start": start,
            "epochs": "5",
            "test AP50 %": value,
            "minutes": minutes,
        }
        for detector, start, value, minutes in (
            (fine_tuning.DETECTORS[0], "scratch", "10.0", "1.0"),
            (fine_tuning.DETECTORS[0], "scratch", "30.0", "3.0"),
            (fine_tuning.DETECTORS[1], "published weights", "80.0", "1.0"),
        )
    ]
    first, second = fine_tuning.summary(rows)
    assert first["seeds"] == 2 and second["seeds"] == 1
    assert (first["AP50 %"], first["least"], first["most"]) == (
        "20.0",
        "10.0",
        "30.0",
    )
    assert (first["minutes"], second["AP50 %"]) == ("2.0", "80.0")
