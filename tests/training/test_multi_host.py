"""The hosts' parts of a batch, in one process.

tests/examples/test_train_multihost.py has processes that train as one.
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_csp.data import ClassificationData
from keras_csp.training.multi_host import Hosts
from keras_csp.training.recipes import get_recipe


def numbered(count):
    """Images whose label is their number, and whose grey is ten times it."""
    greys = np.arange(count, dtype="uint8")[:, None, None, None] * 10
    images = np.broadcast_to(greys, (count, 8, 8, 1))
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(count)))
    return ClassificationData.from_dataset(dataset, map(str, range(count)))


def host(index, count=2):
    return Hosts(count, index, "address:1")


def recipe(batch_size, size):
    return get_recipe("small-classification", batch_size=batch_size).at_size(
        size
    )


def test_the_parts_of_a_training():
    """23 images in batches of 4: host 0 could make one batch more."""
    seen = []
    for index in range(2):
        part = host(index).training(numbered(23), recipe(4, 8))
        for _epoch in range(2):
            batches = [labels.numpy() for _images, labels in part]
            assert [batch.shape for batch in batches] == 5 * [(2, 23)]
            labels = np.concatenate(batches).argmax(-1)
            assert (labels % 2 == index).all()
            assert len(set(labels)) == 10
            seen.append(tuple(labels))
    assert len(set(seen)) == 4


def test_hosts_vary_images_in_their_own_ways():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), "uint8")
    dataset = tf.data.Dataset.from_tensors((image, 0)).repeat(8)
    data = ClassificationData.from_dataset(dataset, ["a"])
    batches = [
        next(iter(host(index).training(data, recipe(8, 16), seed=seed)))
        for index, seed in ((0, 0), (1, 0), (0, 0), (0, 1), (1, 1))
    ]
    batches = [images.numpy() for images, _labels in batches]
    np.testing.assert_array_equal(batches[0], batches[2])
    distinct = {image.tobytes() for batch in batches for image in batch}
    assert len(distinct) == 4 * 4


@pytest.mark.parametrize(
    ("count", "size", "batch"), [(2, 7, 4), (1, 7, 4), (2, 9, 4), (3, 4, 6)]
)
def test_the_parts_of_an_evaluation(count, size, batch):
    """Each image once, and means are those of one host."""
    labels, weights, greys = [], [], []
    for index in range(count):
        part = list(
            host(index, count).evaluation(numbered(size), recipe(batch, 8))
        )
        assert len(part) == -(-size // batch)
        for images, targets, weight in part:
            assert images.shape == (batch // count, 8, 8, 1)
            labels += list(targets.numpy())
            greys += list(images.numpy().mean((1, 2, 3)))
            weights += list(weight.numpy())
    weights, labels = np.array(weights), np.array(labels)
    real = weights > 0
    assert sorted(labels[real].argmax(-1)) == list(range(size))
    assert not labels[~real].any()
    assert len(set(weights[real])) == 1
    expected = 10 * np.arange(size).mean() / 255
    assert np.mean(weights * greys) == pytest.approx(expected, abs=1e-6)


def test_evaluation_with_an_unreadable_image():
    """Its host makes no batch less than the others."""
    good = tf.io.encode_png(np.zeros((8, 8, 3), "uint8")).numpy()
    images = [good, good, b"\x89PNG broken", good]
    dataset = tf.data.Dataset.from_tensor_slices((images, [0, 1, 0, 1]))
    data = ClassificationData.from_dataset(dataset, ["a", "b"])
    for index, readable in ((0, 1), (1, 2)):
        part = list(host(index).evaluation(data, recipe(2, 8)))
        assert len(part) == 2
        weights = np.concatenate([weight.numpy() for *_, weight in part])
        assert weights.tolist() == readable * [1] + (2 - readable) * [0]
