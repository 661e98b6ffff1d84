"""Each name that is not public, against the installed Keras and TensorFlow.

A failure here after an update says which function of
`keras_csp._keras_internals` must be written anew.
"""

import ast
import inspect
import pathlib

import keras
import numpy as np
import pytest

import keras_csp
from keras_csp import _keras_internals as internals
from keras_csp.layers import ConvNormAct

PACKAGE = pathlib.Path(keras_csp.__file__).parent


@pytest.fixture
def model():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 1, name="a")(inputs)
    y = keras.layers.Conv2D(4, 1, name="b")(x)
    return keras.Model(inputs, keras.layers.Add(name="sum")([x, y]))


def test_every_function_is_tested_here():
    functions = {
        name
        for name, value in vars(internals).items()
        if inspect.isfunction(value) and value.__module__ == internals.__name__
    }
    tests = [name for name in globals() if name.startswith("test_")]
    for name in functions:
        assert any(name in test for test in tests), name


def private_names(*objects):
    return {
        name
        for one in objects
        for name in dir(one)
        if name.startswith("_") and not name.startswith("__")
    }


def test_the_names_stand_in_one_module(model):
    """Those of layers, models, nodes and symbolic tensors, and `keras.src`."""
    node = internals.nodes(model)[0]
    names = private_names(
        keras.layers.Layer(),
        keras.Sequential(),
        model,
        node,
        node.arguments,
        model.output,
        keras.optimizers.SGD(),
    )
    assert {"_layers", "_inbound_nodes", "_keras_history"} <= names
    names.add("_experimental_calibrate_only")
    found = [
        f"{path.name}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "_keras_internals.py"
        for line in lines_with_private_names(path, names)
    ]
    assert not found


def lines_with_private_names(path, names):
    parts = list(ast.walk(ast.parse(path.read_text())))
    attributes = [part for part in parts if isinstance(part, ast.Attribute)]
    # Of the module's own: what it sets, and its methods.
    own = {part.attr for part in attributes if isinstance(part.ctx, ast.Store)}
    own |= {part.name for part in parts if isinstance(part, ast.FunctionDef)}
    for part in attributes:
        of_self = isinstance(part.value, ast.Name) and part.value.id == "self"
        named = part.attr in names and not (of_self and part.attr in own)
        if named or part.attr == "__internal__":
            yield part.lineno
    private = ("keras.src", "tensorflow.python", "tensorflow.lite.python")
    for part in parts:
        if isinstance(part, ast.ImportFrom) and str(part.module).startswith(
            private
        ):
            yield part.lineno


def test_producer(model):
    assert internals.producer(model.output).name == "sum"
    x = keras.Input((4,))
    assert type(internals.producer(x + 1)).__name__ == "Add"


def test_functional_of_models_whose_call_runs_their_graph(model):
    assert internals.functional(model) is model

    class Subclass(keras.Model):
        pass

    inputs = keras.Input((4,))
    derived = Subclass(inputs, inputs + 1)
    assert internals.functional(derived) is derived
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    graph = internals.functional(sequential)
    assert graph.outputs[0] is sequential.outputs[0]
    assert len(internals.nodes(graph)) == 1


def test_functional_of_other_layers_is_none():
    class Own(keras.Model):
        def call(self, x):
            return 2 * x

    class OwnSequential(keras.Sequential):
        def call(self, x):
            return 2 * x

    inputs = keras.Input((4,))
    for layer in (
        keras.layers.Dense(2),
        Own(),
        Own(inputs, inputs + 1),
        OwnSequential([keras.layers.Dense(2)]),
        keras.Sequential([keras.layers.Dense(2)]),  # of unknown input
    ):
        assert internals.functional(layer) is None


def test_nodes_are_this_models_in_order(model):
    last = model.get_layer("sum")
    last([model.output, model.output])  # a call in no model
    calls = internals.nodes(model)
    assert [node.operation.name for node in calls] == ["a", "b", "sum"]
    a, b, total = calls
    assert a.input_tensors == model.inputs
    assert total.input_tensors[0] is a.outputs[0]
    assert total.input_tensors[1] is b.outputs[0]
    assert total.outputs[0] is model.output


def test_arguments_of_a_call():
    inputs = keras.Input((4, 4))
    layer = keras.layers.MultiHeadAttention(1, 2)
    model = keras.Model(inputs, layer(inputs, value=inputs, training=False))
    (node,) = internals.nodes(model)
    args, kwargs = internals.arguments(node, {id(inputs): "x"})
    assert args == ("x",)
    assert kwargs == {"value": "x", "training": False}


def test_sublayers_and_flatten_layers():
    unit = ConvNormAct(4, name="unit")
    unit.build((None, 8, 8, 3))
    outer = keras.layers.TimeDistributed(unit, name="outer")
    assert internals.sublayers(outer) == [unit]
    assert internals.sublayers(unit) == list(unit.layers)
    assert internals.sublayers(keras.layers.Dense(2)) == []
    found = internals.flatten_layers(outer)
    assert found[0] is outer
    assert {layer.name for layer in found} == {
        "outer",
        "unit",
        "conv",
        "norm",
        "act",
    }


def test_flatten_layers_without_the_layer_itself(model):
    assert internals.flatten_layers(model)[0] is model
    names = [layer.name for layer in internals.flatten_layers(model)[1:]]
    assert {"a", "b", "sum"} <= set(names)


def test_attributes_hold_layers_and_lists_of_them():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.one = keras.layers.Dense(2)
            self.more = [keras.layers.Dense(2)]
            self.number = 3

    block = Block()
    held = internals.attributes(block)
    assert held["one"] is block.one
    assert held["more"] is block.more
    assert held["number"] == 3


def test_compiled_by_xla():
    tf = pytest.importorskip("tensorflow")
    seen = {}

    def ask(key, x):
        seen[key] = internals.compiled_by_xla()
        return x

    ask("eager", 1)
    tf.function(lambda x: ask("graph", x))(tf.ones(1))
    tf.function(lambda x: ask("xla", x), jit_compile=True)(tf.ones(1))
    assert seen == {"eager": False, "graph": False, "xla": True}


def test_deterministic():
    tf = pytest.importorskip("tensorflow")
    assert internals.deterministic() is False
    tf.config.experimental.enable_op_determinism()
    try:
        assert internals.deterministic() is True
    finally:
        from tensorflow.python.framework import config

        config.disable_op_determinism()
    assert internals.deterministic() is False


def test_calibrated_and_quantized_by_the_steps_of_the_converter(rng):
    """Between them, the ranges are in the file and the numbers are floats."""
    tf = pytest.importorskip("tensorflow")
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    x = rng.random((16, 1, 4), dtype="float32")
    kernel = rng.normal(size=(4, 2)).astype("float32")
    function = tf.function(
        lambda x: tf.nn.relu(x @ kernel),
        input_signature=[tf.TensorSpec((1, 4))],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row] for row in x)
    calibrated = internals.calibrated(converter)
    types = []
    for contents in (
        calibrated,
        internals.quantized(calibrated, tf.int8, tf.int8),
    ):
        made = litert.Interpreter(model_content=bytes(contents))
        (details,) = made.get_input_details()
        types.append(np.dtype(details["dtype"]))
    assert types == [np.float32, np.int8]
    # What the second knows of the numbers, the first has seen.
    scale, _ = details["quantization"]
    assert scale == pytest.approx((x.max() - min(x.min(), 0)) / 255, rel=0.02)


class Halved(internals.ScaledWeightDecay, keras.optimizers.SGD):
    """The second variable has half the weight decay."""

    def factor_of(self, variable):
        return (1.0, 0.5)[internals.variable_index(self, variable)]


def test_variable_index_and_weight_decay_of_each_variable():
    optimizer = Halved(1.0, weight_decay=0.5)
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer.build(variables)
    assert [internals.variable_index(optimizer, v) for v in variables] == [0, 1]
    optimizer.apply([np.zeros(1, "float32")] * 2)
    assert [float(v[0]) for v in variables] == [0.5, 0.75]
    assert optimizer.weight_decay == 0.5


def test_copy_weight_decay_exclusions():
    plain = keras.optimizers.SGD(1.0, weight_decay=0.5)
    variables = [
        keras.Variable([1.0], name=name) for name in ("kernel", "bias")
    ]
    plain.exclude_from_weight_decay(var_names=["bias"])
    copy = keras.optimizers.SGD(1.0, weight_decay=0.5)
    internals.copy_weight_decay_exclusions(plain, copy)
    copy.build(variables)
    copy.apply([np.zeros(1, "float32")] * 2)
    assert [float(v[0]) for v in variables] == [0.5, 1.0]
    # By variable, and none at all.
    other = keras.optimizers.SGD(1.0, weight_decay=0.5)
    plain.exclude_from_weight_decay(var_list=variables[:1])
    internals.copy_weight_decay_exclusions(plain, other)
    internals.copy_weight_decay_exclusions(keras.optimizers.SGD(1.0), other)
    other.build(variables)
    other.apply([np.zeros(1, "float32")] * 2)
    assert [float(v[0]) for v in variables] == [0.5, 0.5]
