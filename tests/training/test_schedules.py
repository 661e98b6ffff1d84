"""Learning rates by step against Darknet's formulas."""

import json

import keras
import numpy as np
import pytest
from support import reload_config

from keras_csp.training.recipes import RECIPES, get_recipe
from keras_csp.training.schedules import DECAYS, Warmup, make_decay


def darknet_learning_rate(step):
    """get_current_rate of src/network.c with the paper's cfg."""
    learning_rate = 0.001
    if step < 1000:
        return learning_rate * (step / 1000) ** 4
    for drop in (400_000, 450_000):
        if step >= drop:
            learning_rate *= 0.1
    return learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
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
def test_the_papers_detection_schedule_is_darknets(step, expected):
    assert darknet_learning_rate(step) == pytest.approx(expected, rel=1e-6)
    found = float(get_recipe("paper-detection").make_schedule()(step))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-20)


def darknet_polynomial(step, steps):
    """get_current_rate of src/network.c, warmup=1000, policy=poly, power=4."""
    if step < 1000:
        return 0.1 * (step / 1000) ** 4
    return 0.1 * (1 - step / steps) ** 4


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("paper-classification", 800_000),
        ("paper-classification-dense", 1_600_000),
    ],
)
def test_the_papers_classification_schedule_is_darknets(name, steps):
    schedule = get_recipe(name).make_schedule()
    for step in (0, 1, 10, 500, 999, 1000, 1001, 5000, 123_456, 400_000, steps):
        found = float(schedule(step))
        expected = darknet_polynomial(step, steps)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-20), step


def test_cosine():
    schedule = make_decay("cosine", 0.4, 200)
    for step in (0, 1, 50, 100, 199, 200, 300):
        cosine = 0.2 * (1 + np.cos(np.pi * min(step, 200) / 200))
        assert float(schedule(step)) == pytest.approx(cosine, abs=1e-7)


def test_an_unknown_decay():
    with pytest.raises(ValueError, match=r"`decay` must be .*'linear'"):
        make_decay("linear", 0.1, 100)


def test_warmup_of_a_number():
    schedule = Warmup(0.5, warmup=10, power=2)
    found = [float(schedule(step)) for step in (0, 1, 5, 9, 10, 11)]
    expected = [0, 0.005, 0.125, 0.405, 0.5, 0.5]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_warmup_the_first_step_has_the_whole_learning_rate():
    assert float(Warmup(0.5, warmup=0)(0)) == 0.5


def test_accumulated_batches_share_a_learning_rate():
    decay = make_decay("polynomial", 0.05, 60)
    whole = Warmup(decay, warmup=6)
    parts = Warmup(decay, warmup=6, accumulation=4)
    for batch in range(0, 240, 7):
        assert float(parts(batch)) == float(whole(batch // 4))


@pytest.mark.parametrize("warmup", [-1, 0.5, "1"])
def test_warmup_must_be_positive(warmup):
    with pytest.raises(ValueError, match="warmup"):
        Warmup(0.1, warmup)


@pytest.mark.parametrize(
    "schedule",
    [
        Warmup(0.1, 7, 3, 2),
        *(Warmup(make_decay(name, 0.1, 90, (0.5,)), 9) for name in DECAYS),
        *(recipe.make_schedule() for recipe in RECIPES.values()),
    ],
)
def test_configuration_round_trip(schedule):
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    copy = reload_config(schedule)
    assert copy.get_config() == schedule.get_config()
    for step in (0, 3, 50, 99, 450_001):
        assert float(copy(step)) == float(schedule(step))
    json.dumps(schedule.get_config())
