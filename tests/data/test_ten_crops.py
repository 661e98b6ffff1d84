"""Evaluation's views against Darknet's formulas and Pillow."""

import darknet_images
import numpy as np
import PIL.Image
import pytest

from keras_csp.data import centre_crop, ten_crops


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


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((60, 100, 3), 30),
        ((100, 60, 3), 30),
        ((20, 34, 3), 40),
        ((32, 32, 3), 32),
        ((64, 48, 1), 24),
    ],
)
def test_centre_crop_is_pillows(rng, shape, size):
    image = rng.integers(0, 256, shape, "uint8")
    ratio = size / min(shape[:2])
    height, width = round(shape[0] * ratio), round(shape[1] * ratio)
    picture = PIL.Image.fromarray(image.squeeze())
    resized = picture.resize((width, height), PIL.Image.BILINEAR)
    resized = np.reshape(resized, (height, width, -1)) / 255
    top, left = (height - size) // 2, (width - size) // 2
    expected = resized[top : top + size, left : left + size]
    found = centre_crop(image, size)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1.6 / 255)


@pytest.mark.parametrize("share", [1.0, 0.875, 0.5])
def test_a_share_is_in_the_middle(share):
    """A ramp's middle stays in the middle, its slope tells the scale."""
    height, width, size = 100, 160, 40
    rows, columns = np.indices((height, width))
    image = np.stack([rows, columns, rows], -1).astype("uint8")
    pixels = np.asarray(centre_crop(image, size, share)) * 255
    slope = share * height / size
    for axis, length in ((0, height), (1, width)):
        line = np.take(pixels[..., axis], size // 2, 1 - axis)[2:-2]
        np.testing.assert_allclose(np.diff(line).mean(), slope, rtol=0.01)
        # Placed on whole pixels, so up to one of them beside the middle.
        assert abs(line.mean() - (length - 1) / 2) <= slope + 1e-3
    assert pixels.min() > 0
