"""ONNX files, run by onnxruntime beside the model."""

import keras
import numpy as np
import pytest
from export_networks import small

from keras_csp.export import to_onnx

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture
def samples(rng):
    return rng.random((4, 64, 64, 3), dtype="float32")


@pytest.mark.parametrize("name", ["SmallCSPResNeXt", "SmallElastic"])
def test_keras_own_exporter(name, samples, tmp_path):
    """Which loses grouped convolutions of stock Keras."""
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small(name)
    model(samples)  # Keras exports a model that has been called
    path = tmp_path / "model.onnx"
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (answer,) = session.run(None, {session.get_inputs()[0].name: samples})
    np.testing.assert_allclose(answer, np.asarray(model(samples)), atol=1e-5)


def test_normalisation_is_folded_into_the_convolutions(samples, tmp_path):
    """Of those before it: nothing of it is left to be computed."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    check = to_onnx(small(), tmp_path / "model.onnx", samples)
    # onnxruntime folds when it loads the file: what it then computes.
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(str(check.path), options)
    loaded = onnx.load(options.optimized_model_filepath).graph.node
    kinds = [node.op_type for node in loaded]
    assert "Conv" in kinds
    assert not {"Mul", "Sub", "Add", "BatchNormalization"} & set(kinds)


def test_an_onnx_file_takes_other_batches(samples, tmp_path):
    """It is checked in a batch of two at least, with one sample too."""
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small("SmallMobile")
    for dynamic, batch in ((True, 3), (False, 1)):
        path = tmp_path / f"{dynamic}.onnx"
        check = to_onnx(model, path, samples[:1], dynamic_batch=dynamic)
        assert check.samples == 1
        session = onnxruntime.InferenceSession(path)
        (given,) = session.get_inputs()
        assert isinstance(given.shape[0], str if dynamic else int)
        images = np.repeat(samples[:1], batch, axis=0)
        (answer,) = session.run(None, {given.name: images})
        expected = model.predict_on_batch(images)
        np.testing.assert_allclose(answer, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 12}, "opset=12"),
        ({"dynamic_batch": 3}, "dynamic_batch=3"),
    ],
)
def test_mistakes(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_onnx(small("SmallMobile"), tmp_path / "m.onnx", **options)
