"""Specs are data: immutable, printable, and wrong arguments fail at once."""

import dataclasses
import importlib
import pkgutil

import keras
import pytest
from support import SMALL

from keras_csp import models
from keras_csp.layers import ConvNormAct
from keras_csp.models.spec import (
    LayerSpec,
    NetworkSpec,
    Stage,
    conv,
    csp,
    residual,
)


def test_a_spec_makes_a_new_layer_each_time():
    item = conv(8, 3)
    first, second = item.make("a"), item.make("b")
    assert isinstance(first, ConvNormAct)
    assert first is not second
    assert (first.filters, first.kernel_size, first.name) == (8, 3, "a")


def test_nested_specs_are_made_and_named_after_their_arguments():
    stage = csp(2 * (residual((conv(4), conv(8, 3))),), transition=conv(6))
    layer = stage.make("stage1")
    assert [block.name for block in layer.blocks] == ["blocks1", "blocks2"]
    assert layer.transition.filters == 6
    assert layer.blocks[0].layers.layers[1].name == "layers2"


def test_unknown_arguments_fail_when_the_spec_is_written():
    with pytest.raises(TypeError, match="gama"):
        csp((conv(4),), gama=0.5)
    with pytest.raises(TypeError, match="kernel"):
        conv(8, kernel=3)


def test_a_spec_prints_as_the_layer_would_be_written():
    assert repr(conv(8, 3)) == "ConvNormAct(filters=8, kernel_size=3)"


def not_data(value):
    """What in a spec is neither a number nor a name, at any depth."""
    if isinstance(value, (LayerSpec, Stage, NetworkSpec)):
        fields = dataclasses.fields(value)
        parts = [getattr(value, field.name) for field in fields]
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, tuple):
        parts = value
    elif isinstance(value, type) and issubclass(value, keras.layers.Layer):
        parts = ()
    else:
        plain = value is None or isinstance(value, (int, float, str))
        return [] if plain else [value]
    return [found for part in parts for found in not_data(part)]


def network_specs():
    """Of every module of `keras_csp.models`."""
    for module in pkgutil.iter_modules(models.__path__):
        loaded = importlib.import_module(f"{models.__name__}.{module.name}")
        for value in vars(loaded).values():
            if isinstance(value, NetworkSpec):
                yield value


def test_network_specs_hold_data_only():
    """They can be read, compared and printed: no function, no layer."""
    specs = list(network_specs())
    assert len(specs) > 30
    for network in specs:
        assert not not_data(network), network.name


@pytest.mark.parametrize(
    "wrong", [len, conv(4).make("layer"), [3], conv(lambda: 3)]
)
def test_anything_but_data_is_found(wrong):
    block = csp((residual((conv(4), wrong)),))
    network = NetworkSpec("Wrong", (), (Stage((block,)),), "For this test.")
    assert not_data(network)


def test_layer_names_are_those_of_the_stages():
    network = SMALL["SmallCSPResNeXt"]
    names = [layer.name for layer in network.layers()]
    assert names == ["stem_1", "stem_2", "stage1", "stage2_down", "stage2"]
