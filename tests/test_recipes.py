"""Learning rates and decay against Darknet's formulas, worked by hand."""

import json

import keras
import numpy as np
import pytest
from support import reload_config

from keras_csp import recipes
from keras_csp.recipes import PAPER_DETECTION, SMALL_DETECTION, BurnIn


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


def test_paper_detection_has_the_papers_facts():
    paper = PAPER_DETECTION
    assert paper.steps == 500_000
    assert paper.learning_rate == 0.001
    assert [share * paper.steps for share in paper.drops] == [400e3, 450e3]
    assert (paper.burn_in, paper.burn_in_power) == (1000, 4)
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
    assert PAPER_DETECTION.schedule(50_000).burn_in == 1000
    assert float(PAPER_DETECTION.schedule(3)(1)) == pytest.approx(0.001)


def test_the_small_recipe_falls_along_a_cosine():
    schedule = SMALL_DETECTION.schedule()
    steps, rate = SMALL_DETECTION.steps, SMALL_DETECTION.learning_rate
    for step in (100, 1000, 2000, 3000, steps):
        cosine = rate * (1 + np.cos(np.pi * step / steps)) / 2
        assert float(schedule(step)) == pytest.approx(cosine, abs=1e-9)
    # Burn-in with power 1, times the cosine.
    early = rate * (1 + np.cos(np.pi * 50 / steps)) / 2 / 2
    assert float(schedule(50)) == pytest.approx(early, rel=1e-5)


def test_burn_in_of_a_number():
    schedule = BurnIn(0.5, burn_in=10, power=2)
    rates = [float(schedule(step)) for step in (0, 1, 5, 9, 10, 11)]
    expected = [0, 0.005, 0.125, 0.405, 0.5, 0.5]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [BurnIn(0.1, 7, 3), *(r.schedule() for r in recipes.RECIPES.values())],
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
    assert recipes.get_recipe("paper-detection") is PAPER_DETECTION
    with pytest.raises(ValueError, match="recipe") as caught:
        recipes.get_recipe("paper")
    assert "paper-detection" in str(caught.value)
    assert "'paper'" in str(caught.value)
    wrong = recipes.Recipe(**{**vars(PAPER_DETECTION), "decay": "linear"})
    with pytest.raises(ValueError, match="'linear'"):
        wrong.schedule()


@pytest.mark.parametrize("burn_in", [0, -1, 0.5])
def test_burn_in_must_be_positive(burn_in):
    with pytest.raises(ValueError, match="burn_in"):
        BurnIn(0.1, burn_in)


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
