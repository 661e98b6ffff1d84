"""Small networks and samples that the tests of exports share."""

import keras
from support import SMALL, randomize

from keras_csp.models.builder import build_network


def small(name="SmallMobile", classes=5):
    """One of `SMALL`, with random weights and statistics."""
    return randomize(
        build_network(SMALL[name], classes=classes, input_shape=(64, 64, 3))
    )


def little(classes=3):
    """Of 8 pixels, built by Keras alone: it has no `ImageSpec`."""
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs, name="little")
