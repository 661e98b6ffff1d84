"""Learning rates by step: Darknet's warmup, then one of three decays."""

import itertools

import keras

from keras_csp._validation import check_choice, check_positive

DECAYS = ("constant", "steps", "cosine", "polynomial")
# As Darknet's cfg files: policy=poly with power=4, and scales=.1,.1.
_POLYNOMIAL_POWER = 4
_DROP_FACTOR = 0.1


@keras.saving.register_keras_serializable(package="keras_csp")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """lr(i) = (i / warmup)^power schedule(0) for i < warmup, Darknet's.

    Args:
        schedule: a `LearningRateSchedule`, or a number, that holds from
            `warmup` on.
        warmup: number of steps; 0 for none: the first step then has the full
            learning rate. Default 1000.
        power: default 4.
        accumulation: batches whose gradients are added up for one step, where
            Keras counts batches. Default 1.

    Raises:
        ValueError: `warmup` or `accumulation` is out of range.
    Source: Darknet, src/network.c, get_current_rate.
    """

    def __init__(self, schedule, warmup=1000, power=4, accumulation=1):
        self.schedule = schedule
        self.warmup = check_positive("warmup", warmup) if warmup else 0
        self.power = power
        self.accumulation = check_positive("accumulation", accumulation)

    def __call__(self, step):
        step = step // self.accumulation
        learning_rate = self.schedule
        if callable(learning_rate):
            start = keras.ops.where(step < self.warmup, 0, step)
            learning_rate = learning_rate(start)
        if not self.warmup:
            return learning_rate
        fraction = keras.ops.cast(step, "float32") / self.warmup
        fraction = keras.ops.minimum(fraction, 1.0)
        return learning_rate * fraction**self.power

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "warmup": self.warmup,
            "power": self.power,
            "accumulation": self.accumulation,
        }

    @classmethod
    def from_config(cls, config):
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        return cls(**{**config, "schedule": schedule})


def make_decay(decay, learning_rate, steps, drops=(), factors=None):
    """The learning rate after the warmup.

    Args:
        decay: "constant"; "steps": multiplied by one of `factors` at each of
            `drops`; "cosine": lr (1 + cos(pi i / steps)) / 2; "polynomial": lr
            (1 - i / steps)^4.
        learning_rate: the first one.
        steps: of the whole training.
        drops: fractions of the training, only for "steps".
        factors: as many numbers. Default: 0.1 each.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: an unknown `decay`, or not as many factors as drops.
    """
    if factors is None:
        factors = [_DROP_FACTOR] * len(drops)
    if len(factors) != len(drops):
        raise ValueError(
            f"There must be a factor for each of {len(drops)} drops. Received: "
            f"{len(factors)} factors"
        )
    schedules = keras.optimizers.schedules
    check_choice("decay", decay, DECAYS)
    if decay == "cosine":
        return schedules.CosineDecay(learning_rate, steps)
    if decay == "polynomial":
        return schedules.PolynomialDecay(
            learning_rate,
            steps,
            end_learning_rate=0.0,
            power=_POLYNOMIAL_POWER,
        )
    if decay == "constant" or not drops:
        return schedules.ExponentialDecay(learning_rate, steps, 1.0)
    rates = itertools.accumulate(
        factors, lambda rate, factor: rate * factor, initial=learning_rate
    )
    return schedules.PiecewiseConstantDecay(
        [round(fraction * steps) for fraction in drops], list(rates)
    )
