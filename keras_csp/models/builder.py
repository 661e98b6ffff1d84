"""A row becomes a `keras.Model`: the contract of keras.applications, once."""

import inspect

import keras

from keras_csp import weights as weight_files
from keras_csp._registry import register_factory
from keras_csp._validation import check_positive
from keras_csp.layers.initialization import kernels_replaced

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

Pixels are expected in [0, 1]: `keras_csp.preprocess_input`; timm's weights
want their channels normalised as well: `preprocess_input(x, weights=...)`.

Returns:
    A `keras.Model`.

Raises:
    ValueError: an argument out of range, quoting the value received; weights
        that do not fit the network, naming both.
    keras_csp.weights.DownloadError: the hub did not deliver.
"""


def factory(row, variants=None):
    """The function that builds `row`; it is registered by the row's name.

    Args:
        row: a `rows.Network`.
        variants: a function from keyword arguments to rows; the factory takes
            them after those of the contract, and its docstring ends in the
            function's.
    """

    def build(
        include_top=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=1000,
        classifier_activation="softmax",
        name=None,
        **variant,
    ):
        known = build.__signature__.parameters
        for argument in variant:
            if argument not in known:
                raise TypeError(
                    f"{row.name}() has no argument {argument!r}; it has "
                    + ", ".join(known)
                )
        return build_network(
            variants(**variant) if variants else row,
            include_top,
            weights,
            input_tensor,
            input_shape,
            pooling,
            classes,
            classifier_activation,
            name,
        )

    _describe(build, row, variants)
    register_factory(row.name, build)
    return build


def _describe(build, row, variants):
    """Name, documentation and signature, those of `variants` included."""
    build.__name__ = build.__qualname__ = row.name
    build.__doc__ = (
        f"{row.name}, {row.input_size}x{row.input_size}.\n\n"
        f"{row.evidence}\n{CONTRACT.format(imagenet=_imagenet(row))}"
    )
    *contract, _ = inspect.signature(build).parameters.values()
    if variants:
        build.__doc__ += f"\n{inspect.getdoc(variants)}\n"
        contract += inspect.signature(variants).parameters.values()
    build.__signature__ = inspect.Signature(contract)


def _imagenet(row):
    """What "imagenet" means for this network, for its documentation."""
    if row.pretrained:
        return (
            f"They belong to another network than {row.name}: what is built "
            f"and loaded is {row.pretrained.name}, with PyTorch's leaky slope "
            "of 0.01 and timm's CSP stages."
        )
    if weight_files.record_of(row.name):
        return "They were trained with this very network."
    return f"There are none for {row.name}, and this raises."


def build_network(
    row,
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
):
    """Builds a `rows.Network`; the arguments are those of the factories."""
    _check_data_format()
    row, source = weight_files.choose(row, weights)
    _check_pooling(pooling)
    check_positive("classes", classes)
    x = inputs = _input(row, input_tensor, input_shape, include_top)
    if source is not None:
        source.fetch()
    with kernels_replaced(source is not None and source.complete):
        for layer in row.layers():
            x = layer(x)
    if include_top:
        x = _classifier(row, x, classes, classifier_activation)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    model = keras.Model(inputs, x, name=name or row.name.lower())
    if source is not None:
        weight_files.load(source, model)
    return model


def _classifier(row, x, classes, activation):
    x = keras.layers.GlobalAveragePooling2D(
        name="avg_pool", keepdims=bool(row.pre_logits)
    )(x)
    for index, spec in enumerate(row.pre_logits, 1):
        x = spec.make(f"pre_logits_{index}")(x)
    if row.pre_logits:
        x = keras.layers.Flatten(name="flatten")(x)
    try:
        activation = keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(
            "`classifier_activation` must be None or what "
            "keras.activations.get accepts. Received: "
            f"classifier_activation={activation!r}"
        ) from error
    # Half precision is too coarse for a softmax over many classes.
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    return keras.layers.Dense(
        classes,
        activation=activation,
        dtype="float32" if half else None,
        name="predictions",
    )(x)


def _input(row, tensor, shape, include_top):
    """The image tensor, made or given, with its shape checked."""
    if tensor is not None and not keras.utils.is_keras_tensor(tensor):
        raise ValueError(
            "`input_tensor` must be a Keras tensor, e.g. the output of "
            f"keras.Input(). Received: input_tensor={tensor!r} of type "
            f"{type(tensor).__name__}"
        )
    if shape is not None:
        check_input_shape(shape)
    if tensor is None:
        sides = (row.input_size,) * 2 if include_top else (None, None)
        shape = tuple(shape or (*sides, 3))
        _check_size(shape, include_top)
        return keras.Input(shape=shape)
    if len(tensor.shape) != 4 or tensor.shape[-1] is None:
        raise ValueError(
            "`input_tensor` must have the shape (batch, height, width, "
            f"channels). Received: input_tensor.shape={tensor.shape}"
        )
    if shape is not None and tuple(shape) != tuple(tensor.shape[1:]):
        raise ValueError(
            "`input_shape` must equal `input_tensor.shape[1:]`. Received: "
            f"input_shape={shape}, input_tensor.shape={tensor.shape}"
        )
    _check_size(tuple(tensor.shape[1:]), include_top=False)
    return tensor


def check_input_shape(shape):
    good = isinstance(shape, (list, tuple)) and len(shape) == 3
    if not good or not all(
        side is None or (isinstance(side, int) and side > 0) for side in shape
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
