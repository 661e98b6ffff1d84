"""Compares a device with golden numbers of a CPU, and with numpy."""

import dataclasses
import functools
import json
import pathlib
import sys

import keras
import numpy as np
from keras import ops

import keras_csp
from gpu_parts import references
from keras_csp.layers import BatchNormalization, GroupedConv2D

TESTS = pathlib.Path(__file__).parents[2] / "tests"
GOLDEN = TESTS / "golden"
sys.path[:0] = [str(TESTS), str(GOLDEN)]

import make_detector  # noqa: E402
import make_outputs  # noqa: E402
import make_steps  # noqa: E402
from support import SMALL, randomize  # noqa: E402

# The largest difference tolerated in float32, relative to the largest golden
# value. A step of a deep network with random weights amplifies rounding errors:
# two backends on one CPU differ by up to 0.009.
FORWARD, SMALL_STEP, STEP, LAYER = 1e-4, 1e-3, 0.03, 1e-5
BOXES = 1e-4
# Layers in half precision have no golden numbers: a few times 2^-8.
LAYER_BFLOAT16 = 0.03
REHEARSED = ("SmallCSPResNeXt", "SmallCSPPelee")


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what, and of which network.
        precision: "float32" or "bfloat16".
        jit: whether the backend compiles what it runs.
    """

    name: str
    precision: str = "float32"
    jit: bool = True


def plan(backend, smallest=False):
    """The checks, most important first.

    Args:
        backend: JAX runs compiled and PyTorch does not, as users run them.
            The other way is checked with the small networks alone, which
            between them contain every layer.
        smallest: whether to check two small networks alone, for a rehearsal
            on a CPU.
    """
    usual = backend == "jax"
    layers = ("grouped convolution", "batch normalization", "detector")
    names = REHEARSED if smallest else SMALL
    small = [f"{kind} {name}" for kind in ("forward", "step") for name in names]
    found = [
        Check(name, precision, usual)
        for precision in ("float32", "bfloat16")
        for name in (*layers, *small)
    ]
    if smallest:
        return [*found, Check(f"step {names[0]}", jit=not usual)]
    full = [f"step {n}" for n in make_steps.NAMES if n not in SMALL]
    full += [f"forward {name}" for name in keras_csp.list_models()]
    found += [
        Check(name, precision, usual)
        for precision in ("float32", "bfloat16")
        for name in full
    ]
    others = (*layers[:2], *small)
    return found + [Check(name, jit=not usual) for name in others]


def run(check):
    """The result of a check, as part of a row of "checks"."""
    if check.jit and keras.backend.backend() == "torch":
        import torch

        torch.compiler.reset()  # it stops compiling after eight programs
    kind, _, name = check.name.partition(" ")
    function = {
        "forward": _forward,
        "step": _step,
        "grouped": _grouped_convolution,
        "batch": _batch_normalization,
        "detector": _detector,
    }[kind]
    difference, tolerance = function(name, check)
    return {
        "result": "ok" if difference <= tolerance else "failed",
        "difference": f"{difference:.3g}",
        "tolerance": f"{tolerance:.3g}",
    }


def exact():
    """Switches TF32 off, which GPUs use for products of float32."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    elif keras.backend.backend() == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


@functools.cache
def _golden(file):
    return json.loads((GOLDEN / file).read_text(encoding="utf-8"))


def _forward(name, check):
    golden = np.array(_golden("outputs.json")[name])
    _policy(check)
    model = randomize(make_outputs.build(name))
    model.compile(jit_compile=check.jit)
    found = model.predict_on_batch(make_outputs.images(model))
    scale = np.abs(golden).max()
    tolerance = FORWARD
    if check.precision == "bfloat16":
        half = np.array(_golden("outputs_bfloat16.json")[name])
        tolerance = _tolerance_half(np.abs(half - golden).max() / scale)
    return float(np.abs(found - golden).max() / scale), tolerance


def _step(name, check):
    golden = _golden("steps.json")[name]
    tolerance = SMALL_STEP if name in SMALL else STEP
    if check.precision == "bfloat16":
        half = make_steps.difference(golden["bfloat16"], golden["float32"])
        tolerance = _tolerance_half(half)
    found = make_steps.step(name, check.precision, check.jit)
    return make_steps.difference(found, golden["float32"]), tolerance


def _tolerance_half(of_cpu):
    """Twice the difference of a CPU in half precision, plus 0.02."""
    return float(2 * of_cpu + 0.02)


def _policy(check):
    keras.config.set_dtype_policy(make_outputs.PRECISIONS[check.precision])


class Given(keras.layers.Layer):
    """A variable as a layer, so that a training step shows its gradient."""

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = self.add_weight(value.shape, "zeros", name="value")
        self.value.assign(value)

    def call(self, numbers):
        return ops.cast(self.value, self.compute_dtype)


def gradients(layer, x, upstream, jit):
    """y, and the gradients of sum(y * upstream) by x and the variables.

    They are what one Keras step of gradient descent, at learning rate 1,
    subtracts.
    """
    given = Given(x)
    numbers = keras.Input(batch_shape=(len(x),), dtype="int32")
    model = keras.Model(numbers, layer(given(numbers)))
    count = float(len(x))

    def product(weights, y):
        return count * ops.sum(weights * ops.cast(y, weights.dtype), (1, 2, 3))

    model.compile(keras.optimizers.SGD(1.0), product, jit_compile=jit)
    weights = [given.value, *layer.trainable_variables]
    before = [ops.convert_to_numpy(weight) for weight in weights]
    numbers = np.arange(len(x), dtype="int32")
    y = ops.convert_to_numpy(ops.cast(layer(x, training=True), "float32"))
    model.train_on_batch(numbers, upstream.astype("float32"))
    after = [ops.convert_to_numpy(weight) for weight in weights]
    return y, *(old - new for old, new in zip(before, after))


def _largest(found, expected):
    """The largest difference, relative to the largest expected value."""
    return max(
        float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        for ours, theirs in zip(found, expected, strict=True)
    )


def _grouped_convolution(_name, check):
    """With strides, paddings and groups of the ResNeXt networks."""
    _policy(check)
    rng, worst = np.random.default_rng(0), 0.0
    for groups, stride, size, same in ((8, 1, 3, True), (4, 2, 3, False)):
        layer = GroupedConv2D(
            16,
            size,
            groups,
            strides=stride,
            use_bias=False,
            padding="same" if same else "valid",
        )
        x = rng.normal(size=(2, 9, 9, 8)).astype("float32")
        y = layer(x)
        upstream = rng.normal(size=tuple(y.shape))
        kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
        expected = references.grouped_convolution(
            x.astype("float64"), kernel, upstream, groups, stride, int(same)
        )
        found = gradients(layer, x, upstream, check.jit)
        worst = max(worst, _largest(found, expected))
    return worst, _of_layer(check)


def _batch_normalization(_name, check):
    _policy(check)
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (4, 6, 6, 5)).astype("float32")
    upstream = rng.normal(size=x.shape)
    layer = BatchNormalization()
    layer.build(x.shape)
    gamma, beta = rng.uniform(0.5, 2, 5), rng.normal(size=5)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    expected = references.batch_normalization(
        x.astype("float64"), gamma, beta, upstream, layer.epsilon
    )
    found = gradients(layer, x, upstream, check.jit)
    return _largest(found, expected), _of_layer(check)


def _of_layer(check):
    return LAYER if check.precision == "float32" else LAYER_BFLOAT16


def _detector(_name, check):
    """In half precision only losses: boxes of similar scores change places."""
    golden = _golden("detector.json")
    found = make_detector.answers(check.precision, check.jit)
    exact = check.precision == "float32"
    keys = found if exact else ["losses"]
    found, expected, half = (
        [np.array(answers[key]) for key in keys]
        for answers in (found, golden["float32"], golden["bfloat16"])
    )
    tolerance = BOXES if exact else _tolerance_half(_largest(half, expected))
    return _largest(found, expected), tolerance
