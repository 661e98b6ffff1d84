"""The layers in numpy, beside Keras' and finite differences."""

import keras
import numpy as np
import pytest
from gpu_parts import references


@pytest.mark.parametrize("groups, stride, padding", [(1, 1, 1), (4, 2, 0)])
def test_the_convolution_and_its_gradient(groups, stride, padding, rng):
    """Against Keras' convolution, group by group, and finite differences."""
    x = rng.normal(size=(2, 7, 7, 8))
    kernel = rng.normal(size=(3, 3, 8 // groups, 12))
    sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]

    def convolved(x, kernel):
        parts = zip(
            np.split(np.pad(x, sides), groups, -1), np.split(kernel, groups, -1)
        )
        return np.concatenate(
            [keras.ops.conv(a, b, stride, "valid") for a, b in parts], -1
        )

    expected = convolved(x, kernel)
    upstream = rng.normal(size=expected.shape)
    y, d_x, d_kernel = references.grouped_convolution(
        x, kernel, upstream, groups, stride, padding
    )
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for value, gradient, place in ((x, d_x, 0), (kernel, d_kernel, 1)):
        direction = rng.normal(size=value.shape)
        ends = []
        for sign in (1, -1):
            arguments = [x, kernel]
            arguments[place] = value + sign * 1e-2 * direction
            ends.append(np.sum(upstream * convolved(*arguments)))
        slope = (ends[0] - ends[1]) / 2e-2
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-3)


def test_the_normalisation_and_its_gradient(rng):
    x, upstream = rng.normal(2, 3, (2, 4, 4, 3, 3)).reshape(2, 4, 4, 3, 3)[0:2]
    x, upstream = x.reshape(4, 4, 3, 3), upstream.reshape(4, 4, 3, 3)
    gamma, beta = rng.uniform(1, 2, 3), rng.normal(size=3)

    def total(x, gamma, beta):
        centred = x - x.mean((0, 1, 2))
        normal = centred / np.sqrt((centred**2).mean((0, 1, 2)) + 1e-3)
        return np.sum(upstream * (gamma * normal + beta))

    values = [x, gamma, beta]
    y, *gradients = references.batch_normalization(*values, upstream, 1e-3)
    assert np.sum(upstream * y) == pytest.approx(total(*values))
    for place, gradient in enumerate(gradients):
        direction = rng.normal(size=values[place].shape)
        ends = []
        for sign in (1, -1):
            moved = list(values)
            moved[place] = values[place] + sign * 1e-5 * direction
            ends.append(total(*moved))
        slope = (ends[0] - ends[1]) / 2e-5
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-5)
