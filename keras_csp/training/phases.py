"""Fine-tuning in phases: which layers of a network are trained when."""

import dataclasses
import re

import keras
import numpy as np

from keras_csp._keras_internals import flatten_layers
from keras_csp._validation import check_choice

# What a phase trains: the classifier, the last stage too, or everything.
PARTS = ("head", "last_stage", "all")
_STAGE = re.compile(r"stage([0-9]+)")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a fine-tuning.

    Attributes:
        part: "head" trains what comes after the last stage, "last_stage" that
            stage too, "all" everything.
        fraction: of the epochs.
        learning_rate_factor: the recipe's learning rate is multiplied by it.
            Default 1.
        batch_normalization: whether batch normalization is trained, scales
            and statistics, where the layers are. Default False: frozen.
    """

    part: str
    fraction: float
    learning_rate_factor: float = 1.0
    batch_normalization: bool = False

    def apply(self, model):
        """Makes the layers of a network of this package trainable or not.

        Compile the model afterwards: Keras reads there what is trainable.

        Raises:
            ValueError: an unknown `part`, a model without stages, or nothing
                to train in that part.
        """
        check_choice("part", self.part, PARTS)
        layers = _layers(model)
        start, end = _last_stage(model, layers)
        first = {"head": end, "last_stage": start, "all": 0}[self.part]
        for number, outer in enumerate(layers):
            # Each by itself: Keras on TensorFlow does not pass a value on to
            # the layers within where the outer one has it already.
            for layer in flatten_layers(outer):
                norm = isinstance(layer, keras.layers.BatchNormalization)
                frozen = norm and not self.batch_normalization
                layer.trainable = number >= first and not frozen
        if not model.trainable_variables:
            raise ValueError(
                f"{model.name!r} has nothing to train in the part "
                f"{self.part!r}; was it built without its classifier?"
            )


def phase_ends(phases, epochs):
    """The last epoch of each phase, in proportion, at least one epoch each.

    Args:
        phases: `Phase`s, whose fractions add up to 1.
        epochs: of all phases together.

    Raises:
        ValueError: fewer epochs than phases.
    """
    if epochs < len(phases):
        raise ValueError(
            f"{len(phases)} phases need at least {len(phases)} epochs. "
            f"Received: epochs={epochs}"
        )
    fractions = np.cumsum([phase.fraction for phase in phases])
    earliest = np.arange(1, len(phases) + 1)
    latest = epochs + 1 - earliest[::-1]
    ends = np.clip(np.round(fractions * epochs), earliest, latest)
    return ends.astype(int).tolist()


def _layers(model):
    """The layers, those of models inside in the place of the model."""
    found = []
    for layer in model.layers:
        inside = isinstance(layer, keras.Model)
        found += _layers(layer) if inside else [layer]
    return found


def _last_stage(model, layers):
    """Numbers of its first layer and of the first one after it."""
    numbers = [
        int(found[1]) if (found := _STAGE.match(layer.name)) else 0
        for layer in layers
    ]
    last = max(numbers)
    if not last:
        raise ValueError(
            "Phases are for the networks of keras_csp, whose layers are named "
            f"by stage. Received: {model.name!r}, with layers "
            f"{[layer.name for layer in layers][:5]}, ..."
        )
    start = numbers.index(last)
    return start, len(numbers) - numbers[::-1].index(last)
