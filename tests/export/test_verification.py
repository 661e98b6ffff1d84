"""A file that is wrong, or does not run, is not kept."""

import keras
import numpy as np
import pytest
from export_networks import small

from keras_csp.export import onnx, tflite, to_onnx, to_tflite

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture
def samples(rng):
    return rng.random((4, 64, 64, 3), dtype="float32")


def test_a_file_that_does_not_run_is_not_kept(samples, tmp_path, monkeypatch):
    def fail(path, samples):
        raise RuntimeError("failed to create XNNPACK runtime\nin a graph")

    monkeypatch.setattr(tflite, "_run", fail)
    with pytest.raises(ValueError, match="does not run: failed to create X"):
        to_tflite(small("SmallMobile"), tmp_path / "m.tflite", samples)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "write"), [(tflite, to_tflite), (onnx, to_onnx)]
)
def test_a_wrong_file_is_not_kept(
    module, write, samples, tmp_path, monkeypatch
):
    path = tmp_path / "model"
    path.write_bytes(b"the file from before")
    run = module._run
    monkeypatch.setattr(module, "_run", lambda *a: run(*a) + 0.01)
    model = small("SmallMobile")
    with pytest.raises(ValueError, match="differs from the model by") as seen:
        write(model, path, samples)
    assert "at most 0.0001 is allowed (`maximum_difference`)" in str(seen.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the file from before"
    largest = np.abs(model.predict_on_batch(samples)).max()
    with pytest.raises(ValueError, match="differs from the model by"):
        write(model, path, samples, maximum_difference=0.0099 / largest)
    check = write(model, path, samples, maximum_difference=0.0101 / largest)
    assert check.largest_difference == pytest.approx(0.01 / largest, rel=1e-2)
    assert path.stat().st_size == check.size
