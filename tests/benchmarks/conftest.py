"""Pictures as CIFAR-10 has them."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten classes, two pictures each for training and one for testing."""
    root = tmp_path_factory.mktemp("pictures") / "cifar"
    rng = np.random.default_rng(0)
    for split, number in (("train", 2), ("test", 1)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 256, (32, 32, 3), "uint8")
                Image.fromarray(pixels).save(folder / f"{index:04}.jpg")
    return root
