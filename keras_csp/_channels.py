"""Grey, colour, and a fourth channel: one rule for training and prediction.

A network of 1 or 3 channels takes photographs of any kind, in grey or in
colour. The fourth channel of a network of 4 is data, e.g. thermal: it is read
from files that have it, as the alpha channel of a PNG file, and never made up.
Works on arrays and on tensors of any backend.
"""

import numpy as np

PHOTOGRAPH_CHANNELS = (1, 3, 4)
# ITU-R 601, as image files of colours are read in grey.
_LUMINANCE = (0.299, 0.587, 0.114)


def to_grey(pixels):
    """Pixels of three channels in one: 0.299 R + 0.587 G + 0.114 B.

    Args:
        pixels: `(..., 3)`, floating, an array or a tensor.
    """
    return sum(
        weight * pixels[..., index : index + 1]
        for index, weight in enumerate(_LUMINANCE)
    )


def check_channels(shape, channels):
    """ValueError unless `in_channels` takes images of this shape.

    Args:
        shape: of the images, channels last.
        channels: of the network.
    """
    taken = (1, 3) if channels in (1, 3) else (channels,)
    if shape[-1] not in taken:
        raise ValueError(
            f"The network takes images of {channels} channels. Received: "
            f"images of shape {tuple(shape)}"
        )


def in_channels(pixels, channels):
    """Pixels in the channels of a network.

    Colour becomes grey by its luminance, grey three equal channels.

    Args:
        pixels: `(..., n)`, floating, an array or a tensor.
        channels: of the network; None leaves the pixels as they are.

    Raises:
        ValueError: any other change of the number of channels.
    """
    if channels in (None, pixels.shape[-1]):
        return pixels
    check_channels(pixels.shape, channels)
    if channels == 1:
        return to_grey(pixels)
    return pixels * np.ones(3, "float32")


def file_channels(channels):
    """The channels in which a network's files are read, before `in_channels`.

    Files are read in colour, also for a grey network: augmentation changes
    the colours first. The fourth channel is read for a network of 4 only.

    Args:
        channels: of the network.

    Raises:
        ValueError: a network that takes no photographs.
    """
    if channels not in PHOTOGRAPH_CHANNELS:
        raise ValueError(
            "Image files are only for networks of 1, 3 or 4 channels. "
            f"Received: a network of {channels} channels"
        )
    return 4 if channels == 4 else 3


def pillow_pixels(image, channels):
    """The pixels of a Pillow image of any mode: uint8 `(h, w, channels)`.

    Args:
        image: a `PIL.Image.Image`.
        channels: as of `file_channels`.

    Raises:
        ValueError: 4 channels of an image that has no fourth.
    """
    if channels != 4:
        return np.asarray(image.convert("RGB"))
    palette = image.mode == "P" and "transparency" in image.info
    if image.mode != "RGBA" and not palette:
        raise ValueError(
            f"it has no fourth channel: its mode is {image.mode}, not RGBA"
        )
    return np.asarray(image.convert("RGBA"))
