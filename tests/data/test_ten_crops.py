"""Ten crops against Darknet's formulas."""

import darknet_images
import numpy as np
import pytest

from keras_csp.data import ten_crops


@pytest.mark.parametrize(
    ("shape", "size", "shift"),
    [
        ((30, 50, 3), 16, 8),
        ((70, 41, 3), 20, 32),  # as the paper, more than the size
        ((24, 24, 3), 16, 8),  # already of that size
        ((9, 7, 1), 12, 3),
        ((1, 5, 3), 6, 2),
        ((5, 1, 3), 6, 2),
    ],
)
def test_ten_crops_are_darknets(rng, shape, size, shift):
    image = rng.integers(0, 256, shape, "uint8")
    crops = ten_crops(image, size, shift)
    assert crops.dtype == "float32"
    expected = darknet_images.ten_crops(image / 255, size, shift)
    np.testing.assert_allclose(crops, expected, atol=1e-5)


def test_ten_crops_by_hand():
    """Of a square that stays as it is, each pixel a number of its own."""
    numbers = np.arange(25, dtype="uint8").reshape(5, 5, 1)
    crops = np.round(ten_crops(numbers, 3, 2) * 255)[..., 0]
    assert crops.shape == (10, 3, 3)
    assert crops[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert crops[1].tolist() == [[2, 3, 4], [2, 3, 4], [2, 3, 4]]
    assert crops[2].tolist() == [[0, 1, 2], [5, 6, 7], [10, 11, 12]]
    assert crops[3].tolist() == [[10, 10, 10], [15, 15, 15], [20, 20, 20]]
    assert crops[4].tolist() == [[12, 13, 14], [17, 18, 19], [22, 23, 24]]
    assert crops[7].tolist() == [[4, 3, 2], [9, 8, 7], [14, 13, 12]]
    assert crops[9].tolist() == [[12, 11, 10], [17, 16, 15], [22, 21, 20]]


def test_the_papers_shift_is_the_default(rng):
    image = rng.integers(0, 256, (40, 50, 3), "uint8")
    np.testing.assert_array_equal(ten_crops(image, 8), ten_crops(image, 8, 32))
