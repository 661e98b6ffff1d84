"""Darknet's .weights files, and the `NAME.NN` or `NAME.conv.NN` cut from them.

    int32 major, minor, revision; images seen (8 bytes, 4 before version 0.2)
    for each convolution, float32: biases; with batch normalisation also
    scales, means, variances; kernel (filters, input per group, height, width)

Source: Darknet, src/parser.c. The format has no magic number and no names, so
all that can be checked is checked: the version, that every byte has its place
in the model, and that every number is finite.
"""

import dataclasses
import os
import pathlib
import re
import struct

import keras
import numpy as np

from keras_csp._files import atomic_write
from keras_csp._validation import check_positive
from keras_csp.darknet.slots import (
    Slot,
    classifier_of,
    classifier_slots,
    find_slots,
)
from keras_csp.layers.kernel_layout import (
    assign_all,
    kernel_from_keras,
    kernel_to_keras,
    torch_shape,
)
from keras_csp.layers.preprocessing import origin_of, put_origin

_HEADER = "darknet_header"  # the name in `origin_of`
_VERSION = struct.Struct("<3i")
_NEW_HEADER = struct.pack("<3iQ", 0, 2, 5, 0)
# "darknet53.conv.74", and as others name the files of `darknet partial`.
_BACKBONE = re.compile(r"\.([0-9]{1,6})$")
_CONV = re.compile(r"\.conv\.[0-9]{1,6}$")


def is_backbone(path):
    """Whether a file of this name holds only the first layers of a network."""
    return _BACKBONE.search(os.fspath(path)) is not None


def load_weights(model, path, classifier=True):
    """Loads a Darknet file into a model that `load` or a factory built.

    Args:
        model: of `keras_csp.darknet.load`, also reloaded from a .keras file;
            or a network of this package with an author's cfg, with or without
            its classifier.
        path: of a .weights file, or of a backbone `*.conv.NN`, which holds
            the layers 0 to NN - 1.
        classifier: False leaves the layers whose size depends on the number
            of classes as they are, for a model with another number of them:
            the convolution before each [yolo] of a detector, the last layer
            of another network. The file must have these layers for a number
            of classes of its own; a classifier may also be absent from it.

    Returns:
        The paths of the variables that were left as they were: none as a
        rule, the classifier's or those after a backbone otherwise.

    Raises:
        ValueError: the file is not a Darknet file, does not belong to this
            network (each of its bytes must have its place), or holds numbers
            that are not finite; or the format cannot express the model. The
            model is then as it was.
    """
    path = os.fsdecode(path)
    slots = find_slots(model)
    numbers = _Numbers(path)
    places = _places(model, slots, numbers.size, classifier, path)
    for place, array in numbers.of(places):
        _check_place(place, array, path)
    end = sum(place.floats for place in places)
    if end < numbers.size:
        rest = numbers.read(end, numbers.size - end)
        _check_finite(rest, "the classifier", path)
    for place, array in numbers.of(places):
        if place.loaded:
            assign_all(_pairs(place, array))
    loaded = [id(place.slot) for place in places if place.loaded]
    left = [slot for slot in slots if id(slot) not in loaded]
    # The images seen: `save_weights` writes the same file again.
    header = None if left else numbers.header_bytes().hex()
    put_origin(model, **{_HEADER: header})
    return [v.path for slot in left for v in slot.variables]


@dataclasses.dataclass(frozen=True)
class HeadWeights:
    """What a file holds for the convolution before a [yolo].

    Args:
        anchors: n, the head's.
        classes: those of the file, which need not be the model's.
        arrays: pairs of a variable of the model and its numbers in the file.
            Their last axis has n (5 + classes) filters: of each anchor t_x,
            t_y, t_w, t_h, t_o and one for each class. The other axes are the
            variable's.
    """

    anchors: int
    classes: int
    arrays: list


def read_heads(model, path):
    """The heads of a detector's file, of whatever number of classes.

        load_weights(model, path, classifier=False)
        for head in read_heads(model, path):
            for variable, array in head.arrays:
                variable.assign(...)

    Args:
        model: a detector of `keras_csp.darknet.load`; it is not changed.
        path: as of `load_weights`.

    Returns:
        A list of `HeadWeights` in the order of the file, of those heads that
        are in it: none of a file of the first layers.

    Raises:
        ValueError: as `load_weights` with `classifier=False`.
    """
    path = os.fsdecode(path)
    numbers = _Numbers(path)
    slots = find_slots(model)
    places = _places(model, slots, numbers.size, False, path)
    heads = []
    for place, array in numbers.of(places):
        if place.slot.anchors:
            _check_axes(place.slot)
            _check_place(place, array, path)
            classes = place.filters // place.slot.anchors - 5
            pairs = _pairs(place, array)
            heads.append(HeadWeights(place.slot.anchors, classes, pairs))
    return heads


def _check_axes(slot):
    if isinstance(slot.convolution, keras.layers.DepthwiseConv2D):
        raise ValueError(
            f"Layer {slot.name!r} before a [yolo] is a depthwise convolution, "
            "whose filters do not belong to one class each"
        )


def save_weights(model, path, layers=None):
    """Writes the weights of `model` as a Darknet .weights file.

        save_weights(model, "yolov4.weights")
        save_weights(model, "yolov4.conv.137")

    The second is what `darknet partial` writes: the layers 0 to 136, and no
    images seen in the header. The header of a whole file is that of the file
    that was loaded.

    Args:
        model: as in `load_weights`. Its activations and shortcuts are not in
            the format: they are the cfg's, which must be the network's.
        path: of the file, overwritten if there is one. It is
            complete once it appears. `*.conv.NN` of a network of this package
            are its features, without the classifier, whatever NN.
        layers: write only so many, counted as Darknet does, of a model of a
            cfg. Default: NN of a path `*.conv.NN`, otherwise all. Another
            path that ends in `.NN`, which `load` takes for a part, needs
            `layers=NN`.

    Raises:
        ValueError: a layer that Darknet's format has no place for; the
            message names it; or `layers` that do not belong to the path.
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = os.fsdecode(path)
    layers = _layers_to_save(path, layers)
    slots, header = find_slots(model), header_of(model)
    if layers is not None:
        slots, header = _cut(model, slots, layers, path), _NEW_HEADER
    with atomic_write(path) as part:
        write(part, slots, header)


def _layers_to_save(path, layers):
    """How many, None for all: nothing may be left out that nobody asked for."""
    if layers is not None:
        layers = check_positive("layers", layers)
    name = _BACKBONE.search(path)
    if name is None:
        return layers
    named = int(name[1])
    if layers is None and _CONV.search(path):
        layers = check_positive("layers", named)
    if layers != named:
        raise ValueError(
            f"A path that ends in .{name[1]} is that of a file of the first "
            f"{named} layers. Give layers={named} to write these, or another "
            f"path, e.g. {path}.weights. Received: path={path!r}, "
            f"layers={layers!r}"
        )
    return layers


def _cut(model, slots, layers, path):
    """The slots of the first `layers`, or the features."""
    if slots[0].index is not None:
        return [slot for slot in slots if slot.index < layers]
    if not _CONV.search(path):
        raise ValueError(
            f"The layers of {model.name!r} have no numbers, as those of a "
            "Darknet cfg have: a path *.conv.NN, and no `layers`, writes its "
            f"features. Received: layers={layers}"
        )
    return [
        slot for slot in slots if slot.convolution is not classifier_of(model)
    ]


def write(path, slots, header):
    """Writes a new file of a header and the weights of `slots`."""
    with open(path, "xb") as file:
        file.write(header)
        for slot in slots:
            for array in _arrays(slot):
                file.write(array.astype("<f4", copy=False).data)


def header_of(model):
    """That of the file of all the model's weights; else a new one."""
    try:
        header = bytes.fromhex(origin_of(model)[_HEADER])
        size = _header_size(header[: _VERSION.size], "header")
    except (KeyError, ValueError):  # none, or a damaged .keras file's
        return _NEW_HEADER
    return header if len(header) == size else _NEW_HEADER


def _arrays(slot):
    """What a file holds for `slot`, in order."""
    for _, variable in slot.vectors:
        yield np.ascontiguousarray(variable.numpy(), "float32")
    kernel = kernel_from_keras(slot.convolution)
    if slot.shortcut:
        kernel = np.roll(kernel, -slot.shortcut, axis=1)
    yield kernel


class _Numbers:
    """The float32 numbers of a file after its header.

    They are mapped, not read, and for one slot at a time: of a large file
    only that part is in memory.
    """

    def __init__(self, path):
        self.path = path
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            version = file.read(_VERSION.size)
        self.header = _header_size(version, path)
        if size < self.header or (size - self.header) % 4:
            raise ValueError(
                f"{path} is not a Darknet .weights file, or is damaged: of its "
                f"{size} bytes {self.header} are a header, and the rest should "
                "be 4-byte numbers"
            )
        self.size = (size - self.header) // 4

    def header_bytes(self):
        with open(self.path, "rb") as file:
            return file.read(self.header)

    def read(self, start, count):
        offset = self.header + 4 * start
        return np.memmap(self.path, "<f4", "r", offset, (count,))

    def of(self, places):
        """(place, its numbers) one after another."""
        start = 0
        for place in places:
            yield place, self.read(start, place.floats)
            start += place.floats


def _header_size(version, path):
    fields = (-1,)
    if len(version) == _VERSION.size:
        fields = _VERSION.unpack(version)
    if not all(0 <= field < 1000 for field in fields):
        raise ValueError(
            f"{path} is not a Darknet .weights file: such a file starts with "
            "its version, three small int32 numbers (0, 2, 5 as a rule). "
            f"Received: {version.hex(' ', 4) or 'nothing'}"
        )
    major, minor, _ = fields
    return _VERSION.size + (8 if 10 * major + minor >= 2 else 4)


@dataclasses.dataclass(frozen=True)
class _Place:
    """The part of a file for a slot: so many filters; loaded, or skipped."""

    slot: Slot
    filters: int
    loaded: bool = True

    @property
    def floats(self):
        return self.filters * self.slot.row


def _places(model, slots, size, classifier, path):
    """The parts of a file, in order, having checked all of its size.

    They may end before the file does, with a classifier that has no place.
    """
    present = _present(model, slots, size, path)
    names = [slot.name for slot in present]
    changing = [] if classifier else classifier_slots(model, slots)
    changing = [slot for slot in changing if slot.name in names]
    if any(slot.anchors for slot in changing):
        return _places_around_heads(present, size, path)
    kept = [slot for slot in present if slot not in changing]
    if changing:
        _check_rest(kept, size, changing[0].row, path)
    elif slots[0].index is None and classifier_of(model) is None:
        _check_rest(kept, size, 1 + model.outputs[0].shape[-1], path)
    else:
        _check_exact(kept, size, path)
    return [_Place(slot, slot.filters) for slot in kept]


def _present(model, slots, size, path):
    """Those of `slots` that a file of this name holds.

    Of a network of this package, `*.NN` are the features.
    """
    backbone = _BACKBONE.search(path)
    if backbone and slots[0].index is not None:
        return [slot for slot in slots if slot.index < int(backbone[1])]
    if backbone and classifier_of(model) is not None:
        features = slots[:-1]
        if size == sum(slot.floats for slot in features):
            return features
    return slots


def _places_around_heads(slots, size, path):
    """The heads are skipped: sum of (5 + C) n row over them is what is left.

    n and row are the anchors of a head and the numbers of one filter, C the
    file's classes, for which that is solved.
    """
    rest = size - sum(slot.floats for slot in slots if not slot.anchors)
    if rest < 0:
        raise _ends_early(slots, size, path)
    heads = [slot for slot in slots if slot.anchors]
    filters, remainder = divmod(rest, sum(s.anchors * s.row for s in heads))
    if remainder or filters < 6:
        raise ValueError(
            f"{path} belongs to another network: beside the other layers it "
            f"holds {rest} numbers for {_listed(heads)}, which no number of "
            "classes explains (for C classes, "
            f"{sum(s.anchors * s.row for s in heads)} times 5 + C)"
        )
    return [
        _Place(slot, slot.anchors * filters or slot.filters, not slot.anchors)
        for slot in slots
    ]


def _listed(slots):
    return ", ".join(repr(slot.name) for slot in slots)


def _check_exact(slots, size, path):
    needed = sum(slot.floats for slot in slots)
    if size < needed:
        raise _ends_early(slots, size, path)
    if size > needed:
        last = slots[-1].name if slots else "the header"
        raise ValueError(
            f"{path} belongs to another network: it holds {size} numbers, "
            f"{size - needed} more than the {needed} up to {last!r}"
        )


def _check_rest(slots, size, row, path):
    """After `slots` a file ends, or holds one classifier: rows for classes."""
    rest = size - sum(slot.floats for slot in slots)
    if rest < 0:
        raise _ends_early(slots, size, path)
    if rest % row:
        last = slots[-1].name if slots else "the header"
        raise ValueError(
            f"{path} belongs to another network: after {last!r} it holds "
            f"{rest} numbers, which is not a whole classifier (a multiple of "
            f"{row} numbers, one row for each class)"
        )


def _ends_early(slots, size, path):
    end = 0
    for slot in slots:
        end += slot.floats
        if end > size:
            break
    needed = sum(slot.floats for slot in slots)
    message = (
        f"{path} is cut short, or belongs to another network: it holds {size} "
        f"numbers and ends in layer {slot.name!r}; {needed} are needed"
    )
    if slot.index and end - slot.floats == size:
        stem = pathlib.Path(path).stem
        message += (
            f". If it holds the first {slot.index} layers of this network, "
            f"name it for its layers, e.g. {stem}.{slot.index}"
        )
    return ValueError(message)


def _parts(place, numbers):
    """(what, variable, numbers) of the vectors and of the kernel; views."""
    start, slot = 0, place.slot
    for what, variable in slot.vectors:
        yield what, variable, numbers[start : start + place.filters]
        start += place.filters
    yield "kernel", slot.convolution.kernel, numbers[start:]


def _check_place(place, numbers, path):
    for what, _, part in _parts(place, numbers):
        _check_finite(part, f"the {what} of {place.slot.name!r}", path)


def _pairs(place, numbers):
    """(variable, array) of one slot, the kernel in Keras' layout."""
    slot = place.slot
    *vectors, (_, variable, kernel) = _parts(place, numbers)
    _, *shape = torch_shape(slot.convolution)
    shape = (place.filters, *shape)
    kernel = kernel.reshape(*shape, *(1,) * (4 - len(shape)))
    if slot.shortcut:
        kernel = np.roll(kernel, slot.shortcut, axis=1)
    if place.filters == slot.filters:
        kernel = kernel_to_keras(slot.convolution, kernel)
    else:  # a head of another number of classes
        kernel = kernel.transpose(2, 3, 1, 0)
    pairs = [(vector, array) for _, vector, array in vectors]
    # Copies: a backend may keep the memory that it is given, here the file's.
    return [
        (variable, np.array(array, "float32", order="C"))
        for variable, array in [*pairs, (variable, kernel)]
    ]


def _check_finite(numbers, what, path):
    # The sum, which is fast, may also overflow; then they are looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(numbers.sum()) or np.isfinite(numbers).all():
            return
    raise ValueError(
        f"{path} holds numbers that are not finite, in {what}: it is damaged, "
        "or belongs to another network"
    )
