"""A `NetworkSpec` becomes a `keras.Model`: the contract of keras.applications.

image -> Preprocessing -> stem -> stages -> head [-> classifier]
"""

import inspect

import keras

from keras_csp import weights as weight_files
from keras_csp._registry import register_factory
from keras_csp._validation import (
    check_choice,
    check_input_shape,
    check_positive,
)
from keras_csp.layers.initialization import kernels_replaced
from keras_csp.layers.precision import float32_if_half
from keras_csp.layers.preprocessing import Preprocessing

MINIMUM_SIZE = 32

CONTRACT = """
Arguments, behaviour and errors are those of `keras.applications`.

Args:
    include_top: whether to end in the classifier. Default True.
    weights: `None` (default): random initialisation.
        "imagenet": timm's published weights, downloaded from the Hugging Face
        hub once. {imagenet}
        A path: of a `.weights.h5` or `.keras` file saved from this network,
        with or without its classifier; of a `.safetensors` file of timm's
        (the networks with such weights);
        of a Darknet `.weights` or `*.conv.NN` file (those with a cfg file of
        the authors).
        "hf://user/name", "hf://user/name@revision" or "hf://user/name/FILE":
        what `model.save` of Keras or timm put there.
    input_tensor: a Keras tensor to use as the image input.
    input_shape: `(height, width, channels)`, each side at least 32; with
        `include_top=False` the sides may be `None`. Default: the published
        size with the classifier, `(None, None, 3)` without.
    pooling: without the classifier, `None` (default) for the last feature
        map `(batch, height, width, channels)`, "avg" or "max" for its global
        pooling `(batch, channels)`.
    classes: outputs of the classifier. Default 1000. With timm's or
        Darknet's weights for another number, all but the classifier is
        loaded, and a warning of the "keras_csp" logger says so.
    classifier_activation: of the classifier; `None` gives logits. Default
        "softmax".
    name: of the model. Default: the network's name in lower case.

The network takes pixels in [0, 1]; its first layer, `Preprocessing`,
normalises them as the weights were trained. How photographs are brought to
the network, and the names of its classes, are in the `ImageSpec` of that
layer: `keras_csp.image_spec(model)`, `preprocess_input(x, model)`,
`decode_predictions(y, model)`.

Returns:
    A `keras.Model`.

Raises:
    ValueError: an argument out of range, quoting the value received; weights
        that do not fit the network, naming both.
    keras_csp.weights.DownloadError: the hub did not deliver.
"""


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
    """Builds a `NetworkSpec`; the arguments are those of the factories."""
    _check_data_format()
    source = weight_files.choose(network, weights)
    check_choice("pooling", pooling, (None, "avg", "max"))
    classes = check_positive("classes", classes)
    image = _input(network, input_tensor, input_shape, include_top)
    if source is not None:
        source.fetch()
    spec = weight_files.image_spec(
        network, source, image.shape[1:], classes if include_top else None
    )
    first = Preprocessing(spec, name="preprocessing")
    x = first(image)
    with kernels_replaced(source is not None and source.complete):
        for layer in network.layers():
            x = layer(x)
    if include_top:
        x = _classifier(network, x, classes, classifier_activation)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    inputs = image
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    model = keras.Model(inputs, x, name=name or network.name.lower())
    left = source and weight_files.load(source, model)
    if left:  # a new classifier, whose outputs mean nothing yet
        first.spec = spec.replace(class_names=None)
    return model


# Every factory has the arguments of `build_network` after the network.
_CONTRACT_ARGUMENTS = tuple(
    inspect.signature(build_network).parameters.values()
)[1:]


def factory(network, variants=None):
    """The function that builds `network`; it is registered by its name.

    To be assigned to that name at the top level of the module that calls
    this, so that it can be pickled.

    Args:
        network: a `NetworkSpec`.
        variants: a function from keyword arguments to network specs; the
            factory takes them after those of the contract, and its docstring
            ends in the function's.
    """
    options = inspect.signature(variants).parameters if variants else {}
    signature = inspect.Signature([*_CONTRACT_ARGUMENTS, *options.values()])

    def build(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(
                f"{network.name}() {error}; its arguments are "
                + ", ".join(signature.parameters)
            ) from None
        variant = {key: given.pop(key) for key in options if key in given}
        built = variants(**variant) if variants else network
        return build_network(built, **given)

    build.__name__ = build.__qualname__ = network.name
    # Pickle finds a function by its module and name.
    caller = inspect.currentframe().f_back
    build.__module__ = caller.f_globals["__name__"]
    build.__doc__ = _documentation(network, variants)
    build.__signature__ = signature
    register_factory(network.name, build)
    return build


def _documentation(network, variants):
    text = (
        f"{network.name}, {network.input_size}x{network.input_size}.\n\n"
        f"{network.provenance}\n" + CONTRACT.format(imagenet=_imagenet(network))
    )
    return text + (f"\n{inspect.getdoc(variants)}\n" if variants else "")


def _imagenet(network):
    """What "imagenet" means for this network, for its documentation."""
    if weight_files.record_of(network.name):
        return "They were trained with this very network."
    if network.timm_counterpart:
        return (
            f"There are none for {network.name}, and this raises: they are "
            f"of {network.timm_counterpart}, another network, with PyTorch's "
            "leaky slope of 0.01 and timm's stages."
        )
    return f"There are none for {network.name}, and this raises."


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
