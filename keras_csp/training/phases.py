"""Fine-tuning in phases: which layers of a network are trained when."""

import collections
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


def fit_in_phases(
    model,
    recipe,
    data,
    validation=None,
    epochs=None,
    state=None,
    seed=0,
    compile_options=None,
    callbacks=(),
    **fit_options,
):
    """Trains a model by a recipe, one of its phases after another.

        state = TrainingState("runs/mine", monitor="val_AP50")
        fit_in_phases(detector, recipe, data, validation, 50, state)

    Each phase has its layers, its learning rate, from warmup to the end of
    the decay, and an optimizer of its own; it begins with the weights that
    the phase before ended with, their moving averages where the recipe has
    `ema`. A recipe without phases trains the layers that are trainable.

    Args:
        model: a classifier or a `keras_csp.Detector`. It is compiled here.
        recipe: a `ClassificationRecipe` or `DetectionRecipe`.
        data: `keras_csp.data.ClassificationData` or `DetectionData`.
        validation: likewise, for a validation after every epoch. Default
            None.
        epochs: of all phases. Default: as many as the recipe's steps take.
        state: a `TrainingState`. What its folder has is resumed, at the end
            the model gets the best epoch, if it monitors a value, and
            finished trainings are only loaded. Default None: from the
            beginning, and the last epoch.
        seed: of the batches, to which the number of finished epochs is added.
            Default 0.
        compile_options: a dict for `compile`, e.g. {"metrics": ["accuracy"]}.
        callbacks: further ones for `fit`.
        **fit_options: of `fit`, e.g. `verbose`, `validation_freq`.

    Returns:
        {name: values}, as `keras.callbacks.History.history`, of all phases;
        `phase_ends` tells their last epochs.

    Raises:
        ValueError: fewer epochs than phases, a part that the model does not
            have, or a state of another model.
    """
    epochs = epochs or recipe.epochs(data.size)
    phases = recipe.phases or (None,)
    ends = phase_ends(phases, epochs) if recipe.phases else [epochs]
    finished = state.finished() if state else 0
    logs = collections.defaultdict(list)
    for phase, start, end in zip(phases, [0, *ends], ends):
        if end < min(finished, epochs):
            continue  # the state is of a later phase
        this = _begin_phase(model, recipe, phase, end - start, data)
        model.compile(
            this.make_optimizer(model),
            this.make_loss(),
            **compile_options or {},
        )
        begin = state.restore(model) if finished > start else start
        if begin >= end:
            # As `fit` ends, with averaged weights if there are such.
            model.optimizer.finalize_variable_values(model.trainable_variables)
            continue
        if phase and fit_options.get("verbose", 1):
            print(f"epochs {begin + 1} to {end} train: {phase.part}")
        history = model.fit(
            this.training(data, model, seed + begin),
            validation_data=validation and this.evaluation(validation, model),
            epochs=end,
            initial_epoch=begin,
            callbacks=[*this.callbacks(), *callbacks, *([state] * bool(state))],
            shuffle=False,  # the data set shuffles itself
            **fit_options,
        ).history
        for name, values in history.items():
            logs[name] += values
    if state and state.best:
        state.restore_best(model)
    return _columns(state.history) if state else dict(logs)


def _begin_phase(model, recipe, phase, epochs, data):
    """Makes the layers of a phase trainable; its recipe."""
    if phase is not None:
        phase.apply(model)
    return recipe.for_phase(phase, epochs, data.size)


def _columns(rows):
    """{name: its values} of a list of dicts, "epoch" left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: [row[name] for row in rows if name in row]
        for name in names
        if name != "epoch"
    }
