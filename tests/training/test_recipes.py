"""Rates, decay and averages against formulas; phases on networks."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from support import SMALL, randomize, reload_config

from keras_csp.models.builder import build_network
from keras_csp.training import recipes
from keras_csp.training.recipes import (
    FINE_TUNING,
    PAPER_CLASSIFICATION,
    PAPER_CLASSIFICATION_DENSE,
    PAPER_DETECTION,
    SMALL_CLASSIFICATION,
    SMALL_DETECTION,
    Phase,
    Warmup,
)


def darknet_rate(step):
    """get_current_rate of src/network.c with the paper's cfg."""
    rate = 0.001
    if step < 1000:
        return rate * (step / 1000) ** 4
    for drop in (400_000, 450_000):
        if step >= drop:
            rate *= 0.1
    return rate


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 1e-15),
        (500, 6.25e-5),  # 0.001 / 16
        (900, 6.561e-4),  # 0.9^4 = 0.6561
        (999, 9.96005996e-4),
        (1000, 1e-3),
        (1001, 1e-3),
        (399_999, 1e-3),
        (400_001, 1e-4),
        (449_999, 1e-4),
        (450_001, 1e-5),
        (499_999, 1e-5),
    ],
)
def test_the_papers_rate_is_darknets(step, rate):
    assert darknet_rate(step) == pytest.approx(rate, rel=1e-6)
    found = float(PAPER_DETECTION.schedule()(step))
    assert found == pytest.approx(rate, rel=1e-5, abs=1e-20)


def darknet_polynomial_rate(step, steps):
    """get_current_rate of src/network.c, warmup=1000, policy=poly, power=4."""
    if step < 1000:
        return 0.1 * (step / 1000) ** 4
    return 0.1 * (1 - step / steps) ** 4


@pytest.mark.parametrize("recipe", ["", "-dense"])
def test_the_papers_classification_rate_is_darknets(recipe):
    steps = 1_600_000 if recipe else 800_000
    schedule = recipes.get_recipe(f"paper-classification{recipe}").schedule()
    for step in (0, 1, 10, 500, 999, 1000, 1001, 5000, 123_456, 400_000):
        found = float(schedule(step))
        expected = darknet_polynomial_rate(step, steps)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-20), step
    assert float(schedule(500)) == pytest.approx(0.1 / 16)
    assert float(schedule(steps / 2)) == pytest.approx(0.1 / 16)
    assert float(schedule(steps)) == 0.0


def test_paper_classification_has_the_papers_facts():
    paper, dense = PAPER_CLASSIFICATION, PAPER_CLASSIFICATION_DENSE
    assert (paper.steps, dense.steps) == (800_000, 1_600_000)
    assert (paper.sizes, dense.sizes) == ((256,), (224,))
    for recipe in (paper, dense):
        assert recipe.optimizer_name == "sgd"
        assert recipe.learning_rate == 0.1
        assert (recipe.momentum, recipe.weight_decay) == (0.9, 0.0005)
        assert (recipe.warmup, recipe.warmup_power) == (1000, 4)
        assert recipe.batch_size == 128
        assert recipe.label_smoothing == 0
        assert recipe.clip_norm is None
        assert recipe.phases == ()


def test_paper_detection_has_the_papers_facts():
    paper = PAPER_DETECTION
    assert paper.steps == 500_000
    assert paper.learning_rate == 0.001
    assert [share * paper.steps for share in paper.drops] == [400e3, 450e3]
    assert (paper.warmup, paper.warmup_power) == (1000, 4)
    assert (paper.momentum, paper.weight_decay) == (0.9, 0.0005)
    assert paper.batch_size == 64
    assert paper.optimizer_name == "sgd"
    assert paper.clip_norm is None
    assert min(paper.sizes) < 416 < max(paper.sizes)
    assert all(size % 32 == 0 for size in paper.sizes)


def test_a_schedule_of_another_length_keeps_the_shares():
    schedule = PAPER_DETECTION.schedule(1000)
    for step, rate in [
        (50, 0.001 / 16),  # burn-in: a tenth of it, 100 steps
        (100, 0.001),
        (799, 0.001),
        (801, 0.0001),
        (901, 0.00001),
    ]:
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
    assert PAPER_DETECTION.schedule(50_000).warmup == 1000
    # Of so few none is lost to a rate of 0.
    for step in (0, 1):
        rate = float(PAPER_DETECTION.schedule(3)(step))
        assert rate == pytest.approx(0.001)


def test_the_small_recipe_falls_along_a_cosine():
    schedule = SMALL_DETECTION.schedule()
    steps, rate = SMALL_DETECTION.steps, SMALL_DETECTION.learning_rate
    for step in (100, 1000, 2000, 3000, steps):
        cosine = rate * (1 + np.cos(np.pi * step / steps)) / 2
        assert float(schedule(step)) == pytest.approx(cosine, abs=1e-9)
    # Burn-in with power 1, of the whole rate.
    assert float(schedule(50)) == pytest.approx(rate / 2, rel=1e-5)


def test_burn_in_of_a_number():
    schedule = Warmup(0.5, warmup=10, power=2)
    rates = [float(schedule(step)) for step in (0, 1, 5, 9, 10, 11)]
    expected = [0, 0.005, 0.125, 0.405, 0.5, 0.5]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [Warmup(0.1, 7, 3, 2), *(r.schedule() for r in recipes.RECIPES.values())],
)
def test_configuration_round_trip(schedule):
    copy = reload_config(schedule)
    assert copy.get_config() == schedule.get_config()
    for step in (0, 3, 99, 450_001):
        assert float(copy(step)) == float(schedule(step))
    json.dumps(schedule.get_config())


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_optimizer_round_trip(name):
    optimizer = recipes.get_recipe(name).optimizer(500)
    copy = reload_config(optimizer)
    assert copy.get_config() == optimizer.get_config()


def test_unknown_names():
    assert recipes.get_recipe("paper-detection") == PAPER_DETECTION
    with pytest.raises(ValueError, match="recipe") as caught:
        recipes.get_recipe("paper")
    assert "paper-detection" in str(caught.value)
    assert "'paper'" in str(caught.value)
    wrong = recipes.Recipe(**{**vars(PAPER_DETECTION), "decay": "linear"})
    with pytest.raises(ValueError, match="'linear'"):
        wrong.schedule()


@pytest.mark.parametrize("warmup", [-1, 0.5, "1"])
def test_burn_in_must_be_positive(warmup):
    with pytest.raises(ValueError, match="warmup"):
        Warmup(0.1, warmup)


def darknet_updates(w, rates, gradient, momentum=0.9, decay=0.0005):
    """w after update_convolutional_layer of Darknet for each rate.

    The buffer is -(sum of gradients) with the decay added to it, and keeps
    `momentum` of itself; the rate multiplies it when it is applied.
    """
    buffer = np.zeros_like(w)
    for rate in rates:
        buffer = momentum * buffer - gradient(w) - decay * w
        w = w + rate * buffer
    return w


def keras_updates(w, recipe, steps, gradient, name="kernel", until=None):
    """The same steps of the recipe's optimizer, or the first of them."""
    variable = keras.Variable(w, dtype="float32", name=name)
    optimizer = recipe.optimizer(steps)
    optimizer.build([variable])
    for _ in range(until or steps):
        slope = gradient(variable.numpy()).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(slope)])
    return variable.numpy()


# Larger rates and decay: 300 steps show what 500,000 of the paper's would.
FAST = recipes.Recipe(
    **{**vars(PAPER_DETECTION), "learning_rate": 0.05, "weight_decay": 0.005}
)


def fast_rates(steps):
    schedule = FAST.schedule(steps)
    return [float(schedule(step)) for step in range(steps)]


def test_weight_decay_is_darknets_without_gradients():
    start, steps = np.array([1.0, -2.0, 0.5]), 300
    rates = fast_rates(steps)
    found = keras_updates(start, FAST, steps, np.zeros_like)
    wanted = darknet_updates(start, rates, np.zeros_like, decay=0.005)
    lost = 1 - wanted / start
    assert lost.min() > 0.4  # the decay shows
    np.testing.assert_allclose(1 - found / start, lost, rtol=0.02)
    # A decay not divided by 1 - momentum is ten times too weak.
    assert 1 - np.prod(1 - 0.005 * np.array(rates)) < 0.2 * lost.min()


def test_weight_decay_is_darknets_against_gradients():
    """Both forces: the least of a / 2 (w - 1)^2 + decay / 2 w^2."""
    start, steps, drop = np.array([3.0, -1.0, 0.0]), 300, 240
    steepness = np.array([0.02, 0.1, 0.5])

    def gradient(w):
        return steepness * (w - 1)

    def wanted(until, decay=0.005):
        rates = fast_rates(steps)[:until]
        return darknet_updates(start, rates, gradient, decay=decay)

    before = keras_updates(start, FAST, steps, gradient, until=drop)
    # The slowest is still on its way, and 1 % of that ahead.
    np.testing.assert_allclose(before, wanted(drop), atol=0.025)
    assert np.abs(wanted(drop, decay=0) - wanted(drop)).max() > 0.1
    # The steeper two have arrived where both forces are equal.
    equal = steepness / (steepness + 0.005)
    np.testing.assert_allclose(before[1:], equal[1:], atol=0.005)
    # Where the rate drops, Keras' momentum, which has the old rate in it, goes
    # on against a decay that has the new one, by this much at most.
    push = 0.05 * 0.005 * 0.9 / (1 - 0.9) ** 2
    after = keras_updates(start, FAST, steps, gradient)
    np.testing.assert_allclose(after[1:], wanted(steps)[1:], atol=push)


@pytest.mark.parametrize("name", ["bias", "gamma", "beta"])
@pytest.mark.parametrize("recipe", [FAST, SMALL_DETECTION])
def test_only_kernels_decay(recipe, name):
    start = np.array([1.0, -2.0])
    kept = keras_updates(start, recipe, 50, np.zeros_like, name=name)
    np.testing.assert_array_equal(kept, start)
    decayed = keras_updates(start, recipe, 50, np.zeros_like)
    assert (np.abs(decayed) < np.abs(start)).all()


def test_gradients_are_cut_only_where_the_recipe_says_so():
    assert SMALL_DETECTION.optimizer().global_clipnorm == 100.0
    assert PAPER_DETECTION.optimizer().global_clipnorm is None


def test_a_recipe_with_other_values():
    changed = recipes.get_recipe(
        "paper-classification", batch_size=7, label_smoothing=None
    )
    assert changed == dataclasses.replace(PAPER_CLASSIFICATION, batch_size=7)
    assert PAPER_CLASSIFICATION.batch_size == 128


def test_epochs_take_the_recipes_steps():
    # 1,281,167 images are 10,009 whole batches of 128; 800,000 / 10,009.
    assert PAPER_CLASSIFICATION.batches(1_281_167) == 10_009
    assert PAPER_CLASSIFICATION.epochs(1_281_167) == 80
    assert PAPER_CLASSIFICATION_DENSE.epochs(1_281_167) == 160
    assert PAPER_CLASSIFICATION.batches(128) == 1
    assert PAPER_CLASSIFICATION.epochs(10**9) == 1
    # Four batches of 32 are a step.
    small = dataclasses.replace(PAPER_CLASSIFICATION, batch_size=32)
    assert small.epochs(1_281_167, accumulation=4) == 80
    assert small.epochs(1_281_167) == 20
    with pytest.raises(ValueError, match="fewer images, 127, than a batch"):
        PAPER_CLASSIFICATION.batches(127)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_summary_names_what_is_in_the_recipe(name):
    recipe = recipes.get_recipe(name)
    line = recipe.summary()
    assert "\n" not in line
    for value in (
        *(recipe.name, recipe.optimizer_name, recipe.decay),
        *(f"{recipe.learning_rate:g}", f"batch {recipe.batch_size}"),
        *(f"{recipe.warmup} steps", f"decay {recipe.weight_decay:g}"),
        f"smoothing {recipe.label_smoothing:g}",
        *(f"{p.part} for {100 * p.share:g}%" for p in recipe.phases),
        *(f"rate x{p.learning_rate:g}" for p in recipe.phases),
    ):
        assert value in line


def test_the_summary_has_the_burn_in_that_is_used():
    for steps, accumulation, warmup in ((400, 1, 40), (400, 4, 10)):
        line = SMALL_CLASSIFICATION.summary(steps, accumulation)
        schedule = SMALL_CLASSIFICATION.schedule(steps, accumulation)
        assert f"burn-in {warmup} steps" in line
        assert schedule.warmup == warmup


def test_the_papers_crops_are_of_224_pixels_too():
    for name in ("paper-classification", "paper-classification-dense"):
        paper = recipes.get_recipe(name, batch_size=7)
        sides = {size: paper.crop_side(size) for size in (32, 224, 256, 288)}
        assert sides == {32: 32, 224: 256, 256: 256, 288: 288}
    assert SMALL_CLASSIFICATION.crop_side(224) == 224


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_a_share_of_all_classes(rng, smoothing):
    labels = np.eye(5, dtype="float32")[[0, 3, 4]]
    labels[2] = [0.3, 0, 0.7, 0, 0]  # as MixUp makes them
    found = rng.random((3, 5)).astype("float32") + 0.1
    found /= found.sum(axis=1, keepdims=True)
    recipe = dataclasses.replace(FINE_TUNING, label_smoothing=smoothing)
    wanted = labels * (1 - smoothing) + smoothing / 5
    expected = -(wanted * np.log(found)).sum(axis=1).mean()
    assert float(recipe.loss()(labels, found)) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1, 2, float("nan")])
def test_label_smoothing_must_be_a_share(smoothing):
    recipe = dataclasses.replace(FINE_TUNING, label_smoothing=smoothing)
    with pytest.raises(ValueError, match="`label_smoothing` must be from 0"):
        recipe.loss()


def test_the_rate_of_a_phase_multiplies_the_recipes():
    schedule = SMALL_CLASSIFICATION.schedule(100)
    half = SMALL_CLASSIFICATION.optimizer(100, rate=0.5)
    for step in (0, 5, 50, 99):
        half.iterations.assign(step)
        expected = 0.5 * float(schedule(step))
        assert float(half.learning_rate) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_the_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="learning rate must be positive"):
        SMALL_CLASSIFICATION.optimizer(rate=rate)


# Accumulation and averages ----------------------------------------------


def test_accumulated_batches_share_a_rate():
    whole, parts = FAST.schedule(60), FAST.schedule(240, accumulation=4)
    for batch in range(0, 240, 7):
        assert float(parts(batch)) == float(whole(batch // 4))
    assert float(FAST.schedule(accumulation=4)(8)) == float(FAST.schedule()(2))
    # One step, which no burn-in takes away.
    rate = float(FAST.schedule(3, accumulation=4)(2))
    assert rate == pytest.approx(FAST.learning_rate)


def small_convolution():
    """Without batch normalisation, whose statistics are of a batch."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def trained_on(recipe, x, y, batch, accumulation=1):
    """Weights after an epoch of the images in their order."""
    model = small_convolution()
    optimizer = recipe.optimizer(len(x) // batch, accumulation)
    model.compile(optimizer, recipe.loss(), jit_compile=False)
    model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
    return model.get_weights()


# Strong enough that decay and clipping show in twelve steps.
ACCUMULATED = [
    dataclasses.replace(FAST, decay="polynomial", clip_norm=0.01),
    dataclasses.replace(SMALL_CLASSIFICATION, clip_norm=0.01),
]


@pytest.mark.parametrize("recipe", ACCUMULATED, ids=lambda r: r.name)
def test_four_accumulated_batches_of_three_are_one_of_twelve(rng, recipe):
    """Rates, momentum, decay and clipping are those of the steps."""
    x = rng.normal(size=(144, 6, 6, 2)).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 144)]
    whole = trained_on(recipe, x, y, 12)
    parts = trained_on(recipe, x, y, 3, accumulation=4)
    others = trained_on(recipe, x, y, 3)
    start = small_convolution().get_weights()
    for a, b, other, before in zip(whole, parts, others, start):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
        # What is equal has moved, and not as batches of three move it.
        assert np.abs(a - before).max() > 1e-4
        assert np.abs(a - other).max() > 1e-4


def averaged(weights, momentum, accumulation):
    """Keras' average after each batch: the weights' own in the first step."""
    mu, average = momentum ** (1 / accumulation), weights[0]
    for number, w in enumerate(weights):
        first = number < accumulation
        average = w if first else mu * average + (1 - mu) * w
    return average


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_moving_average_is_the_recurrence(rng, accumulation):
    momentum, batches = 0.8, 12
    variable = keras.Variable([1.0, -2.0, 0.5], name="kernel")
    optimizer = FAST.optimizer(batches, accumulation, ema=momentum)
    optimizer.build([variable])
    weights = []
    for _ in range(batches):
        gradient = rng.normal(size=3).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        weights.append(variable.numpy())
    optimizer.finalize_variable_values([variable])
    wanted = averaged(weights, momentum, accumulation)
    np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5)
    assert np.abs(wanted - weights[-1]).max() > 1e-3


def test_the_momentum_of_the_average_is_that_of_a_step():
    """A step's batches together keep as much of the average as is said."""
    variable = keras.Variable([0.0], name="kernel")
    optimizer = FAST.optimizer(40, accumulation=4, ema=0.7)
    optimizer.build([variable])
    zero = [keras.ops.zeros((1,))]
    for _ in range(4):
        optimizer.apply(zero)
    variable.assign([1.0])
    for _ in range(4):  # a step of weights that stay as they are
        optimizer.apply(zero)
    kept = variable.numpy()[0]
    optimizer.finalize_variable_values([variable])
    assert 1 - variable.numpy()[0] / kept == pytest.approx(0.7, abs=0.01)


def test_no_average_unless_it_is_wanted():
    assert not FAST.optimizer(10).use_ema
    with pytest.raises(ValueError, match="ema_momentum"):
        FAST.optimizer(10, ema=1.5)


# Phases -------------------------------------------------------------------


def small_network(name, **options):
    row = SMALL[name]
    return build_network(row, input_shape=(64, 64, 3), classes=3, **options)


def trained_layers(model):
    """Names of layers of the model that have something to train."""
    return {layer.name for layer in model.layers if layer.trainable_variables}


def is_scale(variable):
    return variable.path.rsplit("/", 1)[-1] in ("gamma", "beta")


# The last stage and what comes after it, as the rows of support.py say.
LAST = {
    "SmallCSPResNeXt": ({"stage2_down", "stage2"}, {"predictions"}),
    "SmallCSPPelee": (
        {"stage2_down_2", "stage2"},
        {"pre_logits_1", "predictions"},
    ),
    "SmallCSPDense": ({"stage2_1", "stage2_2"}, {"head", "predictions"}),
    "SmallElastic": (
        {"stage2_down", "stage2_1", "stage2_2", "stage2_3"},
        {"predictions"},
    ),
    "SmallMobile": ({"stage1"}, {"predictions"}),
}


@pytest.mark.parametrize("name", LAST)
def test_what_each_part_trains(name):
    model = small_network(name)
    everything = trained_layers(model)
    stage, head = LAST[name]
    wanted = {"head": head, "last_stage": stage | head, "all": everything}
    assert wanted["last_stage"] < everything
    for part in ("last_stage", "head", "all", "head"):
        Phase(part, 1.0, 1.0, batch_normalization=True).apply(model)
        assert trained_layers(model) == wanted[part], part
        assert any(map(is_scale, model.trainable_variables)) == (
            part != "head" or len(head) > 1
        )
        kernels = len([v for v in model.trainable_variables if not is_scale(v)])
        # Frozen from there; then the next part opens what it should.
        Phase(part, 1.0, 1.0).apply(model)
        assert not any(map(is_scale, model.trainable_variables))
        assert len(model.trainable_variables) == kernels


def statistics(model):
    return {
        variable.path: variable.numpy()
        for variable in model.non_trainable_variables
        if "moving_" in variable.path
    }


def moved(model, phase, rng):
    """Paths of what a step of the phase changes: weights, and statistics."""
    phase.apply(model)
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    before = {v.path: v.numpy() for v in model.variables}
    x = rng.random((8, 64, 64, 3)).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 8)]
    model.train_on_batch(x, y)
    changed = {
        v.path for v in model.variables if (v.numpy() != before[v.path]).any()
    }
    statistics = {path for path in changed if "moving_" in path}
    return changed - statistics, statistics


@pytest.mark.parametrize("name", ["SmallCSPPelee", "SmallCSPDense"])
def test_what_is_frozen_does_not_move(rng, name):
    model = randomize(small_network(name))
    stage, head = LAST[name]
    weights, moving = moved(model, Phase("last_stage", 1.0, 1.0), rng)
    # What has kernels, not normalisation alone.
    kernels = stage | head - {"head"}
    assert {path.split("/")[0] for path in weights} == kernels
    assert not any(path.endswith(("gamma", "beta")) for path in weights)
    assert not moving
    phase = Phase("last_stage", 1.0, 1.0, batch_normalization=True)
    weights, moving = moved(model, phase, rng)
    assert {path.split("/")[0] for path in weights} == stage | head
    assert moving and {p.split("/")[0] for p in moving} <= stage | head
    # Of all layers that have statistics there, both of them.
    there = [p for p in statistics(model) if p.split("/")[0] in stage | head]
    assert moving == set(there)


def test_the_phases_of_fine_tuning_open_the_network_backwards():
    assert sum(phase.share for phase in FINE_TUNING.phases) == 1
    model, before = small_network("SmallCSPResNeXt"), 0
    for phase in FINE_TUNING.phases:
        phase.apply(model)
        assert len(model.trainable_variables) > before
        before = len(model.trainable_variables)
    assert before == len(small_network("SmallCSPResNeXt").trainable_variables)


def test_mistakes_in_phases():
    model = small_network("SmallCSPPelee")
    with pytest.raises(ValueError, match="'tail'"):
        Phase("tail", 1.0, 1.0).apply(model)
    with pytest.raises(ValueError, match="networks of keras_csp") as caught:
        Phase("head", 1.0, 1.0).apply(small_convolution())
    assert "conv2d" in str(caught.value)
    bare = small_network("SmallCSPPelee", include_top=False)
    with pytest.raises(ValueError, match="nothing to train in the part 'head'"):
        Phase("head", 1.0, 1.0).apply(bare)
