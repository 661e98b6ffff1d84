"""Training recipes as data: the paper's, and one for small data sets."""

import dataclasses

import keras

from keras_csp.layers.composite import check_choice, check_positive

DECAYS = ("steps", "cosine")


@keras.saving.register_keras_serializable(package="keras_csp")
class BurnIn(keras.optimizers.schedules.LearningRateSchedule):
    """lr(i) = (i / burn_in)^power schedule(i) for i < burn_in, Darknet's.

    Args:
        schedule: a `LearningRateSchedule`, or a number, that holds from
            `burn_in` on.
        burn_in: steps. Default 1000.
        power: default 4.
    Source: Darknet, src/network.c, get_current_rate.
    """

    def __init__(self, schedule, burn_in=1000, power=4):
        self.schedule = schedule
        self.burn_in = check_positive("burn_in", burn_in)
        self.power = power

    def __call__(self, step):
        rate = self.schedule
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(step)
        share = keras.ops.cast(step, "float32") / self.burn_in
        return rate * keras.ops.minimum(share, 1.0) ** self.power

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "burn_in": self.burn_in,
            "power": self.power,
        }

    @classmethod
    def from_config(cls, config):
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        return cls(**{**config, "schedule": schedule})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; `optimizer` makes it so.

    Attributes:
        optimizer_name: "sgd" or "adamw".
        learning_rate: the largest.
        momentum: of SGD.
        weight_decay: L2 penalty of the kernels, as Darknet's `decay`.
        batch_size: images for one step.
        steps: of the whole training.
        burn_in, burn_in_power: as `BurnIn`.
        decay: "steps" multiplies by 0.1 at each of `drops`; "cosine" falls
            to zero along a half cosine.
        drops: shares of the training.
        sizes: sides of the images, one drawn for each batch.
        clip_norm: the gradient's norm is cut to it. Default None: not cut.
        source: where it comes from.
    """

    name: str
    optimizer_name: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    steps: int
    burn_in: int
    decay: str
    sizes: tuple
    source: str
    momentum: float = 0.9
    burn_in_power: float = 4
    drops: tuple = ()
    clip_norm: float | None = None

    def schedule(self, steps=None):
        """The learning rate by step; `steps` scales the whole to another
        length, the burn-in to no more than a tenth of it."""
        steps = steps or self.steps
        check_choice("decay", self.decay, DECAYS)
        if self.decay == "cosine":
            after = keras.optimizers.schedules.CosineDecay(
                self.learning_rate, steps
            )
        else:
            rates = [
                self.learning_rate * 0.1**n for n in range(len(self.drops) + 1)
            ]
            after = keras.optimizers.schedules.PiecewiseConstantDecay(
                [round(share * steps) for share in self.drops], rates
            )
        burn_in = max(1, min(self.burn_in, steps // 10))
        return BurnIn(after, burn_in, self.burn_in_power)

    def optimizer(self, steps=None):
        """A Keras optimizer with the schedule over `steps`."""
        options = {
            "learning_rate": self.schedule(steps),
            "global_clipnorm": self.clip_norm,
        }
        if self.optimizer_name == "sgd":
            # Keras subtracts lr * decay * w apart from the momentum; within
            # it, as in Darknet, the same decay counts 1 / (1 - momentum).
            made = keras.optimizers.SGD(
                momentum=self.momentum,
                weight_decay=self.weight_decay / (1 - self.momentum),
                **options,
            )
        else:
            made = keras.optimizers.AdamW(
                weight_decay=self.weight_decay, **options
            )
        # Darknet decays kernels only.
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return made


# Darknet's random=1: a side of 416 times 1/1.4 to 1.4, in steps of 32.
_MULTI_SCALE = tuple(range(288, 608, 32))

PAPER_DETECTION = Recipe(
    name="paper-detection",
    optimizer_name="sgd",
    learning_rate=0.001,
    weight_decay=0.0005,
    batch_size=64,
    steps=500_000,
    burn_in=1000,
    decay="steps",
    drops=(0.8, 0.9),
    sizes=_MULTI_SCALE,
    source="The CSPNet paper, section 4, and its authors' cfg files: on COCO, "
    "from a backbone trained on ImageNet.",
)

SMALL_DETECTION = Recipe(
    name="small-detection",
    optimizer_name="adamw",
    learning_rate=0.002,
    weight_decay=0.05,
    batch_size=8,
    steps=4_000,
    burn_in=100,
    burn_in_power=1,
    decay="cosine",
    sizes=(416,),
    clip_norm=100.0,
    source="Ours, for some hundred images and no pretrained weights.",
)

RECIPES = {r.name: r for r in (PAPER_DETECTION, SMALL_DETECTION)}


def get_recipe(name):
    """The recipe called `name`; ValueError names those there are."""
    return RECIPES[check_choice("recipe", name, tuple(RECIPES))]
