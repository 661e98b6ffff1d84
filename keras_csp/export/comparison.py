"""Outputs of a file beside the model's: values, classes, detections."""

import warnings

import keras
import numpy as np

from keras_csp.detection.boxes import pairwise_iou

_SAME_BOX = 0.5  # IoU, as COCO's AP50
_NEAR = 0.05  # of the largest output


def compare(expected, found, exact=True):
    """(largest difference, match rate), as `ExportCheck` describes them.

    Args:
        expected, found: outputs of the model and of the file, one or a dict
            by name.
        exact: whether the file computes with the model's precision;
            detections of a quantised one are compared by their overlap.
    """
    if not (isinstance(expected, dict) and "boxes" in expected):
        return _compare_values(expected, found)
    _warn_if_nothing(expected)
    compare_tables = _nearest if exact else _overlapping
    return compare_tables(
        [_table(expected, i) for i in range(len(expected["count"]))],
        [_table(found, i) for i in range(len(expected["count"]))],
    )


def _compare_values(expected, found):
    pairs = list(
        zip(
            map(np.asarray, keras.tree.flatten(expected)),
            map(np.asarray, keras.tree.flatten(found)),
        )
    )
    differences = [np.abs(a - b).max() / _scale(a) for a, b in pairs]
    matches = [_match_rate(a, b) for a, b in pairs]
    return float(np.max(differences)), float(np.mean(matches))


def _scale(values):
    return np.abs(values).max() or 1.0  # all zero: as they are


def _match_rate(expected, found):
    """The fraction of equal answers; one number has no best class."""
    if expected.shape[-1] == 1:
        least = _NEAR * _scale(expected)
        return np.mean(np.abs(expected - found) < least)
    return np.mean(expected.argmax(-1) == found.argmax(-1))


def _warn_if_nothing(expected):
    if not np.any(expected["count"]):
        warnings.warn(
            "The model finds nothing in any of the "
            f"{len(expected['count'])} samples, so no box of the file was "
            "compared. Give `samples` with objects, or a model with a lower "
            "threshold: `detector.inference_model(score_threshold=...)`",
            stacklevel=5,
        )


def _nearest(expected, found):
    """Each detection against the most similar one, image by image; infinity
    where one has no counterpart."""
    largest = 0.0
    for ours, theirs in zip(expected, found):
        if len(ours) != len(theirs):
            largest = np.inf
        elif len(ours):
            scale = np.abs(ours).max(axis=0)
            scale[scale == 0] = 1.0  # all boxes at the left edge, say
            apart = np.abs(ours[:, None] - theirs[None]) / scale
            nearest = apart.max(axis=-1).min(axis=1)
            largest = np.maximum(largest, nearest.max())
    same = [len(a) == len(b) for a, b in zip(expected, found)]
    return float(largest), float(np.mean(same))


def _overlapping(expected, found):
    """The largest difference of score of pairs, and the fraction paired."""
    matched, differences = 0, [0.0]
    for ours, theirs in zip(expected, found):
        pairs = _pairs(ours, theirs)
        matched += len(pairs)
        differences += [abs(ours[i, 4] - theirs[j, 4]) for i, j in pairs]
    every = sum(map(len, expected)) + sum(map(len, found))
    return float(max(differences)), 2 * matched / every if every else 1.0


def _pairs(ours, theirs):
    """(i, j) of one class and an IoU of 0.5, the best first, each once."""
    if not len(ours) or not len(theirs):
        return []
    iou = pairwise_iou(np.float32(ours[:, :4]), np.float32(theirs[:, :4]))
    overlap = keras.ops.convert_to_numpy(iou)
    overlap = np.where(ours[:, None, 5] == theirs[None, :, 5], overlap, 0.0)
    pairs = []
    while overlap.max() >= _SAME_BOX:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[i], overlap[:, j] = 0.0, 0.0
        pairs.append((i, j))
    return pairs


def _table(outputs, image):
    """One row for each detection: box, score, class + 1."""
    count = int(np.asarray(outputs["count"])[image])
    boxes, scores, classes = (
        np.asarray(outputs[key])[image, :count]
        for key in ("boxes", "scores", "classes")
    )
    return np.column_stack([boxes, scores, classes + 1.0])
