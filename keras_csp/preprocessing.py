"""From pixels to network and from its answers to words."""

import keras
import numpy as np
from keras import ops


def preprocess_input(x, data_format=None):
    """x / 255: pixels from [0, 255] to the [0, 1] of all networks here.

    The paper's networks were trained by Darknet, which scales so and
    subtracts no mean.

    Args:
        x: an array or tensor of images, 3D or 4D, values in [0, 255].
        data_format: accepted for the sake of keras.applications; the scaling
            is the same for both.

    Returns:
        float32 (or the tensor's own floating type) of the same shape; `x`
        itself is left as it is.

    Raises:
        ValueError: not 3D or 4D, or an unknown `data_format`.
    """
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
        return (x if floating else x.astype("float32")) / 255.0
    if not keras.backend.is_float_dtype(x.dtype):
        x = ops.cast(x, "float32")
    return x / 255.0


def decode_predictions(preds, top=5):
    """The `top` ImageNet classes of each prediction.

    As in keras.applications, whose list of names it downloads once.

    Args:
        preds: `(samples, 1000)` probabilities or logits.
        top: how many classes for each sample. Default 5.

    Returns:
        For each sample a list of (WordNet id, name, score), best first.

    Raises:
        ValueError: `preds` is not of shape `(samples, 1000)`.
    """
    preds = ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            "`decode_predictions` expects a batch of predictions (a 2D array "
            f"of shape (samples, 1000)). Received: shape {preds.shape}"
        )
    return keras.applications.imagenet_utils.decode_predictions(preds, top)
