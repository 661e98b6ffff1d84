"""The Cross Stage Partial stage: y = M([x0', T(F(x0''))]), eq. 4.

Fig. 3 (b) as a picture:

    x0 --- split ---- x0'  (the shortcut: gamma of the channels) ----.
             `------- x0'' --- F --- T --------------------- concat --- M --- y
"""

import numbers

import keras
from keras import ops

from keras_csp._validation import check_choice
from keras_csp.layers.composite import (
    Composite,
    as_layer,
    build,
    build_in_order,
    check_same_sides,
    layer_list,
    output_shape,
    with_channels,
)
from keras_csp.layers.units import ConvNormAct, Transition

FUSIONS = ("csp", "first", "last")


@keras.saving.register_keras_serializable(package="keras_csp")
class CSPStage(Composite):
    """y = M([x0', T(F(x0''))]), eq. 4.

    Args:
        blocks: F, a layer or a list of layers applied in order. Any Keras
            layers that keep the height and width will do: residual blocks, a
            `DenseBlock`, your own.
        gamma: the fraction of the channels on the shortcut, which crosses
            the stage untouched, 0 < gamma < 1. Default 0.5.
        fusion: Fig. 3: "csp" (default) has both transitions, "first"
            (concatenate, then transition) only M, "last" (transition, then
            concatenate) only T.
        split: how x0 is split. "slice" (default) cuts the channels, the
            first `gamma` of them for the shortcut. "conv" computes the two
            widths with two 1x1 convolutions of all of x0, which a 1x1
            convolution before a slice equals. A pair `(shortcut, main)` of
            layers, or lists of layers, computes x0' and x0'' freely, and
            `gamma` is then unused.
        partial_transition: T. `None` (default) is a `Transition()` that keeps
            the channels, an integer a `Transition` to that many, a layer or
            list of layers itself.
        transition: M, likewise.
        activation: of the convolutions made here, as in `ConvNormAct`.

    Shapes: `(batch, h, w, c)` to `(batch, h, w, M's channels)`; without M,
    those of x0' and T(F(x0'')) together.

    Raises:
        ValueError: an argument out of range; a transition given that
            `fusion` leaves out; blocks that change the height or width.

    Source: arXiv 1911.11929, section 3.1. x0' comes first in the
    concatenation, as in eq. 4; the authors' Darknet files put it second.
    """

    layer_arguments = ("blocks", "split", "partial_transition", "transition")

    def __init__(
        self,
        blocks,
        gamma=0.5,
        fusion="csp",
        split="slice",
        partial_transition=None,
        transition=None,
        activation="leaky",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.blocks = layer_list("blocks", blocks)
        self.gamma = _check_gamma(gamma)
        self.fusion = check_choice("fusion", fusion, FUSIONS)
        self.activation = activation
        self.split = split if isinstance(split, str) else _check_pair(split)
        if isinstance(split, str):
            check_choice("split", split, ("slice", "conv"))
        self.partial_transition = self._transition(
            "partial_transition", partial_transition, absent="first"
        )
        self.transition = self._transition(
            "transition", transition, absent="last"
        )

    def call(self, x):
        x_shortcut, x_main = self._split(x)
        return self._M(self._concat(x_shortcut, self._T(self._F(x_main))))

    def _split(self, x):
        if self.split == "slice":
            # One operation: its gradient is a concatenation, that of two
            # slices two padded maps and their sum. LiteRT accelerates halves.
            width = self._shortcut_width(x.shape[-1])
            halves = 2 * width == x.shape[-1]
            return ops.split(x, 2 if halves else [width], axis=-1)
        return [branch(x) for branch in self._branches]

    def _F(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def _T(self, x):
        return x if self.fusion == "first" else self.partial_transition(x)

    def _concat(self, x_shortcut, x_main):
        return ops.concatenate([x_shortcut, x_main], axis=-1)

    def _M(self, x):
        return x if self.fusion == "last" else self.transition(x)

    def build(self, input_shape):
        self._branches = self._make_branches(input_shape[-1])
        shortcut, main = self.split_shapes(input_shape, build)
        result = build_in_order(self.blocks, main)
        check_same_sides(self, "F(x0'')", result, "x0''", main)
        if self.partial_transition is not None:
            result = build(self.partial_transition, result)
        check_same_sides(self, "T(F(x0''))", result, "x0'", shortcut)
        if self.transition is not None:
            build(
                self.transition,
                with_channels(result, shortcut[-1] + result[-1]),
            )

    def compute_output_shape(self, input_shape):
        if not self.built:
            self.build(input_shape)
        shortcut, shape = self.split_shapes(input_shape, output_shape)
        for block in self.blocks:
            shape = output_shape(block, shape)
        if self.partial_transition is not None:
            shape = output_shape(self.partial_transition, shape)
        shape = with_channels(shape, shortcut[-1] + shape[-1])
        if self.transition is not None:
            shape = output_shape(self.transition, shape)
        return shape

    def _make_branches(self, channels):
        if self.split == "slice":
            return []
        if self.split != "conv":
            return self.split
        width = self._shortcut_width(channels)
        return [
            ConvNormAct(
                filters,
                activation=self.activation,
                dtype=self.dtype_policy,
                name=name,
            )
            for name, filters in (
                ("split_shortcut", width),
                ("split_main", channels - width),
            )
        ]

    def split_shapes(self, input_shape, shape_of):
        """The shapes of x0' and x0''."""
        if self.split == "slice":
            channels = input_shape[-1]
            width = self._shortcut_width(channels)
            widths = (width, channels - width)
            return [with_channels(input_shape, width) for width in widths]
        return [shape_of(branch, input_shape) for branch in self._branches]

    def _shortcut_width(self, channels):
        width = round(self.gamma * channels)
        if not 0 < width < channels:
            raise ValueError(
                f"`gamma` leaves one part of the split of {self.name!r} "
                f"without channels. Received: gamma={self.gamma} of "
                f"{channels} channels"
            )
        return width

    def _transition(self, argument, value, absent):
        if self.fusion == absent:
            if value is not None:
                raise ValueError(
                    f'fusion="{absent}" has no `{argument}`. Received: '
                    f"{argument}={value!r}"
                )
            return None
        if value is None or isinstance(value, numbers.Integral):
            return Transition(
                value,
                activation=self.activation,
                dtype=self.dtype_policy,
                name=argument,
            )
        return as_layer(argument, value)

    def get_config(self):
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "fusion": self.fusion,
            "activation": keras.saving.serialize_keras_object(self.activation),
        }


def _check_gamma(gamma):
    if (
        isinstance(gamma, bool)
        or not isinstance(gamma, numbers.Real)
        or not 0 < gamma < 1
    ):
        raise ValueError(
            "`gamma`, the fraction of the channels on the shortcut, must be "
            f"between 0 and 1. Received: gamma={gamma!r}"
        )
    return float(gamma)


def _check_pair(split):
    if not isinstance(split, (list, tuple)) or len(split) != 2:
        raise ValueError(
            '`split` must be "slice", "conv" or a pair (shortcut, main) of '
            f"layers. Received: split={split!r}"
        )
    return [
        as_layer(name, part)
        for name, part in zip(("split_shortcut", "split_main"), split)
    ]
