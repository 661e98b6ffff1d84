"""Pyramid features of a network, its levels named by stride."""

import math
import re

import keras

from keras_csp._structure import trace

# Divides by every stride in use, so that a ratio of sides is the stride.
_PROBE_SIDE = 256


def feature_extractor(model, levels=("P3", "P4", "P5")):
    """A model from an image to the features at the given strides.

    Level `Pn` has stride 2^n: P3 is 8, P4 16, P5 32. It is the last feature
    map of `model` at that stride, so just before the next halving.

    Args:
        model: a `keras.Model` of this package, or any functional model with
            one image input, with or without its classifier. The weights are
            shared with it.
        levels: names, each once. Default ("P3", "P4", "P5").

    Returns:
        A `keras.Model` whose output is a dict from level name to
        `(batch, height, width, channels)`.

    Raises:
        ValueError: a name that is no level, or a level the model lacks; the
            message lists those it has.
    """
    levels = _check_levels(levels)
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be a functional keras.Model. Received: "
            f"{model!r} of type {type(model).__name__}"
        )
    available = _levels(model)
    missing = [level for level in levels if level not in available]
    if missing:
        raise ValueError(
            f"{model.name!r} has no level {', '.join(missing)}; it has "
            f"{', '.join(sorted(available))}. Received: levels={levels}"
        )
    return keras.Model(
        model.inputs[0],
        {level: available[level] for level in levels},
        name=f"{model.name}_features",
    )


def _levels(model):
    """{level name: output of the last layer at that stride}."""
    channels = model.inputs[0].shape[-1]
    calls = trace(model, (_PROBE_SIDE, _PROBE_SIDE, channels))
    own = {id(layer): layer for layer in model.layers}
    levels = {}
    for call in calls:
        layer = own.get(id(call.layer))
        if layer is None or len(call.output_shape) != 3:
            continue
        stride = _PROBE_SIDE / call.output_shape[0]
        if stride > 1 and math.log2(stride).is_integer():
            levels[f"P{int(math.log2(stride))}"] = (layer.output, stride)
    return _without_pooled(levels)


def _without_pooled(levels):
    """A global pooling gives a 1x1 map: no level of a pyramid."""
    return {
        name: output
        for name, (output, stride) in levels.items()
        if stride < _PROBE_SIDE
    }


def _check_levels(levels):
    good = isinstance(levels, (list, tuple)) and levels
    if not good or not all(
        isinstance(level, str) and re.fullmatch(r"P[1-9]", level)
        for level in levels
    ):
        raise ValueError(
            '`levels` must be a tuple of names such as "P3" (stride 8). '
            f"Received: levels={levels!r}"
        )
    if len(set(levels)) < len(levels):
        raise ValueError(
            f"`levels` names a level twice. Received: levels={levels}"
        )
    return tuple(levels)


def list_levels(model):
    """The names of the levels that `feature_extractor` finds, finest first."""
    return tuple(sorted(_levels(model)))
