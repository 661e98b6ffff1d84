"""From pixels to network and from its answers to words."""

import functools
import pathlib

import keras
import numpy as np
from keras import ops

from keras_csp._validation import check_choice
from keras_csp.weights import find_record


def preprocess_input(x, data_format=None, weights=None):
    """x / 255, or (x / 255 - mean) / std: what the weights were trained with.

    The paper's networks were trained by Darknet, which scales pixels to
    [0, 1] and subtracts no mean; timm normalises each channel too.

    Args:
        x: an array or tensor of images, 3D or 4D, values in [0, 255].
        data_format: accepted for the sake of keras.applications. None
            (default) and "channels_last" are the same, and without `weights`
            so is "channels_first".
        weights: None (default) for Darknet's scaling, or the name of a
            published checkpoint: timm's ("cspresnext50"), its hub id, or its
            factory ("CSPResNeXt50Timm"). See `list_weights`. "imagenet" is
            not one checkpoint and raises.

    Returns:
        float32 (or the tensor's own floating type) of the same shape; `x`
        itself is left as it is.

    Raises:
        ValueError: not 3D or 4D, an unknown `data_format` or checkpoint, or
            images of other than 3 channels for a checkpoint of RGB ones.
    """
    record = None if weights is None else _record(weights)
    if data_format not in (None, "channels_first", "channels_last"):
        raise ValueError(
            "Expected data_format to be one of `channels_first` or "
            f"`channels_last`. Received: data_format={data_format!r}"
        )
    if len(x.shape) not in (3, 4):
        raise ValueError(
            "`x` must be an image or a batch of images, 3D or 4D. Received: "
            f"an array of shape {tuple(x.shape)}"
        )
    if isinstance(x, np.ndarray):
        floating = np.issubdtype(x.dtype, np.floating)
        scaled = (x if floating else x.astype("float32")) / 255.0
    elif keras.backend.is_float_dtype(x.dtype):
        scaled = x / 255.0
    else:
        scaled = ops.cast(x, "float32") / 255.0
    return scaled if record is None else _normalized(scaled, record)


def _record(weights):
    if weights == "imagenet":
        raise ValueError(
            "Which statistics weights='imagenet' stands for depends on the "
            "network. Name the checkpoint, e.g. weights='cspresnext50'; "
            "keras_csp.list_weights() prints all of them."
        )
    return find_record(weights)


def _normalized(x, record):
    if x.shape[-1] != len(record.mean):
        raise ValueError(
            f"The statistics of {record.name!r} are those of "
            f"{len(record.mean)} channels, channels last. Received: an array "
            f"of shape {tuple(x.shape)}"
        )
    mean, std = np.asarray(record.mean), np.asarray(record.std)
    if isinstance(x, np.ndarray):
        return ((x - mean) / std).astype(x.dtype)
    return (x - ops.cast(mean, x.dtype)) / ops.cast(std, x.dtype)


def decode_predictions(preds, top=5, order="imagenet"):
    """The `top` ImageNet classes of each prediction.

    As in keras.applications, whose list of names it downloads once.

    Args:
        preds: `(samples, 1000)` probabilities or logits.
        top: how many classes for each sample. Default 5.
        order: of the 1000 classes: "imagenet" (default) for sorted WordNet
            ids, which Keras and timm have; "darknet" for that of networks
            trained by Darknet, e.g. loaded from an author's .weights file.

    Returns:
        For each sample a list of (WordNet id, name, score), best first.

    Raises:
        ValueError: `preds` is not of shape `(samples, 1000)`, or an unknown
            order.
    """
    check_choice("order", order, ("imagenet", "darknet"))
    preds = ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "`decode_predictions` expects a batch of predictions (a 2D array "
            f"of shape (samples, 1000)). Received: shape {preds.shape}"
        )
    if order == "darknet":
        preds = preds[:, np.argsort(darknet_classes())]
    return keras.applications.imagenet_utils.decode_predictions(preds, top)


@functools.cache
def darknet_classes():
    """The WordNet ids of ImageNet's 1000 classes in Darknet's order.

    Source: Darknet, data/imagenet.labels.list.
    """
    path = pathlib.Path(__file__).with_name("darknet_classes.txt")
    return tuple(path.read_text().split())
