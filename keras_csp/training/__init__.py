"""Training: recipes, schedules, checkpoints, runs, devices and hosts."""

from keras_csp.training import recipes
from keras_csp.training.checkpoint import TrainingState

__all__ = ["TrainingState", "recipes"]
