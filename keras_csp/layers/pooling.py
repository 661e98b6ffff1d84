"""Poolings that Keras lacks: symmetrically padded, and across channels."""

import keras
from keras import ops

from keras_csp._validation import check_positive, is_integer
from keras_csp.layers.composite import with_channels


@keras.saving.register_keras_serializable(package="keras_csp")
class PaddedMaxPooling2D(keras.layers.MaxPooling2D):
    """y = max over k x k windows of x inside a padding that never wins.

    PyTorch's and Darknet's max pooling: "same" in Keras places its windows
    otherwise at stride 2.

    Args:
        pool_size: side k of the window.
        strides: s. Default `pool_size`.
        padding: `(before, after)`, how far the windows reach over the edges
            of the map, less than `pool_size`; one number stands for both.
            Default 0.

    Shapes: `(batch, h, w, c)` to `(batch, h', w', c)` with
    h' = (h + before + after - k) // s + 1.
    Raises ValueError for a `padding` out of range.
    """

    def __init__(self, pool_size, strides=None, padding=0, **kwargs):
        pool_size = _positive("pool_size", pool_size)
        if strides is not None:
            strides = _positive("strides", strides)
        # `padding` of the parent is a word, and stays "valid".
        super().__init__(pool_size, strides, padding="valid", **kwargs)
        self.added = _check_padding(padding, self.pool_size[0])

    def call(self, x, training=None):
        rows, columns = (self._used(side) for side in x.shape[1:3])
        if any((*rows, *columns)):
            extend = _with_infinity if training else _with_edges
            x = extend(x, rows, columns)
        return super().call(x)

    def _used(self, side):
        """The padding, less what lies after the last window."""
        before, after = self.added
        windows = side and (side + before + after - self.pool_size[0])
        if not windows or windows < 0:  # of any size, or none fits
            return before, after
        last = windows // self.strides[0] * self.strides[0]
        return before, max(0, last + self.pool_size[0] - before - side)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = (side and side + sum(self.added) for side in sides)
        return super().compute_output_shape((batch, *sides, channels))

    def compute_output_spec(self, x):
        return keras.KerasTensor(
            self.compute_output_shape(x.shape), dtype=self.compute_dtype
        )

    def get_config(self):
        return {**super().get_config(), "padding": self.added}


def _with_infinity(x, rows, columns):
    """In training: one operation, whose gradient is another."""
    sides = ((0, 0), rows, columns, (0, 0))
    return ops.pad(x, sides, constant_values=float("-inf"))


def _with_edges(x, rows, columns):
    """For inference: unlike infinity it can be quantised.

    The edge repeated never wins either, since each window that reaches over
    the edge holds the edge itself.
    """
    for axis, (before, after) in ((1, rows), (2, columns)):
        if before or after:
            whole = (slice(None),) * axis
            first, last = x[(*whole, slice(1))], x[(*whole, slice(-1, None))]
            pieces = [*before * [first], x, *after * [last]]
            x = ops.concatenate(pieces, axis=axis)
    return x


def _positive(argument, value):
    """One positive integer or a pair of them, which Keras makes of one."""
    if isinstance(value, (list, tuple)):
        return tuple(check_positive(argument, side) for side in value)
    return check_positive(argument, value)


def _check_padding(padding, pool_size):
    pair = (padding, padding) if is_integer(padding) else padding
    good = isinstance(pair, (list, tuple)) and len(pair) == 2
    if not good or not all(
        is_integer(side) and 0 <= side < pool_size for side in pair
    ):
        raise ValueError(
            "`padding` must be one or two integers of at least 0 and below "
            f"`pool_size`={pool_size}. Received: padding={padding!r}"
        )
    return tuple(map(int, pair))


@keras.saving.register_keras_serializable(package="keras_csp")
class Maxout(keras.layers.Layer):
    """y_j = max_i x_{i * filters + j}: the largest of several maps.

    The paper's cross-channel pooling (section 3.2, "balance computation" and
    memory). Darknet's `[maxpool] maxpool_depth=1`.

    Args:
        filters: output channels; it must divide the input's.

    Shapes: `(batch, h, w, n * filters)` to `(batch, h, w, filters)`.
    Raises ValueError at build for channels that `filters` does not divide.
    Source: arXiv 1302.4389; arXiv 1911.11929, section 3.2.
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = check_positive("filters", filters)

    def build(self, input_shape):
        if input_shape[-1] % self.filters:
            raise ValueError(
                f"`filters` of layer {self.name!r} must divide the input "
                f"channels. Received: filters={self.filters}, "
                f"{input_shape[-1]} channels"
            )

    def call(self, x):
        first, *others = ops.split(x, x.shape[-1] // self.filters, axis=-1)
        for other in others:
            first = ops.maximum(first, other)
        return first

    def compute_output_shape(self, input_shape):
        return with_channels(input_shape, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="keras_csp")
class SpatialPyramidPooling(keras.layers.Layer):
    """y = [pool_n(x), ..., pool_1(x), x]: max over windows of several sizes.

    Args:
        pool_sizes: odd sides of the windows, each moved by one position.
            Default (5, 9, 13), those of YOLOv3-SPP.

    Shapes: `(batch, h, w, c)` to `(batch, h, w, (n + 1) c)`, the largest
    window first and x last, as in the Darknet files.
    Raises ValueError for sizes that are not odd and positive.
    Source: arXiv 1406.4729; arXiv 1911.11929, Table 2, EFM (SPP).
    """

    def __init__(self, pool_sizes=(5, 9, 13), **kwargs):
        super().__init__(**kwargs)
        self.pool_sizes = tuple(
            check_positive("pool_sizes", size) for size in pool_sizes
        )
        if not self.pool_sizes or not all(s % 2 for s in self.pool_sizes):
            raise ValueError(
                "`pool_sizes` must be odd, for the windows to be centred. "
                f"Received: pool_sizes={pool_sizes!r}"
            )
        self._pools = [
            keras.layers.MaxPooling2D(
                size,
                strides=1,
                padding="same",
                dtype=self.dtype_policy,
                name=f"pool{size}",
            )
            for size in sorted(self.pool_sizes, reverse=True)
        ]

    def build(self, input_shape):
        for pool in self._pools:
            pool.build(input_shape)

    def call(self, x):
        return ops.concatenate([*(pool(x) for pool in self._pools), x], axis=-1)

    def compute_output_shape(self, input_shape):
        channels = (len(self.pool_sizes) + 1) * input_shape[-1]
        return with_channels(input_shape, channels)

    def get_config(self):
        return {**super().get_config(), "pool_sizes": self.pool_sizes}
