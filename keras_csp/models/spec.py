"""The grammar of a network spec: a network written down as data.

A network spec names layers without making them: `conv(64, 3)` is the spec of
a `ConvNormAct(64, 3)`. It is immutable, so it can be repeated
(`3 * (conv(64, 3),)`), and each repetition makes a layer of its own.
"""

import dataclasses
import functools
import inspect

from keras import layers as keras_layers

from keras_csp import layers


@dataclasses.dataclass(frozen=True)
class LayerSpec:
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
    if isinstance(value, LayerSpec):
        return value.make(name)
    if isinstance(value, tuple):
        return [_make(f"{name}{i}", item) for i, item in enumerate(value, 1)]
    return value


def layer_spec(layer, **fixed):
    """A function that specifies `layer`; unknown arguments fail at once."""
    signature = inspect.signature(layer.__init__)

    def specify(*args, **kwargs):
        bound = signature.bind(None, *args, **{**fixed, **kwargs}).arguments
        bound.pop("self")
        if "kwargs" in bound:
            raise TypeError(
                f"{layer.__name__} has no argument {', '.join(bound['kwargs'])}"
            )
        return LayerSpec(layer, bound)

    return functools.update_wrapper(specify, layer)


conv = layer_spec(layers.ConvNormAct)
preactivated = layer_spec(
    layers.ConvNormAct, preactivation=True, activation="relu"
)
norm_act = layer_spec(layers.NormAct)
sequential = layer_spec(layers.SequentialBlock)
parallel = layer_spec(layers.Parallel)
csp = layer_spec(layers.CSPStage)
dense_block = layer_spec(layers.DenseBlock)
two_way = layer_spec(layers.TwoWayDenseLayer)
residual = layer_spec(layers.ResidualBlock)
res2_conv = layer_spec(layers.Res2Conv)
elastic = layer_spec(layers.Elastic)
squeeze_excitation = layer_spec(layers.SqueezeExcitation)
identity = layer_spec(keras_layers.Identity)
bare_conv = layer_spec(keras_layers.Conv2D, padding="same", use_bias=False)
max_pool = layer_spec(keras_layers.MaxPooling2D, padding="same")
padded_max_pool = layer_spec(layers.PaddedMaxPooling2D)
average_pool = layer_spec(keras_layers.AveragePooling2D, padding="same")

# The stem of PyTorch's ResNets and DenseNets.
TORCH_STEM = (
    conv(64, 7, 2, activation="relu"),
    padded_max_pool(3, 2, padding=1),
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What works at one resolution: `down` leads there, `blocks` stay."""

    blocks: tuple
    down: tuple = ()


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """One network, as `models.builder` builds it.

    Attributes:
        name: of the factory.
        stem: layers before the first stage.
        stages: `Stage`s, in order.
        provenance: where the definition comes from: a sentence that starts
            with "Exact", "Published" or "Inferred".
        input_size: side of the square images it was published with.
        head: layers after the last stage, which belong to the features.
        pre_logits: layers after the global pooling, which belong to the
            classifier.
        cfg: the authors' Darknet file that defines it, without ".cfg".
        timm_counterpart: name of the factory of timm's network of this kind,
            which has published ImageNet weights.
    """

    name: str
    stem: tuple
    stages: tuple
    provenance: str
    input_size: int = 224
    head: tuple = ()
    pre_logits: tuple = ()
    cfg: str | None = None
    timm_counterpart: str | None = None

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
