"""Rows are data: immutable, printable, and wrong arguments fail at once."""

import dataclasses

import pytest
from support import SMALL

from keras_csp.layers import ConvNormAct
from keras_csp.models.spec import NetworkSpec, Spec, conv, csp, residual


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


def test_unknown_arguments_fail_when_the_row_is_written():
    with pytest.raises(TypeError, match="gama"):
        csp((conv(4),), gama=0.5)
    with pytest.raises(TypeError, match="kernel"):
        conv(8, kernel=3)


def test_a_spec_prints_as_the_layer_would_be_written():
    assert repr(conv(8, 3)) == "ConvNormAct(filters=8, kernel_size=3)"


def test_rows_hold_data_only():
    """No functions: what a row says can be read, compared, and printed."""
    from keras_csp.models import darknet, densenet, hardnet, resnet

    found = 0
    for module in (darknet, densenet, hardnet, resnet):
        for row in vars(module).values():
            if isinstance(row, NetworkSpec):
                check_data(row)
                found += 1
    assert found


def check_data(value):
    """Field by field: `dataclasses.astuple` would copy what a spec holds."""
    if isinstance(value, Spec):
        assert isinstance(value.layer, type)
        check_data(tuple(value.arguments.values()))
    elif dataclasses.is_dataclass(value):
        check_data(tuple(vars(value).values()))
    elif isinstance(value, (tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            check_data(item)
    else:
        assert value is None or isinstance(value, (int, float, str)), value


def test_a_function_in_a_spec_is_found():
    with pytest.raises(AssertionError, match="function"):
        check_data(residual((conv(8, activation=lambda x: x),)))


def test_layer_names_are_those_of_the_stages():
    row = SMALL["SmallCSPResNeXt"]
    names = [layer.name for layer in row.layers()]
    assert names == ["stem_1", "stem_2", "stage1", "stage2_down", "stage2"]
