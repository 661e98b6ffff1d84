"""What a detector is given: padded rows of boxes, and channels."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_csp.detection import inputs


def detector(channels):
    return types.SimpleNamespace(
        name="it", input_shape=(None, 64, 64, channels), largest_stride=32
    )


@pytest.mark.parametrize(
    ("rows", "regions", "lengths"),
    [(3, 1, (16, 16)), (17, 16, (32, 16)), (1, 40, (16, 64))],
)
def test_rows_are_padded_to_few_lengths(rows, regions, lengths, rng):
    """Boxes and regions to be ignored each to their own."""
    targets = {
        "boxes": rng.random((2, rows, 4), dtype="float32"),
        "labels": np.zeros((2, rows), "int32"),
        "ignore": rng.random((2, regions, 4), dtype="float32"),
        "image_id": np.arange(2),
    }
    tensors = {key: tf.constant(value) for key, value in targets.items()}
    _, padded = inputs._rounded(None, tensors)
    np.testing.assert_array_equal(padded["image_id"], targets["image_id"])
    for key, length in zip(
        ("boxes", "labels", "ignore"), (*lengths[:1], *lengths)
    ):
        given, found = targets[key], padded[key].numpy()
        assert found.shape[1] == length
        count = given.shape[1]
        np.testing.assert_array_equal(found[:, :count], given)
        assert (found[:, count:] == (-1 if key == "labels" else 0)).all()


@pytest.mark.parametrize(("have", "channels"), [(3, 1), (1, 3), (3, 3), (4, 4)])
def test_images_get_the_detectors_channels(have, channels, rng):
    x = rng.random((2, 64, 64, have), dtype="float32")
    found = np.asarray(inputs.as_images(x, detector(channels)))
    assert found.shape == (2, 64, 64, channels)
    targets = {"boxes": np.zeros((2, 1, 4)), "labels": np.zeros((2, 1))}
    batches = tf.data.Dataset.from_tensors((x, targets))
    ((images, _),) = inputs.as_batches(batches, detector(channels))
    np.testing.assert_allclose(images, found, atol=1e-6)


def test_a_fourth_channel_is_not_made_up():
    x = np.zeros((2, 64, 64, 3), "float32")
    with pytest.raises(ValueError, match=r"of 4 channels.*\(2, 64, 64, 3\)"):
        inputs.as_images(x, detector(4))
    batches = tf.data.Dataset.from_tensors((x, {"boxes": 0, "labels": 0}))
    with pytest.raises(ValueError, match=r"of 4 channels.*\(2, 64, 64, 3\)"):
        inputs.as_batches(batches, detector(4))
