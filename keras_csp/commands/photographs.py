"""Photographs as a network takes them."""

import numpy as np

from keras_csp.data.photographs import read_photograph
from keras_csp.data.resizing import centre_crop, letterbox


class Inputs:
    """The square in the middle for a classifier, all of it for a detector.

    Args:
        metadata: a `keras_csp.export.Metadata`.
        detects: whether it is a detector's.
    """

    def __init__(self, metadata, detects):
        height, width, self.channels = metadata.input_shape
        if height != width or self.channels not in (1, 3):
            raise ValueError(
                "photographs are fed to networks of square images with 1 or 3 "
                f"channels. Received: {metadata.network} of "
                f"{metadata.input_shape}"
            )
        self.size, self.metadata, self.detects = height, metadata, detects

    def read(self, path):
        """(what the network takes, the photograph, how it was placed)."""
        image = read_photograph(path)
        view = None
        if self.detects:
            pixels, view = letterbox(image, self.size)
        else:
            pixels = centre_crop(image, self.size)
        pixels = np.asarray(pixels)
        if self.channels == 1:
            pixels = pixels.mean(axis=-1, keepdims=True)
        return self.metadata.normalize(pixels), image, view
