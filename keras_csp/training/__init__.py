"""Training: recipes, schedules, phases, checkpoints, runs, several machines."""

from keras_csp.training import recipes
from keras_csp.training.averaging import average_checkpoints
from keras_csp.training.checkpoint import TrainingState
from keras_csp.training.layer_decay import with_layer_decay
from keras_csp.training.parts import layer_groups
from keras_csp.training.phases import Phase, fit_in_phases
from keras_csp.training.recipes import (
    ClassificationRecipe,
    DetectionRecipe,
    get_recipe,
)
from keras_csp.training.schedules import Warmup

__all__ = [
    "ClassificationRecipe",
    "DetectionRecipe",
    "Phase",
    "TrainingState",
    "Warmup",
    "average_checkpoints",
    "fit_in_phases",
    "get_recipe",
    "layer_groups",
    "recipes",
    "with_layer_decay",
]
