"""What is written, and the real inputs that it is compared on."""

import itertools

import keras
import numpy as np

from keras_csp._channels import PHOTOGRAPH_CHANNELS, to_grey
from keras_csp._validation import check_positive
from keras_csp.detection import Detector
from keras_csp.export.metadata import describe
from keras_csp.layers.preprocessing import image_spec

# Enough for the ranges of the activations; more takes time and widens them.
_MOST = 500


def exportable(model, kind):
    """`model` as it is written: one input, and outputs with names.

    Args:
        model: a functional `keras.Model`; a `Detector` becomes its
            `inference_model()`, a list of outputs {"output_0": ...}.
        kind: of file, for the error.

    Raises:
        ValueError: another backend, another kind of model.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{kind} files are written on the TensorFlow backend. Received: "
            f"the backend {keras.backend.backend()!r}"
        )
    if isinstance(model, Detector):
        model = model.inference_model()
    inputs = getattr(model, "inputs", None) or ()
    if not isinstance(model, keras.Model) or not inputs:
        raise ValueError(
            "Expected a functional keras.Model or a keras_csp.Detector. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    if len(inputs) != 1 or not isinstance(model.input_shape, tuple):
        raise ValueError(
            "The model must have one input. Received: "
            f"{model.name!r} with {len(inputs)} inputs"
        )
    return _with_named_outputs(model)


def _with_named_outputs(model):
    outputs = model.output
    if isinstance(outputs, (list, tuple)):
        outputs = {f"output_{i}": output for i, output in enumerate(outputs)}
    values = outputs.values() if isinstance(outputs, dict) else [outputs]
    if not all(map(keras.utils.is_keras_tensor, values)):
        shapes = keras.tree.map_structure(lambda x: x.shape, outputs)
        raise ValueError(
            "The model's output must be one tensor, or a list or dict of "
            f"tensors. Received: {model.name!r} with {shapes}"
        )
    if outputs is model.output or isinstance(model.output, dict):
        return model
    return keras.Model(model.inputs, outputs, name=model.name)


def prepare(model, samples, input_shape=None):
    """The `Metadata` of a file of `model`, and the inputs to check it with.

    Args and errors: see `to_tflite`.
    """
    shape = file_shape(model, samples, input_shape)
    metadata = describe(model, shape)
    if samples is None:
        samples = photographs(shape)
    return metadata, check_batch("samples", samples, shape)


def file_shape(model, samples=None, input_shape=None):
    """`(height, width, channels)` of a file's input, all sides known.

    From `input_shape`, else from the model, else from the samples, else from
    the size in the model's `ImageSpec`.

    Raises:
        ValueError: sides that nothing gives, or an `input_shape` that does
            not fit the model.
    """
    shape = tuple(model.input_shape[1:])
    if input_shape is not None:
        given = tuple(check_positive("input_shape", n) for n in input_shape)
        if not _fits(shape, given):
            raise ValueError(
                f"`input_shape` must fit the model's input, {shape}. "
                f"Received: input_shape={given}"
            )
        return given
    if None not in shape:
        return shape
    given = tuple(getattr(samples, "shape", ()))[1:]
    if _fits(shape, given):
        return given
    spec = image_spec(model)
    given = (*spec.size, shape[-1]) if spec and spec.size else ()
    if samples is None and _fits(shape, given):
        return given
    raise ValueError(
        f"{model.name!r} takes images of any size: give the file's as "
        "`input_shape=(height, width, channels)`"
    )


def check_batch(argument, values, shape):
    """`values` as a float32 array; ValueError if no batch of `shape`."""
    try:
        values = np.asarray(values, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` must be an array. Received: an object of type "
            f"{type(values).__name__}"
        ) from error
    if not values.ndim or not len(values) or values.shape[1:] != shape:
        raise ValueError(
            f"`{argument}` must be a non-empty batch of the file's inputs, "
            f"{('n', *shape)}. Received: shape {values.shape}".replace("'", "")
        )
    return values


def representative_inputs(values, shape):
    """An array of the first 500 of `values`, an array or batches.

    Args:
        values: `(n, *shape)`, or an iterable of such batches, e.g. a
            `tf.data.Dataset`; of batches that are tuples, the first part.
    """
    if not hasattr(values, "shape") and hasattr(values, "__iter__"):
        found = []
        for batch in values:
            images = batch[0] if isinstance(batch, (tuple, list)) else batch
            found.append(np.asarray(images, "float32"))
            if sum(map(len, found)) >= _MOST:
                break
        values = _joined(found, shape)
    return check_batch("representative", values, shape)[:_MOST]


def photographs(input_shape, count=8):
    """Parts of scikit-learn's two photographs, pixels in [0, 1].

    Args:
        input_shape: `(height, width, channels)`, 1, 3 or 4 channels, of
            which the fourth is the luminance: no photograph has one.
        count: how many. Default 8.

    Returns:
        float32 `(count, height, width, channels)`.

    Raises:
        ValueError: inputs of another shape, which are no photographs.
    """
    from sklearn.datasets import load_sample_images

    if len(input_shape) != 3 or input_shape[-1] not in PHOTOGRAPH_CHANNELS:
        raise ValueError(
            f"Inputs of shape {tuple(input_shape)} are not photographs. Give "
            "`samples`: real inputs to compare the file with the model on"
        )
    height, width, channels = input_shape
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
    if channels == 4:
        pixels = np.concatenate([pixels, to_grey(pixels)], axis=-1)
    return pixels / np.float32(255)


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
