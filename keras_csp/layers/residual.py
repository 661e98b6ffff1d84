"""Residual blocks (eq. 2): ResNet, ResNeXt, Res2Net, Darknet, MobileNet.

They differ in the layers between input and sum only, so there is one block:

    ResNet     ResidualBlock([ConvNormAct(64), ConvNormAct(64, 3),
                              ConvNormAct(256, activation=None)])
    ResNeXt    the same with ConvNormAct(128, 3, groups=32) in the middle
    Res2Net    the same with Res2Conv(128) in the middle
"""

import keras
from keras import ops

from keras_csp._validation import check_choice, check_positive
from keras_csp.layers.composite import (
    Composite,
    as_layer,
    build,
    build_in_order,
    output_shape,
    with_channels,
)
from keras_csp.layers.units import (
    ConvNormAct,
    _serialized,
    activation_layer,
)


@keras.saving.register_keras_serializable(package="keras_csp")
class ResidualBlock(Composite):
    """x_k = activation(R_k(x_{k-1}) + x_{k-1}), eq. 2.

    Args:
        layers: R_k, a layer or a list of layers.
        activation: after the sum, as in `ConvNormAct`. Default "leaky".
        shortcut: what is added where R_k changes the shape.
            "projection" (default): a strided 1x1 convolution and a batch
            normalisation, as in PyTorch's ResNets.
            "partial": Darknet's shortcut, without weights: of the larger map
            every s-th row and column, and only the channels both have.

    Shapes: the output has the shape of R_k's output.
    Source: arXiv 1512.03385; Darknet, src/blas.c, shortcut_cpu.
    """

    layer_arguments = ("layers",)

    def __init__(
        self, layers, activation="leaky", shortcut="projection", **kwargs
    ):
        super().__init__(**kwargs)
        self.layers = as_layer("layers", layers)
        self.activation = activation
        self.shortcut = check_choice(
            "shortcut", shortcut, ("projection", "partial")
        )
        self._projection = None
        self._act = activation_layer(activation, "act", self.dtype_policy)

    def build(self, input_shape):
        self._channels = build(self.layers, input_shape)[-1]
        self._strides = self._find_strides(input_shape)
        changes = self._strides > 1 or self._channels != input_shape[-1]
        if changes and self.shortcut == "projection":
            self._projection = ConvNormAct(
                self._channels,
                strides=self._strides,
                activation=None,
                dtype=self.dtype_policy,
                name="projection",
            )
            self._projection.build(input_shape)

    def _find_strides(self, input_shape):
        """How far R_k shrinks a map, asked of a size that divides well."""
        side = 64
        probe = (input_shape[0], side, side, input_shape[-1])
        shrunk = output_shape(self.layers, probe)[1:3]
        strides = max(1, side // shrunk[0])
        if shrunk != (side // strides,) * 2:
            raise ValueError(
                f"The layers of {self.name!r} must keep the height and width, "
                "or divide both alike, for the input to be added. Received: "
                f"layers that map {side}x{side} to {shrunk[0]}x{shrunk[1]}"
            )
        return strides

    def call(self, x):
        residual = self.layers(x)
        if self._projection is not None:
            x = self._projection(x)
        elif self.shortcut == "partial":
            x = partial_shortcut(x, self._strides, self._channels)
        return self._act(residual + x)

    def compute_output_shape(self, input_shape):
        return output_shape(self.layers, input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "activation": _serialized(self.activation),
            "shortcut": self.shortcut,
        }


def partial_shortcut(x, strides, channels):
    """x sampled by `strides`, its channels cut or padded with zeros."""
    if strides > 1 or x.shape[-1] > channels:
        x = x[:, ::strides, ::strides, :channels]
    missing = channels - x.shape[-1]
    return ops.pad(x, [(0, 0)] * 3 + [(0, missing)]) if missing else x


@keras.saving.register_keras_serializable(package="keras_csp")
class Res2Conv(keras.layers.Layer):
    """y_i = K_i(x_i + y_{i-1}) over `scales` slices x_i, the last one as is.

    The 3x3 convolution of Res2Net: the slices are convolved in turn, each
    with the previous result added, so that one layer sees several scales. In
    the first block of a stage (`entry`) there is no sum, and the last slice
    is average-pooled, 3x3, instead of left as it is.

    Args:
        filters: channels in and out, over all slices.
        scales: slices. Default 4.
        groups: groups of each convolution (Res2NeXt has 8). Default 1.
        strides: default 1; more than 1 only at an `entry`.
        entry: whether this is the first block of a stage. Default False.
        activation: as in `ConvNormAct`.

    Shapes: `(batch, h, w, filters)` to `(batch, ceil(h/s), ceil(w/s),
    filters)`. Source: arXiv 1904.01169, section 3.
    """

    def __init__(
        self,
        filters,
        scales=4,
        groups=1,
        strides=1,
        entry=False,
        activation="leaky",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = check_positive("filters", filters)
        self.scales = check_positive("scales", scales)
        self.groups = check_positive("groups", groups)
        self.strides = check_positive("strides", strides)
        self.entry = entry
        self.activation = activation
        if strides > 1 and not entry:
            raise ValueError(
                "`strides` above 1 need entry=True: slices of two sizes cannot "
                f"be added. Received: strides={strides}, entry={entry}"
            )
        if scales < 2 or filters % scales:
            raise ValueError(
                "`scales` must be at least 2 and divide `filters`. Received: "
                f"scales={scales}, filters={filters}"
            )
        self._convolutions = [
            ConvNormAct(
                filters // scales,
                3,
                strides=strides,
                groups=groups,
                activation=activation,
                dtype=self.dtype_policy,
                name=f"scale{index}",
            )
            for index in range(scales - 1)
        ]
        self._pool = [
            keras.layers.ZeroPadding2D(1, dtype=self.dtype_policy, name="pad"),
            keras.layers.AveragePooling2D(
                3, strides, dtype=self.dtype_policy, name="pool"
            ),
        ]

    def build(self, input_shape):
        if input_shape[-1] != self.filters:
            raise ValueError(
                f"Layer {self.name!r} expects {self.filters} input channels "
                f"(`filters`). Received: {input_shape[-1]}"
            )
        slice_shape = with_channels(input_shape, self.filters // self.scales)
        for convolution in self._convolutions:
            convolution.build(slice_shape)
        build_in_order(self._pool, slice_shape)

    def call(self, x):
        *slices, last = ops.split(x, self.scales, axis=-1)
        outputs = []
        for piece, convolution in zip(slices, self._convolutions):
            summed = outputs and not self.entry
            outputs.append(
                convolution(piece + outputs[-1] if summed else piece)
            )
        if self.entry:
            for step in self._pool:
                last = step(last)
        return ops.concatenate([*outputs, last], axis=-1)

    def compute_output_shape(self, input_shape):
        piece = self._convolutions[0].compute_output_shape(input_shape)
        return with_channels(piece, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "scales": self.scales,
            "groups": self.groups,
            "strides": self.strides,
            "entry": self.entry,
            "activation": _serialized(self.activation),
        }
