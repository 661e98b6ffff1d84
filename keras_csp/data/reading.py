"""Image files and their records, read inside tf.data."""

import logging
import pathlib
import re

import numpy as np
import tensorflow as tf

_LOGGER = logging.getLogger("keras_csp")


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
    """

    def __init__(self, folder=None):
        self.folder = None if folder is None else pathlib.Path(folder)
        self.warned = set()

    def read(self, name, size, encoded):
        """uint8 `(h, w, 3)` from scalars and `(h, w)`, as graph operations.

        A data set of one element is TensorFlow's way to catch an error.
        """
        empty = tf.zeros((0, 0, 3), tf.uint8)
        image = (
            tf.data.Dataset.from_tensors((name, encoded))
            .map(self._decode)
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors(empty))
            .take(1)
            .get_single_element()
        )
        usable = tf.reduce_all(tf.shape(image, tf.int64)[:2] == size)

        def warned():
            warning = tf.numpy_function(
                self._warn, [name, size, encoded], tf.uint8
            )
            return tf.ensure_shape(warning, (None, None, 3))

        return tf.cond(usable, lambda: image, warned)

    def _decode(self, name, encoded):
        if self.folder is not None:
            path = tf.strings.join([str(self.folder), name], "/")
            encoded = tf.io.read_file(path)
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.ensure_shape(image, (None, None, 3))

    def _warn(self, name, size, encoded):
        if name not in self.warned:
            self.warned.add(name)
            path = name.decode()
            _LOGGER.warning(
                "The image %s is skipped: %s",
                path if self.folder is None else self.folder / path,
                self._reason(name, size, encoded),
            )
        return np.zeros((0, 0, 3), "uint8")

    def _reason(self, name, size, encoded):
        try:
            height, width, _channels = self._decode(name, encoded).shape
        except tf.errors.OpError as error:
            return error_summary(error)
        return (
            f"it is {width}x{height} pixels, not {size[1]}x{size[0]} as "
            "annotated"
        )


def error_summary(error):
    """TensorFlow's message without the names of its operations."""
    message = re.sub(r"{{.*?}} ?|\[Op:.*", "", error.message)
    return message.strip().split("\n", maxsplit=1)[0][:200]
