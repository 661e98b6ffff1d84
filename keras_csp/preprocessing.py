"""From photographs to a network, and from its answers to words."""

import keras
import numpy as np
from keras import ops

from keras_csp._validation import check_choice
from keras_csp.layers.preprocessing import image_spec
from keras_csp.weights.imagenet import imagenet_classes, wordnet_ids


def preprocess_input(x, model=None, data_format=None):
    """x / 255; with a model, photographs of any size as it takes them.

    A network of this package takes pixels in [0, 1], and normalises them
    itself where its weights were trained so.

    Args:
        x: an array or tensor of images, 3D or 4D, values in [0, 255]. With a
            model also a list of images of any sizes, `(height, width, 3)` or
            `(height, width, 1)`.
        model: a `keras.Model` of this package, or built upon one: its
            `ImageSpec` says how images are brought to its size (cropped,
            letterboxed or stretched). Images that have its size are only
            scaled. Default None: no image changes its size.
        data_format: accepted for the sake of keras.applications:
            "channels_last" or None (default); without a model also
            "channels_first", which makes no difference.

    Returns:
        float32 (or the floating type of `x`) of the same shape; with a model
        float32 `(batch, height, width, channels)`. `x` is left as it is.

    Raises:
        ValueError: not 3D or 4D, an unknown `data_format`, a model without an
            `ImageSpec` or a size, or images of other channels.
    """
    check_choice(
        "data_format", data_format, (None, "channels_first", "channels_last")
    )
    if model is None:
        _check_images(x)
        return _scaled(x)
    spec = image_spec(model)
    if spec is None:
        raise ValueError(
            f"{model.name!r} does not say what its images are; give it an "
            "ImageSpec by keras_csp.with_image_spec"
        )
    single = hasattr(x, "shape") and len(x.shape) == 3
    images = [x] if single else x
    return np.stack([_fitted(image, spec, model) for image in images])


def _check_images(x):
    if len(x.shape) not in (3, 4):
        raise ValueError(
            "`x` must be an image or a batch of images, 3D or 4D. Received: "
            f"an array of shape {tuple(x.shape)}"
        )


def _scaled(x):
    if isinstance(x, np.ndarray):
        floating = np.issubdtype(x.dtype, np.floating)
        return (x if floating else x.astype("float32")) / 255.0
    if keras.backend.is_float_dtype(x.dtype):
        return x / 255.0
    return ops.cast(x, "float32") / 255.0


def _fitted(image, spec, model):
    """One image as the model takes it, float32."""
    from keras_csp.data.resizing import fit_image, in_channels

    image = ops.convert_to_numpy(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            "An image must have the shape (height, width, 3) or (height, "
            f"width, 1). Received: shape {image.shape}"
        )
    channels = model.input_shape[-1]
    if spec.size in (None, image.shape[:2]):
        pixels = image.astype("float32") / 255.0
    else:
        pixels, _ = fit_image(np.clip(image, 0, 255).astype("uint8"), spec)
    return np.asarray(in_channels(np.asarray(pixels), channels), "float32")


def decode_predictions(preds, model=None, top=5):
    """The `top` classes of each prediction.

    Args:
        preds: `(samples, classes)` probabilities or logits.
        model: the `keras.Model` that gave them, whose `ImageSpec` has the
            names of its classes. Default None: the 1000 classes of ImageNet in
            the order of Keras and timm.
        top: how many classes for each sample. Default 5.

    Returns:
        For each sample a list of (WordNet id, name, score), best first; of
        other classes than ImageNet's (number, name, score).

    Raises:
        ValueError: a model that does not know its classes, or `preds` of
            another number of them.
    """
    names = tuple(imagenet_classes().values())
    if model is not None:
        spec = image_spec(model)
        names = spec and spec.class_names
        if not names:
            raise ValueError(
                f"{model.name!r} does not know the names of its classes; give "
                "them by keras_csp.with_image_spec(model, class_names=...)"
            )
    preds = ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] != len(names):
        raise ValueError(
            "`decode_predictions` expects a batch of predictions (a 2D array "
            f"of shape (samples, {len(names)})). Received: shape {preds.shape}"
        )
    ids = wordnet_ids(names) or range(len(names))
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(ids[index], names[index], row[index]) for index in indexes]
        for row, indexes in zip(preds, best)
    ]
