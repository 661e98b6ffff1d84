"""What a file says of itself: the network, its classes, its preprocessing."""

import dataclasses
import json

import numpy as np

from keras_csp._version import __version__
from keras_csp.weights import find_record

_FIELDS = ("network", "input_shape", "mean", "std", "labels", "written_by")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """x = (pixels / 255 - mean) / std, and what the outputs are called.

    Attributes:
        network: the model's name.
        input_shape: `(height, width, channels)` of the file's input.
        mean, std: of each channel, of pixels divided by 255.
        labels: names of the classes in the order of the outputs, or `None`.
        written_by: the package and its version.
    """

    network: str
    input_shape: tuple
    mean: tuple
    std: tuple
    labels: tuple | None = None
    written_by: str = f"keras_csp {__version__}"

    def preprocess(self, pixels):
        """`pixels` from 0 to 255, channels last, as the network takes them."""
        return self.normalize(np.asarray(pixels, "float32") / np.float32(255))

    def normalize(self, x):
        """The same of pixels already divided by 255."""
        mean, std = np.float32(self.mean), np.float32(self.std)
        return (np.asarray(x, "float32") - mean) / std

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text):
        """Raises ValueError if `text` is not what `to_json` writes."""
        try:
            values = json.loads(text)
            fields = {name: _frozen(values[name]) for name in _FIELDS}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Not the metadata of keras_csp. Received: {text[:100]!r}"
            ) from error
        return cls(**fields)


def describe(model, input_shape, labels=None, preprocessing=None):
    """The `Metadata` of `model`, once its labels and preprocessing fit.

    Args:
        model: a `keras.Model`.
        input_shape: `(height, width, channels)` of the file.
        labels, preprocessing: as of `to_tflite`.

    Raises:
        ValueError: labels or statistics that do not fit the model.
    """
    channels = input_shape[-1]
    mean, std = _statistics(preprocessing, channels)
    return Metadata(
        network=model.name,
        input_shape=tuple(input_shape),
        mean=mean,
        std=std,
        labels=None if labels is None else _labels(model, labels),
    )


def _statistics(preprocessing, channels):
    if preprocessing is None:
        return (0.0,) * channels, (1.0,) * channels
    if isinstance(preprocessing, str):
        record = find_record(preprocessing)
        preprocessing = {"mean": record.mean, "std": record.std}
    try:
        pairs = [preprocessing["mean"], preprocessing["std"]]
        mean, std = (tuple(map(float, values)) for values in pairs)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            "`preprocessing` must be None for pixels / 255, the name of a "
            'published checkpoint, or {"mean": ..., "std": ...} with a number '
            f"for each channel. Received: preprocessing={preprocessing!r}"
        ) from error
    if len(mean) != channels or len(std) != channels or not min(std) > 0:
        raise ValueError(
            f"`preprocessing` must have {channels} means and as many positive "
            "standard deviations, one for each channel of the input. "
            f"Received: mean={mean}, std={std}"
        )
    return mean, std


def _labels(model, labels):
    labels = tuple(labels) if not isinstance(labels, str) else (labels,)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(
            "`labels` must be the names of the classes, strings. Received: "
            f"{labels!r}"
        )
    if any("\n" in label for label in labels):
        raise ValueError(f"A label is one line of text. Received: {labels!r}")
    classes = _classes(model)
    if classes not in (None, len(labels)):
        raise ValueError(
            f"`labels` must name the {classes} classes of {model.name!r}. "
            f"Received: {len(labels)} labels"
        )
    return labels


def _classes(model):
    """How many classes a classifier has, `None` where it is not known."""
    shape = model.output_shape
    if isinstance(shape, tuple) and len(shape) == 2:
        return shape[-1]
    return getattr(model.layers[-1], "classes", None)


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value
