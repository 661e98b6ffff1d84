"""One table of formats, which `save`, `load` and a user's own format share."""

import json

import keras
import numpy as np
import pytest
from export_networks import little

from keras_csp import export
from keras_csp.export import FORMATS, load, save

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture(scope="module")
def model():
    return little()


@pytest.mark.parametrize("name", ["m.tflite", "M.ONNX", "new"])
def test_the_ending_says_which(name, model, tmp_path, rng):
    samples = rng.random((3, 8, 8, 3), dtype="float32")
    check = save(model, tmp_path / name, samples, maximum_difference=1e-3)
    kinds = {"m.tflite": "TFLite", "M.ONNX": "ONNX", "new": "SavedModel"}
    assert (check.kind, check.samples) == (kinds[name], 3)
    np.testing.assert_allclose(
        load(tmp_path / name)(samples),
        model.predict_on_batch(samples),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.keras", {}, r"a \.tflite or \.onnx file or the folder .* to write"),
        ("m.pb", {}, r"Received: .*m\.pb"),
        ("m.onnx", {"quantize": "int8"}, "`quantize` is not an option of ONNX"),
        ("m.tflite", {"opset": 17}, "`opset` is not an option of TFLite files"),
        ("new", {"labels": ["a"]}, "`labels` is not an option of SavedModel"),
    ],
)
def test_mistakes_of_saving(name, options, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        load(tmp_path / "m.tflite")
    (tmp_path / "m.txt").touch()
    with pytest.raises(ValueError, match=r"Expected a \.tflite, \.onnx or"):
        load(tmp_path / "m.txt")
    (tmp_path / "none").touch()
    with pytest.raises(ValueError, match=r"Expected a \.tflite, \.onnx or"):
        load(tmp_path / "none")
    for name in ("m.tflite", "m.onnx", "m.keras"):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(ValueError, match="Cannot read") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Cannot read"):
        load(tmp_path / "empty")


def test_a_format_by_a_user(model, tmp_path, monkeypatch, rng):
    """Weights as JSON, of a network of one kind, as a user would write it."""

    def to_json(model, path, samples=None):
        weights = [w.tolist() for w in model.get_weights()]
        path.write_text(json.dumps(weights))
        return export.ExportCheck(path, "JSON", 1, 0, 0.0, 1.0)

    class JSONRuntime:
        metadata = None

        def __init__(self, path, threads=None):
            self.model = little()
            weights = json.loads(path.read_text())
            self.model.set_weights(list(map(np.float32, weights)))

        def __call__(self, images):
            return self.model.predict_on_batch(images)

    mine = export.Format("JSON", to_json, JSONRuntime)
    monkeypatch.setitem(FORMATS, ".json", mine)
    save(model, tmp_path / "m.json")
    images = rng.random((2, 8, 8, 3), dtype="float32")
    np.testing.assert_allclose(
        load(tmp_path / "m.json")(images), model.predict_on_batch(images)
    )
    with pytest.raises(ValueError, match="`quantize` is not an option of JSON"):
        save(model, tmp_path / "m.json", quantize="int8")
