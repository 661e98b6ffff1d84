"""The grammar of a row: a network written down as data.

A row names layers without making them: `conv(64, 3)` is the specification of
a `ConvNormAct(64, 3)`. Being immutable it may stand in a row many times
(`3 * (conv(64, 3),)`), and each place makes a layer of its own.
"""

import dataclasses
import functools
import inspect

from keras import layers as keras_layers

from keras_csp import layers


@dataclasses.dataclass(frozen=True)
class Spec:
    """A layer class and its arguments by name; nested specs included."""

    layer: type
    arguments: dict

    def make(self, name):
        """The layer; those inside it are named after their arguments."""
        made = {key: _make(key, value) for key, value in self.arguments.items()}
        return self.layer(**made, name=name)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        return f"{self.layer.__name__}({arguments})"


def _make(name, value):
    if isinstance(value, Spec):
        return value.make(name)
    if isinstance(value, tuple):
        return [_make(f"{name}{i}", item) for i, item in enumerate(value, 1)]
    return value


def spec(layer, **fixed):
    """A function that specifies `layer`; unknown arguments fail at once."""
    signature = inspect.signature(layer.__init__)

    def specify(*args, **kwargs):
        bound = signature.bind(None, *args, **{**fixed, **kwargs}).arguments
        bound.pop("self")
        if "kwargs" in bound:
            raise TypeError(
                f"{layer.__name__} has no argument {', '.join(bound['kwargs'])}"
            )
        return Spec(layer, bound)

    return functools.update_wrapper(specify, layer)


conv = spec(layers.ConvNormAct)
preactivated = spec(layers.ConvNormAct, preactivation=True, activation="relu")
norm_act = spec(layers.NormAct)
sequential = spec(layers.SequentialBlock)
parallel = spec(layers.Parallel)
csp = spec(layers.CSPStage)
dense_block = spec(layers.DenseBlock)
two_way = spec(layers.TwoWayDenseLayer)
residual = spec(layers.ResidualBlock)
res2_conv = spec(layers.Res2Conv)
elastic = spec(layers.Elastic)
squeeze_excitation = spec(layers.SqueezeExcitation)
identity = spec(keras_layers.Identity)
bare_conv = spec(keras_layers.Conv2D, padding="same", use_bias=False)
max_pool = spec(keras_layers.MaxPooling2D, padding="same")
padded_max_pool = spec(layers.PaddedMaxPooling2D)
average_pool = spec(keras_layers.AveragePooling2D, padding="same")

# The stem of PyTorch's ResNets and DenseNets.
TORCH_STEM = (
    conv(64, 7, 2, activation="relu"),
    padded_max_pool(3, 2, border=1),
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What works at one resolution: `down` leads there, `blocks` stay."""

    blocks: tuple
    down: tuple = ()


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """One network.

    `head` follows the last stage and belongs to the features; `pre_logits`
    follows the global pooling and belongs to the classifier. `cfg` names the
    authors' Darknet file that defines the network, `pretrained` its near
    relative with published ImageNet weights, which are not this network's.
    """

    name: str
    stem: tuple
    stages: tuple
    provenance: str
    input_size: int = 224
    head: tuple = ()
    pre_logits: tuple = ()
    cfg: str | None = None
    pretrained: "NetworkSpec | None" = None

    def layers(self):
        """The layers of the features, in order, by name."""
        yield from _named("stem", self.stem)
        for number, stage in enumerate(self.stages, 1):
            yield from _named(f"stage{number}_down", stage.down)
            yield from _named(f"stage{number}", stage.blocks)
        yield from _named("head", self.head)


def _named(prefix, specs):
    for index, item in enumerate(specs, 1):
        name = prefix if len(specs) == 1 else f"{prefix}_{index}"
        yield item.make(name)
