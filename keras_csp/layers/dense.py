"""Dense blocks (eq. 3), and the rules by which their layers are linked."""

import keras
from keras import ops

from keras_csp._validation import check_choice, check_positive
from keras_csp.layers.composite import (
    Composite,
    Parallel,
    SequentialBlock,
    build,
    check_same_sides,
    layer_list,
    with_channels,
)
from keras_csp.layers.units import ConvNormAct, _serialized


def dense_links(k):
    """Every earlier output: all j < k. DenseNet, arXiv 1608.06993."""
    return list(range(k))


def sparse_links(k):
    """k - 1, k - 2, k - 4, k - 8 ... SparseNet, arXiv 1801.05895."""
    return [k - 2**n for n in range(k.bit_length()) if k - 2**n >= 0]


def harmonic_links(k):
    """k - 2^n for every 2^n that divides k. HarDNet, arXiv 1909.00948."""
    return [
        k - 2**n
        for n in range(k.bit_length())
        if k % 2**n == 0 and k - 2**n >= 0
    ]


LINKS = {
    "dense": dense_links,
    "sparse": sparse_links,
    "harmonic": harmonic_links,
}


def gathered(links, count):
    """Which of x_0 ... x_count the block hands on, by the same papers."""
    if links != "harmonic":
        return list(range(count + 1))
    return [k for k in range(count + 1) if k in (0, count) or k % 2]


@keras.saving.register_keras_serializable(package="keras_csp")
class DenseBlock(Composite):
    """x_k = D_k([x_j for j in links(k)]), eq. 3; returns [x_0 ... x_n].

    Args:
        layers: D_1 ... D_n; each a layer, or a list of layers for a chain,
            that keeps the height and width.
        links: which outputs feed D_k (x_0 is the block's input):
            "dense" (default): all j < k;
            "sparse": k - 1, k - 2, k - 4, k - 8 ...;
            "harmonic": k - 2^n for every 2^n that divides k. The block then
            returns x_0, the odd outputs and the last.

    Shapes: `(batch, h, w, c)` to `(batch, h, w, c + the widths returned)`.
    """

    layer_arguments = ("layers",)

    def __init__(self, layers, links="dense", **kwargs):
        super().__init__(**kwargs)
        self.layers = layer_list("layers", layers)
        self.links = check_choice("links", links, tuple(LINKS))

    def build(self, input_shape):
        self._widths = [input_shape[-1]]
        for k, layer in enumerate(self.layers, 1):
            shape = build(layer, self._shape(LINKS[self.links](k), input_shape))
            check_same_sides(self, f"D_{k}'s output", shape, "x0", input_shape)
            self._widths.append(shape[-1])

    def call(self, x):
        outputs = [x]
        for k, layer in enumerate(self.layers, 1):
            outputs.append(layer(_gather(outputs, LINKS[self.links](k))))
        return _gather(outputs, gathered(self.links, len(self.layers)))

    def compute_output_shape(self, input_shape):
        if not self.built:
            self.build(input_shape)
        return self._shape(gathered(self.links, len(self.layers)), input_shape)

    def _shape(self, indices, input_shape):
        return with_channels(input_shape, sum(self._widths[j] for j in indices))

    def get_config(self):
        return {**super().get_config(), "links": self.links}


def _gather(outputs, indices):
    if len(indices) == 1:
        return outputs[indices[0]]
    return ops.concatenate([outputs[j] for j in indices], axis=-1)


@keras.saving.register_keras_serializable(package="keras_csp")
class TwoWayDenseLayer(Parallel):
    """[a(x), b(x)]: a = 1x1, 3x3; b = 1x1, 3x3, 3x3. PeleeNet's D_k.

    Args:
        growth: channels out, half from each way; even.
        bottleneck: channels of each way's 1x1 convolution.
        activation: as in `ConvNormAct`.

    Shapes: `(batch, h, w, c)` to `(batch, h, w, growth)`; the input itself
    is added by `DenseBlock`. Source: arXiv 1804.06882, section 2.
    """

    layer_arguments = ()  # the paths are made here, not given

    def __init__(self, growth, bottleneck, activation="leaky", **kwargs):
        growth = check_positive("growth", growth)
        bottleneck = check_positive("bottleneck", bottleneck)
        if growth % 2:
            raise ValueError(
                "`growth` must be even: each of the two ways gives half. "
                f"Received: growth={growth}"
            )
        options = {"activation": activation, "dtype": kwargs.get("dtype")}

        def way(convolutions):
            units = [ConvNormAct(bottleneck, name="bottleneck", **options)]
            for index in range(convolutions):
                name = f"conv{index + 1}"
                units.append(ConvNormAct(growth // 2, 3, name=name, **options))
            return SequentialBlock(units, name=f"way{convolutions}")

        super().__init__([way(1), way(2)], **kwargs)
        self.growth = growth
        self.bottleneck = bottleneck
        self.activation = activation

    def get_config(self):
        return {
            **super().get_config(),
            "growth": self.growth,
            "bottleneck": self.bottleneck,
            "activation": _serialized(self.activation),
        }
