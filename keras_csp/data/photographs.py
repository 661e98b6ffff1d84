"""Photographs on disk: finds them, and reads each upright."""

import pathlib

from PIL import Image, ImageOps

from keras_csp._channels import file_channels, pillow_pixels
from keras_csp.data.reading import printable

SUFFIXES = (".jpg", ".jpeg", ".png")
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def find_photographs(paths):
    """The files named, and the JPEG and PNG files of the folders named.

    Raises:
        ValueError: a path that does not exist, or a folder without any.
    """
    found = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise ValueError(f"no such file or folder: {printable(path)}")
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        files = [f for f in files if f == path or f.suffix.lower() in SUFFIXES]
        if not files:
            raise ValueError(f"no JPEG or PNG files in {printable(path)}")
        found += files
    return found


def read_photograph(path, channels=3):
    """The upright photograph as uint8 `(height, width, 3)`.

    Any colour mode, turned as its EXIF data says.

    Args:
        path: of the file.
        channels: of the network. Default 3. For 4, the result is `(height,
            width, 4)` of a file with four channels, e.g. a PNG file in RGBA.

    Raises:
        ValueError: a file that is not an image, or is cut short, or has no
            fourth channel for a network of 4.
    """
    channels = file_channels(channels)
    try:
        with Image.open(path) as image:
            return pillow_pixels(ImageOps.exif_transpose(image), channels)
    except _UNREADABLE as error:
        raise ValueError(f"cannot read {printable(path)}: {error}") from error
