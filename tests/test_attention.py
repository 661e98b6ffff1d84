import numpy as np
import pytest
from support import assert_configuration_round_trip, randomize

from keras_csp.layers import SqueezeExcitation


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
