"""The shapes that every layer of a built model is given and returns."""

import contextlib
import dataclasses
import threading

import keras

_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of one layer: shapes without the batch.

    `input_shape` is that before an explicit zero padding, which is a part of
    the convolution or pooling that it serves.
    """

    layer: keras.layers.Layer
    input_shape: tuple
    output_shape: tuple


def trace(model, input_shape):
    """The calls of the layers of `model`, inner ones first, in order.

    Args:
        model: a built `keras.Model` with one input.
        input_shape: of that input, without the batch; all sides given.

    Returns:
        A list of `Call`; layers with several inputs or outputs are left out.
    """
    calls = []
    batched = keras.KerasTensor((1, *input_shape), dtype=keras.config.floatx())
    with _recording(calls):
        _Forward(model).compute_output_spec(batched)
    return calls


class _Forward(keras.Operation):
    """`model.call` as an operation: past the model's own check of sizes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, x):
        return self.model.call(x)


def _stand_in(layer, *args, **kwargs):
    """A tensor of the shape that a simple layer gives, None for others.

    Only shapes are asked for: of a layer that has no layers inside and knows
    its output's shape, the operations themselves need not be traced.
    """
    known = type(layer).__module__.startswith(("keras.", "keras_csp."))
    if not known or layer._layers or kwargs or len(args) != 1:
        return None
    if type(layer).compute_output_shape is keras.Layer.compute_output_shape:
        return None
    given = getattr(args[0], "shape", None)
    if given is None or not keras.ops.is_tensor(args[0]):
        return None
    shape = tuple(layer.compute_output_shape(tuple(given)))
    if shape == tuple(given):
        return args[0]
    return keras.ops.zeros(shape, dtype=args[0].dtype)


@contextlib.contextmanager
def _recording(calls):
    """Every layer's call is noted in `calls`, on this thread only."""
    with _LOCK:
        original = keras.layers.Layer.__call__
        thread = threading.get_ident()
        padded = {}  # id of a padded tensor: the tensor, its shape before

        def recorded(layer, *args, **kwargs):
            output = _stand_in(layer, *args, **kwargs)
            if output is None:
                output = original(layer, *args, **kwargs)
            shapes = [
                getattr(value, "shape", None) for value in (*args[:1], output)
            ]
            if threading.get_ident() == thread and None not in shapes:
                given, returned = (tuple(shape)[1:] for shape in shapes)
                _, given = padded.get(id(args[0]), (None, given))
                if isinstance(layer, keras.layers.ZeroPadding2D):
                    padded[id(output)] = (output, given)
                calls.append(Call(layer, given, returned))
            return output

        keras.layers.Layer.__call__ = recorded
        try:
            yield
        finally:
            keras.layers.Layer.__call__ = original
