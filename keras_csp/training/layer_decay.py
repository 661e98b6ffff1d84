"""Layer-wise learning-rate decay: smaller steps, the further from the head."""

import functools
import inspect

import keras

from keras_csp._keras_internals import (
    ScaledWeightDecay,
    copy_weight_decay_exclusions,
    variable_index,
)
from keras_csp.training.parts import layer_groups


def with_layer_decay(optimizer, model, decay):
    """An optimizer that trains layer group k with learning rate lr d^k.

    k counts from the head, k = 0: `layer_groups`. The learning rate of each
    variable is scaled, not its gradient, whose scale adaptive optimizers
    ignore. So the step and, as in AdamW's decoupled form, the weight decay of
    a variable are those of a plain optimizer with that learning rate. The
    velocity of SGD's momentum contains the learning rate, as always in Keras.

        optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.05)
        model.compile(with_layer_decay(optimizer, model, 0.75), ...)

    Gradient clipping, accumulation and averaged weights are as in the plain
    optimizer, which is a class above that of the result. It is saved with a
    compiled model.

    Args:
        optimizer: of Keras, or of a class of the user's that gives the
            learning rate to `update_step`. It is not changed.
        model: the one that it will train, its layers frozen or not as they
            will be. Frozen ones count among the groups, so that a learning
            rate does not depend on the phase.
        decay: d, above 0 and at most 1. With 1 the result is `optimizer`.

    Returns:
        A `keras.optimizers.Optimizer`, not built.

    Raises:
        ValueError: `decay` out of range, or an optimizer that has been built
            or wraps another one.
    Source: arXiv 1801.06146, section 3.2, "discriminative fine-tuning"; in
        the form of arXiv 2003.10555.
    """
    check_decay("decay", decay)
    wraps = any(
        hasattr(optimizer, name) for name in ("inner_optimizer", "optimizers")
    )
    if wraps or optimizer.built:
        raise ValueError(
            "`optimizer` must be a new one, and none that wraps another. "
            f"Received: {optimizer!r}"
        )
    if decay == 1:
        return optimizer
    config = optimizer.get_config()
    config["learning_rate_factors"] = _factors(model, decay)
    made = _scaled(_public_class(optimizer)).from_config(config)
    copy_weight_decay_exclusions(optimizer, made)
    return made


def check_decay(argument, value):
    """Returns the value, or raises a ValueError that names the argument."""
    if isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(
            f"`{argument}` must be above 0 and at most 1. Received: "
            f"{argument}={value!r}"
        )
    return value


def _factors(model, decay):
    """d^k for each of the trainable variables, in their order.

    By their order, as Keras saves what an optimizer knows of them: their
    paths may differ in a model that is loaded.
    """
    factors = {}
    for k, layers in enumerate(layer_groups(model).values()):
        for layer in layers:
            for variable in layer.variables:
                factors.setdefault(id(variable), decay**k)
    return [factors[id(variable)] for variable in model.trainable_variables]


def _public_class(optimizer):
    """Its class; on PyTorch Keras derives others from its public ones.

    Those update all variables at once, with one learning rate.
    """
    public = [kind for kind in type(optimizer).__mro__ if kind in _optimizers()]
    own = type(optimizer).__module__.startswith("keras.src.")
    return public[0] if public and own else type(optimizer)


class _ScaledLearningRates(ScaledWeightDecay):
    """Of an optimizer: each variable has its factor of the learning rate."""

    def __init__(self, *args, learning_rate_factors, **kwargs):
        super().__init__(*args, **kwargs)
        self.learning_rate_factors = list(learning_rate_factors)

    def build(self, variables):
        if len(variables) != len(self.learning_rate_factors):
            raise ValueError(
                f"The optimizer has learning rates for "
                f"{len(self.learning_rate_factors)} variables. Call "
                "`with_layer_decay` after it was decided which layers are "
                f"trained. Received: {len(variables)} variables"
            )
        super().build(variables)

    def factor_of(self, variable):
        return self.learning_rate_factors[variable_index(self, variable)]

    def update_step(self, gradient, variable, learning_rate):
        factor = self.factor_of(variable)
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate_factors": list(self.learning_rate_factors),
        }


@functools.cache
def _optimizers():
    """Keras' classes of optimizers that train variables themselves."""
    bases = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    return tuple(
        kind
        for kind in vars(keras.optimizers).values()
        if inspect.isclass(kind)
        and issubclass(kind, keras.optimizers.Optimizer)
        and kind not in bases
        and kind.__name__ != "MultiOptimizer"
    )


@functools.cache
def _scaled(kind):
    """The class of optimizers of this kind with scaled learning rates."""
    name = f"LayerDecay{kind.__name__}"
    made = type(name, (_ScaledLearningRates, kind), {"__module__": __name__})
    return keras.saving.register_keras_serializable("keras_csp")(made)


# Known by their names where a compiled model is loaded in a new process.
for _kind in _optimizers():
    _scaled(_kind)
