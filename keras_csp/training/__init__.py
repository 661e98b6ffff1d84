"""Training: recipes, schedules, phases, checkpoints, runs, several machines."""

from keras_csp.training import recipes
from keras_csp.training.checkpoint import TrainingState
from keras_csp.training.phases import Phase
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
    "get_recipe",
    "recipes",
]
