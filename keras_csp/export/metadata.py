"""What a file says of itself: the network and the `ImageSpec` of its input."""

import dataclasses
import json

from keras_csp._version import __version__
from keras_csp.layers.preprocessing import ImageSpec, image_spec

_FIELDS = ("network", "input_shape", "image", "written_by")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The network in a file, and how a photograph becomes its input.

    Attributes:
        network: the model's name.
        input_shape: `(height, width, channels)` of the file's input; a side
            of a `.keras` file may be None: any size.
        image: the `ImageSpec`. The network itself subtracts `mean` and
            divides by `std`: it takes pixels in [0, 1].
        written_by: the package and its version.
    """

    network: str
    input_shape: tuple
    image: ImageSpec
    written_by: str = f"keras_csp {__version__}"

    @property
    def class_names(self):
        """Names in the order of the outputs, None where not known."""
        return self.image.class_names

    def to_json(self):
        values = {
            "network": self.network,
            "input_shape": self.input_shape,
            "image": self.image.get_config(),
            "written_by": self.written_by,
        }
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text):
        """Raises ValueError if `text` is not what `to_json` writes."""
        try:
            values = json.loads(text)
            network, shape, image, written_by = (values[k] for k in _FIELDS)
            return cls(network, tuple(shape), ImageSpec(**image), written_by)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Not the metadata of keras_csp. Received: {text[:100]!r}"
            ) from error


def describe(model, input_shape=None):
    """The `Metadata` of `model`.

    Args:
        model: a `keras.Model`. One without an `ImageSpec` is described by the
            default one: pixels in [0, 1], no names of classes;
            `keras_csp.with_image_spec` gives it another.
        input_shape: `(height, width, channels)` of the file. Default: the
            model's.
    """
    shape = tuple(input_shape or model.input_shape[1:])
    spec = image_spec(model) or ImageSpec()
    if len(shape) == 3 and None not in shape:
        spec = spec.replace(size=shape[:2])
    return Metadata(network=model.name, input_shape=shape, image=spec)
