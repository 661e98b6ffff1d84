"""Real inputs: those a file is checked with, and those it is quantised by."""

import itertools

import keras
import numpy as np

from keras_csp._validation import check_positive
from keras_csp.export.metadata import describe

# Enough for the ranges of the activations; more takes time and widens them.
_MOST = 500


def prepare(
    model, kind, samples, input_shape=None, labels=None, preprocessing=None
):
    """The `Metadata` of a file of `model`, and the inputs to check it with.

    Args and errors: see `to_tflite`.
    """
    _check_backend(kind)
    shape = file_shape(model, samples, input_shape)
    metadata = describe(model, shape, labels, preprocessing)
    if samples is None:
        samples = photographs(metadata)
    return metadata, check_batch("samples", samples, shape)


def _check_backend(kind):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{kind} files are written on the TensorFlow backend. Received: "
            f"the backend {keras.backend.backend()!r}"
        )


def file_shape(model, samples=None, input_shape=None):
    """`(height, width, channels)` of a file's input, all sides given.

    From `input_shape`, else from the model, else from the samples.

    Raises:
        ValueError: a model of several inputs, sides that nothing gives, or an
            `input_shape` that does not fit the model.
    """
    expected = model.input_shape
    if not isinstance(expected, tuple):
        raise ValueError(
            "The model must have one input. Received: "
            f"{model.name!r} with {len(model.inputs)} inputs"
        )
    shape = tuple(expected[1:])
    if input_shape is not None:
        given = tuple(check_positive("input_shape", n) for n in input_shape)
        if not _fits(shape, given):
            raise ValueError(
                f"`input_shape` must fit the model's input, {shape}. "
                f"Received: input_shape={given}"
            )
        return given
    given = tuple(getattr(samples, "shape", ()))[1:]
    if None in shape and _fits(shape, given):
        return given
    if None in shape:
        raise ValueError(
            f"{model.name!r} takes images of any size: give the file's as "
            "`input_shape=(height, width, channels)`"
        )
    return shape


def check_batch(argument, values, shape):
    """`values` as a float32 array; ValueError if no batch of `shape`."""
    try:
        values = np.asarray(values, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` must be an array. Received: an object of type "
            f"{type(values).__name__}"
        ) from error
    if (
        not len(np.shape(values))
        or not len(values)
        or values.shape[1:] != shape
    ):
        raise ValueError(
            f"`{argument}` must be a non-empty batch of the file's inputs, "
            f"{('n', *shape)}. Received: shape {values.shape}".replace("'", "")
        )
    return values


def representative_inputs(values, shape):
    """An array of the first 500 of `values`, an array or batches.

    Args:
        values: `(n, *shape)`, or an iterable of such batches, e.g. a
            `tf.data.Dataset`; of batches that are tuples the first part.
    """
    if not hasattr(values, "shape") and hasattr(values, "__iter__"):
        batches, found = iter(values), []
        for batch in batches:
            if isinstance(batch, (tuple, list)):
                batch = batch[0]  # noqa: PLW2901 the labels are not asked for
            found.append(np.asarray(batch, "float32"))
            if sum(map(len, found)) >= _MOST:
                break
        values = _joined(found, shape)
    return check_batch("representative", values, shape)[:_MOST]


def photographs(metadata, count=8):
    """Parts of scikit-learn's two photographs, as the network takes them.

    Args:
        metadata: a `Metadata`, of images of 1 or 3 channels.
        count: how many. Default 8.

    Returns:
        float32 `(count, height, width, channels)`.
    """
    from sklearn.datasets import load_sample_images

    shape = metadata.input_shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            f"A network of inputs {shape}, no photographs, "
            "needs `samples`: real inputs to compare the file with the model on"
        )
    height, width, channels = shape
    images = load_sample_images().images
    rng = np.random.default_rng(0)
    crops = [
        _crop(image, rng)
        for image in itertools.islice(itertools.cycle(images), count)
    ]
    resized = keras.ops.image.resize(
        np.stack(crops).astype("float32"), (height, width), antialias=True
    )
    pixels = keras.ops.convert_to_numpy(resized)
    if channels == 1:
        pixels = pixels.mean(axis=-1, keepdims=True)
    return metadata.preprocess(pixels)


def _crop(image, rng, side=320):
    top, left = (rng.integers(n - side + 1) for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def _joined(found, shape):
    if not found:
        return np.zeros((0, *shape), "float32")
    try:
        return np.concatenate(found)
    except ValueError as error:
        raise ValueError(
            "The batches of `representative` must have one shape, "
            f"{('n', *shape)}. Received: {sorted({f.shape for f in found})}"
        ) from error


def _fits(expected, given):
    return len(given) == len(expected) and all(
        side in (None, found) for side, found in zip(expected, given)
    )
