"""benchmarks/quantization.py: its rows and its page."""

import argparse

import keras
import numpy as np
import pytest
import quantization
from harness.results import RESULTS, read_rows
from PIL import Image

from keras_csp import with_image_spec


def test_both_files_see_the_same_images():
    seen = {"float32": [], "int8": []}
    images = np.arange(3.0)
    runs = {kind: calls.append for kind, calls in seen.items()}
    seconds = quantization.timed(runs, images, rounds=2)
    assert [len(values) for values in seconds.values()] == [2, 2]
    assert len(seen["int8"]) == 3 * quantization.RUNS
    np.testing.assert_array_equal(seen["float32"], seen["int8"])
    assert np.shape(seen["int8"])[1:] == (1,)  # a batch of one


def test_the_committed_table_is_made_from_the_committed_rows():
    rows = read_rows(RESULTS / "quantization.csv")
    options = argparse.Namespace(rounds=30, threads=2)
    text = (RESULTS / "quantization.md").read_text()
    _title, _, _about, _, *lines = quantization.report(rows, options)
    assert text.endswith("\n".join(lines) + "\n")


def test_a_row_replaces_that_of_the_same_calibration(tmp_path, capsys):
    options = argparse.Namespace(output=tmp_path, rounds=1, threads=1)
    row = dict.fromkeys((*quantization.COLUMNS, quantization.COMMAND), "x")
    for calibration, speed in (("minmax", 1), ("mse", 2), ("minmax", 3)):
        made = {**row, "calibration": calibration, "speed": speed}
        quantization.write(made, options)
    rows = read_rows(tmp_path / "quantization.csv")
    assert [(r["calibration"], r["speed"]) for r in rows] == [
        ("minmax", "3"),
        ("mse", "2"),
    ]
    page = (tmp_path / "quantization.md").read_text()
    assert capsys.readouterr().out.endswith(page)


def test_a_detector_needs_its_boxes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quantization.py", "--detector", "d"])
    with pytest.raises(SystemExit):
        quantization.parse()
    assert "--detector needs --train and --test" in capsys.readouterr().err


def test_the_row_of_a_classifier(tmp_path, monkeypatch):
    """A network of three classes, whose answers are the colours it sees."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's job")
    for split, count in (("train", 2), ("test", 2)):
        for number, name in enumerate(("blue", "green", "red")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            pixels = np.zeros((8, 8, 3), "uint8")
            pixels[..., 2 - number] = 200
            for index in range(count):
                Image.fromarray(pixels).save(folder / f"{index}.png")
    # One of the six test images is in the wrong folder.
    Image.fromarray(pixels).save(tmp_path / "data" / "test" / "blue" / "0.png")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(3, use_bias=False)
    model = keras.Model(inputs, dense(x), name="colours")
    dense.kernel.assign(np.eye(3)[::-1])
    model = with_image_spec(model, size=(8, 8))
    model.save(tmp_path / "model.keras")
    command = ["quantization.py", "--data", str(tmp_path / "data")]
    command += ["--classifier", str(tmp_path / "model.keras")]
    command += ["--representative", "6", "--rounds", "1", "--title", "Colours"]
    monkeypatch.setattr("sys.argv", command)
    options = quantization.parse()
    made = quantization.Classifier(options)
    row = quantization.measure(made, options)
    right = f"{100 * 5 / 6:.2f}"
    assert [row[name] for name in ("Keras", "float32", "int8")] == 3 * [right]
    assert row["int8 same answer"] == "100.00 %"
    assert row["test images"] == 6 and row["data"] == "Colours"
    assert float(row["speed"]) > 0
