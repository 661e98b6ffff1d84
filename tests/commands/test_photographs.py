"""Photographs as networks of several kinds take them."""

import numpy as np
import pytest
from PIL import Image

from keras_csp.commands.photographs import PhotographReader
from keras_csp.export import Metadata
from keras_csp.layers import ImageSpec


def metadata(shape, **spec):
    return Metadata("net", shape, ImageSpec(**spec))


@pytest.fixture
def photograph(tmp_path, rng):
    pixels = rng.integers(0, 256, (32, 64, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return tmp_path / "wide.png", pixels


@pytest.mark.parametrize(
    ("resize", "rows", "columns"),
    [
        ("crop", slice(0, 32), slice(16, 48)),
        ("letterbox", slice(0, 32), slice(0, 64)),
    ],
)
def test_as_the_spec_says(resize, rows, columns, photograph):
    """To sizes at which nothing is enlarged or shrunk."""
    path, pixels = photograph
    side = 64 if resize == "letterbox" else 32
    reader = PhotographReader(metadata((side, side, 3), resize=resize))
    found, image, view = reader.read(path)
    np.testing.assert_array_equal(image, pixels)
    expected = pixels[rows, columns] / 255
    if resize == "letterbox":
        np.testing.assert_allclose(found[:16], 0.5)
        found = found[16:48]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    boxes = np.float32([[0, 20, 30, 40]])
    shift = [0, 16, 0, 16] if resize == "letterbox" else [-16, 0, -16, 0]
    np.testing.assert_allclose(view.original_boxes(boxes), boxes - shift)


def test_stretched_to_a_network_that_is_not_square(photograph):
    path, pixels = photograph
    reader = PhotographReader(metadata((32, 32, 3), resize="stretch"))
    found, _image, view = reader.read(path)
    assert found.shape == (32, 32, 3)
    # Its mean over each row is that of the photograph, but for the edges.
    np.testing.assert_allclose(found.mean(1), pixels.mean(1) / 255, atol=0.01)
    boxes = np.float32([[4, 8, 16, 32]])
    np.testing.assert_allclose(view.original_boxes(boxes), [[8, 8, 32, 32]])
    wide = PhotographReader(metadata((32, 64, 3), resize="stretch"))
    np.testing.assert_allclose(wide.read(path)[0], pixels / 255, atol=1e-6)


def test_grey_as_image_files_are_read_in_grey(photograph):
    path, _pixels = photograph
    reader = PhotographReader(metadata((32, 64, 1), resize="stretch"))
    found = reader.read(path)[0]
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L")) / 255  # ITU-R 601
    assert found.shape == (32, 64, 1)
    np.testing.assert_allclose(found[..., 0], grey, atol=0.6 / 255)


@pytest.mark.parametrize("shape", [(8,), (32, 32, 2)])
def test_other_inputs(shape):
    with pytest.raises(ValueError, match="images with 1, 3 or 4"):
        PhotographReader(metadata(shape))
