"""Weights for timm's networks that need no file: a seed for each tensor.

Used alike by golden/make_timm_outputs.py, where timm is installed, and by the
tests, where it need not be.
"""

import functools
import gzip
import json
import pathlib
import zlib

import numpy as np

PHOTOS = ("chelsea.png", "astronaut.png", "coffee.png")
GOLDEN = pathlib.Path(__file__).with_name("golden")
SMALLEST = "cs3darknet_focus_s"
SIDE = 128  # of the images compared


def state_dict(shapes):
    """{key: float32 array} of {key: shape}, the same wherever it is made."""
    return {key: _tensor(key, tuple(shape)) for key, shape in shapes.items()}


def _tensor(key, shape):
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    kind = key.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape, "int64")
    if kind == "running_var" or key.endswith("bn.weight"):
        value = rng.uniform(0.5, 1.5, shape)
    elif kind == "weight":
        value = rng.normal(0, np.sqrt(1.4 / np.prod(shape[1:])), shape)
    else:
        value = rng.normal(0, 0.05, shape)
    return value.astype("float32")


def photographs(folder):
    """(n, SIDE, SIDE, 3) float32 in [0, 1], centre crops halved in size."""
    from PIL import Image

    images = []
    for name in PHOTOS:
        image = Image.open(f"{folder}/{name}").convert("RGB")
        left, top = ((side - 2 * SIDE) // 2 for side in image.size)
        box = (left, top, left + 2 * SIDE, top + 2 * SIDE)
        images.append(np.asarray(image.crop(box).reduce(2)))
    return np.stack(images).astype("float32") / 255


def noise(channels=3):
    """(2, SIDE, SIDE, channels) in [0, 1): photographs may not be at hand."""
    shape = (2, SIDE, SIDE, channels)
    return np.random.default_rng(0).random(shape, dtype="float32")


@functools.cache
def tensors():
    """{network: {key: shape}} as timm has them."""
    text = gzip.decompress((GOLDEN / "timm_tensors.json.gz").read_bytes())
    return json.loads(text)["tensors"]


@functools.cache
def outputs():
    return dict(np.load(GOLDEN / "timm_outputs.npz"))


def assert_equal_to_timm(y, name, kind):
    """Every fourth logit, to 1e-4 of the largest."""
    expected = outputs()[f"{name}/{kind}"]
    error = np.abs(np.asarray(y)[:, ::4] - expected).max()
    assert error <= 1e-4 * np.abs(expected).max()
