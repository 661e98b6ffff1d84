"""Image files and their records, read inside tf.data."""

import copy
import logging
import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from keras_csp._channels import file_channels

_LOGGER = logging.getLogger("keras_csp")
_ORIENTATION = 0x0112


class Table:
    """Records as tensors, for a number to pick from."""

    def __init__(self, records):
        self.names = tf.constant([record.file_name for record in records])
        self.sizes = tf.constant(
            [(record.height, record.width) for record in records], tf.int64
        )
        self.ids = tf.constant([r.image_id for r in records], tf.int64)
        counts = [len(record.labels) for record in records]
        self.splits = tf.constant(np.cumsum([0, *counts]))
        self.flat = {
            name: tf.constant(
                np.concatenate([getattr(record, name) for record in records])
            )
            for name in ("boxes", "labels", "crowd", "area")
        }

    def row(self, number):
        start, end = self.splits[number], self.splits[number + 1]
        objects = {name: flat[start:end] for name, flat in self.flat.items()}
        return {**objects, "image_id": self.ids[number]}


class Reader:
    """Decodes images; what cannot be decoded is named once, and empty.

    Python is called for those only: a thread of tf.data that waits for Python
    while it ends blocks the end of the program for good.

    Args:
        folder: of the files; None for images that come encoded.
        channels: 3 (default), or 1: grey; or 4, of files that have four.
        upright: turn photographs as their EXIF data says. Default False: boxes
            are in the pixels of the file.
    """

    def __init__(self, folder=None, channels=3, upright=False):
        self.folder = None if folder is None else pathlib.Path(folder)
        self._prefix = b"" if folder is None else os.fsencode(folder) + b"/"
        self.channels = channels
        self.upright = upright
        self.warned = set()

    def for_network(self, channels):
        """This reader, or one of the channels that a network needs.

        Args:
            channels: of the network, which `in_channels` may have to give it;
                None for any.

        Raises:
            ValueError: a network that takes no photographs.
        """
        if channels in (None, self.channels):
            return self
        wanted = file_channels(channels)
        if 4 not in (wanted, self.channels):
            return self
        other = copy.copy(self)
        other.channels = wanted
        return other

    def read(self, name, size, encoded):
        """uint8 `(h, w, channels)`, as graph operations.

        A data set of one element is TensorFlow's way to catch an error. Its
        function is set up anew for every image, so it should be small.

        Args:
            name: scalar, of the file, or to call the image by.
            size: int64 `(2,)`, the height and width it must have; None for
                any.
            encoded: scalar, read if there is no folder.
        """
        nothing = tf.zeros((0, 0, self.channels), tf.uint8), ""
        image, content = (
            tf.data.Dataset.from_tensors((name, encoded))
            .map(self._decode)
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors(nothing))
            .take(1)
            .get_single_element()
        )
        found = tf.shape(image, tf.int64)[:2]
        wanted = found if size is None else size
        usable = tf.reduce_all(found == wanted) & (tf.size(image) > 0)

        def decoded():
            if not self.upright:
                return image
            return turned(image, orientation(content))

        def warned():
            warning = tf.numpy_function(
                self._warn, [name, wanted, encoded], tf.uint8
            )
            return tf.ensure_shape(warning, (None, None, self.channels))

        return tf.cond(usable, decoded, warned)

    def shown(self, name):
        """What an image is called in messages: its path if it is a file."""
        name = os.fsdecode(name)
        return printable(name if self.folder is None else self.folder / name)

    def _decode(self, name, encoded):
        image, encoded = self._pixels(name, encoded)
        return tf.ensure_shape(image, (None, None, self.channels)), encoded

    def _pixels(self, name, encoded):
        if self.folder is not None:
            encoded = tf.io.read_file(tf.strings.join([self._prefix, name]))
        # TensorFlow would make up a fourth channel: 0 asks for the file's own.
        channels = 0 if self.channels == 4 else self.channels
        image = tf.io.decode_image(encoded, channels, expand_animations=False)
        return image, encoded

    def _warn(self, name, size, encoded):
        if name not in self.warned:
            self.warned.add(name)
            _LOGGER.warning(
                "The image %s is skipped: %s",
                self.shown(name),
                self._reason(name, size, encoded),
            )
        return np.zeros((0, 0, self.channels), "uint8")

    def _reason(self, name, size, encoded):
        try:
            image, _content = self._pixels(name, encoded)
        except tf.errors.OpError as error:
            return error_summary(error)
        height, width, channels = image.shape
        if channels != self.channels:
            return f"it has no fourth channel, but {channels} in all"
        if not height or not width:
            return "it has no pixels"
        return (
            f"it is {width}x{height} pixels, not {size[1]}x{size[0]} as "
            "annotated"
        )


def printable(path):
    r"""A path as text that can be written: bytes that are not UTF-8 as \xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def orientation(encoded):
    """The EXIF orientation, 1 to 8, of an encoded photograph.

    1, upright, where there is none or it makes no sense: TensorFlow and Keras
    decode the pixels and leave it alone. Source: the EXIF and TIFF standards;
    tag 0x0112 of the first image file directory.

    Args:
        encoded: scalar string; EXIF data, as JPEG files have them, are looked
            for in its first 64 KiB.
    """
    head = tf.strings.substr(encoded, 0, 1 << 16)
    parts = tf.strings.split(head, b"Exif\0\0", maxsplit=1)
    return tf.cond(
        tf.size(parts) > 1,
        lambda: _tiff_orientation(tf.io.decode_raw(parts[1], tf.uint8)),
        lambda: 1,
    )


def _tiff_orientation(tiff):
    """The orientation in a TIFF structure: byte order, 42, first directory."""
    size = tf.size(tiff)
    tiff = tf.cast(tf.pad(tiff, [[0, 1]]), tf.int32)
    ascending = tiff[0] == ord("I")

    def number(place, length):
        """What the `length` bytes at each place say, 0 where there are none."""
        places = place[..., None] + tf.range(length)
        known = (places >= 0) & (places < size)
        digits = tf.gather(tiff, tf.where(known, places, size))
        digits = tf.where(ascending, digits[..., ::-1], digits)
        return tf.reduce_sum(digits * 256 ** tf.range(length)[::-1], axis=-1)

    directory = number(tf.constant(4), 4)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    found = tf.boolean_mask(entries, number(entries, 2) == _ORIENTATION)
    values = tf.concat([number(found + 8, 2), [1]], 0)[:1]
    known = (values >= 1) & (values <= 8) & (number(tf.constant(2), 2) == 42)
    return tf.where(known, values, 1)[0]


def turned(image, orientation):
    """The image `(h, w, channels)` upright, by its EXIF orientation."""

    def among(*orientations):
        return tf.reduce_any(orientation == tf.constant(orientations))

    def changed(condition, change, image):
        return tf.cond(condition, lambda: change(image), lambda: image)

    image = changed(
        orientation >= 5, lambda x: tf.transpose(x, (1, 0, 2)), image
    )
    image = changed(among(2, 3, 6, 7), lambda x: tf.reverse(x, axis=[1]), image)
    return changed(among(3, 4, 7, 8), lambda x: tf.reverse(x, [0]), image)


def mapped(dataset, function):
    """`dataset.map`, in parallel and in the set's order."""
    return dataset.map(
        function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def error_summary(error):
    """TensorFlow's message without the names of its operations."""
    message = re.sub(r"{{.*?}} ?|\[Op:.*", "", error.message)
    return message.strip().split("\n", maxsplit=1)[0][:200]
