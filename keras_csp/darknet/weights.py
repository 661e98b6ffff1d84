"""Darknet's .weights files, and the `NAME.NN` or `NAME.conv.NN` cut from them.

    int32 major, minor, revision; images seen (8 bytes, 4 before version 0.2)
    for each convolution, float32: biases; with batch normalisation also
    scales, means, variances; kernel (filters, input per group, height, width)

Source: Darknet, src/parser.c. The format has no magic number and no names, so
all that can be checked is checked: the version, that every byte has its place
in the model, and that every number is finite.
"""

import os
import pathlib
import re
import struct

import numpy as np

from keras_csp._files import atomic_write
from keras_csp.darknet.slots import classifier_of, find_slots
from keras_csp.layers.kernel_layout import (
    assign_all,
    kernel_from_keras,
    kernel_to_keras,
    torch_shape,
)

_VERSION = struct.Struct("<3i")
_NEW_HEADER = struct.pack("<3iQ", 0, 2, 5, 0)
# "darknet53.conv.74", and as others name the files of `darknet partial`.
_BACKBONE = re.compile(r"\.([0-9]{1,6})$")


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
        classifier: False leaves the last convolution (the classifier) as it
            is, for a model with another number of classes; the file's own
            must be complete, or absent.

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
    count = _count_loaded(model, slots, numbers.size, classifier, path)
    loaded, left = slots[:count], slots[count:]
    end = sum(slot.floats for slot in loaded)
    for slot, array in numbers.of(loaded):
        _check_slot(slot, array, path)
    if end < numbers.size:
        rest = numbers.read(end, numbers.size - end)
        _check_finite(rest, "the classifier", path)
    for slot, array in numbers.of(loaded):
        assign_all(_pairs(slot, array))
    if not left:
        # The images seen: `save_weights` writes the same file again.
        model.darknet_header = numbers.header_bytes()
    return [v.path for slot in left for v in slot.variables]


def save_weights(model, path):
    """Writes the weights of `model` as a Darknet .weights file.

    Args:
        model: as in `load_weights`. Its activations and shortcuts are not in
            the format: they are the cfg's, which must be the network's.
        path: of the file, overwritten if there is one. It is
            complete once it appears.

    Raises:
        ValueError: a layer that Darknet's format has no place for; the
            message names it.
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = os.fsdecode(path)
    slots = find_slots(model)
    with atomic_write(path) as part, open(part, "xb") as file:
        file.write(getattr(model, "darknet_header", _NEW_HEADER))
        for slot in slots:
            for array in _arrays(slot):
                file.write(array.astype("<f4", copy=False).data)


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

    def of(self, slots):
        """(slot, its numbers) one after another."""
        start = 0
        for slot in slots:
            yield slot, self.read(start, slot.floats)
            start += slot.floats


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


def _count_loaded(model, slots, size, classifier, path):
    """How many of `slots` the file fills, having checked all of its size."""
    backbone = _BACKBONE.search(path)
    if slots[0].index is None:
        return _count_of_network(model, slots, size, classifier, path)
    count = len(slots)
    if backbone:
        count = sum(slot.index < int(backbone[1]) for slot in slots)
    if count == len(slots) and not classifier:
        _check_rest(slots[:-1], size, slots[-1].row, path)
        return count - 1
    _check_exact(slots[:count], size, path)
    return count


def _count_of_network(model, slots, size, classifier, path):
    """The same of a network of this package; its backbone: the features."""
    if classifier_of(model) is None:
        _check_rest(slots, size, 1 + model.outputs[0].shape[-1], path)
        return len(slots)
    features = slots[:-1]
    if not classifier:
        _check_rest(features, size, slots[-1].row, path)
        return len(features)
    if _BACKBONE.search(path) and size == sum(s.floats for s in features):
        return len(features)
    _check_exact(slots, size, path)
    return len(slots)


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


def _parts(slot, numbers):
    """(what, variable, numbers) of the vectors and of the kernel; views."""
    start = 0
    for what, variable in slot.vectors:
        yield what, variable, numbers[start : start + slot.filters]
        start += slot.filters
    yield "kernel", slot.convolution.kernel, numbers[start:]


def _check_slot(slot, numbers, path):
    for what, _, part in _parts(slot, numbers):
        _check_finite(part, f"the {what} of {slot.name!r}", path)


def _pairs(slot, numbers):
    """(variable, array) of one slot, the kernel in Keras' layout."""
    *vectors, (_, variable, kernel) = _parts(slot, numbers)
    shape = torch_shape(slot.convolution)
    kernel = kernel.reshape(*shape, *(1,) * (4 - len(shape)))
    if slot.shortcut:
        kernel = np.roll(kernel, slot.shortcut, axis=1)
    kernel = kernel_to_keras(slot.convolution, kernel)
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
