"""What every export does: compare the file's outputs, then write it whole."""

import dataclasses
import pathlib
import warnings

import keras
import numpy as np

from keras_csp.writing import replacing

_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """How the written file's outputs compare with the model's.

    Attributes:
        path: of the file.
        size: in bytes.
        largest_difference: of any output value, relative to the largest. Of
            detections, which may change places where scores are as good as
            equal, that of each from the one most like it.
        agreement: share of the samples with the same best class; of
            detections, of those with the same count.
    """

    path: pathlib.Path
    size: int
    largest_difference: float
    agreement: float


def check_samples(model, samples, kind):
    """`samples` as an array; ValueError if they do not fit the model."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{kind} files are written on the TensorFlow backend. Received: "
            f"the backend {keras.backend.backend()!r}"
        )
    samples = np.asarray(samples, "float32")
    expected = model.input_shape
    fits = samples.ndim == len(expected) and len(samples) > 0
    if not fits or any(
        side not in (None, given)
        for side, given in zip(expected[1:], samples.shape[1:])
    ):
        raise ValueError(
            "`samples` must be a non-empty batch of the model's inputs, "
            f"{expected}. Received: shape {samples.shape}"
        )
    return samples


def as_outputs(named):
    """What the model gives: a dict by name, or its one output."""
    return named if len(named) > 1 else next(iter(named.values()))


def checked(model, kind, path, content, samples, run):
    """Runs the file on the samples, compares, and writes it.

    Args:
        run: from the content and the samples to what the model's
            `predict_on_batch` gives.

    Raises:
        ValueError: outputs that differ by more than 1e-4 of the largest.
    """
    path = pathlib.Path(path)
    expected = model.predict_on_batch(samples)
    answered = run(content, samples)
    if isinstance(expected, dict) and "boxes" in expected:
        difference, agreement = _compare_detections(expected, answered)
    else:
        difference, agreement = _compare(expected, answered)
    if not difference <= _TOLERANCE:  # NaN included
        raise ValueError(
            f"The {kind} file of {model.name!r} differs from the model by "
            f"{difference:.2g} of its largest output; {_TOLERANCE} is allowed"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(content)
    return ExportCheck(path, len(content), difference, agreement)


def _compare(expected, answered):
    pairs = list(
        zip(
            map(np.asarray, keras.tree.flatten(expected)),
            map(np.asarray, keras.tree.flatten(answered)),
        )
    )
    differences = [np.abs(a - b).max() / np.abs(a).max() for a, b in pairs]
    same = [np.mean(a.argmax(-1) == b.argmax(-1)) for a, b in pairs]
    return float(np.max(differences)), float(np.mean(same))


def _compare_detections(expected, answered):
    """The largest difference of boxes and scores, and the share of images
    with the same count; infinity where a detection has no counterpart."""
    if not np.any(expected["count"]):
        warnings.warn(
            "The model finds nothing in any of the "
            f"{len(expected['count'])} samples: of the file it is only known "
            "that it finds nothing either. Samples with objects, or "
            "`inference_model(score_threshold=...)` with a lower one, would "
            "compare boxes",
            stacklevel=4,
        )
    largest = 0.0
    for image in range(len(expected["count"])):
        ours, theirs = (
            _table(outputs, image) for outputs in (expected, answered)
        )
        if len(ours) != len(theirs):
            largest = np.inf
        elif len(ours):
            scale = np.abs(ours).max(axis=0)
            apart = np.abs(ours[:, None] - theirs[None]) / scale
            nearest = apart.max(axis=-1).min(axis=1)
            largest = np.maximum(largest, nearest.max())
    same = np.asarray(expected["count"]) == np.asarray(answered["count"])
    return float(largest), float(np.mean(same))


def _table(outputs, image):
    """One row for each detection: box, score, class + 1."""
    count = int(np.asarray(outputs["count"])[image])
    boxes, scores, classes = (
        np.asarray(outputs[key])[image, :count]
        for key in ("boxes", "scores", "classes")
    )
    return np.column_stack([boxes, scores, classes + 1.0])
