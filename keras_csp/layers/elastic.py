"""Elastic: a block that works at two resolutions at once."""

import keras
from keras import ops

from keras_csp._validation import check_choice
from keras_csp.layers.composite import (
    Composite,
    as_layer,
    build,
    check_same_sides,
    output_shape,
    with_channels,
)
from keras_csp.layers.units import pooling_layer

_MERGES = ("concat", "add")


@keras.saving.register_keras_serializable(package="keras_csp")
class Elastic(Composite):
    """y = merge(F_full(x), upsample(F_half(pool(x)))).

    Args:
        full_path, half_path: the two paths, each a layer or a list of layers;
            both must keep the height and width.
        merge: "concat" (default): each path reads one half of the channels
            and the results are concatenated, as in the CSPNet authors'
            "elastic" networks; "add": both paths read all channels and the
            results are added, as in the Elastic paper.
        pool: 2x2 pooling before `half_path`: "max" (default), "average", or
            `None` for two paths at full resolution (the smallest maps).
        interpolation: "nearest" (default) or "bilinear" up-sampling.

    A map of odd side is pooled rounding up, and cut after up-sampling.
    Shapes: height and width are kept. Source: arXiv 1812.05262, Fig. 2.
    """

    # Not `half`: on the PyTorch backend a layer has a method of that name.
    layer_arguments = ("full_path", "half_path")

    def __init__(
        self,
        full_path,
        half_path,
        merge="concat",
        pool="max",
        interpolation="nearest",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.full_path = as_layer("full_path", full_path)
        self.half_path = as_layer("half_path", half_path)
        self.merge = check_choice("merge", merge, _MERGES)
        self.pool = check_choice("pool", pool, (None, "max", "average"))
        self.interpolation = check_choice(
            "interpolation", interpolation, ("nearest", "bilinear")
        )
        if pool:
            self._pool = pooling_layer(pool, "pool", self.dtype_policy)
            self._up = keras.layers.UpSampling2D(
                2,
                interpolation=interpolation,
                dtype=self.dtype_policy,
                name="up",
            )

    def build(self, input_shape):
        shape = self._path_shape(input_shape)
        if self.merge == "concat" and input_shape[-1] % 2:
            raise ValueError(
                f"Layer {self.name!r} halves its input channels, so their "
                f"number must be even. Received: {input_shape[-1]}"
            )
        full = build(self.full_path, shape)
        half_shape = self._half_shape(shape)
        half = build(self.half_path, half_shape)
        check_same_sides(
            self, "the full path's output", full, "its input", shape
        )
        check_same_sides(
            self, "the half path's output", half, "its input", half_shape
        )
        if self.merge == "add" and full[-1] != half[-1]:
            raise ValueError(
                "`full_path` and `half_path` must give as many channels for "
                f'merge="add". Received: {full[-1]} and {half[-1]}'
            )

    def call(self, x):
        if self.merge == "concat":
            full, half = ops.split(x, 2, axis=-1)
        else:
            full = half = x
        full = self.full_path(full)
        half = self._at_half_resolution(half)
        if self.merge == "concat":
            return ops.concatenate([full, half], axis=-1)
        return full + half

    def _at_half_resolution(self, x):
        if not self.pool:
            return self.half_path(x)
        _, height, width, _ = ops.shape(x)
        y = self._up(self.half_path(self._pool(x)))
        if x.shape[1] is not None and x.shape[1:3] == y.shape[1:3]:
            return y
        return y[:, :height, :width, :]

    def compute_output_shape(self, input_shape):
        shape = self._path_shape(input_shape)
        channels = output_shape(self.full_path, shape)[-1]
        if self.merge == "concat":
            channels += output_shape(self.half_path, shape)[-1]
        return with_channels(input_shape, channels)

    def _path_shape(self, input_shape):
        if self.merge == "add":
            return input_shape
        return with_channels(input_shape, input_shape[-1] // 2)

    def _half_shape(self, shape):
        return self._pool.compute_output_shape(shape) if self.pool else shape

    def get_config(self):
        return {
            **super().get_config(),
            "merge": self.merge,
            "pool": self.pool,
            "interpolation": self.interpolation,
        }
