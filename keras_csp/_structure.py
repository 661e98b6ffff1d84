"""The structure of a model, walked call by call.

A functional model is a graph: its nodes are run one after another. A layer
that holds layers is run by its own `call`, in which stand-ins take the place
of the layers inside. Neither changes the model nor Keras, so that other
threads, and calls within calls, are not affected. `with_layers` builds a graph
again with some of its layers replaced.
"""

import dataclasses
import inspect

import keras

from keras_csp._keras_internals import (
    arguments,
    attributes,
    functional,
    nodes,
    sublayers,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of one layer: shapes without the batch.

    `input_shapes` are those before an explicit zero padding, which is a part
    of the convolution or pooling that it serves.
    """

    layer: keras.layers.Layer
    input_shapes: tuple
    output_shapes: tuple

    @property
    def input_shape(self):
        """The shape of the only input, or of the first."""
        return self.input_shapes[0]

    @property
    def output_shape(self):
        """The shape of the only output, or of the first."""
        return self.output_shapes[0]


def trace(model, input_shape):
    """The calls of the layers of `model`, inner ones first, in order.

    Args:
        model: a functional `keras.Model` with one input, or a built
            `keras.Sequential`.
        input_shape: of that input, without the batch; all sides given.

    Returns:
        A list of `Call`. A layer that is not of this package nor of Keras,
        and cannot be run with stand-ins, is one call.
    """
    dtype = model.inputs[0].dtype
    image = keras.KerasTensor((1, *input_shape), dtype=dtype)
    tracing = _Tracing(model)
    tracing.compute_output_spec(image)
    return tracing.calls


def is_composite(layer):
    """Whether a layer is made of layers, as a model is."""
    return functional(layer) is not None or bool(sublayers(layer))


def run_inside(layer, run, *args, **kwargs):
    """What a layer made of layers gives if `run` calls those inside.

    Args:
        layer: one for which `is_composite` holds.
        run: a function of (operation, *args, **kwargs); operations are the
            layers inside and, in a functional model, the operations of
            `keras.ops` as well. It returns the operation's outputs.
        *args, **kwargs: of the layer's call.
    """
    graph = functional(layer)
    if graph is not None:
        return run_graph(graph, args[0], run)
    if "training" in inspect.signature(layer.call).parameters:
        kwargs["training"] = bool(kwargs.get("training"))
    return _with_stand_ins(layer, run).call(*args, **kwargs)


def run_graph(graph, inputs, run):
    """The outputs of a functional model if `run` calls its operations."""
    values = graph_values(graph, inputs, run)
    outputs = [values[id(tensor)] for tensor in graph.outputs]
    return keras.tree.pack_sequence_as(graph.output, outputs)


def graph_values(graph, inputs, run, skipped=()):
    """{id of a tensor of a functional model: its value}.

    Args:
        graph: what `functional` gives.
        inputs: a value for each input of the graph, in its structure.
        run: as of `run_inside`.
        skipped: types of errors after which the outputs of an operation, and
            of all that follow it, are left out.
    """
    if isinstance(inputs, dict) and not isinstance(graph.input, dict):
        inputs = [inputs[tensor.name] for tensor in graph.inputs]
    inputs = keras.tree.flatten(inputs)
    values = dict(zip(map(id, graph.inputs), inputs, strict=True))
    for node in nodes(graph):
        if any(id(tensor) not in values for tensor in node.input_tensors):
            continue
        args, kwargs = arguments(node, values)
        try:
            outputs = run(node.operation, *args, **kwargs)
        except skipped:
            continue
        values.update(zip(map(id, node.outputs), keras.tree.flatten(outputs)))
    return values


def with_layers(model, replacements):
    """The model of the same layers, save for some that are replaced.

    Args:
        model: a functional `keras.Model` or a `keras.Sequential`; layers of
            models inside it are replaced as well.
        replacements: pairs (old layer, new layer).

    Returns:
        A new, uncompiled model of the same class and name, which shares all
        other layers, and so their weights, with `model`.
    """

    def place(layer):
        for old, new in replacements:
            if layer is old:
                return new
        if isinstance(layer, keras.Model) and _has_any(layer, replacements):
            return with_layers(layer, replacements)
        return layer

    return keras.models.clone_model(model, clone_function=place)


def _has_any(model, replacements):
    """Whether any of the old layers is in the model, or in one inside it."""
    return any(
        any(layer is old for old, _new in replacements)
        or (isinstance(layer, keras.Model) and _has_any(layer, replacements))
        for layer in model.layers
    )


class _StandIn:
    """In place of a layer: a call goes to `run`, all else to the layer."""

    def __init__(self, layer, run):
        self._layer, self._run = layer, run

    def __call__(self, *args, **kwargs):
        return self._run(self._layer, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._layer, name)

    @property
    def __class__(self):  # for isinstance
        return type(self._layer)


def _with_stand_ins(layer, run):
    """A second layer of the same attributes, its layers replaced.

    It shares everything else with the first, weights included, which is
    itself left as it is: whoever calls it meanwhile gets its own layers.
    """
    twin = object.__new__(type(layer))
    for name, value in attributes(layer).items():
        vars(twin)[name] = _replaced(value, run)
    return twin


def _replaced(value, run):
    """`value` with stand-ins for the layers in it, itself if there are none."""
    if isinstance(value, keras.layers.Layer):
        return _StandIn(value, run)
    if isinstance(value, dict):
        items = {key: _replaced(item, run) for key, item in value.items()}
        changed = any(items[key] is not item for key, item in value.items())
        return items if changed else value
    if isinstance(value, (list, tuple)):
        items = [_replaced(item, run) for item in value]
        if all(new is old for new, old in zip(items, value)):
            return value
        if isinstance(value, tuple):
            named = hasattr(value, "_fields")
            return type(value)(*items) if named else tuple(items)
        return items
    return value


class _Tracing(keras.Operation):
    """A model's call on tensors of no values, noted in `calls`.

    As an operation: Keras' way to ask a function for its outputs' shapes,
    past the model's check of its input's sides.
    """

    def __init__(self, model):
        super().__init__()
        self._model = model
        self.calls = []
        self._padded = {}  # id of a padded tensor: itself, its shape before

    def call(self, x):
        self.calls.clear()  # Keras may try several sizes
        return run_inside(self._model, self._run, x)

    def _run(self, operation, *args, **kwargs):
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        outputs = _without_values(operation, args, kwargs)
        if outputs is None and is_composite(operation):
            outputs = self._inside(operation, args, kwargs)
        if outputs is None:
            outputs = operation(*args, **kwargs)
        self._note(operation, (args, kwargs), outputs)
        return outputs

    def _inside(self, layer, args, kwargs):
        """Outputs of a layer made of layers, None where that fails."""
        before = len(self.calls)
        try:
            return run_inside(layer, self._run, *args, **dict(kwargs))
        except Exception:
            if _is_known(layer):
                raise
            # Another's code may do with its layers what a stand-in cannot.
            # Only an error of the layer itself will come up again.
            del self.calls[before:]
            return None

    def _note(self, layer, inputs, outputs):
        given = [self._before_padding(x) for x in _tensors(inputs)]
        returned = [tuple(y.shape)[1:] for y in _tensors(outputs)]
        if isinstance(layer, keras.layers.ZeroPadding2D):
            self._padded[id(outputs)] = outputs, given[0]
        self.calls.append(Call(layer, tuple(given), tuple(returned)))

    def _before_padding(self, x):
        _, shape = self._padded.get(id(x), (x, tuple(x.shape)[1:]))
        return shape


def _tensors(values):
    return [x for x in keras.tree.flatten(values) if keras.ops.is_tensor(x)]


def _is_known(layer):
    return type(layer).__module__.startswith(("keras.", "keras_csp."))


def _without_values(layer, args, kwargs):
    """A tensor of the shape that a simple layer gives, None for others.

    Only shapes are asked for: where a layer has no layers inside and knows
    its output's shape, the operations themselves need not be traced.
    """
    if not _is_known(layer) or kwargs or len(args) != 1 or is_composite(layer):
        return None
    if type(layer).compute_output_shape is keras.Layer.compute_output_shape:
        return None
    if not keras.ops.is_tensor(args[0]):
        return None
    given = tuple(args[0].shape)
    shape = tuple(layer.compute_output_shape(given))
    if shape == given:
        return args[0]
    return keras.ops.zeros(shape, dtype=args[0].dtype)
