"""A model's file and some photographs, for the tests of the commands."""

import keras
import numpy as np
from PIL import Image

import keras_csp
from keras_csp.layers import ConvNormAct

COLOURS = ("red", "green", "blue")

# Two [yolo] sections, on 64 by 96 pixels.
DETECTOR_CFG = """\
[net]
width=96
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=21
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,13,16,30,33,23,30,61,62,45,59,119
classes=2
num=6
[route]
layers=-3
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=21
size=1
activation=linear
[yolo]
mask=3,4,5
anchors=10,13,16,30,33,23,30,61,62,45,59,119
classes=2
num=6
"""


def classifier(size=16, **spec):
    """Of three colours; its weights are random."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    x = ConvNormAct(8, 3, strides=2)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs, name="little")
    return keras_csp.with_image_spec(model, class_names=COLOURS, **spec)


def certain(detector):
    """With no prior of the heads: the scores of new weights are near 0.25."""
    for layer in detector.layers:
        for variable in layer.weights:
            if variable.path.endswith("bias"):
                variable.assign(keras.ops.zeros_like(variable))
    return detector


def save_photographs(folder, count, shape=(30, 30, 3)):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = rng.integers(0, 256, shape, dtype="uint8")
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
