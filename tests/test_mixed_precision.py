"""Networks of half precision: what they say, and whether they train."""

import dataclasses

import keras
import numpy as np
import pytest
from ablation_study import reduced
from support import SMALL, randomize

from keras_csp import darknet
from keras_csp.detection import Detector
from keras_csp.layers import YoloHead
from keras_csp.models.builder import build_network
from keras_csp.models.densenet import CSP_DENSENET_201
from keras_csp.models.peleenet import csp_peleenet
from keras_csp.models.resnet import CSP_RESNEXT_50
from keras_csp.training.recipes import SMALL_CLASSIFICATION

# Of a probability, and of boxes by their size, after some ten layers: about
# three times what was measured. bfloat16 has 8 bits, float16 has 11.
TOLERANCE = {"mixed_bfloat16": 0.01, "mixed_float16": 0.001}
POLICIES = list(TOLERANCE)
ANCHORS = ((30, 60), (200, 150))
SIDE = 416  # of an image whose positions bfloat16 does not count to


def under(policy, make):
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy("float32")


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["SmallCSPPelee", "SmallCSPDense"])
def test_probabilities_are_float32_and_near_those_of_float32(rng, policy, name):
    def make():
        row = SMALL[name]
        return build_network(row, input_shape=(64, 64, 3), classes=7)

    whole, half = make(), under(policy, make)
    randomize(whole)
    half.set_weights(whole.get_weights())
    x = rng.random((4, 64, 64, 3)).astype("float32")
    found, wanted = array(half(x)), array(whole(x))
    assert found.dtype == "float32"
    # A softmax of half precision misses 1 by 1e-3.
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(wanted) > 0.2
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE[policy])
    assert np.abs(found - wanted).max() > 1e-5  # it is half precision


def decoded(x, stride):
    """Boxes of a map in float64: arXiv 1804.02767, section 2.1."""
    batch, height, width, _channels = x.shape
    t = x.astype("float64").reshape(batch, height, width, len(ANCHORS), -1)
    rows, columns = np.mgrid[:height, :width]
    grid = np.stack([columns, rows], axis=-1)[:, :, None]
    centre = (1 / (1 + np.exp(-t[..., :2])) + grid) * stride
    size = np.exp(t[..., 2:4]) * np.array(ANCHORS)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
    return boxes.reshape(batch, -1, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_boxes_are_decoded_in_float32(rng, policy):
    half = policy.removeprefix("mixed_")
    x = keras.ops.cast(rng.normal(size=(2, 52, 52, 2 * 7)), half)
    boxes, scores = under(policy, lambda: YoloHead(ANCHORS, 2, 8).decode(x))
    assert array(boxes).dtype == array(scores).dtype == "float32"
    wanted = decoded(array(keras.ops.cast(x, "float32")), 8)
    # Half precision would miss by tenths of a pixel, and more.
    np.testing.assert_allclose(array(boxes), wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_detector_finds_what_it_finds_in_float32(rng, policy):
    """Its heads and boxes, with the same weights."""

    def make():
        row = SMALL["SmallCSPResNeXt"]
        x = keras.Input((SIDE, SIDE, 3))
        network = build_network(row, include_top=False, input_tensor=x)
        y = network.output
        for number in range(2):
            down = keras.layers.Conv2D(16, 3, 2, "same", name=f"d{number}")
            y = down(y)
        return Detector(
            keras.Model(x, y, name="backbone"),
            "prn",
            classes=2,
            input_shape=(SIDE, SIDE, 3),
            anchors=[*ANCHORS, *ANCHORS],
        )

    whole, half = make(), under(policy, make)
    randomize(whole)
    x = rng.random((1, SIDE, SIDE, 3)).astype("float32")
    for level, y in whole(x).items():  # boxes of the anchors' order of size
        kernel = whole.get_layer(f"head_{level}").kernel
        kernel.assign(kernel / np.std(y))
    half.set_weights(whole.get_weights())
    found, wanted = half(x), whole(x)
    heads = dict(zip(half.anchors, half.heads))
    for level in wanted:
        assert array(found[level]).dtype == "float32"
        pair = [
            array(heads[level].decode_boxes(maps[level]))
            for maps in (found, wanted)
        ]
        side = np.abs(pair[1][..., 2:] - pair[1][..., :2]).mean()
        apart = np.abs(pair[0] - pair[1]).mean()
        assert 0 < apart < TOLERANCE[policy] * side
    assert half.predict(x, verbose=0)["boxes"].dtype == "float32"


DARKNET = """
[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=8
pad=1
activation=leaky
[convolutional]
filters=14
size=1
stride=1
activation=linear
[yolo]
mask=0,1
anchors=30,60, 200,150
classes=2
num=2
"""


@pytest.mark.parametrize("policy", POLICIES)
def test_darknets_boxes_are_float32(rng, policy, tmp_path):
    (tmp_path / "tiny.cfg").write_text(DARKNET)
    whole = darknet.load(tmp_path / "tiny.cfg")
    half = under(policy, lambda: darknet.load(tmp_path / "tiny.cfg"))
    randomize(whole)
    half.set_weights(whole.get_weights())
    x = rng.random((2, 64, 64, 3)).astype("float32")
    found, wanted = (keras.tree.flatten(model(x)) for model in (half, whole))
    assert array(found[0]).dtype == "float32"
    tolerance = TOLERANCE[policy] * np.abs(array(wanted[0])).max()
    np.testing.assert_allclose(
        array(found[0]), array(wanted[0]), atol=tolerance
    )


def shortened(item, most):
    """A row with at most so many equal blocks after one another."""
    if isinstance(item, tuple):
        pairs = enumerate(item)
        kept = (b for i, b in pairs if i < most or b != item[i - most])
        return tuple(shortened(block, most) for block in kept)
    if isinstance(item, dict):  # the two paths of a split stay two
        return {
            key: value if key == "split" else shortened(value, most)
            for key, value in item.items()
        }
    if dataclasses.is_dataclass(item):
        parts = {
            field.name: shortened(getattr(item, field.name), most)
            for field in dataclasses.fields(item)
        }
        return dataclasses.replace(item, **parts)
    return item


ROWS = {
    "CSPPeleeNet": csp_peleenet(),
    "CSPResNeXt50": reduced(shortened(CSP_RESNEXT_50, 1), 4),
    "CSPDenseNet201": reduced(shortened(CSP_DENSENET_201, 3), 4),
}


class Losses(keras.callbacks.Callback):
    """The loss of each step."""

    def on_train_begin(self, logs=None):
        self.values = []

    def on_epoch_begin(self, epoch, logs=None):
        self.sum = 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = logs["loss"] * (batch + 1)  # Keras' is the mean so far
        self.values.append(total - self.sum)
        self.sum = total


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ROWS)
def test_a_hundred_steps_are_finite(name, policy):
    """On some batches again and again."""
    steps = 100
    model = under(
        policy,
        lambda: build_network(ROWS[name], input_shape=(32, 32, 3), classes=4),
    )
    rng = np.random.default_rng(0)
    x = rng.random((40, 32, 32, 3)).astype("float32")
    y = np.eye(4, dtype="float32")[rng.integers(0, 4, 40)]
    recipe = SMALL_CLASSIFICATION.replace(steps=steps)
    model.compile(
        recipe.make_optimizer(), recipe.make_loss(), jit_compile=False
    )
    losses = Losses()
    model.fit(x, y, 8, epochs=steps // 5, verbose=0, callbacks=[losses])
    assert len(losses.values) == steps
    assert np.isfinite(losses.values).all()
    for variable in model.variables:
        assert np.isfinite(variable.numpy()).all(), variable.path
        assert "float32" in str(variable.dtype) or "seed" in variable.path
    assert np.mean(losses.values[-5:]) < 0.9 * np.mean(losses.values[:5])
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    if scaled:
        # Where gradients overflow Keras leaves a step out.
        left_out = steps - int(model.optimizer.iterations)
        assert left_out < steps / 5
        assert float(model.optimizer.dynamic_scale) >= 1
