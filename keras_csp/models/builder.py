"""A network spec becomes a `keras.Model`: the contract of keras.applications,
once."""

import inspect
import numbers

import keras
import numpy as np

from keras_csp import weights as weight_files
from keras_csp._registry import register_factory
from keras_csp._validation import check_positive
from keras_csp.layers.initialization import kernels_replaced
from keras_csp.layers.precision import float32_if_half
from keras_csp.layers.preprocessing import ImageSpec, Preprocessing

MINIMUM_SIZE = 32

CONTRACT = """
Arguments, behaviour and errors are those of `keras.applications`.

Args:
    include_top: whether to end in the classifier. Default True.
    weights: `None` (default): random initialisation.
        "imagenet": timm's published weights, downloaded from the Hugging Face
        hub once. {imagenet}
        A path: of a `.weights.h5` or `.keras` file saved from this network,
        with or without its classifier, or "hf://user/name" as Keras saves it;
        of a `.safetensors` file of timm's (the networks with such weights);
        of a Darknet `.weights` or `*.conv.NN` file (those with a cfg file of
        the authors).
    input_tensor: a Keras tensor to use as the image input.
    input_shape: `(height, width, channels)`, each side at least 32; with
        `include_top=False` the sides may be `None`. Default: the published
        size with the classifier, `(None, None, 3)` without.
    pooling: without the classifier, `None` (default) for the last feature
        map `(batch, height, width, channels)`, "avg" or "max" for its global
        pooling `(batch, channels)`.
    classes: outputs of the classifier. Default 1000. With timm's or
        Darknet's weights for another number, all but the classifier is
        loaded, which a warning of the "keras_csp" logger says.
    classifier_activation: of the classifier; `None` gives logits. Default
        "softmax".
    name: of the model. Default: the network's name in lower case.

Pixels are expected in [0, 1]: {pixels}. How photographs are
brought to the network, and the names of its classes, are in the `ImageSpec`
that its first layer holds: `keras_csp.image_spec(model)`,
`keras_csp.preprocess_input(x, model)`, `keras_csp.decode_predictions(y,
model)`.

Returns:
    A `keras.Model`.

Raises:
    ValueError: an argument out of range, quoting the value received; weights
        that do not fit the network, naming both.
    keras_csp.weights.DownloadError: the hub did not deliver.
"""


def factory(network, variants=None):
    """The function that builds `network`; it is registered by its name.

    Args:
        network: a `spec.NetworkSpec`.
        variants: a function from keyword arguments to network specs; the
            factory takes them after those of the contract, and its docstring
            ends in the function's.
    """
    contract = list(inspect.signature(build_network).parameters.values())[1:]
    own = inspect.signature(variants).parameters if variants else {}
    signature = inspect.Signature([*contract, *own.values()])

    def build(*args, **kwargs):
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(
                f"{network.name}() {error}; its arguments are "
                + ", ".join(signature.parameters)
            ) from None
        variant = {k: v for k, v in arguments.items() if k in own}
        options = {k: v for k, v in arguments.items() if k not in own}
        chosen = variants(**variant) if variants else network
        return build_network(chosen, **options)

    build.__name__ = build.__qualname__ = network.name
    build.__module__ = "keras_csp.models"  # where pickle looks for it
    build.__signature__ = signature
    build.__doc__ = _documentation(network, variants)
    register_factory(network.name, build)
    return build


def _documentation(network, variants):
    text = CONTRACT.format(imagenet=_imagenet(network), pixels=_pixels(network))
    text = (
        f"{network.name}, {network.input_size}x{network.input_size}.\n\n"
        f"{network.provenance}\n{text}"
    )
    return f"{text}\n{inspect.getdoc(variants)}\n" if variants else text


def _imagenet(network):
    """What "imagenet" means for this network, for its documentation."""
    if weight_files.record_of(network.name):
        return "They were trained with this very network."
    if network.pretrained:
        return (
            f"Those of timm belong to {network.pretrained.name}, another "
            "network, so this raises."
        )
    return f"There are none for {network.name}, and this raises."


def _pixels(network):
    if weight_files.record_of(network.name):
        return (
            "the first layer normalises them as timm trained the published\n"
            "weights"
        )
    return "Darknet scales them so, and subtracts no mean"


def build_network(
    network,
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
):
    """Builds a `spec.NetworkSpec`; the arguments are those of the factories."""
    _check_data_format()
    source = weight_files.choose(network, weights)
    _check_pooling(pooling)
    classes = check_positive("classes", classes)
    inputs = _input(network, input_tensor, input_shape, include_top)
    if source is not None:
        source.fetch()
    first = Preprocessing(_image_spec(network, inputs), name="preprocessing")
    x = first(inputs)
    with kernels_replaced(source is not None and source.complete):
        for layer in network.layers():
            x = layer(x)
    if include_top:
        x = _classifier(network, x, classes, classifier_activation)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    model = keras.Model(inputs, x, name=name or network.name.lower())
    if source is not None:
        left = weight_files.load(source, model)
        names = source.class_names() if include_top and not left else None
        if names and len(names) == classes:
            first.spec = first.spec.replace(class_names=names)
    return model


def _image_spec(network, image):
    """How photographs are brought to the network."""
    record = weight_files.record_of(network.name)
    sides = tuple(image.shape[1:3])
    if record is None:
        size = (network.input_size,) * 2
        return ImageSpec(size=size if None in sides else sides)
    return ImageSpec(
        size=(record.input_size,) * 2 if None in sides else sides,
        mean=_in_channels(record.mean, image.shape[-1]),
        std=_in_channels(record.std, image.shape[-1]),
        crop=record.crop,
        interpolation=record.interpolation,
    )


def _in_channels(statistics, channels):
    """As the first kernel of RGB is adapted to other numbers of channels."""
    if channels == 1:
        return (float(np.mean(statistics)),)
    return tuple(statistics[index % 3] for index in range(channels))


def _classifier(network, x, classes, activation):
    x = keras.layers.GlobalAveragePooling2D(
        name="avg_pool", keepdims=bool(network.pre_logits)
    )(x)
    for index, spec in enumerate(network.pre_logits, 1):
        x = spec.make(f"pre_logits_{index}")(x)
    if network.pre_logits:
        x = keras.layers.Flatten(name="flatten")(x)
    try:
        activation = keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(
            "`classifier_activation` must be None or what "
            "keras.activations.get accepts. Received: "
            f"classifier_activation={activation!r}"
        ) from error
    return keras.layers.Dense(
        classes,
        activation=activation,
        dtype=float32_if_half(),
        name="predictions",
    )(x)


def _input(network, tensor, shape, include_top):
    """The image tensor, made or given, with its shape checked."""
    if tensor is not None and not keras.utils.is_keras_tensor(tensor):
        raise ValueError(
            "`input_tensor` must be a Keras tensor, e.g. the output of "
            f"keras.Input(). Received: input_tensor={tensor!r} of type "
            f"{type(tensor).__name__}"
        )
    if shape is not None:
        shape = check_input_shape(shape)
    if tensor is None:
        sides = (network.input_size,) * 2 if include_top else (None, None)
        shape = shape or (*sides, 3)
        _check_size(shape, include_top)
        return keras.Input(shape=shape)
    if len(tensor.shape) != 4 or tensor.shape[-1] is None:
        raise ValueError(
            "`input_tensor` must have the shape (batch, height, width, "
            f"channels). Received: input_tensor.shape={tensor.shape}"
        )
    if shape is not None and shape != tuple(tensor.shape[1:]):
        raise ValueError(
            "`input_shape` must equal `input_tensor.shape[1:]`. Received: "
            f"input_shape={shape}, input_tensor.shape={tensor.shape}"
        )
    _check_size(tuple(tensor.shape[1:]), include_top=False)
    return tensor


def check_input_shape(shape):
    """The shape as a tuple of integers and None.

    Raises:
        ValueError: not (height, width, channels), or no channels.
    """
    good = isinstance(shape, (list, tuple)) and len(shape) == 3
    if not good or not all(
        side is None or _is_positive_integer(side) for side in shape
    ):
        raise ValueError(
            "`input_shape` must be a tuple (height, width, channels) of "
            f"positive integers. Received: input_shape={shape!r}"
        )
    if shape[-1] is None:
        raise ValueError(
            "The channels of `input_shape`, its last entry, must be given. "
            f"Received: input_shape={shape}"
        )
    return tuple(side if side is None else int(side) for side in shape)


def _is_positive_integer(value):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value > 0


def _check_size(shape, include_top):
    if include_top and None in shape:
        raise ValueError(
            "If `include_top` is True, you should specify a static "
            f"`input_shape`. Received: input_shape={shape}"
        )
    if any(side is not None and side < MINIMUM_SIZE for side in shape[:2]):
        raise ValueError(
            f"Input size must be at least {MINIMUM_SIZE}x{MINIMUM_SIZE}. "
            f"Received: input_shape={shape}"
        )


def _check_data_format():
    data_format = keras.config.image_data_format()
    if data_format != "channels_last":
        raise ValueError(
            'keras_csp works with image_data_format "channels_last" (see '
            "keras.config.set_image_data_format). Received: "
            f"image_data_format={data_format!r}"
        )


def _check_pooling(pooling):
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            '`pooling` must be None, "avg" or "max". Received: '
            f"pooling={pooling!r}"
        )
