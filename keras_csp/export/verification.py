"""What every export does: write aside, run, compare, and only then rename."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_csp._validation import check_fraction
from keras_csp.export.comparison import compare


@dataclasses.dataclass(frozen=True)
class Allowed:
    """How far a file's outputs may be from the model's.

    Attributes:
        difference: the largest, relative to the largest output, or `None`.
        agreement: the least share of samples with the same answer.
    """

    difference: float | None = None
    agreement: float = 0.0


EXACT = Allowed(difference=1e-4)


def of_difference(maximum_difference):
    """What a float32 file may differ by; `None` is the default.

    Raises:
        ValueError: not between 0 and 1.
    """
    if maximum_difference is None:
        return EXACT
    largest = check_fraction("maximum_difference", maximum_difference)
    return Allowed(difference=largest)


@dataclasses.dataclass(frozen=True)
class ExportCheck:
    """How the written file's outputs compare with the model's.

    Attributes:
        path: of the file, or of the folder of a SavedModel.
        kind: "TFLite", "TFLite int8", "ONNX", ...
        size: in bytes.
        samples: how many inputs were compared.
        largest_difference: of any output value, relative to the largest. Of
            detections, which may change places where scores are as good as
            equal, that of each from the one most like it; of a quantised
            file's detections, of those that both have.
        agreement: share of the samples with the same best class; of outputs
            of one number, of those that differ by less than a twentieth of
            the largest; of detections, of those with the same count; of a
            quantised file's detections, the share that both have, of one
            class and with an IoU of at least 0.5.
    """

    path: pathlib.Path
    kind: str
    size: int
    samples: int
    largest_difference: float
    agreement: float

    def __str__(self):
        return (
            f"{self.path}: {self.kind}, {self.size / 1e6:.2f} MB; of "
            f"{self.samples} samples {100 * self.agreement:.1f} % agree, the "
            f"largest difference is {self.largest_difference:.2g}"
        )


def checked(model, kind, path, samples, part, run, allowed):
    """Runs the file `part` on the samples, beside the model.

    Args:
        path: the name that it will have.
        run: from `part` and the samples to what `predict_on_batch` gives.

    Returns:
        An `ExportCheck` of `path`.

    Raises:
        ValueError: outputs further from the model's than `allowed`, or a file
            that its runtime does not run.
        ImportError: the runtime is not installed.
    """
    expected = _in_parts(model.predict_on_batch, samples)
    try:
        answered = _in_parts(lambda images: run(part, images), samples)
    except ImportError:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:300]
        raise ValueError(
            f"The {kind} file of {model.name!r} does not run: {reason}"
        ) from error
    exact = allowed.difference is not None
    difference, agreement = compare(expected, answered, exact)
    if exact and not difference <= allowed.difference:  # NaN included
        raise ValueError(
            f"The {kind} file of {model.name!r} differs from the model by "
            f"{difference:.2g} of its largest output; {allowed.difference} is "
            "allowed (`maximum_difference`)"
        )
    if not agreement >= allowed.agreement:
        raise DisagreementError(
            f"The {kind} file of {model.name!r} gives the model's answer for "
            f"{100 * agreement:.1f} % of {len(samples)} samples; "
            f"{100 * allowed.agreement:.1f} % is required"
        )
    size = _size(part)
    return ExportCheck(
        pathlib.Path(path), kind, size, len(samples), difference, agreement
    )


def _in_parts(run, samples, most=32):
    """`run(samples)`, by parts: the maps of hundreds fill the memory."""
    parts = [run(samples[i : i + most]) for i in range(0, len(samples), most)]
    return keras.tree.map_structure(lambda *p: np.concatenate(p), *parts)


class DisagreementError(ValueError):
    """A quantised file that answers otherwise than the model too often."""


def _size(path):
    path = pathlib.Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
