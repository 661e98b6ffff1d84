"""What every export does: write aside, run, compare, and only then rename."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_csp._validation import check_fraction
from keras_csp.export.comparison import compare


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a file's outputs may be from the model's.

    Attributes:
        difference: the largest, relative to the largest output, or `None`.
        match_rate: the least fraction of samples with the same answer.
    """

    difference: float | None = None
    match_rate: float = 0.0


EXACT = Tolerance(difference=1e-4)


def float_tolerance(maximum_difference):
    """The `Tolerance` of a float32 file; `None` is the default, 1e-4.

    Raises:
        ValueError: not between 0 and 1.
    """
    if maximum_difference is None:
        return EXACT
    largest = check_fraction("maximum_difference", maximum_difference)
    return Tolerance(difference=largest)


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """How the written file's outputs compare with the model's.

    Attributes:
        path: of the file, or of the folder of a SavedModel.
        kind: "TFLite", "TFLite int8", "ONNX", ...
        size: in bytes.
        samples: how many inputs were compared.
        largest_difference: of any output value, relative to the largest.
            Detections may change places where their scores are nearly equal:
            each is compared with the one most similar to it; in a quantised
            file, only those that both have are compared.
        match_rate: fraction of the samples with the same best class; for
            outputs of one number, of those that differ by less than a
            twentieth of the largest; for detections, of those with the same
            count; for detections of a quantised file, the fraction that both
            have, of one class and with an IoU of at least 0.5.
    """

    path: pathlib.Path
    kind: str
    size: int
    samples: int
    largest_difference: float
    match_rate: float

    def __str__(self):
        return (
            f"{self.path}: {self.kind}, {self.size / 1e6:.2f} MB; "
            f"{100 * self.match_rate:.1f} % of {self.samples} samples match "
            f"the model, largest difference {self.largest_difference:.2g}"
        )


def verify(model, kind, path, samples, part, run, tolerance):
    """Runs the file `part` on the samples, beside the model.

    Args:
        path: the name that it will have.
        run: from `part` and the samples to what `predict_on_batch` gives.

    Returns:
        An `ExportCheck` of `path`.

    Raises:
        MatchRateError: too many answers are not the model's.
        ValueError: outputs further from the model's than the tolerance, or a
            file that its runtime does not run.
        ImportError: the runtime is not installed.
    """
    expected = _in_parts(model.predict_on_batch, samples)
    try:
        found = _in_parts(lambda images: run(part, images), samples)
    except ImportError:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:300]
        raise ValueError(
            f"The {kind} file of {model.name!r} does not run: {reason}"
        ) from error
    exact = tolerance.difference is not None
    difference, match_rate = compare(expected, found, exact)
    if exact and not difference <= tolerance.difference:  # NaN included
        raise ValueError(
            f"The {kind} file of {model.name!r} differs from the model by "
            f"{difference:.2g} of its largest output; at most "
            f"{tolerance.difference} is allowed (`maximum_difference`)"
        )
    if not match_rate >= tolerance.match_rate:
        raise MatchRateError(
            f"The {kind} file of {model.name!r} gives the model's answer for "
            f"{100 * match_rate:.1f} % of {len(samples)} samples; "
            f"{100 * tolerance.match_rate:.1f} % is required "
            "(`minimum_match_rate`)"
        )
    size = _size(part)
    return ExportCheck(
        pathlib.Path(path), kind, size, len(samples), difference, match_rate
    )


def _in_parts(run, samples, most=32):
    """`run(samples)`, by parts: the maps of hundreds fill the memory."""
    parts = [run(samples[i : i + most]) for i in range(0, len(samples), most)]
    return keras.tree.map_structure(lambda *p: np.concatenate(p), *parts)


class MatchRateError(ValueError):
    """A quantised file that too often gives another answer than the model."""


def _size(path):
    path = pathlib.Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
