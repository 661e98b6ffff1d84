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


@contextlib.contextmanager
def _recording(calls):
    """Every layer's call is noted in `calls`, on this thread only."""
    with _LOCK:
        original = keras.layers.Layer.__call__
        thread = threading.get_ident()
        padded = {}  # id of a padded tensor: the tensor, its shape before

        def recorded(layer, *args, **kwargs):
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
