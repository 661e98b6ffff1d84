"""From photographs to a network's input, and from its outputs to names."""

import keras
import numpy as np
from keras import ops

from keras_csp._channels import (
    check_channels,
    file_channels,
    in_channels,
    pillow_pixels,
)
from keras_csp._validation import check_positive
from keras_csp.layers.preprocessing import image_spec
from keras_csp.weights.imagenet import imagenet_classes, wordnet_ids

_DATA_FORMATS = ("channels_first", "channels_last")


def preprocess_input(x, model=None, data_format=None):
    """x / 255: what every network of this package takes.

    A network normalises its pixels itself, in its first layer. With `model`,
    images of another size than its own are also brought to it, as its
    `ImageSpec` says: resized, cropped or letterboxed, with its interpolation.

    Args:
        x: images with values in [0, 255], channels last: an array or tensor
            `(batch, height, width, channels)` or `(height, width, channels)`,
            or a list of images of any sizes (arrays, PIL images). Arrays in
            grey and in colour become what the model takes; a PIL image of any
            mode becomes grey, RGB or, for a model of 4 channels, RGBA.
        model: a network of this package, or one built upon it. `None`
            (default): no image is resized. A string here is `data_format`, as
            in keras.applications.
        data_format: accepted as in keras.applications. `None` (default) and
            "channels_last" are the same; without `model` so is
            "channels_first".

    Returns:
        float32 (of a floating tensor its own type) in [0, 1]. Without
        `model`, of the shape of `x`, a list stacked. With it, a batch
        `(batch, height, width, channels)` as it takes them. `x` itself is not
        changed.

    Raises:
        ValueError: not 3D or 4D; an unknown `data_format`; a model without an
            `ImageSpec`; channels that the model does not take; images of
            different sizes, where the model does not say which it takes.
    """
    if isinstance(model, str):
        model, data_format = None, model
    if data_format not in (None, *_DATA_FORMATS):
        raise ValueError(
            "`data_format` must be None, 'channels_first' or 'channels_last'. "
            f"Received: data_format={data_format!r}"
        )
    if model is not None:
        if data_format == "channels_first":
            raise ValueError(
                "A network of this package takes images with channels last. "
                f"Received: data_format={data_format!r}"
            )
        return _for_model(x, model)
    if isinstance(x, (list, tuple)):
        return _stacked([_scaled(np.asarray(image)) for image in x])
    return _scaled(x if hasattr(x, "dtype") else np.asarray(x))


def _scaled(x):
    if len(x.shape) not in (3, 4):
        raise ValueError(
            "`x` must be an image or a batch of images, 3D or 4D. Received: "
            f"an array of shape {tuple(x.shape)}"
        )
    if isinstance(x, np.ndarray):
        return x.astype("float32") / np.float32(255)
    if keras.backend.is_float_dtype(x.dtype):
        return x / 255.0
    return ops.cast(x, "float32") / 255.0


def _stacked(images):
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ValueError(
            "Images of different sizes need a model whose size is known. "
            f"Received: images of shapes {sorted(shapes)}"
        )
    return np.stack(images)


def _for_model(x, model):
    spec = image_spec(model)
    if spec is None:
        raise ValueError(
            f"{model.name!r} has no ImageSpec, which says what pixels it "
            "takes: give it one by keras_csp.with_image_spec(model, "
            "keras_csp.ImageSpec(...)). Received: a model without a "
            "Preprocessing layer"
        )
    channels = model.inputs[0].shape[-1]
    if hasattr(x, "shape") and len(x.shape) == 4 and _fits(x, spec, channels):
        return _scaled(x)
    images = _images(x, channels)
    return _stacked([_fitted(image, spec, channels) for image in images])


def _images(x, channels):
    """The images of a batch, of a list, or the one image, as arrays.

    Those of Pillow are read as files are, for a network of `channels`.
    """
    numbers = isinstance(x, (list, tuple)) and isinstance(
        x[0] if x else 0, (list, tuple)
    )
    if numbers or not isinstance(x, (list, tuple)):
        x = _array(x, channels)
        x = [x] if x.ndim in (2, 3) else x
    if not len(x):
        raise ValueError("There is no image in `x`. Received: none")
    images = [_array(image, channels) for image in x]
    for image in images:
        if image.ndim not in (2, 3) or not image.size:
            raise ValueError(
                "An image must be (height, width, channels), or (height, "
                f"width) in grey. Received: an array of shape {image.shape}"
            )
    return [image if image.ndim == 3 else image[..., None] for image in images]


def _array(x, channels=3):
    """`x` as a NumPy array; tensors without values are refused."""
    if hasattr(x, "getbands"):  # a Pillow image: numbers of any mode
        return pillow_pixels(x, file_channels(channels))
    if keras.utils.is_keras_tensor(x) or keras.ops.is_tensor(x):
        try:
            return ops.convert_to_numpy(x)
        except (NotImplementedError, TypeError, ValueError, AttributeError):
            raise ValueError(
                "Symbolic images must have the size and channels of the "
                "model, in a batch; in a tf.data pipeline, "
                "keras_csp.data.fit_image brings an image to its size. "
                f"Received: a tensor of shape {tuple(x.shape)}"
            ) from None
    return np.asarray(x)


def _fits(image, spec, channels):
    height, width, own = image.shape[-3:]
    return own == channels and spec.size in (None, (height, width))


def _fitted(image, spec, channels):
    """One image as float32 of the model's size and channels, in [0, 1]."""
    if _fits(image, spec, channels):
        return _scaled(image)
    check_channels(image.shape, channels)
    pixels = _scaled(image)
    if spec.size not in (None, image.shape[:2]):
        # Imported here, since it imports TensorFlow.
        from keras_csp.data import fit_image

        pixels = np.asarray(fit_image(image, spec)[0])
    return in_channels(pixels, channels)


def decode_predictions(preds, model=None, top=5):
    """The `top` classes of each prediction, by name.

    Args:
        preds: `(samples, classes)` scores: probabilities or logits.
        model: the network that gave them; the names are those of its
            `ImageSpec`. `None` (default): ImageNet's 1000 classes in the
            order of keras.applications, sorted by WordNet id. An integer here
            is `top`, as in keras.applications.
        top: how many classes for each sample. Default 5.

    Returns:
        For each sample a list of `(id, name, score)`, best first. The id is
        the WordNet id of ImageNet's classes, the number of any other.

    Raises:
        ValueError: `preds` is not 2D, or not of as many classes as there are
            names; a model that has no names of classes.
    """
    if model is not None and not hasattr(model, "layers"):
        model, top = None, model
    top = check_positive("top", top)
    classes = _imagenet() if model is None else _classes(model)
    preds = ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] != len(classes):
        raise ValueError(
            "`preds` must be a batch of predictions, of shape (samples, "
            f"{len(classes)}). Received: an array of shape {preds.shape}"
        )
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[index], scores[index]) for index in order]
        for order, scores in zip(best, preds)
    ]


def _imagenet():
    return tuple(imagenet_classes().items())


def _classes(model):
    """((id, name), ...) of the classes of a model."""
    spec = image_spec(model)
    names = None if spec is None else spec.class_names
    if names is None:
        raise ValueError(
            f"The classes of {model.name!r} have no names. Give it some: "
            "model = keras_csp.with_image_spec(model, class_names=[...]). "
            "Without `model`, they are ImageNet's in the order of Keras"
        )
    ids = wordnet_ids(names) or range(len(names))
    return tuple(zip(ids, names))
