"""A plan as a functional Keras model."""

import keras

from keras_csp._keras_internals import producer
from keras_csp.darknet import layers as darknet_layers
from keras_csp.darknet.cfg import ORIGIN
from keras_csp.darknet.plan import IMAGE
from keras_csp.layers.pooling import Maxout, PaddedMaxPooling2D
from keras_csp.layers.precision import float32_if_half
from keras_csp.layers.preprocessing import ImageSpec, Preprocessing
from keras_csp.layers.units import ConvNormAct
from keras_csp.layers.yolo_head import YoloHead


def build(plan, input_shape, name, class_names=None, cfg=None):
    """The `keras.Model` of a `Plan`, or the `Detector` of one with [yolo].

    Args:
        plan: of `make_plan`, for an image of `input_shape`, where that has
            its sides.
        input_shape: (height, width, channels); sides may be None.
        name: of the model.
        class_names: as of `ImageSpec`.
        cfg: the text that the plan was made of; it stays with the model.

    Returns:
        A functional model; its layers are named `kind_index` with Darknet's
        index. A [route] of one whole layer and [cost] make no layer.
    """
    image = keras.Input(shape=input_shape)
    spec = image_spec_of(plan, input_shape, class_names)
    origin = {ORIGIN: cfg} if cfg else None
    first = Preprocessing(spec, origin, name="preprocessing")
    tensors, units = {IMAGE: first(image)}, {}
    for step in plan.steps:
        inputs = [tensors[index] for index in step.inputs]
        if step.passes_on:
            tensors[step.index] = inputs[0]
        elif step.kind == "convolutional":
            unit = units[step.index] = _unit(step, units)
            tensors[step.index] = unit(*inputs)
        else:
            tensors[step.index] = _MAKERS[step.kind](step, *inputs)
    outputs = [tensors[index] for index in plan.outputs]
    if not plan.is_detector:
        return keras.Model(image, outputs[0], name=name)
    # By its registered name: detectors stand above this room.
    detector = keras.saving.get_registered_object("keras_csp>Detector")
    return detector(image, _by_level(outputs), name=name)


def calls(plan):
    """(layer, the layers that it reads) of every call in `build`'s model.

    By name; IMAGE stands for the first layer.

    Returns:
        A list of them, and the names of the layers that give the outputs.
    """
    names, found = {IMAGE: IMAGE}, []
    for step in plan.steps:
        inputs = tuple(names[index] for index in step.inputs)
        if step.passes_on:
            names[step.index] = inputs[0]
            continue
        shared = step.arguments.get("shared", step.index)
        names[step.index] = plan.steps[shared].name
        if step.kind == "upsample" and step.arguments["scale"] != 1:
            found.append((f"{step.name}_scale", inputs))
            inputs = (f"{step.name}_scale",)
        found.append((names[step.index], inputs))
    return found, [names[index] for index in plan.outputs]


def image_spec_of(plan, input_shape, class_names):
    """As Darknet brings photographs to a network.

    Source: src/detector.c, test_detector; src/classifier.c, which cuts the
    square in the middle; src/image.c, resize_image.
    """
    resize = "letterbox" if plan.letterbox else "stretch"
    return ImageSpec(
        size=None if None in input_shape else input_shape[:2],
        resize=resize if plan.is_detector else "crop",
        antialias=False,
        class_names=class_names,
    )


def _by_level(outputs):
    """{level: output of its head}; of two at one level the later one is _2."""
    levels = {}
    for tensor in outputs:
        level = name = producer(tensor).level
        number = 1
        while name in levels:
            number += 1
            name = f"{level}_{number}"
        levels[name] = tensor
    return levels


def _unit(step, units):
    """A new unit, or the earlier one whose weights this step shares."""
    if "shared" in step.arguments:
        return units[step.arguments["shared"]]
    return ConvNormAct(**step.arguments, name=step.name)


def _maxpool(step, x):
    arguments = dict(step.arguments)
    if "filters" in arguments:
        return Maxout(**arguments, name=step.name)(x)
    size, strides = arguments["pool_size"], arguments["strides"]
    padding = arguments.pop("padding")
    # With a larger stride, "same" would place the windows otherwise.
    if padding == size - 1 and (strides == 1 or size <= 2):
        return keras.layers.MaxPooling2D(
            **arguments, padding="same", name=step.name
        )(x)
    sides = (padding // 2, padding - padding // 2)
    return PaddedMaxPooling2D(**arguments, padding=sides, name=step.name)(x)


def _local_avgpool(step, x):
    return darknet_layers.LocalAveragePooling2D(
        **step.arguments, name=step.name
    )(x)


def _avgpool(step, x):
    return keras.layers.GlobalAveragePooling2D(keepdims=True, name=step.name)(x)


def _route(step, *xs):
    return darknet_layers.Route(**step.arguments, name=step.name)(list(xs))


def _shortcut(step, *xs):
    return darknet_layers.Shortcut(**step.arguments, name=step.name)(list(xs))


def _upsample(step, x):
    stride, scale = step.arguments["stride"], step.arguments["scale"]
    if scale != 1:
        x = keras.layers.Rescaling(scale, name=f"{step.name}_scale")(x)
    return keras.layers.UpSampling2D(stride, name=step.name)(x)


def _product(step, *xs):
    return darknet_layers.Product(**step.arguments, name=step.name)(list(xs))


def _dropout(step, x):
    return keras.layers.Dropout(**step.arguments, name=step.name)(x)


def _softmax(step, x):
    return darknet_layers.GroupedSoftmax(
        **step.arguments, name=step.name, dtype=float32_if_half()
    )(x)


def _yolo(step, x):
    return YoloHead(**step.arguments, name=step.name)(x)


_MAKERS = {
    "maxpool": _maxpool,
    "local_avgpool": _local_avgpool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "scale_channels": _product,
    "sam": _product,
    "dropout": _dropout,
    "softmax": _softmax,
    "yolo": _yolo,
}
