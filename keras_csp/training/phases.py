"""Fine-tuning in phases: which layers of a network are trained when."""

import dataclasses
import itertools
import math

import keras
import numpy as np

from keras_csp._keras_internals import flatten_layers
from keras_csp._validation import check_choice
from keras_csp.detection import Detector
from keras_csp.training.parts import flat_layers, layer_groups

# What a phase trains, from the end of the network backwards.
CLASSIFIER_PARTS = ("head", "last_stage", "all")
DETECTOR_PARTS = ("head", "neck", "all")
PARTS = ("head", "neck", "last_stage", "all")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a fine-tuning.

    Attributes:
        part: of a classifier: "head" trains what comes after the last stage,
            "last_stage" that stage too. Of a detector: "head" trains the last
            convolution of each head, "neck" everything after the backbone.
            "all" trains the whole network.
        fraction: of the epochs.
        learning_rate_factor: the recipe's learning rate is multiplied by it.
            Default 1.
        batch_normalization: whether batch normalization is trained, scales
            and statistics, where the layers are. Default False: frozen.

    Raises:
        ValueError: an unknown `part`, or a number out of range.
    """

    part: str
    fraction: float
    learning_rate_factor: float = 1.0
    batch_normalization: bool = False

    def __post_init__(self):
        check_choice("part", self.part, PARTS)
        for name, most in (("fraction", 1), ("learning_rate_factor", math.inf)):
            value = getattr(self, name)
            if not 0 < value <= most or value == math.inf:
                raise ValueError(
                    f"`{name}` of a phase must be above 0"
                    f"{' and at most 1' if most == 1 else ''}. Received: "
                    f"{name}={value!r}"
                )

    def apply(self, model):
        """Makes the layers of a network trainable or not.

        A detector is any `keras_csp.Detector`; a classifier is a network of
        this package, or another functional model of images, whose last stage
        is what makes the maps of its largest stride.
        `keras_csp.training.layer_groups` shows what belongs where. Compile
        the model afterwards: Keras reads there what is trainable.

        Raises:
            ValueError: a part that the model does not have, a model without
                feature maps, or nothing to train in that part.
        """
        trained = self._trained(model)
        for outer in flat_layers(model):
            # Each by itself: Keras on TensorFlow does not pass a value on to
            # the layers within where the outer one has it already.
            for layer in flatten_layers(outer):
                norm = isinstance(layer, keras.layers.BatchNormalization)
                frozen = norm and not self.batch_normalization
                layer.trainable = outer in trained and not frozen
        if not model.trainable_variables:
            raise ValueError(
                f"{model.name!r} has nothing to train in the part "
                f"{self.part!r}; was it built without its classifier?"
            )

    def _trained(self, model):
        """The layers of the part, of those that `flat_layers` gives."""
        detector = isinstance(model, Detector)
        kind = "detector" if detector else "classifier"
        parts = DETECTOR_PARTS if detector else CLASSIFIER_PARTS
        if self.part not in parts:
            raise ValueError(
                f"{model.name!r}, a {kind}, has the parts {', '.join(parts)}. "
                f"Received: part={self.part!r}"
            )
        groups = layer_groups(model)
        if "layer1" in groups or (not detector and len(groups) == 1):
            raise ValueError(
                "Phases are for the networks of keras_csp and other models "
                f"with feature maps. Received: {model.name!r}, with layers "
                f"{[layer.name for layer in flat_layers(model)][:5]}, ..."
            )
        if self.part == "all":
            return set(flat_layers(model))
        count = 1 if self.part == "head" else 2
        chosen = itertools.islice(groups.values(), count)
        return set(itertools.chain.from_iterable(chosen))


def check_phases(phases, parts):
    """Phases or their dicts as a tuple of `Phase`s.

    Args:
        phases: none, or those of a whole fine-tuning.
        parts: that they may train.

    Raises:
        ValueError: another part, or fractions that do not add up to 1.
    """
    phases = tuple(
        phase if isinstance(phase, Phase) else Phase(**phase)
        for phase in phases
    )
    for phase in phases:
        check_choice("part", phase.part, parts)
    fractions = [phase.fraction for phase in phases]
    if phases and abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "The fractions of `phases` must add up to 1. Received: "
            f"{', '.join(f'{fraction:g}' for fraction in fractions)}"
        )
    return phases


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
