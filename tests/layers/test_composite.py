"""Layers made of layers: lists of them, and how they are serialised."""

import json

import keras
import numpy as np
import pytest

from keras_csp.layers import (
    ConvNormAct,
    CSPStage,
    Maxout,
    PaddedMaxPooling2D,
    Parallel,
    Res2Conv,
    SequentialBlock,
    SpatialPyramidPooling,
    SqueezeExcitation,
    Transition,
    TwoWayDenseLayer,
)
from keras_csp.layers.composite import as_layer, layer_list

# A layer of each kind, its integers of the kind `n`.
MAKERS = {
    "ConvNormAct": lambda n: ConvNormAct(n(8), n(3), n(2), n(4), padding=n(1)),
    "ConvNormAct, strides": lambda n: ConvNormAct(n(8), n(3), (n(2), n(1))),
    "Transition": lambda n: Transition(n(8)),
    "CSPStage": lambda n: CSPStage(
        [ConvNormAct(4, name="block")],
        partial_transition=n(4),
        transition=n(6),
    ),
    "PaddedMaxPooling2D": lambda n: PaddedMaxPooling2D(n(3), n(2), n(1)),
    "PaddedMaxPooling2D, pairs": lambda n: PaddedMaxPooling2D(
        (n(3), n(3)), (n(2), n(2)), (n(0), n(1))
    ),
    "TwoWayDenseLayer": lambda n: TwoWayDenseLayer(n(8), n(4)),
    "Res2Conv": lambda n: Res2Conv(n(8), n(4), n(2)),
    "SqueezeExcitation": lambda n: SqueezeExcitation(n(4)),
    "Maxout": lambda n: Maxout(n(4)),
    "SpatialPyramidPooling": lambda n: SpatialPyramidPooling((n(3), n(5))),
}


def configuration(layer):
    config = keras.saving.serialize_keras_object(layer)
    config["config"].pop("name")  # numbered
    # A numpy integer would be written as text.
    return json.dumps(config, default=repr)


@pytest.mark.parametrize("kind", MAKERS)
def test_integers_of_numpy(kind, rng):
    layer = MAKERS[kind](np.int64)
    assert configuration(layer) == configuration(MAKERS[kind](int))
    layer(rng.random((1, 8, 8, 8), dtype="float32"))


def test_lists_become_one_layer():
    single, pair = keras.layers.ReLU(), [keras.layers.ReLU() for _ in "ab"]
    assert as_layer("f", [single]) is single
    block = as_layer("f", pair)
    assert isinstance(block, SequentialBlock) and block.layers == pair
    path = Parallel([keras.layers.ReLU(), [keras.layers.ReLU() for _ in "ab"]])
    assert path.paths[1].name == "paths1"


def test_sequential_block_is_its_layers_in_order(rng):
    layers = [ConvNormAct(4, 3, 2), keras.layers.ReLU(), ConvNormAct(6)]
    x = rng.random((1, 7, 9, 3), dtype="float32")
    y = SequentialBlock(layers)(x)
    for layer in layers:
        x = layer(x)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(x))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"non-empty list of them. Received: f=\[\]"),
        ("relu", "f='relu'"),
        ([keras.layers.ReLU(), len], "position 1.*builtin"),
        (2 * [keras.layers.ReLU()], "more than once.*one layer for each"),
    ],
)
def test_what_is_no_list_of_layers(value, message):
    with pytest.raises(ValueError, match=message):
        layer_list("f", value)
