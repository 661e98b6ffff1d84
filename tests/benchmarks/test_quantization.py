"""benchmarks/quantization.py: its rows and its page."""

import argparse

import numpy as np
import pytest
import quantization
from harness.results import RESULTS, read_rows


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
