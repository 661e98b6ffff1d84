"""Every factory and every detector as files, run by their runtimes.

TFLite files of all, ONNX files of every detector and a factory of each kind.
At 64 pixels, where every stage still has a map: the same layers and the same
operations as at any other size.
"""

from collections import Counter

import keras
import numpy as np
import pytest
from support import randomize

import keras_csp
from keras_csp.analysis.detectors import published_detectors
from keras_csp.export import load, to_onnx, to_tflite
from keras_csp.layers import GroupedConv2D

pytestmark = pytest.mark.slow

SIDE = 64
WRITE = {"m.tflite": to_tflite, "m.onnx": to_onnx}
# The others have the same layers in other widths and depths, and an ONNX file
# takes as long to write as a TFLite file.
KINDS = (
    *("CSPDenseNet201Elastic", "CSPResNet50Elastic", "CSPResNeXt50Timm"),
    *("CSPPeleeNet", "CSPDarkNet53", "CSPMobileNetV2", "Res2NeXt50"),
    *("CS3SEDarkNetL", "CS3DarkNetFocusS", "CSPDenseNetReference"),
    *("CS3EdgeNetX", "DarkNetAA53", "HarDNet138s", "CSPDenseNetbReference"),
)
# One row is another training of the same detector.
DETECTORS = {
    row.head: row.arguments
    for row in published_detectors()
    if row.box_loss is None
}


@pytest.fixture(autouse=True)
def _free_each_network():
    """Graphs are circles of references: of sixty, they fill the memory before
    Python looks for them."""
    yield
    keras.utils.clear_session()  # it collects garbage


@pytest.fixture
def photograph():
    from sklearn.datasets import load_sample_image

    image = load_sample_image("flower.jpg")[:SIDE, 200 : 200 + SIDE]
    return (image / 255.0).astype("float32")[None]


def operations(path):
    """How often each operation stands in the file."""
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path))._get_ops_details()
    return Counter(operation["op_name"] for operation in details)


def convolutions(model):
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, GroupedConv2D)
    layers = model._flatten_layers(include_self=False)
    return sum(isinstance(layer, kinds) for layer in layers)


@pytest.mark.parametrize("name", keras_csp.list_models())
def test_every_factory(name, photograph, tmp_path):
    factory = keras_csp.get_factory(name)
    model = factory(weights=None, classes=10, input_shape=(SIDE, SIDE, 3))
    randomize(model)
    expected = model.predict_on_batch(photograph)
    assert np.ptp(expected) > 1e-3  # not the same for every class
    for file, write in WRITE.items():
        if file == "m.onnx" and name not in KINDS:
            continue
        check = write(model, tmp_path / file, photograph)
        assert check.largest_difference < 1e-4
        assert check.match_rate == 1
        # Independently of the check: the file itself, read again.
        np.testing.assert_allclose(
            load(tmp_path / file)(photograph),
            expected,
            atol=1e-4 * np.abs(expected).max(),
        )
    found = operations(tmp_path / "m.tflite")
    assert not [kind for kind in found if kind.startswith("Flex")]
    # Groups were not taken apart: one operation for each layer.
    made = found["CONV_2D"] + found["DEPTHWISE_CONV_2D"]
    assert made == convolutions(model)


@pytest.mark.parametrize("head", DETECTORS)
def test_every_detector(head, rng, tmp_path):
    detector = keras_csp.Detector(
        classes=3, input_shape=(SIDE, SIDE, 3), **DETECTORS[head]
    )
    randomize(detector)
    images = rng.random((2, SIDE, SIDE, 3), dtype="float32")
    scores = detector.predict(images, verbose=0, score_threshold=0.0)["scores"]
    model = detector.inference_model(score_threshold=between(scores))
    expected = model.predict_on_batch(images)
    assert expected["count"].max() > 0
    for file, write in WRITE.items():
        check = write(model, tmp_path / file, images)
        assert check.largest_difference < 1e-4
        answer = load(tmp_path / file)(images)
        np.testing.assert_array_equal(answer["count"], expected["count"])
        for image, count in enumerate(expected["count"]):
            found = answer["boxes"][image, :count]
            for box in expected["boxes"][image, :count]:
                # Boxes of equal scores may have changed places.
                assert np.abs(found - box).max(axis=1).min() < 1e-2


def between(scores):
    """A threshold that no score is near to: in the widest gap."""
    values = np.sort(scores[scores > 0.01])
    widest = np.argmax(np.diff(values))
    return float(values[widest : widest + 2].mean())
