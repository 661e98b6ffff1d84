"""Photographs as a network takes them."""

import numpy as np

from keras_csp._channels import PHOTOGRAPH_CHANNELS, in_channels
from keras_csp.commands.models import input_size
from keras_csp.data.photographs import read_photograph
from keras_csp.data.resizing import fit_image


class PhotographReader:
    """Reads photographs and brings them to a network's size.

    Args:
        metadata: the `Metadata` of the network, whose `ImageSpec` says how.
        size: (height, width), for a network of open sides; None (default):
            the network's own.

    Raises ValueError for a network whose inputs are not images of 1, 3 or
    4 channels, or a size that does not fit it.
    """

    def __init__(self, metadata, size=None):
        shape = metadata.input_shape
        if len(shape) != 3 or shape[-1] not in PHOTOGRAPH_CHANNELS:
            raise ValueError(
                "photographs are only for networks of images with 1, 3 or 4 "
                f"channels. Received: {metadata.network} of {shape}"
            )
        self.channels = shape[-1]
        self.spec = metadata.image
        self.size = input_size(metadata, size)

    def read(self, path):
        """(pixels for the network, the photograph, how it was placed).

        Raises:
            ValueError: a file that cannot be read, or that has no fourth
                channel for a network of 4.
        """
        image = read_photograph(path, self.channels)
        pixels, view = fit_image(image, self.spec, self.size)
        return np.asarray(in_channels(pixels, self.channels)), image, view
