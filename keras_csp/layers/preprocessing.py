"""What a network needs of its images travels with it, as its first layer."""

import dataclasses
import numbers
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_csp._keras_internals import functional
from keras_csp._structure import with_layers
from keras_csp._validation import check_choice, check_positive

RESIZINGS = ("crop", "letterbox", "stretch")
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How a photograph becomes a network's input, and the names of its classes.

    x = (pixels / 255 - mean) / std of the photograph, brought to `size`. The
    network itself subtracts `mean` and divides by `std`, in its first layer,
    `Preprocessing`: it takes pixels in [0, 1].

    Attributes:
        size: (height, width) in pixels. None (default): any size.
        mean, std: of pixels in [0, 1], one number for all channels or one for
            each. Default 0 and 1.
        resize: how a photograph is brought to `size`. "crop" (default): the
            rectangle in its middle, of the aspect ratio of `size`.
            "letterbox": all of it, with grey bars. "stretch": all of it, each
            side on its own, as Darknet does.
        crop: fraction of the largest such rectangle that "crop" keeps, of each
            side, above 0 and at most 1. Default 1.
        interpolation: "bilinear" (default) or "bicubic".
        antialias: whether a photograph that shrinks is smoothed, as Pillow
            does it. Default True; Darknet and OpenCV do not.
        class_names: names in the order of the outputs. None (default): not
            known.

    Raises ValueError for a value out of range.
    """

    size: tuple | None = None
    mean: tuple = (0.0,)
    std: tuple = (1.0,)
    resize: str = "crop"
    crop: float = 1.0
    interpolation: str = "bilinear"
    antialias: bool = True
    # Not shown: there may be a thousand.
    class_names: tuple | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        # The fields of a frozen dataclass are set by this one way only.
        def put(name, value):
            object.__setattr__(self, name, value)

        put("size", _size(self.size))
        put("mean", _numbers("mean", self.mean))
        put("std", _numbers("std", self.std))
        if min(self.std) <= 0:
            raise ValueError(f"`std` must be positive. Received: {self.std}")
        check_choice("resize", self.resize, RESIZINGS)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("antialias", self.antialias, (True, False))
        put("antialias", bool(self.antialias))
        put("crop", _fraction("crop", self.crop))
        put("class_names", _names(self.class_names))

    def replace(self, **changes):
        """The same with other values."""
        return dataclasses.replace(self, **changes)

    def get_config(self):
        return dataclasses.asdict(self)


@keras.saving.register_keras_serializable(package="keras_csp")
class Preprocessing(keras.layers.Layer):
    """y = (x - mean) / std: the first layer, which holds the `ImageSpec`.

    Args:
        spec: an `ImageSpec`, or its fields as a dict.
        origin: a dict of texts that say what the network was read from, e.g.
            the text of its cfg; they are kept for `origin_of`, also where the
            model is saved, cloned or gets another `ImageSpec`. Default: none.

    Shapes: `(batch, height, width, channels)`, pixels in [0, 1], to the same.
    Computes in float32 and returns the layer's own floating type.
    Raises ValueError at build where `mean` or `std` has neither one number nor
    one for each channel.
    """

    def __init__(self, spec, origin=None, **kwargs):
        # Half precision would round the pixels before the mean is subtracted.
        super().__init__(autocast=False, **kwargs)
        self.spec = spec if isinstance(spec, ImageSpec) else ImageSpec(**spec)
        self.origin = dict(origin or {})

    def build(self, input_shape):
        for name in ("mean", "std"):
            values = getattr(self.spec, name)
            if len(values) not in (1, input_shape[-1]):
                raise ValueError(
                    f"`{name}` must have one number, or one for each of the "
                    f"{input_shape[-1]} channels. Received: {name}={values}"
                )

    def call(self, x):
        x = ops.cast(x, "float32")
        mean, std = np.float32(self.spec.mean), np.float32(self.spec.std)
        if mean.any():
            x = x - mean
        if (std != 1).any():
            # Not a division: that has no form of 8 bits in TFLite, whose
            # converter must first see that the divisor is constant.
            x = x * (1 / std)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        return {
            **config,
            "spec": self.spec.get_config(),
            "origin": dict(self.origin),
        }


def image_spec(model):
    """The `ImageSpec` of a model, None for one that has none.

    Its `size` is that of the model's input, where that is fixed; its
    `class_names` are None where the model has another number of classes, e.g.
    since it has got a new classifier.

    Args:
        model: a `keras.Model`, of this package or built upon one of it.
    """
    layer = _find(model)
    if layer is None:
        return None
    spec, shape = layer.spec, getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and None not in shape[1:3]:
        spec = spec.replace(size=shape[1:3])
    outputs = _outputs(model)
    if spec.class_names and outputs not in (None, len(spec.class_names)):
        spec = spec.replace(class_names=None)
    return spec


def with_image_spec(model, spec=None, **changes):
    """`model` with another `ImageSpec`: a new model of the same layers.

    Args:
        model: a functional `keras.Model` with one image input.
        spec: an `ImageSpec`. Default: the model's own.
        **changes: fields of it with other values.

    Returns:
        A model that shares all layers, and so all weights, with `model`,
        except for `Preprocessing`, which is new; a model without one gets
        it as its first layer.

    Raises:
        ValueError: a model that is not functional or has several inputs, or a
            value out of range.
    """
    if not isinstance(model, keras.Model) or not isinstance(
        getattr(model, "input_shape", None), tuple
    ):
        raise ValueError(
            "`model` must be a functional keras.Model with one image input. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    spec = (spec or image_spec(model) or ImageSpec()).replace(**changes)
    old = _find(model)
    if old is None:
        image = keras.Input(shape=model.input_shape[1:], name="image")
        x = Preprocessing(spec, name="preprocessing")(image)
        graph = functional(model)
        make = keras.Model if graph is not model else type(model)
        return make(image, model.call(x), name=model.name)
    new = Preprocessing(
        spec, origin=old.origin, name=old.name, dtype=old.dtype_policy
    )
    return with_layers(model, [(old, new)])


def as_spec(spec, resize, size=None):
    """(`ImageSpec` with a size, channels or None) of an argument `spec`.

    Args:
        spec: a model with an `ImageSpec`, an `ImageSpec`, (height, width), or
            the side of a square.
        resize: the resizing for the last two.
        size: replaces that of `spec`. Default: none.

    Raises:
        ValueError: a model without an `ImageSpec`, or no size.
    """
    channels = None
    if isinstance(spec, keras.Model):
        model, spec = spec, image_spec(spec)
        if spec is None:
            raise ValueError(
                f"{model.name!r} does not say what its images are; give it an "
                "ImageSpec by keras_csp.with_image_spec. Received: a model "
                "without one"
            )
        channels = model.input_shape[-1]
    elif not isinstance(spec, ImageSpec):
        if isinstance(spec, (tuple, list)) and len(spec) == 1:
            (spec,) = spec
        spec = ImageSpec(spec, resize=resize)
    if size is not None:
        spec = spec.replace(size=size)
    if spec.size is None:
        raise ValueError(
            "The images need a size: the network takes any, and its ImageSpec "
            "has none. Give `spec=image_spec(model).replace(size=(height, "
            f"width))`. Received: {spec}"
        )
    return spec, channels


def origin_of(model):
    """The texts that say what a model was read from; {} where none are known.

    Those of a model inside it are not its own.
    """
    layer = _own(model)
    return {} if layer is None else dict(layer.origin)


def put_origin(model, **texts):
    """Puts texts into `origin_of(model)`; None takes one out.

    A model without `Preprocessing` has no place for them.
    """
    layer = _own(model)
    if layer is not None:
        texts = {**layer.origin, **texts}
        layer.origin = {k: v for k, v in texts.items() if v is not None}


def _own(model):
    own = (x for x in model.layers if isinstance(x, Preprocessing))
    return next(own, None)


def _find(model):
    """The `Preprocessing` layer of a model, or of a model inside it."""
    for layer in model.layers:
        if isinstance(layer, Preprocessing):
            return layer
        found = _find(layer) if isinstance(layer, keras.Model) else None
        if found is not None:
            return found
    return None


def _outputs(model):
    """How many classes a model tells apart, None where that is not known."""
    if hasattr(model, "classes"):
        return model.classes
    shape = getattr(model, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None


def _size(size):
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise ValueError(
            f"`size` must be (height, width). Received: size={size!r}"
        )
    return tuple(check_positive("size", side) for side in pair)


def _fraction(name, value):
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not good or not 0 < value <= 1:
        raise ValueError(
            f"`{name}` must be above 0 and at most 1. Received: "
            f"{name}={value!r}"
        )
    return float(value)


def _numbers(name, values):
    try:
        listed = tuple(map(float, np.ravel(values)))
    except (TypeError, ValueError):
        listed = ()
    if not listed or not np.isfinite(listed).all():
        raise ValueError(
            f"`{name}` must be a finite number for all channels, or one for "
            f"each. Received: {name}={values!r}"
        )
    return listed


def _names(names):
    if names is None:
        return None
    several = isinstance(names, Iterable) and not isinstance(names, str)
    listed = tuple(names) if several else ()
    if not listed or not all(
        isinstance(name, str) and name and "\n" not in name for name in listed
    ):
        raise ValueError(
            "`class_names` must be a list of names, each one line of text. "
            f"Received: class_names={names!r}"
        )
    return tuple(map(str, listed))
