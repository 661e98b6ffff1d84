"""Training recipes as data: the paper's, and some for small data sets."""

import dataclasses
import json
import math
import pathlib
from typing import ClassVar

import keras

from keras_csp._validation import check_choice, check_positive
from keras_csp.layers.preprocessing import with_image_spec
from keras_csp.training.layer_decay import check_decay, with_layer_decay
from keras_csp.training.phases import (
    CLASSIFIER_PARTS,
    DETECTOR_PARTS,
    Phase,
    check_phases,
)
from keras_csp.training.schedules import DECAYS, Warmup, make_decay

OPTIMIZERS = ("sgd", "adamw")
# The largest stride of the networks: it divides every side of a detector's.
_STRIDE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; what both kinds of recipe have.

    Attributes:
        name: of the recipe.
        source: where it comes from.
        optimizer: "sgd" or "adamw".
        learning_rate: the largest.
        momentum: of SGD. Default 0.9.
        weight_decay: L2 penalty of the kernels, as Darknet's `decay`.
        clip_norm: largest norm of the gradient. Default None: any.
        layer_decay: the learning rate of each group of layers further from
            the head is multiplied by it once more; `with_layer_decay`.
            Default 1.
        ema: momentum, for each step, of a moving average of the weights,
            which Keras puts in their place at the end of `fit`. With
            `callbacks` they are validated, too. `fit_in_phases` lowers it for
            a short training. Default None: no average.
        batch_size: images of a batch.
        accumulation: batches whose gradients are added up for one step.
            Default 1.
        steps: of the whole training.
        warmup, warmup_power: as of `Warmup`; `warmup` is at most a tenth of
            `steps`.
        decay: "constant", "steps", "cosine" or "polynomial", as of
            `make_decay`.
        drops: fractions of the training, for "steps".
        drop_factors: what the learning rate is multiplied by at each of them.
            Default: 0.1.
        size: side of the network's input, in pixels.
        augmentation: the arguments of the augmentation, as a dict, or the
            augmentation itself.
        label_smoothing: fraction of a label that is spread over all classes.
        phases: `Phase`s of a fine-tuning, one after another, of parts that
            networks of this kind have. Default none.

    Raises:
        ValueError: a value out of range.
    """

    kind: ClassVar[str]
    parts: ClassVar[tuple]

    name: str
    source: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    batch_size: int
    steps: int
    warmup: int
    decay: str
    size: int
    augmentation: dict
    momentum: float = 0.9
    warmup_power: float = 4
    drops: tuple = ()
    drop_factors: tuple | None = None
    clip_norm: float | None = None
    layer_decay: float = 1.0
    ema: float | None = None
    accumulation: int = 1
    label_smoothing: float = 0.0
    phases: tuple = ()

    def __post_init__(self):
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("decay", self.decay, DECAYS)
        for name in ("batch_size", "steps", "accumulation"):
            check_positive(name, getattr(self, name))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                "`learning_rate` must be positive. Received: "
                f"learning_rate={self.learning_rate}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` must be from 0 to below 1. Received: "
                f"label_smoothing={self.label_smoothing}"
            )
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(
                f"`ema` must be from 0 to below 1. Received: ema={self.ema}"
            )
        check_decay("layer_decay", self.layer_decay)
        augmentation = self.augmentation
        if dataclasses.is_dataclass(augmentation):
            augmentation = dataclasses.asdict(augmentation)
        # A copy, since recipes share their dicts.
        object.__setattr__(self, "augmentation", dict(augmentation))
        object.__setattr__(self, "drops", tuple(self.drops))
        if self.drop_factors is not None:
            factors = tuple(self.drop_factors)
            object.__setattr__(self, "drop_factors", factors)
        phases = check_phases(self.phases, self.parts)
        object.__setattr__(self, "phases", phases)

    def replace(self, **changes):
        """The recipe with other values; None leaves a field as it is."""
        changes = {k: v for k, v in changes.items() if v is not None}
        return dataclasses.replace(self, **changes)

    def with_augmentation(self, **changes):
        """The recipe with other values in its augmentation; None changes none.

        Args:
            **changes: arguments of the augmentation.
        """
        changes = {k: v for k, v in changes.items() if v is not None}
        return self.replace(augmentation={**self.augmentation, **changes})

    def batches(self, images):
        """The number of batches in an epoch of so many images."""
        return -(-images // self.batch_size)

    def epochs(self, images):
        """Epochs of so many images that `steps` takes, at least one."""
        steps = self.batches(images) / self.accumulation
        return max(1, round(self.steps / steps))

    def for_epochs(self, epochs, images):
        """The recipe with the steps of `epochs` epochs of so many images."""
        batches = epochs * self.batches(images)
        return self.replace(steps=max(1, batches // self.accumulation))

    def for_phase(self, phase, epochs, images):
        """The recipe of one phase: its learning rate, its epochs.

        The moving average of a short phase forgets faster, so that at most
        e^-10 of the weights that the phase begins with is left at its end.

        Args:
            phase: a `Phase`; None for a training without phases.
            epochs: of the phase.
            images: of an epoch.
        """
        factor = 1.0 if phase is None else phase.learning_rate_factor
        recipe = self.replace(learning_rate=factor * self.learning_rate)
        recipe = recipe.for_epochs(epochs, images)
        if self.ema is None:
            return recipe
        return recipe.replace(ema=min(self.ema, math.exp(-10 / recipe.steps)))

    def make_schedule(self):
        """The learning rate by batch, a `Warmup`."""
        return Warmup(
            make_decay(
                self.decay,
                self.learning_rate,
                self.steps,
                self.drops,
                self.drop_factors,
            ),
            self._warmup_steps(),
            self.warmup_power,
            self.accumulation,
        )

    def _warmup_steps(self):
        return min(self.warmup, self.steps // 10)

    def make_optimizer(self, model=None):
        """The Keras optimizer, with its schedule.

        Args:
            model: that it will train, its layers frozen or not as they will
                be. Only `layer_decay` needs it; default None.

        Raises:
            ValueError: a `layer_decay` other than 1, and no `model`.
        """
        if self.layer_decay != 1 and model is None:
            raise ValueError(
                f"The recipe {self.name} needs the `model` for its optimizer. "
                f"Received: layer_decay={self.layer_decay}, model=None"
            )
        options = {
            "learning_rate": self.make_schedule(),
            "global_clipnorm": self.clip_norm,
            "use_ema": self.ema is not None,
            "gradient_accumulation_steps": (
                None if self.accumulation == 1 else self.accumulation
            ),
        }
        if self.ema is not None:
            # Keras averages after every batch, not after every step.
            options["ema_momentum"] = self.ema ** (1 / self.accumulation)
        if self.optimizer == "sgd":
            # Keras subtracts lr * decay * w apart from the momentum; within
            # it, as in Darknet, the same decay counts 1 / (1 - momentum).
            optimizer = keras.optimizers.SGD(
                momentum=self.momentum,
                weight_decay=self.weight_decay / (1 - self.momentum),
                **options,
            )
        else:
            optimizer = keras.optimizers.AdamW(
                weight_decay=self.weight_decay, **options
            )
        # Darknet decays kernels only.
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return with_layer_decay(optimizer, model, self.layer_decay)

    def callbacks(self):
        """The callbacks of `fit` that the recipe needs.

        With `ema` one that puts the averaged weights in the place of the
        others for each validation: else those are validated of which the
        average is made, which are not the result.
        """
        return [] if self.ema is None else [keras.callbacks.SwapEMAWeights()]

    def check(self):
        """Raises a ValueError where augmentation or loss are out of range."""
        try:
            self.make_augmentation()
        except TypeError as error:  # an argument that it does not have
            raise ValueError(
                f"The augmentation of the recipe {self.name}: {error}. "
                f"Received: {self.augmentation}"
            ) from error
        self.make_loss()

    def summary(self):
        """One line, to print."""
        batch = f"{self.batch_size}"
        if self.accumulation > 1:
            batch = f"{self.accumulation} x {batch}"
        line = (
            f"recipe {self.name}: {self.optimizer} {self.learning_rate:g}, "
            f"{self.decay} decay, {self.steps} steps, warmup "
            f"{self._warmup_steps()} steps, weight decay "
            f"{self.weight_decay:g}, batch {batch}, label smoothing "
            f"{self.label_smoothing:g}"
        )
        if self.layer_decay != 1:
            line += f", layer decay {self.layer_decay:g}"
        if self.ema is not None:
            line += f", moving average {self.ema:g}"
        return line

    def _phases_summary(self):
        return "".join(
            f"; {phase.part} for {phase.fraction:.0%}, learning rate x"
            f"{phase.learning_rate_factor:g}"
            for phase in self.phases
        )

    def get_config(self):
        """What `from_config` makes the recipe of, as JSON has it."""
        config = {"kind": self.kind, **dataclasses.asdict(self)}
        return json.loads(json.dumps(config))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """How a classifier is trained.

    Attributes:
        augmentation: of `keras_csp.data.ClassificationAugmentation`; the
            crops are those of `size`.
        drop_remainder: whether a smaller last batch of an epoch is left out.
            Default True.
        ten_crop_shift: pixels between the crops of `evaluate_ten_crop`.
        (the others): see `Recipe`.
    """

    kind: ClassVar[str] = "classification"
    parts: ClassVar[tuple] = CLASSIFIER_PARTS

    ten_crop_shift: int
    drop_remainder: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_positive("size", self.size)
        check_positive("ten_crop_shift", self.ten_crop_shift)

    def at_size(self, size):
        """The recipe for another size, its crops in proportion.

        Args:
            size: side in pixels; None leaves the recipe as it is.
        """
        if size is None:
            return self
        scale = size / self.size
        crops = {
            name: max(1, round(scale * self.augmentation[name]))
            for name in ("min_crop", "max_crop")
        }
        shift = max(1, round(scale * self.ten_crop_shift))
        recipe = self.replace(size=size, ten_crop_shift=shift)
        return recipe.with_augmentation(**crops)

    def batches(self, images):
        """The number of batches in an epoch of so many images.

        Raises:
            ValueError: fewer images than a batch, with `drop_remainder`.
        """
        if not self.drop_remainder:
            return super().batches(images)
        if images < self.batch_size:
            raise ValueError(
                f"There are fewer images, {images}, than a batch has. "
                f"Received: batch_size={self.batch_size}"
            )
        return images // self.batch_size

    def build(self, factory, data, **options):
        """A compiled network with random weights for these data.

        Args:
            factory: of `keras_csp.get_factory`.
            data: a `keras_csp.data.ClassificationData`.
            **options: of `keras.Model.compile`, e.g. `metrics`.

        Returns:
            A `keras.Model` whose `ImageSpec` has the size, the classes and the
            crop of `evaluation`.
        """
        model = factory(
            weights=None,
            input_shape=(self.size, self.size, data.channels),
            classes=len(data.class_names),
        )
        model = with_image_spec(
            model,
            size=self.size,
            resize="crop",
            crop=1.0,
            class_names=data.class_names,
        )
        model.compile(self.make_optimizer(model), self.make_loss(), **options)
        return model

    def make_augmentation(self):
        """The `keras_csp.data.ClassificationAugmentation`."""
        from keras_csp.data import ClassificationAugmentation

        return ClassificationAugmentation(**self.augmentation)

    def make_loss(self):
        """Cross-entropy with one-hot labels, smoothed."""
        return keras.losses.CategoricalCrossentropy(
            label_smoothing=self.label_smoothing
        )

    def training(self, data, model=None, seed=0):
        """The batches to train on.

        Args:
            data: a `keras_csp.data.ClassificationData`.
            model: the network, whose channels the images get. Default None:
                those of the images.
            seed: default 0.
        """
        return data.training(
            self.batch_size,
            model or self.size,
            self.make_augmentation(),
            seed,
            drop_remainder=self.drop_remainder,
        )

    def evaluation(self, data, model=None):
        """The batches to test on.

        Args:
            data: a `keras_csp.data.ClassificationData`.
            model: the network, whose `ImageSpec` is followed. Default None:
                the square in the middle, as the paper.
        """
        return data.evaluation(self.batch_size, model or self.size)

    def summary(self):
        return super().summary() + self._phases_summary()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Recipe):
    """How a detector is trained.

    Attributes:
        size: side of the input or (height, width), multiples of 32, for which
            anchors are fitted and average precision is measured.
        sizes: those of the training images, one drawn for each batch.
        augmentation: of `keras_csp.data.DetectionAugmentation`.
        box_loss: "mse", "iou", "giou", "diou" or "ciou", as of `YoloLoss`;
            likewise the next five. Default None: what each head says, see
            `keras_csp.layers.LossOptions`; for `label_smoothing` 0 says so.
        anchor_threshold, ignore_threshold, box_weight, objectness_weight,
            class_weight: default None.
        evaluation_batch_size: images of a batch of a validation. Default 8.
        (the others): see `Recipe`.
    """

    kind: ClassVar[str] = "detection"
    parts: ClassVar[tuple] = DETECTOR_PARTS

    sizes: tuple
    box_loss: str | None = None
    anchor_threshold: float | None = None
    ignore_threshold: float | None = None
    box_weight: float | None = None
    objectness_weight: float | None = None
    class_weight: float | None = None
    evaluation_batch_size: int = 8

    def __post_init__(self):
        super().__post_init__()
        check_positive("evaluation_batch_size", self.evaluation_batch_size)
        if not self.sizes:
            raise ValueError("`sizes` must have at least one. Received: ()")
        object.__setattr__(self, "size", _check_size(self.size))
        sizes = tuple(_check_size(size) for size in self.sizes)
        object.__setattr__(self, "sizes", sizes)

    def at_size(self, size):
        """The recipe for another size, its `sizes` in proportion.

        Args:
            size: side or (height, width) in pixels; None leaves the recipe as
                it is.
        """
        if size is None:
            return self
        size = _check_size(size)
        before, after = _pair(self.size), _pair(size)
        sizes = [
            tuple(
                max(1, round(side * new / old / _STRIDE)) * _STRIDE
                for side, new, old in zip(_pair(its), after, before)
            )
            for its in self.sizes
        ]
        sizes = dict.fromkeys(_check_size(pair) for pair in sizes)
        return self.replace(size=size, sizes=tuple(sizes))

    def make_augmentation(self):
        """The `keras_csp.data.DetectionAugmentation`."""
        from keras_csp.data import DetectionAugmentation

        return DetectionAugmentation(**self.augmentation)

    def make_loss(self):
        """The `keras_csp.detection.YoloLoss`."""
        from keras_csp.detection import YoloLoss

        return YoloLoss(
            self.box_loss,
            ignore_threshold=self.ignore_threshold,
            anchor_threshold=self.anchor_threshold,
            box_weight=self.box_weight,
            objectness_weight=self.objectness_weight,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing or None,
        )

    def training(self, data, model=None, seed=0):
        """The batches to train on.

        Args:
            data: a `keras_csp.data.DetectionData`.
            model: the detector, whose `ImageSpec` is followed. Default None:
                letterboxed images.
            seed: default 0.
        """
        return data.training(
            self.batch_size,
            model or self.size,
            augmentation=self.make_augmentation(),
            seed=seed,
            sizes=self.sizes,
        )

    def evaluation(self, data, model=None):
        """The batches to test on.

        Args:
            data: a `keras_csp.data.DetectionData`.
            model: the detector, whose `ImageSpec` is followed; it must have a
                size. Default None: letterboxed images of `size`.
        """
        return data.evaluation(self.evaluation_batch_size, model or self.size)

    def summary(self):
        sizes = ", ".join(
            "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
            for size in self.sizes
        )
        loss = "the heads' own loss"
        given = self.make_loss().options
        if given:
            loss = ", ".join(f"{k} {v}" for k, v in given.items())
        return (
            f"{super().summary()}; {loss}; sizes {sizes}"
            f"{self._phases_summary()}"
        )


def _pair(size):
    return size if isinstance(size, tuple) else (size, size)


def _check_size(size):
    """A side, or (height, width) where the two differ: multiples of 32."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or any(
        check_positive("size", side) % _STRIDE for side in pair
    ):
        raise ValueError(
            f"`size` and `sizes` must be sides or (height, width), multiples "
            f"of {_STRIDE}. Received: {size!r}"
        )
    return int(pair[0]) if pair[0] == pair[1] else tuple(map(int, pair))


# Every field of the augmentations, so that a saved recipe is complete.
_PAPER_CLASSIFICATION_VIEWS = {
    "min_crop": 128,
    "max_crop": 448,
    "angle": 7.0,
    "aspect": 0.75,
    "flip": 0.5,
    "hue": 0.1,
    "saturation": 0.75,
    "brightness": 0.75,
    "rand_augment": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mosaic": 0.0,
}

_PAPER_DETECTION_VIEWS = {
    "jitter": 0.3,
    "flip": 0.5,
    "vertical_flip": 0.0,
    "hue": 0.1,
    "saturation": 1.5,
    "brightness": 1.5,
    "mosaic": 0.0,
    "rotate90": False,
}

PAPER_DETECTION = DetectionRecipe(
    name="paper-detection",
    optimizer="sgd",
    learning_rate=0.001,
    weight_decay=0.0005,
    batch_size=64,
    steps=500_000,
    warmup=1000,
    decay="steps",
    drops=(0.8, 0.9),
    size=416,
    # Darknet's random=1: 416 / 1.4 to 416 x 1.4, rounded to a multiple of 32,
    # in later versions one step above it.
    sizes=tuple(range(288, 609, 32)),
    augmentation=_PAPER_DETECTION_VIEWS,
    box_loss="mse",
    source="The CSPNet paper, section 4, and its authors' cfg files: on COCO, "
    "from a backbone trained on ImageNet.",
)

SMALL_DETECTION = DetectionRecipe(
    name="small-detection",
    optimizer="adamw",
    learning_rate=0.002,
    weight_decay=0.05,
    batch_size=8,
    steps=4_000,
    warmup=100,
    warmup_power=1,
    decay="cosine",
    size=416,
    sizes=(416,),
    augmentation={**_PAPER_DETECTION_VIEWS, "mosaic": 0.3},
    box_loss="ciou",
    anchor_threshold=0.4,
    clip_norm=100.0,
    ema=0.998,
    source="Ours, for some hundred images and no pretrained weights.",
)

# The heads alone first, since new classes begin with rows of random or averaged
# weights, whose large gradients would change what the rest has learned; then
# everything.
FINE_TUNING_DETECTION = dataclasses.replace(
    SMALL_DETECTION,
    name="fine-tuning-detection",
    box_loss=None,  # each head has its own
    anchor_threshold=None,
    steps=2_000,
    clip_norm=10.0,
    phases=(
        Phase("head", fraction=0.1, learning_rate_factor=2.0),
        Phase("all", fraction=0.9, batch_normalization=True),
    ),
    source="Ours: a detector with published weights to some hundred images.",
)

PAPER_CLASSIFICATION = ClassificationRecipe(
    name="paper-classification",
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=0.0005,
    batch_size=128,
    steps=800_000,
    warmup=1000,
    decay="polynomial",
    size=256,
    augmentation=_PAPER_CLASSIFICATION_VIEWS,
    ten_crop_shift=32,
    source="The CSPNet paper, section 4, and its authors' cfg files, which "
    "have a tenth of the weight decay and of the steps that the text has.",
)

# The crops of the larger networks: they are in pixels, the same in both cfgs.
PAPER_CLASSIFICATION_DENSE = PAPER_CLASSIFICATION.replace(
    name="paper-classification-dense",
    steps=1_600_000,
    size=224,
    source="As paper-classification, for networks based on DenseNet and "
    "PeleeNet, whose images are smaller.",
)

SMALL_CLASSIFICATION = PAPER_CLASSIFICATION.at_size(64).replace(
    name="small-classification",
    optimizer="adamw",
    learning_rate=0.002,
    weight_decay=0.05,
    batch_size=64,
    steps=4_000,
    warmup=100,
    warmup_power=1,
    decay="cosine",
    clip_norm=10.0,
    label_smoothing=0.1,
    source="Ours, for some thousand images.",
)

FINE_TUNING = SMALL_CLASSIFICATION.at_size(224).replace(
    name="fine-tuning",
    drop_remainder=False,
    phases=(
        Phase("head", fraction=0.1),
        Phase("last_stage", fraction=0.1, learning_rate_factor=0.5),
        Phase(
            "all",
            fraction=0.8,
            learning_rate_factor=0.5,
            batch_normalization=True,
        ),
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
        FINE_TUNING_DETECTION,
    )
}


def get_recipe(name, kind=None, **changes):
    """A recipe by its name, or as a run had it.

    Args:
        name: of `RECIPES`; or the path of a `run.json` of an example, or of a
            detector's Darknet .cfg, of which `read_cfg` makes a recipe.
        kind: "classification" or "detection": another one raises. Default
            None: either.
        **changes: fields with other values; None leaves a field as it is.

    Raises:
        ValueError: an unknown name, a file without a recipe, another kind, or
            a value out of range.
    """
    if str(name).endswith(".json"):
        recipe = _read_recipe(pathlib.Path(name))
    elif str(name).endswith(".cfg"):
        from keras_csp.training.cfg_recipe import read_cfg

        recipe = read_cfg(name)
    else:
        known = tuple(n for n, r in RECIPES.items() if kind in (None, r.kind))
        recipe = RECIPES[check_choice("recipe", name, known)]
    if kind not in (None, recipe.kind):
        raise ValueError(
            f"{name} has a recipe for {recipe.kind}, and one for {kind} is "
            "needed"
        )
    return recipe.replace(**changes)


def from_config(config):
    """The recipe of which `get_config` gave this dict.

    Raises:
        ValueError: it is not the configuration of a recipe.
    """
    kinds = {cls.kind: cls for cls in (ClassificationRecipe, DetectionRecipe)}
    try:
        config = dict(config)
        return kinds[config.pop("kind")](**config)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"Not the configuration of a recipe: {error}"
        ) from error


def _read_recipe(path):
    try:
        return from_config(json.loads(path.read_text("utf-8"))["recipe"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} has no recipe: {error}") from error
