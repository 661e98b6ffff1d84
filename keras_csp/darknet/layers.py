"""Layers that only Darknet's networks need; all are channels-last."""

import keras
from keras import ops

from keras_csp._validation import check_positive
from keras_csp.layers.composite import with_channels
from keras_csp.layers.residual import partial_shortcut
from keras_csp.layers.units import activation_layer


@keras.saving.register_keras_serializable(package="keras_csp")
class Route(keras.layers.Layer):
    """y = [x_1's g-th slice, ..., x_n's g-th slice]: Darknet's [route].

    Args:
        groups: into how many slices the channels of each input are cut.
            Default 1.
        group: g, from 0. Default 0.

    Shapes: a list of `(batch, h, w, c_i)` to `(batch, h, w, sum(c_i) /
    groups)`. Source: Darknet, src/route_layer.c.
    """

    def __init__(self, groups=1, group=0, **kwargs):
        super().__init__(**kwargs)
        self.groups = check_positive("groups", groups)
        self.group = group

    def build(self, input_shape):
        pass

    def call(self, xs):
        slices = [x[..., self._slice(x.shape[-1])] for x in xs]
        if len(slices) == 1:
            return slices[0]
        return ops.concatenate(slices, axis=-1)

    def _slice(self, channels):
        width = channels // self.groups
        return slice(self.group * width, (self.group + 1) * width)

    def compute_output_shape(self, input_shape):
        channels = sum(shape[-1] // self.groups for shape in input_shape)
        return with_channels(input_shape[0], channels)

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "group": self.group,
        }


@keras.saving.register_keras_serializable(package="keras_csp")
class Shortcut(keras.layers.Layer):
    """y = activation(x + x_1 + ... + x_n): Darknet's [shortcut].

    Of maps with other numbers of channels the first ones are added, as many
    as both have.

    Args:
        scales: one integer for each x_i: 1 (default) for a map of x's size;
            s > 1 for one s times larger, of which every s-th position is
            added; -s for a smaller one, added at every s-th position of x.
        activation: as in `ConvNormAct`. Default None.

    Shapes: a list `[x, x_1, ...]` of `(batch, h, w, c)` to the shape of x.
    Source: Darknet, src/blas.c, shortcut_cpu.
    """

    def __init__(self, scales=(1,), activation=None, **kwargs):
        super().__init__(**kwargs)
        self.scales = tuple(scales)
        self.activation = activation
        self._act = activation_layer(activation, "act", self.dtype_policy)

    def build(self, input_shape):
        pass

    def call(self, xs):
        y, *others = xs
        for other, scale in zip(others, self.scales):
            x = partial_shortcut(other, max(scale, 1), y.shape[-1])
            y = y + (_dilated(x, -scale) if scale < 0 else x)
        return self._act(y)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "scales": self.scales,
            "activation": self.activation,
        }


def _dilated(x, scale):
    """x at every `scale`-th row and column, zeros between."""
    _, height, width, channels = ops.shape(x)
    x = ops.reshape(x, (-1, height, 1, width, 1, channels))
    between = (0, scale - 1)
    x = ops.pad(x, [(0, 0), (0, 0), between, (0, 0), between, (0, 0)])
    return ops.reshape(x, (-1, height * scale, width * scale, channels))


@keras.saving.register_keras_serializable(package="keras_csp")
class Product(keras.layers.Layer):
    """y = activation(x_1 * x_2): Darknet's [sam] and [scale_channels].

    Args:
        activation: as in `ConvNormAct`. Default None.

    Shapes: a list of two maps, one of which may be 1x1, to the larger one's.
    Source: Darknet, src/sam_layer.c and src/scale_channels_layer.c.
    """

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self._act = activation_layer(activation, "act", self.dtype_policy)

    def build(self, input_shape):
        pass

    def call(self, xs):
        return self._act(xs[0] * xs[1])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[1])

    def get_config(self):
        return {**super().get_config(), "activation": self.activation}


@keras.saving.register_keras_serializable(package="keras_csp")
class LocalAveragePooling2D(keras.layers.Layer):
    """y = mean over k x k windows, of the positions that the map has.

    Args:
        pool_size: k.
        strides: s.
        padding: how far the windows reach over the map, both edges together;
            the smaller half of it before the first row and column.

    Shapes: `(batch, h, w, c)` to `(batch, h', w', c)` with
    h' = (h + padding - k) // s + 1.
    Source: Darknet, src/maxpool_layer.c, forward_local_avgpool_layer.
    """

    def __init__(self, pool_size, strides, padding, **kwargs):
        super().__init__(**kwargs)
        self.pool_size = check_positive("pool_size", pool_size)
        self.strides = check_positive("strides", strides)
        self.padding = padding

    def build(self, input_shape):
        pass

    def call(self, x):
        # The second pooling counts: the share of each window in the map.
        inside = ops.ones_like(x[:1, :, :, :1])
        return self._pool(x) / self._pool(inside)

    def _pool(self, x):
        side = (self.padding // 2, self.padding - self.padding // 2)
        x = ops.pad(x, [(0, 0), side, side, (0, 0)])
        return ops.average_pool(
            x,
            self.pool_size,
            self.strides,
            padding="valid",
            data_format="channels_last",
        )

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = (
            side and (side + self.padding - self.pool_size) // self.strides + 1
            for side in sides
        )
        return (batch, *sides, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable(package="keras_csp")
class GroupedSoftmax(keras.layers.Layer):
    """y = softmax(x / temperature) of each of `groups` slices of a 1x1 map.

    Shapes: `(batch, 1, 1, c)` to `(batch, c)`.
    Source: Darknet, src/softmax_layer.c.
    """

    def __init__(self, groups=1, temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        self.groups = check_positive("groups", groups)
        self.temperature = temperature

    def build(self, input_shape):
        pass

    def call(self, x):
        channels = x.shape[-1]
        x = ops.reshape(x, (-1, self.groups, channels // self.groups))
        x = ops.softmax(x / self.temperature, axis=-1)
        return ops.reshape(x, (-1, channels))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "temperature": self.temperature,
        }
