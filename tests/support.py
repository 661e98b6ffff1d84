"""Weights that do not depend on the machine, and small networks."""

import importlib.util
import pathlib
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest

from keras_csp.darknet.cfg_text import CfgText, heads_of
from keras_csp.darknet.plan import make_plan
from keras_csp.layers import ConvNormAct
from keras_csp.models.spec import (
    NetworkSpec,
    Stage,
    average_pool,
    conv,
    csp,
    dense_block,
    elastic,
    max_pool,
    norm_act,
    padded_max_pool,
    preactivated,
    res2_conv,
    residual,
    sequential,
    squeeze_excitation,
    two_way,
)


def randomize(layer):
    """Weights and statistics far from their defaults, from their paths."""
    depthwise = {
        id(inner.kernel)
        for inner in layer._flatten_layers()
        if isinstance(inner, keras.layers.DepthwiseConv2D)
    }
    for variable in layer.variables:
        if "seed" in variable.path:
            continue
        seed = zlib.crc32(variable.path.encode())
        rng = np.random.default_rng(seed)
        kind = variable.path.rsplit("/", 1)[-1]
        if kind == "kernel":
            ends = 2 if id(variable) in depthwise else 3
            scale = np.sqrt(2 / np.prod(variable.shape[:-1][:ends]))
            value = rng.normal(0, scale, variable.shape)
        elif kind in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, variable.shape)
        else:
            value = rng.normal(0, 0.1, variable.shape)
        variable.assign(value.astype("float32"))
    return layer


def tiny_backbone(size=64):
    """For detectors: strides 8, 16 and 32 of 8, 16 and 24 channels."""
    x = inputs = keras.Input((size, size, 3))
    for filters in (4, 8, 8, 16, 24):
        x = ConvNormAct(filters, 3, 2)(x)
    return keras.Model(inputs, x, name="tiny")


def unit_weights(unit):
    """[kernel, gamma, beta, mean, variance] of a ConvNormAct as arrays."""
    by_name = {
        variable.path.rsplit("/", 1)[-1]: np.asarray(variable.numpy(), float)
        for variable in unit.variables
    }
    names = ("kernel", "gamma", "beta", "moving_mean", "moving_variance")
    return [by_name[name] for name in names]


TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
EXAMPLES = ROOT / "examples"


def load_example(name):
    """The module of examples/NAME.py, made anew."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_quickstart_outputs(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"model.keras", "model.tflite", "result.png"} <= names
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "result.png").stat().st_size > 10_000


def run_python(code, *arguments, **environment):
    """Runs `code` in a new process; its standard output."""
    import os

    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout


def slow_unless(fast, names):
    """Parameters of a test, of which all but the fast ones are slow."""
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def reload_config(layer):
    """The layer made again from its configuration, through JSON."""
    import json

    config = json.dumps(keras.saving.serialize_keras_object(layer))
    return keras.saving.deserialize_keras_object(json.loads(config))


def assert_configuration_round_trip(layer, x):
    """A copy from the configuration, with the same weights, does the same."""
    expected = layer(x)
    copy = reload_config(layer)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(np.asarray(copy(x)), np.asarray(expected))


def assert_every_weight_gets_a_gradient(model, rng):
    """Through the sum of the outputs, each with a weight of its own."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("uses tf.GradientTape")
    import tensorflow as tf

    randomize(model)
    x = tf.constant(rng.random((4, 64, 64, 3)), "float32")
    with tf.GradientTape() as tape:
        y = model(x, training=True)
        loss = tf.reduce_sum(y * tf.constant(rng.normal(size=y.shape), y.dtype))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, [w.value for w in weights])
    for weight, gradient in zip(weights, gradients):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path


_BOTTLENECK = (conv(8), conv(8, 3, groups=4), conv(16, activation=None))
_PATH = (conv(8), conv(8, 3))


def _network(name, *stages, **fields):
    return NetworkSpec(
        name=name,
        provenance="A small network for tests.",
        input_size=64,
        stem=(conv(8, 3, 2), max_pool(2)),
        stages=stages,
        **fields,
    )


# Between them, every layer and every field of a spec, at small width.
SMALL = {
    network.name: network
    for network in (
        _network(
            "SmallCSPResNeXt",
            Stage(blocks=(csp((residual(_BOTTLENECK),), split="conv"),)),
            Stage(
                down=(conv(16, 3, 2, groups=4),),
                blocks=(
                    csp(
                        2 * (residual(_BOTTLENECK, shortcut="partial"),),
                        split=(conv(16), conv(8)),
                        partial_transition=conv(16),
                        transition=conv(24),
                    ),
                ),
            ),
        ),
        _network(
            "SmallCSPPelee",
            Stage(blocks=(dense_block(2 * (two_way(8, 4),)),)),
            Stage(
                down=(max_pool(2), conv(24)),
                blocks=(
                    csp((dense_block(2 * (two_way(8, 4),)),), fusion="last"),
                ),
            ),
            pre_logits=(conv(40),),
        ),
        _network(
            "SmallCSPDense",
            Stage(
                blocks=(
                    csp(
                        (
                            dense_block(
                                3 * ((preactivated(8), preactivated(4, 3)),)
                            ),
                        ),
                        gamma=0.25,
                        fusion="first",
                    ),
                )
            ),
            Stage(
                down=(average_pool(2),),
                blocks=(
                    dense_block(
                        4 * (preactivated(4, 3),),
                        links="harmonic",
                    ),
                    dense_block(3 * (conv(4, 3),), links="sparse"),
                ),
            ),
            head=(norm_act("relu"),),
        ),
        _network(
            "SmallElastic",
            Stage(
                blocks=(
                    csp(
                        (residual(elastic(_PATH, _PATH)),),
                    ),
                )
            ),
            Stage(
                down=(sequential((conv(16, 3, 2),)),),
                blocks=(
                    residual(
                        (
                            conv(16),
                            res2_conv(16, groups=2, entry=True),
                            conv(32, activation=None),
                        ),
                        activation="relu",
                    ),
                    residual((conv(16), res2_conv(16), conv(32))),
                    elastic(
                        conv(16, 3),
                        conv(16, 3),
                        merge="add",
                        pool="average",
                        interpolation="bilinear",
                    ),
                ),
            ),
        ),
        _network(
            "SmallCS3",
            Stage(
                down=(conv(16, 6, 2, padding=2, activation="silu"),),
                blocks=(
                    csp(
                        (
                            residual(
                                (
                                    conv(8, activation="torch_leaky"),
                                    squeeze_excitation(4, "silu"),
                                    conv(8, 3, activation="silu"),
                                ),
                                activation=None,
                            ),
                        ),
                        fusion="first",
                        transition=conv(16, activation="silu"),
                    ),
                ),
            ),
            Stage(
                down=(padded_max_pool(3, 2, padding=1),),
                blocks=(conv(24, normalize=False),),
            ),
        ),
        _network(
            "SmallMobile",
            Stage(
                blocks=(
                    csp(
                        (conv(8, 3, groups=8, activation="relu"),),
                        split=(
                            conv(8, 3, 2, groups=8),
                            conv(16, 3, 2, groups=8),
                        ),
                        fusion="first",
                        transition=conv(24, activation="relu6"),
                    ),
                )
            ),
        ),
    )
}


def cfg_for_classes(text, classes):
    """The text of a Darknet cfg for so many classes."""
    changed = CfgText(text)
    plan = make_plan(changed.sections, warn=False)
    for head in heads_of(changed, plan):
        head.put_sizes(changed, classes)
    return changed.render()
