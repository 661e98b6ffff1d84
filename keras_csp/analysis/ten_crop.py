"""The paper's ten-crop evaluation (section 4.1, Table 3)."""

import keras
import numpy as np


def evaluate_ten_crop(
    model, data, size, batch_size=8, shift=32, verbose="auto"
):
    """Top-1 and top-5 accuracy from ten crops of each image.

    The ten vectors of probabilities are added up. It takes ten times the
    computation. Source: Darknet, src/classifier.c, validate_classifier_10.

    Args:
        model: a `keras.Model` from images to probabilities.
        data: a `keras_csp.data.ClassificationData`, or batches as its
            `ten_crop` gives: `(batch, 10, size, size, channels)` and one-hot
            labels.
        size: side of the crops. Ignored for batches.
        batch_size: images of one batch; it has ten times as many crops.
            Default 8. Ignored for batches.
        shift: pixels between the crops. Default 32. Ignored for batches.
        verbose: 0 for no progress bar.

    Returns:
        {"accuracy", "top_5_accuracy", "images"}.

    Raises:
        ValueError: `batch_size` is not positive; no images; outputs that are
            not finite or not probabilities; labels of another number of
            classes.
    """
    total = None
    if hasattr(data, "ten_crop"):
        images, data = data.size, data.ten_crop(batch_size, size, shift)
        total = -(-images // batch_size)
    bar = keras.utils.Progbar(total, unit_name="batch") if verbose else None
    ranks = []
    for number, (crops, labels) in enumerate(data, 1):
        ranks.append(_ranks(model, np.asarray(crops), np.asarray(labels)))
        if bar:
            bar.update(number)
    if not ranks:
        raise ValueError("There were no images to evaluate on")
    if bar and number != total:
        bar.update(number, finalize=True)
    ranks = np.concatenate(ranks)
    return {
        "accuracy": float(np.mean(ranks < 1)),
        "top_5_accuracy": float(np.mean(ranks < 5)),
        "images": len(ranks),
    }


def _ranks(model, crops, labels):
    """The place of each image's true class, the most probable being 0.

    Of classes with equal sums the first counts as more probable.
    """
    count, views = crops.shape[:2]
    flat = crops.reshape(count * views, *crops.shape[2:])
    scores = np.asarray(model.predict_on_batch(flat), "float32")
    if not (scores.min() >= 0 and scores.max() <= 1 + 1e-3):
        raise ValueError(
            "The model must give probabilities. Received: outputs from "
            f"{scores.min():.4g} to {scores.max():.4g}"
        )
    scores = scores.reshape(count, views, -1).sum(axis=1)
    if labels.shape != scores.shape:
        raise ValueError(
            f"The model has {scores.shape[-1]} classes and the labels are "
            f"not one-hot of as many. Received: labels of shape {labels.shape}"
        )
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argmax(order == labels.argmax(-1)[:, None], axis=1)
