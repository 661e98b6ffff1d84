"""Images in a network's size against Pillow, OpenCV and arithmetic."""

import numpy as np
import pytest
from PIL import Image

from keras_csp.data import centre_crop, fit_image, letterbox
from keras_csp.data.resizing import placed
from keras_csp.layers import ImageSpec

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def smooth(rng, height, width, channels=3):
    """Of some structure at every scale, as photographs are."""
    coarse = rng.integers(0, 256, (5, 7, channels), "uint8")
    image = Image.fromarray(coarse.squeeze()).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-20, 21, (height, width, channels))
    pixels = np.asarray(image).reshape(height, width, channels) + noise
    return np.clip(pixels, 0, 255).astype("uint8")


def pillows(image, size, interpolation="bilinear", box=None):
    """Resized in floating point, where Pillow rounds nothing."""
    planes = [
        Image.fromarray(plane.astype("float32")).resize(
            size[::-1], PILLOW[interpolation], box=box
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 255)


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (20, 34), (31, 17)])
@pytest.mark.parametrize("size", [(32, 48), (40, 40)])
def test_stretched_pixels_are_pillows(interpolation, shape, size, rng):
    image = smooth(rng, *shape)
    spec = ImageSpec(size, resize="stretch", interpolation=interpolation)
    pixels, view = fit_image(image, spec)
    expected = pillows(image, size, interpolation)
    np.testing.assert_allclose(np.asarray(pixels) * 255, expected, atol=0.05)
    scale_x, scale_y, left, top = np.asarray(view.numbers())
    assert (left, top) == (0, 0)
    np.testing.assert_allclose(
        [scale_y, scale_x], np.array(size) / image.shape[:2], rtol=1e-6
    )


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (20, 34)])
def test_without_antialiasing_pixels_are_opencvs(shape, rng):
    """As Darknet's detectors are fed, where they are read by OpenCV."""
    cv2 = pytest.importorskip("cv2")
    image = smooth(rng, *shape)
    spec = ImageSpec((32, 48), resize="stretch", antialias=False)
    pixels, _ = fit_image(image, spec)
    expected = cv2.resize(image.astype("float32"), (48, 32))
    np.testing.assert_allclose(np.asarray(pixels) * 255, expected, atol=0.02)
    smoothed, _ = fit_image(image, spec.replace(antialias=True))
    same = np.abs(np.asarray(pixels) - smoothed).max() < 1e-3
    assert same == (shape == (20, 34))  # nothing is smoothed to enlarge it


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (90, 30)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_a_crop_is_the_middle_of_the_shape_of_the_size(shape, crop, rng):
    image = smooth(rng, *shape)
    size = (32, 48)
    pixels, view = fit_image(image, ImageSpec(size, crop=crop))
    (box,) = np.asarray(view.original_boxes(np.float32([[0, 0, 48, 32]])))
    # The largest rectangle of 2 to 3, and of it the fraction asked for; its
    # corner is rounded to a whole pixel of the result.
    scale = max(s / n for s, n in zip(size, shape)) / crop
    middle = [(box[1] + box[3]) / 2, (box[0] + box[2]) / 2]
    np.testing.assert_allclose(middle, np.array(shape) / 2, atol=1 / scale)
    sides = [box[3] - box[1], box[2] - box[0]]
    np.testing.assert_allclose(sides, np.array(size) / scale, rtol=1e-4)
    assert box.min() > -1e-3 and box[2] < shape[1] + 1e-3
    box = np.clip(box, 0, [shape[1], shape[0]] * 2).tolist()
    expected = pillows(image, size, box=box)
    # Pillow smooths a pixel's neighbours outside the box, too.
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(
        np.asarray(pixels)[inner] * 255, expected[inner], atol=0.2
    )


def test_the_size_is_the_specs_or_given(rng):
    image = smooth(rng, 30, 20)
    assert fit_image(image, ImageSpec(16))[0].shape == (16, 16, 3)
    assert fit_image(image, ImageSpec(16), 8)[0].shape == (8, 8, 3)
    assert fit_image(image, ImageSpec(), (8, 9))[0].shape == (8, 9, 3)
    with pytest.raises(ValueError, match="The images need a size"):
        fit_image(image, ImageSpec())


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
    picture = Image.fromarray(image.squeeze())
    resized = picture.resize((width, height), Image.BILINEAR)
    resized = np.reshape(resized, (height, width, -1)) / 255
    top, left = (height - size) // 2, (width - size) // 2
    expected = resized[top : top + size, left : left + size]
    found = centre_crop(image, size)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1.6 / 255)


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.5])
def test_a_smaller_crop_is_in_the_middle(crop):
    """A ramp's middle stays in the middle, its slope tells the scale."""
    height, width, size = 100, 160, 40
    rows, columns = np.indices((height, width))
    image = np.stack([rows, columns, rows], -1).astype("uint8")
    pixels = np.asarray(centre_crop(image, size, crop)) * 255
    slope = crop * height / size
    for axis, length in ((0, height), (1, width)):
        line = np.take(pixels[..., axis], size // 2, 1 - axis)[2:-2]
        np.testing.assert_allclose(np.diff(line).mean(), slope, rtol=0.01)
        # Placed on whole pixels, so up to one of them beside the middle.
        assert abs(line.mean() - (length - 1) / 2) <= slope + 1e-3
    assert pixels.min() > 0


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "crop"])
def test_boxes_come_back(resize, rng):
    image = smooth(rng, 60, 100)
    _, view = fit_image(image, ImageSpec((32, 48), resize=resize))
    boxes = rng.uniform(0, 60, (5, 4)).astype("float32")
    there = view.boxes(boxes)
    assert np.abs(np.asarray(there) - boxes).max() > 1
    np.testing.assert_allclose(view.original_boxes(there), boxes, atol=1e-4)
    scale_x, scale_y, left, top = np.asarray(view.numbers())
    expected = boxes * np.tile([scale_x, scale_y], 2) + np.tile([left, top], 2)
    np.testing.assert_allclose(there, expected, atol=1e-4)


def test_a_letterbox_need_not_be_square(rng):
    image = smooth(rng, 60, 100)
    pixels, _ = letterbox(image, (32, 80))
    bars = (np.asarray(pixels) == 0.5).all(axis=(0, 2))
    assert pixels.shape == (32, 80, 3)
    # 53.3 columns of image between bars.
    assert bars.sum() in (26, 27) and not bars[30:50].any()


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_views_of_several_images_at_once_are_those_of_each(resize):
    sizes, window = [(30, 40), (40, 30), (7, 90)], (64, 96)
    together = placed(sizes, window, resize, 0.875)
    for number, size in enumerate(sizes):
        alone = placed(size, window, resize, 0.875)
        np.testing.assert_array_equal(together.scale[number], alone.scale)
        np.testing.assert_array_equal(together.offset[number], alone.offset)
