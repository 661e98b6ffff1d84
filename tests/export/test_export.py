"""TFLite and ONNX, run by their own runtimes beside the model."""

import keras
import numpy as np
import pytest
from support import SMALL, randomize

from keras_csp.export import (
    load,
    onnx,
    saved_model,
    tflite,
    to_onnx,
    to_saved_model,
    to_tflite,
)
from keras_csp.models.builder import build_network

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture
def samples(rng):
    return rng.random((4, 64, 64, 3), dtype="float32")


def small(name, classes=5):
    return randomize(
        build_network(SMALL[name], classes=classes, input_shape=(64, 64, 3))
    )


@pytest.mark.parametrize("name", SMALL)
def test_tflite(name, samples, tmp_path):
    model = small(name)
    check = to_tflite(model, tmp_path / "new" / "model.tflite", samples)
    assert check.path.stat().st_size == check.size > 1000
    assert check.largest_difference < 1e-5
    assert check.agreement == 1
    # Independently of the check: the file itself, read again.
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(check.path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], samples[:1]
    )
    interpreter.invoke()
    answer = interpreter.get_tensor(
        interpreter.get_output_details()[0]["index"]
    )
    np.testing.assert_allclose(
        answer, np.asarray(model(samples[:1])), atol=1e-5
    )


def test_grouped_convolution_is_one_builtin_operation(samples, tmp_path):
    check = to_tflite(
        small("SmallCSPResNeXt"), tmp_path / "model.tflite", samples
    )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(check.path))
    names = {op["op_name"] for op in interpreter._get_ops_details()}
    assert "CONV_2D" in names
    assert not {name for name in names if name.startswith("Flex")}
    assert "SPLIT" not in names  # groups were not taken apart


def test_normalisation_is_folded_into_the_convolutions(samples, tmp_path):
    """Of those before it: nothing of it is left to be computed."""
    model = small("SmallMobile")
    check = to_tflite(model, tmp_path / "model.tflite", samples)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(check.path))
    names = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not {"MUL", "ADD", "SUB", "RSQRT"} & names
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    check = to_onnx(model, tmp_path / "model.onnx", samples)
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


@pytest.mark.parametrize("name", ["SmallCSPResNeXt", "SmallElastic"])
def test_onnx(name, samples, tmp_path):
    """Keras' own exporter; stock grouped convolutions do not survive it."""
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = small(name)
    model(samples)  # Keras exports a model that has been called
    path = tmp_path / "model.onnx"
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (answer,) = session.run(None, {session.get_inputs()[0].name: samples})
    np.testing.assert_allclose(answer, np.asarray(model(samples)), atol=1e-5)


def test_a_file_that_does_not_run_is_not_kept(samples, tmp_path, monkeypatch):
    def fail(path, samples):
        raise RuntimeError("failed to create XNNPACK runtime\nin a graph")

    monkeypatch.setattr(tflite, "_run", fail)
    with pytest.raises(ValueError, match="does not run: failed to create X"):
        to_tflite(small("SmallMobile"), tmp_path / "m.tflite", samples)
    assert not list(tmp_path.iterdir())


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
    assert "0.0001 is allowed (`maximum_difference`)" in str(seen.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the file from before"
    largest = np.abs(model.predict_on_batch(samples)).max()
    with pytest.raises(ValueError, match="differs from the model by"):
        write(model, path, samples, maximum_difference=0.0099 / largest)
    check = write(model, path, samples, maximum_difference=0.0101 / largest)
    assert check.largest_difference == pytest.approx(0.01 / largest, rel=1e-2)
    assert path.stat().st_size == check.size


def test_a_saved_model_is_replaced_by_a_right_one(
    samples, tmp_path, monkeypatch
):
    path = tmp_path / "served"
    old, new = small("SmallMobile"), small("SmallMobile", classes=7)
    to_saved_model(old, path, samples)
    with monkeypatch.context() as patch:
        run = saved_model._run
        patch.setattr(saved_model, "_run", lambda *a: run(*a) + 0.01)
        with pytest.raises(ValueError, match="differs from the model by"):
            to_saved_model(new, path, samples)
        with pytest.raises(ValueError, match=r"and 1. Received: .*=1\.5"):
            to_saved_model(new, path, samples, maximum_difference=1.5)
        check = to_saved_model(old, path, samples, maximum_difference=0.5)
        assert check.largest_difference > 1e-3
    assert list(tmp_path.iterdir()) == [path]
    assert load(path)(samples).shape == (4, 5)
    to_saved_model(new, path, samples)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_allclose(
        load(path)(samples), new.predict_on_batch(samples), atol=1e-5
    )


def test_an_operation_that_tflite_lacks_is_named(tmp_path):
    inputs = keras.Input((8,))
    outputs = keras.layers.Lambda(keras.ops.erfinv)(inputs)
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match=r"(?i)erfinv|ndtri") as caught:
        to_tflite(model, tmp_path / "m.tflite", np.zeros((2, 8)) + 0.1)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "shape", [(64, 64, 3), (0, 64, 64, 3), (2, 32, 64, 3), (2, 64, 64, 1)]
)
def test_samples_must_fit(shape, tmp_path):
    with pytest.raises(ValueError, match="samples"):
        to_tflite(small("SmallMobile"), tmp_path / "m.tflite", np.zeros(shape))


def test_a_model_of_open_sides(tmp_path, rng):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    outputs = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, outputs)
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match=r"`input_shape=\(height, width"):
        to_tflite(model, path)
    with pytest.raises(ValueError, match=r"input_shape=\(8, 8, 1\)"):
        to_tflite(model, path, input_shape=(8, 8, 1))
    to_tflite(model, path, input_shape=(8, 12, 3))
    assert load(path).metadata.input_shape == (8, 12, 3)
    samples = rng.random((2, 10, 9, 3), dtype="float32")
    check = to_tflite(model, path, samples)
    assert (check.samples, check.largest_difference < 1e-5) == (2, True)
    assert load(path).metadata.input_shape == (10, 9, 3)
    batches = [samples, samples]
    with pytest.raises(ValueError, match=r"`input_shape=\(height, width"):
        to_tflite(model, path, quantize="int8", representative=batches)


def test_without_photographs_samples_are_asked_for(tmp_path):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match=r"inputs \(8,\), no photographs"):
        to_tflite(model, tmp_path / "m.tflite")
    two = keras.Model([inputs, keras.Input((8,))], inputs)
    with pytest.raises(ValueError, match="must have one input"):
        to_tflite(two, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 12}, "opset=12"),
        ({"dynamic_batch": 3}, "dynamic_batch=3"),
    ],
)
def test_mistakes_of_onnx(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_onnx(small("SmallMobile"), tmp_path / "m.onnx", **options)


def test_a_saved_model_is_not_written_over_something_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.png").touch()
    with pytest.raises(ValueError, match="new or a SavedModel"):
        to_saved_model(small("SmallMobile"), tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.png").exists()
