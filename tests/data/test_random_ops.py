"""Draws against Darknet's formulas."""

import darknet_images
import numpy as np
import pytest
import tensorflow as tf

from keras_csp.data import ClassificationAugmentation
from keras_csp.data.random_ops import chance, coloured, factor


def drawn(function, count=2000):
    """What the function gives for as many seeds, as a data set runs it."""
    seeds = tf.data.Dataset.range(count).map(lambda n: tf.stack([7, n]))
    return np.array(list(seeds.map(function).as_numpy_iterator()))


@pytest.mark.parametrize("most", [0.75, 1.5])
def test_a_factor_is_rand_scale(most):
    """Uniform from 1 to `most` in one half, the inverse in the other."""
    factors = drawn(lambda seed: factor(most, seed))
    low, high = sorted((most, 1 / most))
    assert low <= factors.min() < low + 0.01
    assert high - 0.01 < factors.max() <= high + 1e-6
    straight = factors[(factors < 1) == (most < 1)]
    assert len(straight) == pytest.approx(1000, abs=100)
    inverse = 1 / factors[(factors < 1) != (most < 1)]
    quarters = np.linspace(1, most, 5)
    for half in (straight, inverse):
        counts, _ = np.histogram(half, np.sort(quarters))
        np.testing.assert_allclose(counts / len(half), 0.25, atol=0.05)


def test_chances():
    for probability in (0, 0.3, 1):
        fraction = drawn(lambda seed, p=probability: chance(p, seed)).mean()
        assert fraction == pytest.approx(probability, abs=0.03)
        assert probability in (0.3, fraction)


def test_colours_are_darknets(monkeypatch, rng):
    """Pure colours among them, whose saturation grows above 1."""
    image = rng.random((6, 5, 3)).astype("float32")
    image[0] = [[1, 0, 0], [0, 0.5, 1], [0, 0, 0], [1, 1, 1], [0.2, 0.9, 0]]
    for changes in ((0.07, 1.3, 0.8), (-0.1, 0.75, 1.32), (0.0, 1.33, 1.33)):
        hue, *factors = changes
        monkeypatch.setattr(
            "keras_csp.data.random_ops.tf.random.stateless_uniform",
            lambda *_, hue=hue: tf.constant(hue),
        )
        monkeypatch.setattr(
            "keras_csp.data.random_ops.factor",
            lambda *_, left=list(factors): left.pop(0),
        )
        seed = tf.constant([1, 2], tf.int64)
        found = coloured(ClassificationAugmentation(), image, seed)
        np.testing.assert_allclose(
            found, darknet_images.distorted(image, *changes), atol=2e-6
        )


def test_grey_has_brightness_alone():
    image = tf.fill((2, 2, 1), 0.6)
    augmentation = ClassificationAugmentation(brightness=0.5)
    values = drawn(lambda seed: coloured(augmentation, image, seed)[0, 0, 0])
    assert 0.3 <= values.min() < 0.31 and values.max() == 1
    # 0.6 / f is 1 or more for the fifth of f between 0.5 and 0.6.
    assert (values == 1).mean() == pytest.approx(0.1, abs=0.03)


def test_a_fourth_channel_is_no_colour(rng):
    image = tf.constant(rng.random((4, 4, 4)), tf.float32)
    augmentation = ClassificationAugmentation()
    found = coloured(augmentation, image, [1, 2]).numpy()
    colours = coloured(augmentation, image[..., :3], [1, 2])
    np.testing.assert_array_equal(found[..., :3], colours)
    np.testing.assert_array_equal(found[..., 3], image[..., 3])
    assert np.abs(found - image).max() > 0.05


def test_what_is_off_is_not_drawn(rng):
    image = tf.constant(rng.random((4, 4, 3)), tf.float32)
    off = ClassificationAugmentation(hue=0, saturation=1, brightness=1)
    np.testing.assert_array_equal(coloured(off, image, [1, 2]), image)
