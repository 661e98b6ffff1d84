import numpy as np
import pytest
import reference
from support import assert_configuration_round_trip, randomize, unit_weights

from keras_csp.layers import (
    ConvNormAct,
    Maxout,
    SpatialAttention,
    SqueezeExcitation,
)


def squeeze_excitation(x, reduce, b1, expand, b2):
    """relu and sigmoid, written from the paper's equations 2 to 4."""
    hidden = np.maximum(x.mean(axis=(1, 2)) @ reduce[0, 0] + b1, 0)
    scale = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + b2)))
    return x * scale[:, None, None]


def test_equals_numpy(rng):
    x = rng.normal(size=(2, 3, 5, 8)).astype("float32")
    layer = SqueezeExcitation(4)
    layer.build(x.shape)
    randomize(layer)
    expected = squeeze_excitation(x, *map(np.asarray, layer.weights))
    y = np.asarray(layer(x))
    assert y.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_activation_is_used(rng):
    x = rng.normal(size=(1, 3, 3, 8)).astype("float32")
    layers = [SqueezeExcitation(4, activation=a) for a in ("relu", "silu")]
    for layer in layers:
        layer.build(x.shape)
    layers[1].set_weights(randomize(layers[0]).get_weights())
    relu, silu = (np.asarray(layer(x)) for layer in layers)
    assert np.abs(relu - silu).max() > 1e-4


def test_configuration_round_trip(rng):
    x = rng.normal(size=(1, 3, 3, 8)).astype("float32")
    layer = SqueezeExcitation(4, activation="silu")
    assert_configuration_round_trip(layer, x)


def test_bad_filters_are_quoted():
    with pytest.raises(ValueError, match="filters=0"):
        SqueezeExcitation(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_spatial_attention_equals_numpy(rng):
    """Darknet's [sam]: the map times a sigmoid for each of its numbers."""
    x = rng.normal(size=(2, 3, 5, 6)).astype("float32")
    layer = SpatialAttention()
    layer.build(x.shape)
    randomize(layer)
    weights = unit_weights(layer.weigh)
    assert weights[0].shape == (1, 1, 6, 6)
    scale = reference.conv_norm_act(x, weights, activation=sigmoid)
    y = np.asarray(layer(x))
    np.testing.assert_allclose(y, x * scale, rtol=1e-5, atol=1e-6)
    assert y.shape == layer.compute_output_shape(x.shape)


def test_spatial_attention_in_training_takes_the_batchs_statistics(rng):
    x = rng.normal(size=(4, 3, 5, 6)).astype("float32")
    layer = SpatialAttention()
    layer.build(x.shape)
    randomize(layer)
    kernel, gamma, beta, _, _ = unit_weights(layer.weigh)
    z = reference.convolve(x, kernel)
    z = reference.normalize(z, gamma, beta, z.mean((0, 1, 2)), z.var((0, 1, 2)))
    y = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(y, x * sigmoid(z), rtol=1e-4, atol=1e-5)


def test_spatial_attention_of_a_maxout_sees_all_channels(rng):
    """The weights come from what the maxout chooses from."""
    x = rng.normal(size=(2, 3, 5, 6)).astype("float32")
    layer = SpatialAttention(Maxout(2))
    layer.build(x.shape)
    randomize(layer)
    weights = unit_weights(layer.weigh)
    assert weights[0].shape == (1, 1, 6, 2)
    scale = reference.conv_norm_act(x, weights, activation=sigmoid)
    chosen = np.stack([x[..., j::2].max(-1) for j in range(2)], axis=-1)
    y = np.asarray(layer(x))
    np.testing.assert_allclose(y, chosen * scale, rtol=1e-5, atol=1e-6)
    assert y.shape == layer.compute_output_shape(x.shape) == (2, 3, 5, 2)


@pytest.mark.parametrize(
    "transform", [None, Maxout(4), [ConvNormAct(3), ConvNormAct(5, 3)]]
)
def test_spatial_attention_configuration_round_trip(transform, rng):
    x = rng.normal(size=(1, 3, 3, 8)).astype("float32")
    assert_configuration_round_trip(SpatialAttention(transform), x)


def test_a_transform_that_is_no_layer_is_quoted():
    with pytest.raises(ValueError, match="transform='maxout'"):
        SpatialAttention("maxout")
