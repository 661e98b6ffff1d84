"""The poolings of keras_csp.layers, against numpy and PyTorch."""

import keras
import numpy as np
import pytest
from support import reload_config

from keras_csp.layers import (
    Maxout,
    PaddedMaxPooling2D,
    SpatialPyramidPooling,
)


def padded_max(x, size, strides, before, after):
    """Every window by itself, over a padding of minus infinity."""
    padding = (before, after)
    x = np.pad(x, [(0, 0), padding, padding, (0, 0)], constant_values=-np.inf)
    rows, columns = ((side - size) // strides + 1 for side in x.shape[1:3])
    y = np.empty((x.shape[0], rows, columns, x.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            top, left = i * strides, j * strides
            window = x[:, top : top + size, left : left + size]
            y[:, i, j] = window.max((1, 2))
    return y


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_padded_max_pooling_is_its_definition(size, strides, rng):
    x = rng.normal(size=(2, 9, 6, 3)).astype("float32") - 3
    for before in range(size):
        for after in range(size):
            layer = PaddedMaxPooling2D(size, strides, (before, after))
            expected = padded_max(x, size, strides, before, after)
            for training in (False, True):
                y = np.asarray(layer(x, training=training))
                np.testing.assert_array_equal(y, expected)
            assert layer.compute_output_shape(x.shape) == y.shape
            assert layer.compute_output_shape((None, None, None, 3)) == (
                (None, None, None, 3)
            )


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_goes_to_the_largest(training, rng):
    tf = pytest.importorskip("tensorflow")
    x = rng.normal(size=(1, 8, 7, 1)).astype("float32")
    weights = rng.normal(size=(1, 4, 4, 1)).astype("float32")
    pixels = tf.Variable(x)
    with tf.GradientTape() as tape:
        y = PaddedMaxPooling2D(3, 2, 1)(pixels, training=training)
        loss = tf.reduce_sum(y * weights)
    expected = np.zeros_like(x)
    for i, j in np.ndindex(4, 4):
        rows, columns = (slice(max(0, 2 * k - 1), 2 * k + 2) for k in (i, j))
        window = x[0, rows, columns, 0]
        largest = window == window.max()
        expected[0, rows, columns, 0] += largest * weights[0, i, j, 0]
    gradient = tape.gradient(loss, pixels)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_map_smaller_than_the_window(side, rng):
    x = rng.normal(size=(1, side, side, 2)).astype("float32") - 9
    y = PaddedMaxPooling2D(5, 1, 2)(x)
    np.testing.assert_array_equal(np.asarray(y), padded_max(x, 5, 1, 2, 2))


@pytest.mark.parametrize(
    ("size", "strides", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 3, 2)]
)
def test_padded_max_pooling_is_that_of_torch(size, strides, padding, rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 11, 8, 3)).astype("float32")
    y = PaddedMaxPooling2D(size, strides, padding)(x)
    theirs = torch.nn.functional.max_pool2d(
        torch.tensor(x).permute(0, 3, 1, 2), size, strides, padding
    )
    np.testing.assert_array_equal(
        np.asarray(y), theirs.permute(0, 2, 3, 1).numpy()
    )


def test_padded_max_pooling_of_open_sides(rng):
    image = keras.Input((None, None, 3))
    layer = PaddedMaxPooling2D(3, 2, (0, 1))
    model = keras.Model(image, layer(image))
    x = rng.random((1, 7, 4, 3), dtype="float32")
    np.testing.assert_array_equal(
        np.asarray(model(x)), padded_max(x, 3, 2, 0, 1)
    )


@pytest.mark.parametrize(
    "padding", [3, -1, (1,), (1, 2, 1), (0, 3), "a", 1.0, (0.5, 1)]
)
def test_wrong_padding(padding):
    with pytest.raises(ValueError, match="`padding` must be one or two"):
        PaddedMaxPooling2D(3, 2, padding=padding)


def test_default_strides_are_the_size(rng):
    x = rng.random((1, 6, 6, 1), dtype="float32")
    y = PaddedMaxPooling2D(3)(x)
    np.testing.assert_array_equal(np.asarray(y), padded_max(x, 3, 3, 0, 0))


@pytest.mark.parametrize("filters", [1, 2, 3, 6])
def test_maxout_is_its_definition(filters, rng):
    """y_j is the largest of the channels j, j + filters, j + 2 filters ..."""
    x = rng.normal(size=(2, 4, 3, 6)).astype("float32")
    layer = Maxout(filters)
    y = np.asarray(layer(x))
    expected = [x[..., j::filters].max(-1) for j in range(filters)]
    np.testing.assert_array_equal(y, np.stack(expected, axis=-1))
    assert layer.compute_output_shape(x.shape) == y.shape


def test_maxout_needs_whole_groups():
    with pytest.raises(ValueError, match=r"`filters` .* 6 channels"):
        Maxout(4).build((None, 3, 3, 6))
    with pytest.raises(ValueError, match="`filters` must be a positive"):
        Maxout(0)


@pytest.mark.parametrize("sizes", [(5, 9, 13), (3,), (1, 5, 3)])
def test_spatial_pyramid_pooling_is_its_definition(sizes, rng):
    """The largest window first and x last, as the cfgs' [route] has them."""
    x = rng.normal(size=(2, 7, 6, 3)).astype("float32") - 9
    layer = SpatialPyramidPooling(sizes)
    y = np.asarray(layer(x))
    pools = [
        padded_max(x, size, 1, size // 2, size // 2)
        for size in sorted(sizes, reverse=True)
    ]
    np.testing.assert_array_equal(y, np.concatenate([*pools, x], axis=-1))
    assert layer.compute_output_shape(x.shape) == y.shape


def test_spatial_pyramid_pooling_has_the_sizes_of_yolov3_spp():
    assert SpatialPyramidPooling().pool_sizes == (5, 9, 13)


@pytest.mark.parametrize("sizes", [(), (5, 8), [2]])
def test_windows_without_a_centre(sizes):
    with pytest.raises(ValueError, match=r"`pool_sizes` must be odd.*Received"):
        SpatialPyramidPooling(sizes)
    with pytest.raises(ValueError, match="`pool_sizes` must be a positive"):
        SpatialPyramidPooling((5, 0))


@pytest.mark.parametrize(
    "layer",
    [
        PaddedMaxPooling2D(3, 2, (0, 2), name="pool"),
        PaddedMaxPooling2D(2, name="pool"),
        Maxout(2, name="maxout"),
        SpatialPyramidPooling((3, 5), name="pyramid"),
    ],
)
def test_layers_come_back(layer, rng):
    again = reload_config(layer)
    assert again.get_config() == layer.get_config()
    x = rng.normal(size=(1, 7, 7, 4)).astype("float32")
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(layer(x)))
