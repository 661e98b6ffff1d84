"""Images with boxes, checked alike whatever they were read from."""

import dataclasses
import math
import numbers
import pathlib

import numpy as np
from PIL import Image

from keras_csp._validation import is_integer

_ROUNDING = 1.0  # pixels by which a box may leave its image
_LARGEST = 1 << 63  # image ids are tensors of 64 bits


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something of a data set that cannot be used.

    Attributes:
        image_id, file_name: of the image, None where it is unknown.
        annotation_id: of the box ("?" if it has none), or None if the image
            itself is at fault.
        reason: what is wrong, in words.
    """

    image_id: object
    file_name: object
    annotation_id: object
    reason: str

    def __str__(self):
        where = f"image {self.image_id}"
        if self.file_name:
            where += f" ({self.file_name})"
        if self.annotation_id is not None:
            where += f", annotation {self.annotation_id}"
        return f"{where}: {self.reason}"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRecord:
    """An image and its objects.

    Attributes:
        file_name: within the folder of the images.
        boxes: `(n, 4)`, x1, y1, x2, y2 in pixels of the image.
        labels: `(n,)`, positions in the class names, or names of classes.
        crowd: `(n,)`, True for regions to be ignored. Default: none.
        area: `(n,)`, square pixels of the objects. Default: the boxes'.
        width, height: of the image. Default: read from the file.
        image_id: an integer. Default: the number of the record.
    """

    file_name: str
    boxes: object = ()
    labels: object = ()
    crowd: object = None
    area: object = None
    width: int | None = None
    height: int | None = None
    image_id: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """What is usable of a data set, and what is not.

    Attributes:
        class_names, category_ids: tuples, of label 0, 1, ...
        records: tuple of `ImageRecord`, their fields arrays.
        faults: tuple of `Fault`.
    """

    class_names: tuple
    category_ids: tuple
    records: tuple
    faults: tuple


def check_records(records, class_names, folder):
    """`Annotations` of records that a user has made.

    Args:
        records: `ImageRecord`s.
        class_names: the name of each label.
        folder: of the images.

    Raises:
        ValueError: something that is not an `ImageRecord`, or one whose
            fields differ in length; names that repeat or are not texts; or a
            folder that does not exist.
    """
    folder = pathlib.Path(folder)
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not folder.is_dir():
        raise ValueError(f"The image folder does not exist: {folder}")
    texts = all(isinstance(name, str) for name in names)
    if not names or not texts or len(set(names)) < len(names):
        raise ValueError(
            "`class_names` must be a list of names, each once. Received: "
            f"class_names={class_names!r}"
        )
    labels = {name: label for label, name in enumerate(names)}
    found, faults, seen = [], [], set()
    for number, given in enumerate(records):
        if not isinstance(given, ImageRecord):
            raise ValueError(
                "`records` must be ImageRecords. Received at position "
                f"{number}: {given!r}"
            )
        entry, reason = _entry(given, number, folder, seen)
        if reason:
            faults.append(Fault(entry[0], given.file_name, None, reason))
            continue
        seen |= {entry[0], entry[1]}
        objects = _objects(given, entry, labels, faults)
        found.append(record(entry, objects))
    return Annotations(
        class_names=names,
        category_ids=tuple(range(len(names))),
        records=tuple(found),
        faults=tuple(faults),
    )


def _entry(given, number, folder, seen):
    """((id, file name, width, height), what is wrong or "")."""
    image_id = number if given.image_id is None else given.image_id
    entry = image_id, given.file_name, given.width, given.height
    reason = _name_fault(*entry[:2], seen) or _side_fault(given)
    reason = reason or missing_file(folder, given.file_name)
    if reason or None not in entry:
        return entry, reason
    try:
        with Image.open(folder / given.file_name) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return entry, f"the file cannot be read: {error}"
    # A side that was given stays: the reader compares it with the pixels.
    sides = given.width or width, given.height or height
    return (*entry[:2], *sides), ""


def _name_fault(image_id, name, seen):
    if not is_integer(image_id) or not -_LARGEST < image_id < _LARGEST:
        return f"the image's id is not an integer of 64 bits: {image_id!r}"
    if not isinstance(name, str) or not name:
        return f"the image's file name is {name!r}"
    known = [value for value in (image_id, name) if value in seen]
    return f"{known[0]!r} is used twice" if known else ""


def _side_fault(given):
    for side, value in (("width", given.width), ("height", given.height)):
        if value is not None and not (is_integer(value) and value > 0):
            return f"the image's {side} is {value!r}"
    return ""


def _objects(given, entry, labels, faults):
    """The usable objects of one image; the faulty ones go to `faults`."""
    count = len(given.labels)
    fields = {
        "boxes": given.boxes,
        "crowd": [False] * count if given.crowd is None else given.crowd,
        "area": [None] * count if given.area is None else given.area,
    }
    image_id, name, width, height = entry
    for field, values in fields.items():
        if len(values) != count:
            raise ValueError(
                f"The record of {name!r} has {count} labels and "
                f"{len(values)} {field}"
            )
    objects = []
    rows = zip(given.labels, *fields.values())
    for index, (label, box, crowd, area) in enumerate(rows):
        number = labels.get(label) if isinstance(label, str) else label
        if not is_integer(number) or not 0 <= number < len(labels):
            reason = f"there is no class {label!r}"
        elif (corners := _corners(box)) is None:
            reason = f"the box is not four numbers: {box!r}"
        else:
            corners, reason = checked_box(corners, width, height)
        if reason:
            faults.append(Fault(image_id, name, index, reason))
        else:
            row = corners, int(number), bool(crowd), usable_area(area)
            objects.append(row)
    return objects


def _corners(box):
    """The box as four floats, or None."""
    try:
        corners = tuple(map(float, box))
    except (TypeError, ValueError):
        return None
    return corners if len(corners) == 4 else None


def usable_area(area):
    """The area, or None (for the box's) where it makes no sense."""
    known = isinstance(area, numbers.Real) and not isinstance(area, bool)
    return area if known and 0 <= area < math.inf else None


def missing_file(folder, name):
    """What is wrong with the file of an image, or ""."""
    if (folder / name).is_file():
        return ""
    return f"the file is missing: {folder / name}"


def record(entry, objects):
    """An `ImageRecord` of `(id, file name, width, height)` and objects.

    Args:
        entry: the tuple.
        objects: list of `(box, label, crowd, area)`; an area of None is
            the box's.
    """
    boxes, labels, crowd, areas = zip(*objects) if objects else ([],) * 4
    areas = [
        (x2 - x1) * (y2 - y1) if area is None else area
        for (x1, y1, x2, y2), area in zip(boxes, areas)
    ]
    image_id, name, width, height = entry
    return ImageRecord(
        file_name=name,
        width=width,
        height=height,
        image_id=image_id,
        boxes=np.asarray(boxes, "float32").reshape(-1, 4),
        labels=np.asarray(labels, "int32"),
        crowd=np.asarray(crowd, "bool"),
        area=np.asarray(areas, "float32"),
    )


def checked_box(corners, width, height):
    """The box cut at the image's edges, and what is wrong with it or "".

    Args:
        corners: x1, y1, x2, y2 in pixels.
        width, height: of the image.
    """
    if not all(map(math.isfinite, corners)):
        return None, f"the box has a value that is not finite: {corners}"
    x1, y1, x2, y2 = corners
    if x2 <= x1 or y2 <= y1:
        return None, f"the box has no area: {x2 - x1:g} x {y2 - y1:g} pixels"
    excess = max(-x1, -y1, x2 - width, y2 - height)
    if excess > _ROUNDING:
        return None, (
            f"the box leaves its {width}x{height} image by {excess:g} pixels"
        )
    clipped = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, "the box lies outside its image"
    return clipped, ""
