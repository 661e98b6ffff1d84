"""Names of Keras and TensorFlow that are not public, each with its reason.

Nothing else in the package uses such a name. tests/test_keras_internals.py
checks each function against the installed versions.
"""

import keras
from keras.src.models.functional import Functional


def producer(tensor):
    """The operation that gave a symbolic tensor.

    Keras has no public way from an output of a model to its layer.
    """
    return tensor._keras_history.operation


def functional(layer):
    """The functional model that a layer's call runs, None for other layers.

    Its class has no public name, and neither has the functional model that a
    `keras.Sequential` makes of its layers once it knows its input.
    """
    own = type(layer).call if isinstance(layer, keras.Model) else None
    if isinstance(layer, keras.Sequential) and own is keras.Sequential.call:
        return layer._functional
    if isinstance(layer, Functional) and own is Functional.call:
        return layer
    return None


def nodes(model):
    """The calls that a functional model consists of, in order of execution.

    A layer's own list of calls holds those of every model that uses it;
    which ones are this model's is known to the model alone.

    Args:
        model: what `functional` gives.

    Returns:
        A list of Keras' nodes: `operation`, `input_tensors` and `outputs`
        are public, the arguments are read by `arguments`.
    """
    by_depth = model._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def arguments(node, values):
    """(args, kwargs) of a call, with values in place of symbolic tensors.

    Args:
        node: of `nodes`.
        values: {id of a symbolic tensor: its value}.
    """
    return node.arguments.fill_in(values)


def sublayers(layer):
    """The layers directly inside a layer, without those of a functional model.

    Only models have a public attribute for them.
    """
    return list(layer._layers)


def flatten_layers(layer):
    """A layer and all layers inside it, at any depth."""
    return list(layer._flatten_layers())


def attributes(layer):
    """{name: value} of what a layer holds.

    On the PyTorch backend a layer is a `torch.nn.Module`, which keeps the
    layers inside it apart from its other attributes.
    """
    return {**vars(layer).get("_modules", {}), **vars(layer)}


def compiled_by_xla():
    """Whether TensorFlow is tracing a function that XLA compiles.

    The public `tf.executing_eagerly` tells a graph from eager execution, and
    nothing public tells one graph from the other.
    """
    import tensorflow as tf

    return tf.__internal__.get_enclosing_xla_context() is not None


def deterministic():
    """Whether `tf.config.experimental.enable_op_determinism` was called.

    There is a public way to ask for determinism, none to see that it is on.
    """
    from tensorflow.python.framework import config

    return config.is_op_determinism_enabled()


def calibrated(converter):
    """A TFLite file of floats with the ranges that its maps have.

    The first step of the converter's quantisation; the public `convert` does
    both, and lets nobody change the ranges between.

    Args:
        converter: a `tf.lite.TFLiteConverter` with representative inputs.
    """
    converter._experimental_calibrate_only = True
    return converter.convert()


def quantized(contents, input_type, output_type):
    """A file that `calibrated` gave, in 8 bits: the second step.

    Args:
        contents: of the file.
        input_type, output_type: `tf.DType`s of the model's ends.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    return mlir_quantize(
        contents, input_data_type=input_type, output_data_type=output_type
    )


def variable_index(optimizer, variable):
    """The number of a variable among those that an optimizer was built for.

    In Keras' example of an optimizer of one's own, though its name is not
    public; on TensorFlow `update_step` gets variables without a path.
    """
    return optimizer._get_variable_index(variable)


def copy_weight_decay_exclusions(source, target):
    """Gives an optimizer what another's `exclude_from_weight_decay` got.

    The configuration of an optimizer does not have it.
    """
    for name in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


class ScaledWeightDecay:
    """Of an optimizer: the weight decay of each variable has its factor.

    Keras decays all variables by one rate, in a method of each backend that
    has no public name. `factor_of(variable)` gives the factor.
    """

    def _apply_weight_decay(self, variables):
        if self.weight_decay is None:
            return
        whole, groups = self.weight_decay, {}
        for variable in variables:
            # On PyTorch Keras cannot decay a list without variables.
            if self._use_weight_decay(variable):
                group = groups.setdefault(self.factor_of(variable), [])
                group.append(variable)
        try:
            for factor, group in groups.items():
                self.weight_decay = whole * factor
                super()._apply_weight_decay(group)
        finally:
            self.weight_decay = whole
