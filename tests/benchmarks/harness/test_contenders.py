"""Contenders run what they say, with small networks."""

import keras
import numpy as np
import pytest
from harness import contenders
from harness.contenders import (
    DetectorFrames,
    ExportedFile,
    KerasNetwork,
    KerasSteps,
    build_keras,
    random_batch,
    set_statistics,
)
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.layers import BatchNormalization, ConvNormAct

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)
QUANTITIES = {
    "batch 1": {"batch": 1, "size": 16},
    "training": {"batch": 4, "size": 32, "training": True},
}


def small(_framework, _name, size):
    x = inputs = keras.Input((size, size, 3))
    x = ConvNormAct(4, 3, strides=2, name="unit")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    # The weights depend on the names alone.
    x = keras.layers.Dense(contenders.CLASSES, "softmax", name="top")(x)
    return randomize(keras.Model(inputs, x))


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setattr(contenders, "build_keras", small)
    # The threads of this process are already running.
    monkeypatch.setattr(contenders, "limit_threads", lambda threads: None)


def test_a_keras_network_infers_and_trains():
    network = KerasNetwork(QUANTITIES, "keras_csp", "any", False, 1)
    network.run("batch 1")
    network.run("training")
    assert network.make(16) is network.make(16) is not network.make(32)
    changed = {}
    for size in (16, 32):
        ours, fresh = network.make(size), small(None, None, size)
        kernels = [model.layers[-1].kernel.numpy() for model in (ours, fresh)]
        changed[size] = not np.array_equal(*kernels)
    assert changed == {16: False, 32: True}
    counted = keras_csp.count(small(None, None, 16))
    assert network.cost("batch 1") == {
        "bflops": counted.bflops,
        "cio": counted.cio,
    }


def test_a_timm_network_infers_and_trains(monkeypatch):
    torch = pytest.importorskip("torch")

    def build(name):
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, stride=2, padding=1),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, contenders.CLASSES),
        )

    monkeypatch.setattr(contenders, "build_timm", build)
    network = contenders.TorchNetwork(QUANTITIES, "any", channels_last=True)
    arrays = random_batch(2, 16)
    images, labels = network.place(*arrays)
    assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), arrays[0])
    np.testing.assert_array_equal(labels, arrays[1])
    before = network.infer(images)
    network.run("batch 1")
    assert torch.equal(network.infer(images), before)
    network.run("training")
    assert not torch.equal(network.infer(images), before)
    # 8x8 positions, 27 multiply-adds for 4 channels, and the classifier.
    operations = 2 * (8 * 8 * 27 * 4 + 4 * contenders.CLASSES)
    assert network.cost("batch 1") == {"bflops": operations / 1e9}


@pytest.mark.parametrize("engine", ["LiteRT", "onnxruntime"])
def test_an_exported_file_takes_every_batch(tmp_path, engine):
    steps = KerasSteps({}, "keras_csp", "any", 16, tmp_path, 1)
    steps.build()
    steps.samples = random_batch(1, 16)[0]
    if engine == "LiteRT":
        path = str(tmp_path / "model.tflite")
        steps.export_litert(path)
    else:
        pytest.importorskip("tf2onnx")
        path = str(tmp_path / "model.onnx")
        steps.export_onnx(path)
    quantities = {f"batch {n}": {"batch": n, "size": 16} for n in (1, 3)}
    # As it comes out of JSON, whose keys are text.
    file = ExportedFile(quantities, engine, {"16": path}, 1)
    for name, given in quantities.items():
        file.run(name)
        images = random_batch(given["batch"], 16)[0]
        found = np.squeeze(file.open(path, images.shape)(images))
        expected = np.squeeze(steps.model.predict_on_batch(images))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_channels_first_file_gets_its_layout():
    file = ExportedFile({}, "onnxruntime", {16: "path"}, 1, "NCHW")
    images, labels = random_batch(2, 16)
    placed, _ = file.place(images, labels)
    np.testing.assert_array_equal(placed, np.moveaxis(images, -1, 1))


def test_steps_come_in_any_order(tmp_path):
    """Of a run that resumes, the first step may be any."""
    quantities = {
        "load weights": {"step": "load_weights"},
        "save weights": {"step": "save_weights"},
        "export": {
            "step": "export_litert",
            "with": {"path": tmp_path / "m.tflite", "size": 32},
        },
    }

    def steps():
        return KerasSteps(quantities, "keras_csp", "any", 16, tmp_path, 1)

    def step(made, name):
        made.prepare(name)
        made.run(name)

    saved = steps()
    step(saved, "save weights")
    loaded = steps()
    loaded.prepare("load weights")
    loaded.model.layers[-1].kernel.assign_add(
        keras.ops.ones_like(loaded.model.layers[-1].kernel)
    )
    loaded.run("load weights")
    weights = saved.model.get_weights(), loaded.model.get_weights()
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    step(loaded, "export")
    assert (tmp_path / "m.tflite").is_file()
    assert loaded.size == 32


def test_statistics_are_those_of_the_samples(rng):
    inputs = keras.Input((8, 8, 3))
    norm = BatchNormalization(momentum=0.9)
    model = keras.Model(inputs, norm(inputs))
    samples = rng.normal(3, 2, (4, 8, 8, 3)).astype("float32")
    set_statistics(model, samples)
    np.testing.assert_allclose(
        norm.moving_mean, samples.mean((0, 1, 2)), rtol=1e-5
    )
    assert norm.momentum == 0.9


def test_networks_of_the_frameworks():
    ours = build_keras("keras_csp", "CSPResNet10", 32)
    assert (ours.input_shape, ours.output_shape) == (
        (None, 32, 32, 3),
        (None, contenders.CLASSES),
    )
    theirs = build_keras("keras.applications", "MobileNet", 32)
    assert theirs.output_shape == ours.output_shape


def test_a_detector_from_jpeg_to_boxes():
    detector = {"backbone": tiny_backbone(64), "neck": "prn", "classes": 2}
    frames = DetectorFrames({"frame": {"size": 64}}, detector, 1)
    frames.run("frame")
    counted = keras_csp.count(frames.detector)
    assert frames.cost("frame")["bflops"] == counted.bflops
