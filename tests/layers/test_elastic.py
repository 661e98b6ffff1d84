import numpy as np
import pytest
import reference
from support import assert_configuration_round_trip, randomize, unit_weights

from keras_csp.layers import ConvNormAct, Elastic


@pytest.mark.parametrize("side", [6, 7])
def test_concat_halves_the_channels_as_the_cfgs_do(rng, side):
    x = rng.normal(size=(1, side, side, 4))
    full, half = ConvNormAct(3, 3), ConvNormAct(2, 3)
    layer = Elastic(full, half)
    layer.build(x.shape)
    randomize(layer)
    first = reference.conv_norm_act(x[..., :2], unit_weights(full))
    second = reference.conv_norm_act(
        reference.max_pool(x[..., 2:]), unit_weights(half)
    )
    second = reference.double(second)[:, :side, :side]
    expected = np.concatenate([first, second], axis=-1)
    y = np.asarray(layer(x))
    assert y.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_add_reads_all_channels_in_both_paths(rng):
    x = rng.normal(size=(1, 6, 6, 4))
    full, half = ConvNormAct(3), ConvNormAct(3)
    layer = Elastic(full, half, merge="add", pool="average")
    layer.build(x.shape)
    randomize(layer)
    expected = reference.conv_norm_act(
        x, unit_weights(full)
    ) + reference.double(
        reference.conv_norm_act(reference.average_pool(x), unit_weights(half))
    )
    np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=1e-5)


def test_bilinear_leaves_a_ramp_a_ramp(rng):
    """Half-pixel centres: inside, average pooling and up-sampling undo."""
    ramp = np.broadcast_to(np.arange(8.0)[None, :, None, None], (1, 8, 8, 1))
    layer = Elastic(
        ConvNormAct(1, activation=None),
        ConvNormAct(1, activation=None),
        merge="add",
        pool="average",
        interpolation="bilinear",
    )
    layer.build(ramp.shape)
    for weight in layer.weights:
        if weight.path.endswith("kernel"):
            weight.assign([[[[1.0]]]])
    y = np.asarray(layer(ramp))
    np.testing.assert_allclose(y[0, 1:-1, 3, 0], 2 * np.arange(1, 7), atol=1e-3)


def test_without_pool_both_paths_see_the_full_map(rng):
    x = rng.normal(size=(1, 5, 5, 4))
    full, half = ConvNormAct(2), ConvNormAct(2)
    layer = Elastic(full, half, merge="add", pool=None)
    layer.build(x.shape)
    randomize(layer)
    expected = sum(
        reference.conv_norm_act(x, unit_weights(unit)) for unit in (full, half)
    )
    np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=1e-5)


def test_open_sides(rng):
    import keras

    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, Elastic(ConvNormAct(2), ConvNormAct(2))(inputs))
    for height, width in ((7, 9), (8, 5)):
        x = rng.normal(size=(1, height, width, 4))
        assert model(x).shape == (1, height, width, 4)


def test_configuration_round_trip(rng):
    layer = Elastic(
        [ConvNormAct(2), ConvNormAct(2, 3)],
        ConvNormAct(2),
        merge="add",
        pool="average",
        interpolation="bilinear",
    )
    x = rng.normal(size=(1, 7, 7, 4))
    assert_configuration_round_trip(layer, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "mean"}, "merge='mean'"),
        ({"pool": "min"}, "pool='min'"),
        ({"interpolation": "cubic"}, "interpolation='cubic'"),
    ],
)
def test_bad_arguments_are_quoted(options, message):
    with pytest.raises(ValueError, match=message):
        Elastic(ConvNormAct(2), ConvNormAct(2), **options)


def test_paths_must_keep_the_size():
    for paths in (
        (ConvNormAct(2, 3, 2), ConvNormAct(2)),
        (ConvNormAct(2), ConvNormAct(2, 3, 2)),
    ):
        with pytest.raises(ValueError, match=r"\((4|2), (4|2)\) and"):
            Elastic(*paths).build((1, 8, 8, 4))


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"even\. Received: 3"):
        Elastic(ConvNormAct(2), ConvNormAct(2)).build((1, 4, 4, 3))
    layer = Elastic(ConvNormAct(2), ConvNormAct(3), merge="add")
    with pytest.raises(ValueError, match="2 and 3"):
        layer.build((1, 4, 4, 4))
