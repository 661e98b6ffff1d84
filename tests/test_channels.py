"""Grey, colour and four channels: training and prediction read alike."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_csp
from keras_csp._channels import (
    file_channels,
    in_channels,
    pillow_pixels,
    to_grey,
)
from keras_csp.data import load_classification
from keras_csp.data.photographs import read_photograph
from keras_csp.layers import ImageSpec, Preprocessing


def network(channels, size=(24, 36)):
    image = keras.Input((*size, channels))
    spec = ImageSpec(mean=0.5, std=range(1, channels + 1))
    return keras.Model(image, Preprocessing(spec)(image))


def test_grey_is_that_of_pillow(rng):
    pixels = rng.integers(0, 256, (9, 7, 3), dtype="uint8")
    expected = np.asarray(Image.fromarray(pixels).convert("L"), "float64")
    found = to_grey(pixels.astype("float64"))[..., 0]
    assert np.abs(found - expected).max() <= 1


def test_arrays_and_tensors_alike(rng):
    pixels = rng.random((5, 4, 3), dtype="float32")
    for x in (pixels, keras.ops.convert_to_tensor(pixels)):
        grey = in_channels(x, 1)
        np.testing.assert_array_equal(np.asarray(grey), to_grey(pixels))
        again = np.asarray(in_channels(grey, 3))
        assert again.shape == (5, 4, 3) and again.dtype == "float32"
        assert not np.ptp(again, axis=-1).any()
        assert in_channels(x, None) is x and in_channels(x, 3) is x


@pytest.mark.parametrize(("have", "channels"), [(3, 4), (4, 3), (4, 1), (1, 4)])
def test_no_channel_is_made_up_or_dropped(have, channels):
    with pytest.raises(
        ValueError, match=rf"of {channels} channels.*\(2, 2, {have}\)"
    ):
        in_channels(np.zeros((2, 2, have)), channels)


def test_files_are_in_colour_or_have_four_channels():
    assert [file_channels(n) for n in (1, 3, 4)] == [3, 3, 4]
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels.*of 5 channels"):
        file_channels(5)


def test_images_of_pillow_in_every_mode(rng):
    pixels = rng.integers(0, 256, (6, 5, 4), dtype="uint8")
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(pillow_pixels(image, 4), pixels)
    np.testing.assert_array_equal(pillow_pixels(image, 3), pixels[..., :3])
    for mode in ("RGB", "L", "LA", "P", "CMYK", "1"):
        other = image.convert("RGB").convert(mode)
        assert pillow_pixels(other, 3).shape == (6, 5, 3)
        with pytest.raises(ValueError, match=f"mode is {mode}, not RGBA"):
            pillow_pixels(other, 4)
    # A palette would be numbers of colours, taken for grey.
    model = network(3, (6, 5))
    colours = image.convert("RGB").convert("P")
    found = keras_csp.preprocess_input(colours, model)[0]
    expected = np.asarray(colours.convert("RGB"))
    np.testing.assert_allclose(found * 255, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_training_and_prediction_read_the_same(channels, shared_data, tmp_path):
    """Grey, CMYK, turned and with a fourth channel."""
    names = ("gray_camera.png", "rgba_bird.png", "gray_concert.jpg")
    names += ("cmyk_street.jpg", "exif_portrait_5.jpg")
    for name in names if channels < 4 else ("rgba_bird.png",):
        for label in ("a", "b"):
            (tmp_path / "train" / label).mkdir(parents=True, exist_ok=True)
            link = tmp_path / "train" / label / name
            link.symlink_to(shared_data / "photos" / name)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    model = network(channels)
    data, _ = load_classification(tmp_path)
    ((found, _),) = data.evaluation(16, model)
    names = sorted(path.name for path in (tmp_path / "train" / "a").iterdir())
    for index, pixels in enumerate(found.numpy()):
        path = shared_data / "photos" / names[index // 2]
        photograph = read_photograph(path, channels)
        expected = keras_csp.preprocess_input(photograph, model)[0]
        assert pixels.shape == expected.shape == (24, 36, channels)
        # Pillow's way from CMYK to RGB is another one.
        most = 0.03 if "cmyk" in path.name else 0.006
        assert np.abs(pixels - expected).mean() < most, path
