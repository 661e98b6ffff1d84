import keras
import numpy as np
import pytest
import reference
from support import assert_configuration_round_trip, randomize, unit_weights

from keras_csp.layers import ConvNormAct, Res2Conv, ResidualBlock


def test_residual_block_is_equation_2(rng):
    x = rng.normal(size=(2, 6, 6, 8))
    units = [ConvNormAct(4), ConvNormAct(8, 3, activation=None)]
    block = ResidualBlock(units)
    block.build(x.shape)
    randomize(block)
    inner = reference.conv_norm_act(x, unit_weights(units[0]))
    inner = reference.conv_norm_act(
        inner, unit_weights(units[1]), activation=None
    )
    expected = reference.leaky(inner + x)
    np.testing.assert_allclose(np.asarray(block(x)), expected, atol=1e-5)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(("incoming", "outgoing"), [(3, 5), (5, 3), (4, 4)])
def test_partial_shortcut_is_darknets(rng, side, incoming, outgoing):
    """out[i, j, c] += x[s i, s j, c] for the channels that both have."""
    x = rng.normal(size=(1, side, side, incoming))
    unit = ConvNormAct(outgoing, 3, 2, activation=None)
    block = ResidualBlock(unit, activation=None, shortcut="partial")
    block.build(x.shape)
    randomize(block)
    expected = reference.conv_norm_act(
        x, unit_weights(unit), 2, activation=None
    )
    for i in range(expected.shape[1]):
        for j in range(expected.shape[2]):
            for c in range(min(incoming, outgoing)):
                expected[0, i, j, c] += x[0, 2 * i, 2 * j, c]
    y = np.asarray(block(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert not [w for w in block.weights if "projection" in w.path]


@pytest.mark.parametrize("side", [7, 8])
def test_projection_where_the_shape_changes(rng, side):
    x = rng.normal(size=(1, side, side, 3))
    unit = ConvNormAct(5, 3, 2, activation=None)
    block = ResidualBlock(unit, activation="relu")
    block.build(x.shape)
    randomize(block)
    expected = np.maximum(
        reference.conv_norm_act(x, unit_weights(unit), 2, activation=None)
        + reference.conv_norm_act(
            x, unit_weights(block._projection), 2, activation=None
        ),
        0,
    )
    np.testing.assert_allclose(np.asarray(block(x)), expected, atol=1e-5)


def test_no_projection_where_it_does_not():
    block = ResidualBlock(ConvNormAct(4, 3))
    block.build((None, None, None, 4))
    assert block._projection is None


@pytest.mark.parametrize("entry", [False, True])
def test_res2_conv(rng, entry):
    x = rng.normal(size=(1, 6, 6, 16))
    layer = Res2Conv(16, scales=4, groups=2, entry=entry)
    layer.build(x.shape)
    randomize(layer)
    slices = np.split(x, 4, axis=-1)
    outputs = []
    for piece, unit in zip(slices, layer._convolutions):
        if outputs and not entry:
            piece = piece + outputs[-1]  # noqa: PLW2901
        outputs.append(
            reference.conv_norm_act(piece, unit_weights(unit), groups=2)
        )
    last = slices[-1]
    if entry:  # the mean of each 3x3 neighbourhood, zeros counted
        padded = np.pad(last, [(0, 0), (1, 1), (1, 1), (0, 0)])
        last = sum(
            padded[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3)
        )
        last = last / 9
    expected = np.concatenate([*outputs, last], axis=-1)
    np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=1e-5)


def test_res2_conv_strides(rng):
    layer = Res2Conv(8, strides=2, entry=True)
    x = rng.normal(size=(1, 7, 7, 8))
    assert layer(x).shape == layer.compute_output_shape(x.shape) == (1, 4, 4, 8)


@pytest.mark.parametrize(
    "layer",
    [
        ResidualBlock(
            [ConvNormAct(2), keras.layers.Conv2D(4, 3, 2, "same")],
            activation=None,
            shortcut="partial",
        ),
        Res2Conv(4, scales=2, strides=2, entry=True, activation="relu"),
    ],
)
def test_configuration_round_trip(rng, layer):
    x = rng.normal(size=(1, 6, 6, 4))
    assert_configuration_round_trip(layer, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualBlock([]), r"layers=\[\]"),
        (lambda: ResidualBlock(["relu"]), "'relu' of type str"),
        (
            lambda: ResidualBlock(ConvNormAct(4), shortcut="none"),
            "shortcut='none'",
        ),
        (
            lambda: ResidualBlock(keras.layers.Conv2D(3, 3)).build(
                (None, 8, 8, 3)
            ),
            "64x64 to 62x62",
        ),
        (lambda: Res2Conv(6, scales=4), "scales=4, filters=6"),
        (lambda: Res2Conv(8, strides=2), "strides=2, entry=False"),
        (lambda: Res2Conv(8).build((None, 8, 8, 4)), "Received: 4"),
    ],
)
def test_bad_arguments_are_quoted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
