"""benchmarks/exports.py, with a small network."""

import argparse

import exports
import keras
import numpy as np
import pytest
from harness.results import read_rows
from support import randomize, tiny_backbone

from keras_csp.layers import ConvNormAct

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


def little(_name, shape):
    inputs = keras.Input(shape)
    x = ConvNormAct(8, 3, strides=2)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, keras.layers.Dense(5)(x)))


@pytest.fixture
def options(tmp_path):
    return argparse.Namespace(
        csv=tmp_path / "results" / "exports.csv",
        scratch=tmp_path / "scratch",
        size=32,
        threads=1,
        runs=2,
        one="Little",
        shown=[],
    )


def test_files_are_written_then_timed_once(options, monkeypatch, capsys):
    pytest.importorskip("tf2onnx")
    monkeypatch.setattr(exports, "make", little)
    options.scratch.mkdir()
    exports.export_one(options)
    written = read_rows(options.csv)
    assert [row["kind"] for row in written] == list(exports.KINDS)
    for row in written:
        path = exports.export_path(options, "Little", row["kind"])
        assert float(row["MB"]) == pytest.approx(
            path.stat().st_size / 1e6, abs=0.005
        )
        assert (row["ms"], row["error"]) == ("", "")
        exact = row["kind"] in ("TFLite", "ONNX")
        assert float(row["difference"]) < (1e-4 if exact else 0.2)
    exports.time_all(options)
    timed = read_rows(options.csv)
    assert all(float(row["ms"]) >= 0 for row in timed)
    assert not list(options.scratch.iterdir())
    exports.time_all(options)
    assert read_rows(options.csv) == timed
    capsys.readouterr()
    exports.report(options)
    page = options.csv.with_suffix(".md").read_text()
    assert page == capsys.readouterr().out
    assert page.count("| Little |") == len(timed)


def test_the_reason_why_a_file_cannot_be_written(options, monkeypatch):
    def refuse(*_arguments, **_options):
        raise ValueError("no such operation\nand a long trace")

    monkeypatch.setattr(exports, "make", little)
    monkeypatch.setitem(exports.KINDS, "ONNX", (".onnx", refuse, {}))
    options.scratch.mkdir()
    row = list(exports.export_rows("Little", options))[-1]
    assert row == {
        "network": "Little",
        "kind": "ONNX",
        "error": "no such operation",
    }


def test_networks_give_logits_and_detectors_boxes(monkeypatch):
    y = exports.make("CSPResNet10", (32, 32, 3))(np.zeros((1, 32, 32, 3)))
    assert y.shape == (1, 1000)
    assert abs(float(np.sum(y)) - 1) > 1e-3
    detectors = {"small": {"backbone": tiny_backbone(64), "neck": "prn"}}
    monkeypatch.setattr(exports, "DETECTORS", detectors)
    detector = exports.make("small", (64, 64, 3))
    assert set(detector.output) == {"boxes", "scores", "classes", "count"}
