import keras
import numpy as np
import pytest
import reference
from support import assert_configuration_round_trip, randomize, unit_weights

from keras_csp.layers import ConvNormAct, NormAct, Parallel, Transition


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(
    ("kernel_size", "strides", "groups", "filters"),
    [(1, 1, 1, 6), (3, 1, 1, 6), (3, 2, 2, 6), (7, 2, 1, 5), (3, 2, 4, 8)],
)
def test_conv_norm_act_equals_numpy(
    rng, side, kernel_size, strides, groups, filters
):
    x = rng.normal(size=(2, side, side, 4))
    unit = ConvNormAct(filters, kernel_size, strides, groups)
    unit.build(x.shape)
    randomize(unit)
    weights = unit_weights(unit)
    if groups == 4:  # depthwise: (k, k, c, multiplier) to (k, k, 1, filters)
        weights[0] = weights[0].reshape(kernel_size, kernel_size, 1, filters)
    expected = reference.conv_norm_act(x, weights, strides, groups)
    y = np.asarray(unit(x))
    assert y.shape == unit.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel_size", "strides", "padding"),
    [(6, 2, 2), (2, 1, 0), (3, 1, 0), (3, 2, 0), (3, 1, 2), (1, 1, 1)],
)
def test_padding_equals_numpy(rng, kernel_size, strides, padding):
    x = rng.normal(size=(1, 10, 11, 2))
    unit = ConvNormAct(3, kernel_size, strides, padding=padding)
    unit.build(x.shape)
    randomize(unit)
    kernel, *statistics = unit_weights(unit)
    convolved = reference.convolve(x, kernel, strides, pad=padding)
    expected = reference.leaky(reference.normalize(convolved, *statistics))
    y = np.asarray(unit(x))
    assert y.shape == unit.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_two_strides(rng):
    x = rng.normal(size=(1, 8, 9, 2))
    unit = ConvNormAct(3, 3, strides=(2, 1))
    unit.build(x.shape)
    randomize(unit)
    whole = reference.conv_norm_act(x, unit_weights(unit))
    y = np.asarray(unit(x))
    assert y.shape == unit.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, whole[:, ::2], atol=1e-5)
    assert_configuration_round_trip(unit, x)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_without_normalisation_there_is_a_bias(rng, groups):
    x = rng.normal(size=(1, 5, 5, 4))
    unit = ConvNormAct(
        4, 3, groups=groups, activation="torch_leaky", normalize=False
    )
    unit.build(x.shape)
    randomize(unit)
    kernel, bias = (np.asarray(w) for w in unit.weights)
    if groups == 4:
        kernel = kernel.reshape(3, 3, 1, 4)
    y = reference.convolve(x, kernel, groups=groups) + bias
    np.testing.assert_allclose(
        np.asarray(unit(x)), np.where(y > 0, y, 0.01 * y), atol=1e-5
    )


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_of_another_activation_are_refused(tmp_path, suffix):
    def network(activation):
        inputs = keras.Input((4, 4, 2))
        unit = ConvNormAct(3, activation=activation, name="unit")
        return keras.Model(inputs, unit(inputs))

    path = str(tmp_path / f"leaky{suffix}")
    saved = network("leaky")
    (saved.save if suffix == ".keras" else saved.save_weights)(path)
    with pytest.raises(ValueError, match=r"'leaky'.*'torch_leaky'"):
        network("torch_leaky").load_weights(path)
    again = network("leaky")
    again.load_weights(path)
    np.testing.assert_array_equal(again.weights[0], saved.weights[0])


def test_preactivation_normalises_first(rng):
    x = rng.normal(size=(1, 5, 5, 4))
    unit = ConvNormAct(3, 3, activation="relu", preactivation=True)
    unit.build(x.shape)
    randomize(unit)
    kernel, *statistics = unit_weights(unit)
    activated = np.maximum(reference.normalize(x, *statistics), 0)
    expected = reference.convolve(activated, kernel)
    np.testing.assert_allclose(np.asarray(unit(x)), expected, atol=1e-5)


def test_depthwise_is_chosen_by_itself():
    unit = ConvNormAct(8, 3, groups=4)
    unit.build((None, 8, 8, 4))
    kinds = {type(layer) for layer in unit._flatten_layers()}
    assert keras.layers.DepthwiseConv2D in kinds


def test_norm_act(rng):
    x = rng.normal(size=(1, 3, 3, 2))
    unit = NormAct("relu")
    unit.build(x.shape)
    randomize(unit)
    y = np.asarray(unit(x))
    assert y.shape == x.shape
    assert y.min() == 0


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("pool_first", [False, True])
def test_transition_pools_before_or_after(rng, pool, pool_first):
    x = rng.normal(size=(1, 5, 6, 4))
    layer = Transition(3, pool=pool, pool_first=pool_first)
    layer.build(x.shape)
    randomize(layer)
    pooled = {"max": reference.max_pool, "average": reference.average_pool}
    weights = unit_weights(layer)
    if pool_first:
        expected = reference.conv_norm_act(pooled[pool](x), weights)
    else:
        expected = pooled[pool](reference.conv_norm_act(x, weights))
    y = np.asarray(layer(x))
    assert y.shape == layer.compute_output_shape(x.shape) == (1, 3, 3, 3)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_transition_keeps_the_channels_by_default():
    assert Transition().compute_output_shape((2, 8, 8, 5)) == (2, 8, 8, 5)


@pytest.mark.parametrize(
    "layer",
    [
        ConvNormAct(4, 3, 2, groups=2, activation=keras.activations.gelu),
        ConvNormAct(4, activation=None, preactivation=True),
        ConvNormAct(4, 2, activation="torch_leaky", padding=1, normalize=False),
        NormAct("swish"),
        Transition(4, pool="max", pool_first=True),
    ],
)
def test_configuration_round_trip(rng, layer):
    x = rng.normal(size=(1, 6, 6, 2))
    assert_configuration_round_trip(layer, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNormAct(0), "filters=0"),
        (lambda: ConvNormAct(4.5), "filters=4.5"),
        (lambda: ConvNormAct(4, 2), "kernel_size=2"),
        (lambda: ConvNormAct(4, 3, padding=-1), "padding=-1"),
        (lambda: ConvNormAct(4, 3, strides=(1, 2, 3)), r"strides=\(1, 2, 3\)"),
        (lambda: ConvNormAct(4, 3, strides=(1, 0)), "strides=0"),
        (lambda: ConvNormAct(4, 3, padding="same"), "padding='same'"),
        (lambda: ConvNormAct(5, 3, groups=2), "groups=2, filters=5"),
        (lambda: ConvNormAct(4, activation="leeky"), "'leeky'"),
        (lambda: ConvNormAct(4, groups=2).build((None, 8, 8, 3)), "3 channels"),
        (lambda: Transition(pool="min"), "pool='min'"),
        (
            lambda: Parallel([ConvNormAct(2), ConvNormAct(2, 3, 2)]).build(
                (None, 8, 8, 2)
            ),
            r"\(4, 4\) and \(8, 8\)",
        ),
    ],
)
def test_bad_arguments_are_quoted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
