"""Training recipes as data: the paper's, and some for small data sets."""

import dataclasses
import re

import keras

from keras_csp._validation import check_choice, check_positive

DECAYS = ("steps", "cosine", "polynomial")
# What a phase trains: the classifier, the last stage too, or everything.
PARTS = ("head", "last_stage", "all")
_STAGE = re.compile(r"stage([0-9]+)")


@keras.saving.register_keras_serializable(package="keras_csp")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """lr(i) = (i / warmup)^power schedule(0) for i < warmup, Darknet's.

    Args:
        schedule: a `LearningRateSchedule`, or a number, that holds from
            `warmup` on.
        warmup: steps; 0 for none, so that the first one counts, too.
            Default 1000.
        power: default 4.
        accumulation: batches whose gradients are added up for one step, where
            Keras counts batches. Default 1.
    Source: Darknet, src/network.c, get_current_rate.
    """

    def __init__(self, schedule, warmup=1000, power=4, accumulation=1):
        self.schedule = schedule
        self.warmup = check_positive("warmup", warmup) if warmup else 0
        self.power = power
        self.accumulation = check_positive("accumulation", accumulation)

    def __call__(self, step):
        step = step // self.accumulation
        rate = self.schedule
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(keras.ops.where(step < self.warmup, 0, step))
        if not self.warmup:
            return rate
        share = keras.ops.cast(step, "float32") / self.warmup
        return rate * keras.ops.minimum(share, 1.0) ** self.power

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


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a fine-tuning.

    Attributes:
        part: "head" trains what comes after the last stage, "last_stage" that
            stage too, "all" everything.
        share: of the epochs.
        learning_rate: its largest, by that of the recipe.
        batch_normalization: whether its scales and statistics are trained,
            where the layers are. Default False: frozen as they were.
    """

    part: str
    share: float
    learning_rate: float
    batch_normalization: bool = False

    def apply(self, model):
        """Sets what of a network of this package is trained.

        Compile after it: Keras takes what is trainable from there.

        Raises:
            ValueError: an unknown `part`, a model without stages, or one
                without anything to train there.
        """
        check_choice("part", self.part, PARTS)
        start, end = _last_stage(model)
        first = {"head": end, "last_stage": start, "all": 0}[self.part]
        for number, outer in enumerate(model.layers):
            # Each by itself: Keras on TensorFlow does not pass a value on to
            # the layers within where the outer one has it already.
            for layer in outer._flatten_layers():
                norm = isinstance(layer, keras.layers.BatchNormalization)
                frozen = norm and not self.batch_normalization
                layer.trainable = number >= first and not frozen
        if not model.trainable_variables:
            raise ValueError(
                f"{model.name!r} has nothing to train in the part "
                f"{self.part!r}; is it without its classifier?"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained; `optimizer` makes it so.

    Attributes:
        optimizer_name: "sgd" or "adamw".
        learning_rate: the largest.
        momentum: of SGD.
        weight_decay: L2 penalty of the kernels, as Darknet's `decay`.
        label_smoothing: share of a label spread over all classes.
        batch_size: images for one step.
        steps: of the whole training.
        warmup, warmup_power: as `Warmup`.
        decay: "steps" multiplies by 0.1 at each of `drops`; "cosine" falls
            to zero along a half cosine; "polynomial" as (1 - i / steps)^4.
        drops: shares of the training.
        sizes: sides of the images, one drawn for each batch.
        phases: tuple of `Phase`, one after another. Default none.
        clip_norm: the gradient's norm is cut to it. Default None: not cut.
        source: where it comes from.
    """

    name: str
    optimizer_name: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    steps: int
    warmup: int
    decay: str
    sizes: tuple
    source: str
    momentum: float = 0.9
    warmup_power: float = 4
    drops: tuple = ()
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    phases: tuple = ()

    def batches(self, images):
        """How many whole batches so many images are; ValueError for none."""
        if images < self.batch_size:
            raise ValueError(
                f"There are fewer images, {images}, than a batch has. "
                f"Received: batch_size={self.batch_size}"
            )
        return images // self.batch_size

    def epochs(self, images, accumulation=1):
        """Rounds through so many images that its steps take, at least one.

        Args:
            images: how many there are.
            accumulation: batches of one step. Default 1.
        """
        steps = self.batches(images) / accumulation
        return max(1, round(self.steps / steps))

    def crop_side(self, size):
        """The side whose crops and ten-crop shift a network of `size` has.

        The paper has those of 256 pixels for its networks of 224, too; for
        other sizes, and by other recipes, they are in proportion to `size`.
        """
        if self.name.startswith("paper-") and size in (224, 256):
            return 256
        return size

    def schedule(self, steps=None, accumulation=1):
        """The learning rate by step.

        Args:
            steps: batches of the whole training, which is scaled to them, the
                burn-in to no more than a tenth of it. Default: the recipe's.
            accumulation: batches whose gradients are added up for one step.
                Default 1.
        """
        steps, warmup = self._lengths(steps, accumulation)
        schedules = keras.optimizers.schedules
        check_choice("decay", self.decay, DECAYS)
        if self.decay == "cosine":
            after = schedules.CosineDecay(self.learning_rate, steps)
        elif self.decay == "polynomial":
            after = schedules.PolynomialDecay(
                self.learning_rate, steps, end_learning_rate=0.0, power=4
            )
        else:
            rates = [
                self.learning_rate * 0.1**n for n in range(len(self.drops) + 1)
            ]
            after = schedules.PiecewiseConstantDecay(
                [round(share * steps) for share in self.drops], rates
            )
        return Warmup(after, warmup, self.warmup_power, accumulation)

    def _lengths(self, steps, accumulation):
        """Steps of the whole training, and of its burn-in."""
        steps = max(1, steps // accumulation) if steps else self.steps
        return steps, min(self.warmup, steps // 10)

    def optimizer(self, steps=None, accumulation=1, ema=None, rate=1.0):
        """A Keras optimizer with the schedule over `steps`.

        Args:
            steps, accumulation: as of `schedule`.
            ema: momentum, by step, of a moving average of the weights, which
                Keras puts in their place at the end of `fit`. Default None:
                no average.
            rate: the learning rate is multiplied by it. Default 1.

        Raises:
            ValueError: the rate is not positive, or what Keras refuses.
        """
        recipe = dataclasses.replace(
            self, learning_rate=self.learning_rate * rate
        )
        if not 0 < recipe.learning_rate < float("inf"):
            raise ValueError(
                "The learning rate must be positive. Received: "
                f"{recipe.learning_rate}"
            )
        options = {
            "learning_rate": recipe.schedule(steps, accumulation),
            "global_clipnorm": self.clip_norm,
            "use_ema": ema is not None,
            # Keras averages after every batch, the steps' and the others.
            "ema_momentum": 0.99 if ema is None else ema ** (1 / accumulation),
            "gradient_accumulation_steps": (
                None if accumulation == 1 else accumulation
            ),
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

    def loss(self):
        """Cross-entropy of one-hot labels, smoothed.

        Raises:
            ValueError: `label_smoothing` is out of range.
        """
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be from 0 to below 1. Received: "
                f"label_smoothing={self.label_smoothing}"
            )
        return keras.losses.CategoricalCrossentropy(
            label_smoothing=self.label_smoothing
        )

    def summary(self, steps=None, accumulation=1):
        """One line, to print, with the burn-in of `schedule`.

        Args:
            steps, accumulation: as of `schedule`.
        """
        _, warmup = self._lengths(steps, accumulation)
        rate = f"{self.optimizer_name} {self.learning_rate:g}"
        phases = "".join(
            f"; {p.part} for {p.share:.0%}, rate x{p.learning_rate:g}"
            for p in self.phases
        )
        return (
            f"recipe {self.name}: {rate}, {self.decay} decay, burn-in "
            f"{warmup} steps, weight decay {self.weight_decay:g}, batch "
            f"{self.batch_size}, label smoothing {self.label_smoothing:g}"
            f"{phases}"
        )


# Darknet's random=1: a side of 416 times 1/1.4 to 1.4, in steps of 32.
_MULTI_SCALE = tuple(range(288, 608, 32))

PAPER_DETECTION = Recipe(
    name="paper-detection",
    optimizer_name="sgd",
    learning_rate=0.001,
    weight_decay=0.0005,
    batch_size=64,
    steps=500_000,
    warmup=1000,
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
    warmup=100,
    warmup_power=1,
    decay="cosine",
    sizes=(416,),
    clip_norm=100.0,
    source="Ours, for some hundred images and no pretrained weights.",
)

PAPER_CLASSIFICATION = Recipe(
    name="paper-classification",
    optimizer_name="sgd",
    learning_rate=0.1,
    weight_decay=0.0005,
    batch_size=128,
    steps=800_000,
    warmup=1000,
    decay="polynomial",
    sizes=(256,),
    source="The CSPNet paper, section 4, and its authors' cfg files, which "
    "have a tenth of the weight decay and of the steps that the text has.",
)

PAPER_CLASSIFICATION_DENSE = dataclasses.replace(
    PAPER_CLASSIFICATION,
    name="paper-classification-dense",
    steps=1_600_000,
    sizes=(224,),
    source="As paper-classification, for networks based on DenseNet and "
    "PeleeNet, whose images are smaller.",
)

SMALL_CLASSIFICATION = Recipe(
    name="small-classification",
    optimizer_name="adamw",
    learning_rate=0.002,
    weight_decay=0.05,
    batch_size=64,
    steps=4_000,
    warmup=100,
    warmup_power=1,
    decay="cosine",
    sizes=(64,),
    clip_norm=10.0,
    label_smoothing=0.1,
    source="Ours, for some thousand images.",
)

FINE_TUNING = dataclasses.replace(
    SMALL_CLASSIFICATION,
    name="fine-tuning",
    phases=(
        Phase("head", share=0.1, learning_rate=1.0),
        Phase("last_stage", share=0.1, learning_rate=0.5),
        Phase("all", share=0.8, learning_rate=0.5, batch_normalization=True),
    ),
    source="Ours: a pretrained network to a new set, from its end backwards.",
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        PAPER_CLASSIFICATION,
        PAPER_CLASSIFICATION_DENSE,
        SMALL_CLASSIFICATION,
        FINE_TUNING,
        PAPER_DETECTION,
        SMALL_DETECTION,
    )
}


def get_recipe(name, **changes):
    """The recipe called `name`; ValueError names those there are.

    Args:
        name: of `RECIPES`.
        **changes: fields with other values; None leaves a field as it is.
    """
    recipe = RECIPES[check_choice("recipe", name, tuple(RECIPES))]
    changes = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(recipe, **changes)


def _last_stage(model):
    """Numbers of its first layer and of the first one after it."""
    numbers = [
        int(found[1]) if (found := _STAGE.match(layer.name)) else 0
        for layer in model.layers
    ]
    last = max(numbers)
    if not last:
        raise ValueError(
            "Phases are for the networks of keras_csp, whose layers are named "
            f"by stage. Received: {model.name!r}, with layers "
            f"{[layer.name for layer in model.layers][:5]}, ..."
        )
    start = numbers.index(last)
    return start, len(numbers) - numbers[::-1].index(last)
