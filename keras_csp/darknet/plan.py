"""A checked plan of a cfg: what each layer reads, computes and returns.

    sections = cfg.parse(cfg.read_bytes("csresnext50.cfg"))
    plan = make_plan(sections)
    plan.steps[0].shape      # (128, 128, 64): height, width, channels

Pure Python, and cheap: everything that could fail later, or ask for more
memory than a machine has, is found before Keras builds anything.
"""

import dataclasses
import math

from keras_csp.darknet import options
from keras_csp.darknet.cfg import quoted
from keras_csp.darknet.loss import loss_options

IMAGE = -1  # the "index" of the network's input

MAX_SIDE = 1 << 16
MAX_WEIGHTS = 1 << 30  # floats: 4 GiB, ten times the largest known network
MAX_ACTIVATIONS = 1 << 34  # numbers in all maps of one image together

# Darknet's names of activations, and ours.
ACTIVATIONS = {
    "leaky": "leaky",
    "linear": None,
    "logistic": "sigmoid",
    "mish": "mish",
    "relu": "relu",
    "relu6": "relu6",
    "swish": "silu",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One layer.

    Args:
        index: Darknet's, 0 for the first section after [net].
        kind: the section's name.
        line: of the section.
        inputs: indexes of the layers it reads; IMAGE is the network's input.
        shape: of the output: (height, width, channels); (classes,) after
            [softmax].
        arguments: of the layer, by name.
        weights: how many floats a .weights file holds for it.
    """

    index: int
    kind: str
    line: int
    inputs: tuple
    shape: tuple
    arguments: dict
    weights: int = 0

    @property
    def name(self):
        return f"{self.kind}_{self.index}"

    @property
    def passes_on(self):
        """Whether the output is its only input: it makes no layer."""
        whole = self.kind == "route" and self.arguments["groups"] == 1
        return len(self.inputs) == 1 and (whole or self.kind == "cost")


@dataclasses.dataclass(frozen=True)
class Plan:
    """All layers, and which of them are the network's outputs.

    `input_shape` is (height, width, channels); `is_detector` tells a list of
    outputs, one for each [yolo], from the single one of a classifier;
    `letterbox` whether photographs are letterboxed instead of stretched.
    """

    source: str
    input_shape: tuple
    steps: tuple
    outputs: tuple
    is_detector: bool
    letterbox: bool


def make_plan(sections, input_shape=None, warn=True):
    """The plan of the sections of a cfg.

    Args:
        sections: of `cfg.parse`.
        input_shape: (height, width, channels) instead of [net]'s.
        warn: whether unknown options give a warning. Default True.

    Raises:
        ValueError: what the cfg asks for cannot be built; file, line and
            section are named.
    """
    options.check_kinds(sections)
    options.check_options(sections, warn)
    net, *layers = sections
    builder = _Builder(_input_shape(net, input_shape))
    for section in layers:
        builder.add(section)
    if not layers:
        raise net.error("no layer follows this section")
    builder.check_all_used(layers)
    return Plan(
        source=net.source,
        input_shape=builder.input_shape,
        steps=tuple(builder.steps),
        outputs=builder.outputs(),
        is_detector=builder.is_detector(),
        letterbox=net.integer("letter_box", 0) != 0,
    )


def _input_shape(net, override):
    keys = ("height", "width", "channels")
    given = override or (None, None, None)
    shape = tuple(
        net.integer(key, None, minimum=1) if value is None else value
        for key, value in zip(keys, given)
    )
    for key, value in zip(keys, shape):
        if value > MAX_SIDE:
            raise net.error(
                f"`{key}` must be at most {MAX_SIDE}. Received: {value}", key
            )
    return shape


class _Builder:
    """The steps so far; `add` plans one section after another."""

    def __init__(self, input_shape):
        self.input_shape = input_shape
        self.steps = []
        self.weights = 0
        self.activations = 0

    @property
    def index(self):
        return len(self.steps)

    def add(self, section):
        kind = options.kind_of(section)
        inputs, shape, arguments, weights = _PLANNERS[kind](section, self)
        self._check_size(section, shape, weights)
        self.steps.append(
            Step(
                self.index,
                kind,
                section.line,
                inputs,
                shape,
                arguments,
                weights,
            )
        )

    def shape(self, index):
        return self.input_shape if index == IMAGE else self.steps[index].shape

    def image(self, section, index=None):
        """The shape of a layer, the one before by default, if it is a map."""
        index = self.index - 1 if index is None else index
        shape = self.shape(index)
        is_head = index != IMAGE and self.steps[index].kind == "yolo"
        if len(shape) != 3 or is_head:
            raise section.error(
                f"layer {index}, a [{self.steps[index].kind}], is not a map "
                "(height, width, channels) that this section could read"
            )
        return shape

    def references(self, section, key):
        """The absolute indexes of the layers that `key` names."""
        given = section.integers(key)
        if not given:
            raise section.error(
                f"`{key}` is missing; it must name layers, by number or, "
                "relative to this one, by negative number"
            )
        found = tuple(n + self.index if n < 0 else n for n in given)
        for number, index in zip(given, found):
            if not 0 <= index < self.index:
                raise section.error(
                    f"`{key}` must name layers before this one, which is "
                    f"layer {self.index}. Received: {number}",
                    key,
                )
        return found

    def check_classes(self, section, classes):
        """Every [yolo] must tell the same classes apart."""
        for step in self.steps:
            if step.kind == "yolo" and step.arguments["classes"] != classes:
                raise section.error(
                    "the [yolo] sections must have one number of classes. "
                    f"Received: classes={classes}, and "
                    f"{step.arguments['classes']} in line {step.line}",
                    "classes",
                )

    def _check_size(self, section, shape, weights):
        self.weights += weights
        self.activations += math.prod(shape)
        if self.weights > MAX_WEIGHTS:
            raise section.error(
                f"up to here the network has {self.weights:,} weights. At most "
                f"{MAX_WEIGHTS:,} are allowed"
            )
        if self.activations > MAX_ACTIVATIONS:
            raise section.error(
                f"up to here the maps of one image are {self.activations:,} "
                f"numbers. At most {MAX_ACTIVATIONS:,} are allowed"
            )

    def is_detector(self):
        return any(step.kind == "yolo" for step in self.steps)

    def outputs(self):
        if self.is_detector():
            return tuple(s.index for s in self.steps if s.kind == "yolo")
        return (self.index - 1,)

    def check_all_used(self, sections):
        """A convolution that no output needs would be left out by Keras."""
        used = set(self.outputs())
        for step in reversed(self.steps):
            if step.index in used:
                used.update(step.inputs)
        for step, section in zip(self.steps, sections):
            if step.weights and step.index not in used:
                raise section.error(
                    f"no output of the network depends on layer {step.index}"
                )


def _convolutional(section, builder):
    height, width, channels = builder.image(section)
    size = section.integer("size", 1, minimum=1)
    strides = _strides(section)
    groups = section.integer("groups", 1, minimum=1)
    # Darknet's default is 1, which nobody means: a misspelt key is likelier.
    filters = section.integer("filters", None, minimum=1)
    normalize = section.integer("batch_normalize", 0) != 0
    padding = section.integer("padding", 0, minimum=0)
    if section.integer("pad", 0):
        padding = size // 2
    _check_divides(section, "groups", groups, "input channels", channels)
    _check_divides(section, "groups", groups, "filters", filters)
    arguments = {
        "filters": filters,
        "kernel_size": size,
        "strides": strides[0] if strides[0] == strides[1] else strides,
        "groups": groups,
        "activation": _activation(section, "logistic"),
        "padding": padding,
        "normalize": normalize,
    }
    shape = (
        _side(section, height, 2 * padding, size, strides[0]),
        _side(section, width, 2 * padding, size, strides[1]),
        filters,
    )
    if "share_index" in section.options:
        shared = _shared(section, builder, arguments, channels)
        return (builder.index - 1,), shape, {"shared": shared}, 0
    weights = filters * (4 if normalize else 1)
    weights += filters * (channels // groups) * size**2
    return (builder.index - 1,), shape, arguments, weights


def _strides(section):
    """(vertical, horizontal)"""
    stride = section.integer("stride", 1, minimum=1)
    return tuple(
        section.integer(key, stride, minimum=1)
        for key in ("stride_y", "stride_x")
    )


def _shared(section, builder, arguments, channels):
    """The index of the convolution whose weights this one uses too."""
    index, _ = _single_reference(section, builder, "share_index")
    step = builder.steps[index]
    index = step.arguments.get("shared", index)
    step = builder.steps[index]
    same = step.kind == "convolutional" and step.arguments == arguments
    if not same or builder.shape(step.inputs[0])[2] != channels:
        raise section.error(
            f"layer {index} must be a [convolutional] with the options and "
            "the input channels of this one, for the two to share weights",
            "share_index",
        )
    return index


def _side(section, side, padding, size, stride):
    """(side + padding - size) // stride + 1, which must leave something."""
    if side + padding < size:
        raise section.error(
            f"a map of side {side} is too small for size={size}; the network "
            "needs larger images"
        )
    result = (side + padding - size) // stride + 1
    if result > MAX_SIDE:
        raise section.error(
            f"the map gets a side of {result}. At most {MAX_SIDE} is allowed"
        )
    return result


def _check_divides(section, key, divisor, what, number):
    if number % divisor:
        raise section.error(
            f"`{key}` must divide the {number} {what}. Received: "
            f"{key}={divisor}",
            key,
        )


def _activation(section, default):
    name = section.text("activation", default)
    if name not in ACTIVATIONS:
        raise section.error(
            f"unknown or unsupported activation. Supported: "
            f"{', '.join(ACTIVATIONS)}. Received: activation={quoted(name)}",
            "activation",
        )
    return ACTIVATIONS[name]


def _maxpool(section, builder):
    if section.integer("maxpool_depth", 0):
        return _maxout(section, builder)
    return _pool(section, builder)


def _maxout(section, builder):
    height, width, channels = builder.image(section)
    filters = section.integer("out_channels", 1, minimum=1)
    _check_divides(section, "out_channels", filters, "channels", channels)
    shape = (height, width, filters)
    return (builder.index - 1,), shape, {"filters": filters}, 0


def _pool(section, builder):
    """Windows of Darknet: `padding` in all, the smaller half of it before."""
    height, width, channels = builder.image(section)
    stride = section.integer("stride", 1, minimum=1)
    size = section.integer("size", stride, minimum=1)
    padding = section.integer("padding", size - 1, minimum=0)
    if padding > 2 * (size - 1):
        raise section.error(
            f"`padding` must be at most {2 * (size - 1)} for size={size}: "
            "windows beside the map have nothing to pool. Received: "
            f"padding={padding}",
            "padding",
        )
    arguments = {"pool_size": size, "strides": stride, "padding": padding}
    shape = (
        _side(section, height, padding, size, stride),
        _side(section, width, padding, size, stride),
        channels,
    )
    return (builder.index - 1,), shape, arguments, 0


def _avgpool(section, builder):
    _, _, channels = builder.image(section)
    return (builder.index - 1,), (1, 1, channels), {}, 0


def _route(section, builder):
    indexes = builder.references(section, "layers")
    groups = section.integer("groups", 1, minimum=1)
    group = section.integer("group_id", 0, minimum=0)
    if group >= groups:
        raise section.error(
            f"`group_id` must be below groups={groups}. Received: "
            f"group_id={group}",
            "group_id",
        )
    shapes = [builder.image(section, index) for index in indexes]
    for index, shape in zip(indexes, shapes):
        _check_sides(section, "layers", indexes[0], shapes[0], index, shape)
        _check_divides(section, "groups", groups, "channels", shape[2])
    channels = sum(shape[2] // groups for shape in shapes)
    arguments = {"groups": groups, "group": group}
    return indexes, (*shapes[0][:2], channels), arguments, 0


def _check_sides(section, key, index, shape, other, other_shape):
    if shape[:2] != other_shape[:2]:
        raise section.error(
            f"the maps must have the same height and width. Received: "
            f"{_times(shape)} (layer {index}) and {_times(other_shape)} "
            f"(layer {other})",
            key,
        )


def _times(shape):
    return "x".join(map(str, shape[:2]))


def _shortcut(section, builder):
    height, width, channels = builder.image(section)
    indexes = builder.references(section, "from")
    scales = []
    for index in indexes:
        shape = builder.image(section, index)
        scales.append(_scale(section, index, shape, (height, width)))
    arguments = {
        "activation": _activation(section, "linear"),
        "scales": tuple(scales),
    }
    shape = (height, width, channels)
    return (builder.index - 1, *indexes), shape, arguments, 0


def _scale(section, index, shape, sides):
    """How a map of `shape` is added to one of `sides`, as in `Shortcut`.

    1 for maps of one size, s for one s times larger, -s for a smaller one.
    """
    for (height, width), (h, w), sign in (
        (shape[:2], sides, 1),
        (sides, shape[:2], -1),
    ):
        scale = height // h
        if scale and (height, width) == (scale * h, scale * w):
            return sign * scale if scale > 1 else 1
    raise section.error(
        "the sides of one map must be a multiple of the other's. Received: "
        f"{_times(sides)} and {_times(shape)} (layer {index})",
        "from",
    )


def _upsample(section, builder):
    height, width, channels = builder.image(section)
    stride = section.integer("stride", 2, minimum=1)
    if max(height, width) * stride > MAX_SIDE:
        raise section.error(
            f"the map gets a side of {max(height, width) * stride}. At most "
            f"{MAX_SIDE} is allowed",
            "stride",
        )
    arguments = {"stride": stride, "scale": section.number("scale", 1)}
    shape = (height * stride, width * stride, channels)
    return (builder.index - 1,), shape, arguments, 0


def _scale_channels(section, builder):
    shape = builder.image(section)
    index, from_shape = _single_reference(section, builder)
    if shape != (1, 1, from_shape[2]):
        raise section.error(
            f"the layer before must be 1x1 with the {from_shape[2]} channels "
            f"of layer {index}. Received: {_times(shape)} with {shape[2]}"
        )
    arguments = {"activation": _activation(section, "linear")}
    return (builder.index - 1, index), from_shape, arguments, 0


def _sam(section, builder):
    shape = builder.image(section)
    index, from_shape = _single_reference(section, builder)
    if shape != from_shape:
        raise section.error(
            f"layer {index} must have the shape of the layer before, {shape}. "
            f"Received: {from_shape}",
            "from",
        )
    arguments = {"activation": _activation(section, "linear")}
    return (builder.index - 1, index), shape, arguments, 0


def _single_reference(section, builder, key="from"):
    index, *others = builder.references(section, key)
    if others:
        raise section.error(f"`{key}` must name one layer", key)
    return index, builder.image(section, index)


def _dropout(section, builder):
    rate = section.number("probability", 0.2)
    if not 0 <= rate < 1:
        raise section.error(
            "`probability` must be at least 0 and below 1. Received: "
            f"probability={rate:g}",
            "probability",
        )
    previous = builder.index - 1
    return (previous,), builder.shape(previous), {"rate": rate}, 0


def _softmax(section, builder):
    height, width, channels = builder.image(section)
    if (height, width) != (1, 1):
        raise section.error(
            "only a softmax over the channels of a 1x1 map is supported, as "
            f"after [avgpool]. Received: {height}x{width}"
        )
    groups = section.integer("groups", 1, minimum=1)
    _check_divides(section, "groups", groups, "channels", channels)
    temperature = section.number("temperature", 1)
    if temperature <= 0:
        raise section.error(
            "`temperature` must be positive. Received: "
            f"temperature={temperature:g}",
            "temperature",
        )
    arguments = {"groups": groups, "temperature": temperature}
    return (builder.index - 1,), (channels,), arguments, 0


def _cost(section, builder):
    previous = builder.index - 1
    return (previous,), builder.shape(previous), {}, 0


# Darknet's kinds of non-maximum suppression, and ours with its exponent: those
# of src/box.c, where "greedynms" takes the DIoU with a fixed one.
NMS_KINDS = {
    "default": ("iou", None),
    "cornersnms": ("iou", None),
    "greedynms": ("diou", 0.6),
    "diounms": ("diou", None),
}
_IOU_THRESHOLD = 0.45  # of src/detector.c
_SCORE_THRESHOLD = 0.2  # OpenCV's, where Darknet asks the command line


def _yolo(section, builder):
    height, width, channels = builder.image(section)
    classes = section.integer("classes", 20, minimum=1)
    anchors = _anchors(section)
    if channels != len(anchors) * (5 + classes):
        raise section.error(
            f"{len(anchors)} anchors (`mask`) of 5 + {classes} `classes` need "
            f"{len(anchors) * (5 + classes)} filters in the convolution "
            f"before. Received: {channels}"
        )
    builder.check_classes(section, classes)
    arguments = {
        "anchors": anchors,
        "classes": classes,
        "stride": _stride(builder.input_shape, (height, width)),
        "scale_x_y": _at_least_one(section, "scale_x_y"),
        "new_coords": section.integer("new_coords", 0) != 0,
        "iou_threshold": _IOU_THRESHOLD,
        "score_threshold": _fraction(section, "thresh", _SCORE_THRESHOLD),
        **_nms(section),
        "loss": loss_options(section, classes),
    }
    return (builder.index - 1,), (height, width, channels), arguments, 0


def _stride(image, sides):
    """Pixels of the input for one position: (vertical, horizontal)."""
    pairs = zip(image, sides)
    return tuple(
        whole // part if whole % part == 0 else whole / part
        for whole, part in pairs
    )


def _nms(section):
    kind = section.choice("nms_kind", "default", NMS_KINDS)
    nms, beta = NMS_KINDS[kind]
    if beta is None:
        beta = section.number("beta_nms", 0.6)
    return {"nms": nms, "nms_beta": beta}


def _at_least_one(section, key):
    value = section.number(key, 1)
    if value < 1:
        raise section.error(
            f"`{key}` must be at least 1. Received: {key}={value:g}", key
        )
    return value


def _fraction(section, key, default):
    value = section.number(key, default)
    if not 0 <= value <= 1:
        raise section.error(
            f"`{key}` must be from 0 to 1. Received: {key}={value:g}", key
        )
    return value


def _anchors(section):
    """The (width, height) pairs that `mask` picks from `anchors`."""
    total = section.integer("num", 1, minimum=1)
    numbers = section.numbers("anchors")
    if len(numbers) < 2 * total:
        raise section.error(
            f"`anchors` must be num={total} pairs of width and height. "
            f"Received: {len(numbers)} numbers",
            "anchors",
        )
    if any(number <= 0 for number in numbers):
        raise section.error("`anchors` must be positive", "anchors")
    mask = section.integers("mask", tuple(range(total)))
    if any(not 0 <= position < total for position in mask):
        raise section.error(
            f"`mask` must hold numbers from 0 to num - 1 = {total - 1}. "
            f"Received: mask={quoted(section.text('mask', None))}",
            "mask",
        )
    return tuple((numbers[2 * n], numbers[2 * n + 1]) for n in mask)


_PLANNERS = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "local_avgpool": _pool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "scale_channels": _scale_channels,
    "sam": _sam,
    "dropout": _dropout,
    "softmax": _softmax,
    "cost": _cost,
    "yolo": _yolo,
}
