"""The paper's ablation where it converges: a cell is a network and a seed.

All images are on the device as one array, and are shifted, mirrored and
enlarged there, so that `fit` passes only their indices. The same code runs on
every backend and device.
"""

import dataclasses
import math
import shutil
import time

import ablation_study as ablation
import keras
import numpy as np
from harness.machine import device_name
from keras import ops

from gpu_parts.cifar import CLASSES
from keras_csp import count
from keras_csp._validation import check_choice
from keras_csp.models.builder import build_network
from keras_csp.training.checkpoint import TrainingState
from keras_csp.training.recipes import SMALL_CLASSIFICATION

EPOCHS = 30
SIZE = 64
SEEDS = 2
TEST_BATCH = 500  # divides CIFAR-10's 10,000
TEST_EVERY = 5  # epochs
SAVE_EVERY = 60.0  # seconds

# The images are varied on the device, not by the recipe's augmentation.
RECIPE = dataclasses.replace(
    SMALL_CLASSIFICATION,
    name="cifar10-ablation",
    optimizer="sgd",
    learning_rate=0.2,
    weight_decay=0.0005,
    batch_size=256,
    steps=EPOCHS * (50_000 // 256),
    warmup=600,
    size=SIZE,
    clip_norm=None,
    source="Ours: warmup, half a cosine, label smoothing, shifts by up to an "
    "eighth of the image and mirroring, as is usual for CIFAR-10.",
)

# Most important first: what CSP gains, then where the fusion stands.
TIERS = (
    ("PeleeNet", "CSPPeleeNet", "ResNet10_reduced2", "CSPResNet10_reduced2"),
    ("CSPPeleeNet_gamma0.5_first", "CSPPeleeNet_gamma0.5_last"),
)


def order(seeds=SEEDS, networks=None):
    """[(network, seed)], most important first.

    After `TIERS` come the other gammas, then ResNeXt-50 and its CSP network.

    Args:
        seeds: how many of each network.
        networks: names. Default: every network of the ablation.

    Raises:
        ValueError: a name that is none of them.
    """
    entries = ablation.entries()
    for name in networks or ():
        check_choice("network", name, tuple(entries))
    named = {name for tier in TIERS for name in tier}
    rest = [name for name in entries if name not in named]
    pair = tuple(name for name in rest if "ResNeXt" in name)
    gammas = tuple(name for name in rest if name not in pair)
    tiers = (*TIERS, gammas, pair)
    return [
        (name, seed)
        for tier in tiers
        for seed in range(seeds)
        for name in tier
        if networks is None or name in networks
    ]


class ImagesOnDevice(keras.layers.Layer):
    """Images by index: shifted and mirrored in training, then enlarged.

    All three are linear along each axis: y = R x C^T, with a matrix R for the
    rows and C for the columns of each image. Outside the image its edge is
    repeated. In inference this is bilinear resizing with half-pixel centres.

    Args:
        images: `(n, height, width, channels)` uint8.
        size: side of the output, in pixels.
        shift: largest shift in training, in pixels of the input.

    Shapes: `(batch,)` integers to `(batch, size, size, channels)` in [0, 1].
    """

    def __init__(self, images, size, shift=0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.shift = size, shift
        self.random = keras.random.SeedGenerator(0)
        self.images = self.add_weight(
            shape=images.shape,
            dtype="uint8",
            initializer="zeros",
            trainable=False,
            name="images",
        )
        self.images.assign(images)

    def start(self, epoch, seed):
        """The draws of an epoch depend on it and the seed alone."""
        self.random.state.assign(np.array([seed, epoch], "uint32"))

    def call(self, numbers, training=False):
        x = ops.cast(ops.take(self.images, numbers, axis=0), "float32") / 255
        batch, (height, width) = ops.shape(x)[0], self.images.shape[1:3]
        rows = self._matrix(batch, height, self._shifts(batch, training))
        columns = self._matrix(batch, width, self._shifts(batch, training))
        if training:
            mirrored = self._draw(batch, 0, 2)[:, None, None]
            flipped = ops.flip(columns, axis=1)
            columns = ops.where(mirrored == 1, flipped, columns)
        x = ops.einsum("boh,bhwc->bowc", rows, x)
        return ops.einsum("bpw,bowc->bopc", columns, x)

    def _shifts(self, batch, training):
        if not training:
            return ops.zeros((batch,))
        return self._draw(batch, -self.shift, self.shift + 1)

    def _draw(self, batch, low, high):
        drawn = keras.random.randint((batch,), low, high, seed=self.random)
        return ops.cast(drawn, "float32")

    def _matrix(self, batch, side, shifts):
        """`(batch, size, side)`: weights of the pixels in each new one."""
        places = (ops.arange(self.size, dtype="float32") + 0.5) / self.size
        places = places * side - 0.5 + shifts[:, None]
        places = ops.clip(places, 0.0, side - 1.0)
        pixels = ops.arange(side, dtype="float32")
        return ops.relu(1 - ops.abs(places[..., None] - pixels))

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.size, self.size, self.images.shape[-1])

    def save_own_variables(self, store):
        """The images are not part of what a training saves."""

    def load_own_variables(self, store):
        pass


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a cell is trained, and on how many images."""

    epochs: int = EPOCHS
    size: int = SIZE
    batch_size: int = RECIPE.batch_size
    images: int | None = None  # of each split; None for all
    test_batch: int = TEST_BATCH


class Cell:
    """One network trained with one seed.

    Args:
        name, seed: of the network in `ablation_study.entries`.
        data: {"train": Split, "test": Split}.
        plan: a `Plan`.
        folder: where the training is saved once a minute, to resume from.
        jit_compile: of `Model.compile`.
    """

    def __init__(self, name, seed, data, plan, folder, jit_compile="auto"):
        self.name, self.seed, self.plan = name, seed, plan
        recipe = RECIPE.replace(batch_size=plan.batch_size)
        self.folder = folder / f"{name}_{seed}"
        train, test = data["train"], data["test"]
        self.train = _first(train, plan.images)
        self.test = _first(test, plan.images)
        images = len(self.train.labels)
        self.steps = recipe.batches(images)
        self.recipe = recipe.for_epochs(plan.epochs, images)
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        self.network = build_network(
            ablation.entries()[name].spec,
            input_shape=(plan.size, plan.size, 3),
            classes=CLASSES,
            classifier_activation=None,
        )
        self.model = self._on_device(jit_compile)

    def _on_device(self, jit_compile):
        images = np.concatenate([self.train.images, self.test.images])
        numbers = keras.Input((), dtype="int32")
        self.images = ImagesOnDevice(
            images, self.plan.size, images.shape[1] // 8
        )
        model = keras.Model(numbers, self.network(self.images(numbers)))
        optimizer = self.recipe.make_optimizer()
        optimizer.build(model.trainable_variables)
        model.compile(
            optimizer,
            keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=RECIPE.label_smoothing
            ),
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )
        return model

    def run(self, until, report):
        """Trains and tests.

        Args:
            until: time of `time.monotonic` after which no epoch starts.
            report: called with a row of "ablation_epochs" after each epoch.

        Returns:
            A row of "ablation"; None if the time was over before.

        Raises:
            ValueError: a loss is not a finite number.
        """
        state = TrainingState(self.folder)
        done, saved = state.restore(self.model), time.monotonic()
        spent = _Spent(state.history[-1] if done else {})
        state.set_model(self.model)
        tested = {}
        for epoch in range(done, self.plan.epochs):
            logs, tested = self._epoch(epoch)
            report({"network": self.name, "seed": self.seed, **logs})
            now = time.monotonic()
            if now - saved > SAVE_EVERY or now > until:
                state.on_epoch_end(epoch, {**logs, **spent()})
                saved = now
            if now > until and epoch + 1 < self.plan.epochs:
                return None
        shutil.rmtree(self.folder, ignore_errors=True)
        return self._row(tested or self._tested(), spent())

    def _epoch(self, epoch):
        """The logs of an epoch, and those of its test, if it has one."""
        self.images.start(epoch, self.seed)
        turn = np.random.default_rng((self.seed, epoch))
        numbers = turn.permutation(len(self.train.labels))
        numbers = numbers[: self.steps * self.plan.batch_size].astype("int32")
        history = self.model.fit(
            numbers,
            _one_hot(self.train.labels[numbers]),
            batch_size=self.plan.batch_size,
            epochs=epoch + 1,
            initial_epoch=epoch,
            shuffle=False,
            verbose=0,
        ).history
        logs = {key: round(values[0], 5) for key, values in history.items()}
        if not math.isfinite(logs["loss"]):
            raise ValueError(
                f"{self.name} with seed {self.seed} has a loss of "
                f"{logs['loss']} in epoch {epoch + 1}"
            )
        number = epoch + 1
        tested = {}
        if number % TEST_EVERY == 0 or number == self.plan.epochs:
            tested = self._tested()
            logs["test_accuracy"] = round(tested["accuracy"], 5)
        return {"epoch": number, **logs}, tested

    def _tested(self):
        first, count_ = len(self.train.labels), len(self.test.labels)
        return self.model.evaluate(
            np.arange(first, first + count_, dtype="int32"),
            _one_hot(self.test.labels),
            batch_size=min(self.plan.test_batch, count_),
            return_dict=True,
            verbose=0,
        )

    def _row(self, tested, spent):
        counted = count(self.network)
        return {
            "network": self.name,
            "seed": self.seed,
            "device": device_name(),
            "backend": keras.backend.backend(),
            "epochs": self.plan.epochs,
            "accuracy": f"{tested['accuracy']:.4f}",
            "loss": f"{tested['loss']:.4f}",
            "params": counted.params,
            "bflops": f"{counted.bflops:.4f}",
            **{name: f"{value:.1f}" for name, value in spent.items()},
            "recipe": self.recipe.summary(),
        }


class _Spent:
    """Wall-clock and CPU seconds, including those before a restart."""

    def __init__(self, before):
        self._clocks = {
            "seconds": time.monotonic,
            "cpu_seconds": time.process_time,
        }
        self._start = {
            name: clock() - before.get(name, 0.0)
            for name, clock in self._clocks.items()
        }

    def __call__(self):
        return {
            name: clock() - self._start[name]
            for name, clock in self._clocks.items()
        }


def _first(split, count_):
    """About so many images, evenly spaced, so that every class occurs."""
    step = max(1, len(split.labels) // (count_ or len(split.labels)))
    return type(split)(split.images[::step], split.labels[::step])


def _one_hot(labels):
    return np.eye(CLASSES, dtype="float32")[labels]
