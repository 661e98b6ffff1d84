"""COCO's JSON of boxes, every entry checked, the faulty ones named."""

import collections
import dataclasses
import json
import math
import pathlib

import numpy as np

_ROUNDING = 1.0  # pixels by which a box may leave its image
_LARGEST = 2**53  # the integers that floats, and JSON elsewhere, can hold


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
        image_id, file_name, width, height: of the image, in pixels.
        boxes: `(n, 4)` float32, x1, y1, x2, y2 in pixels of the image.
        labels: `(n,)` int32, positions in the class names.
        crowd: `(n,)` bool, True for regions to be ignored.
        area: `(n,)` float32, square pixels of the object.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """What is usable of a data set, and what is not.

    Attributes:
        class_names, category_ids: tuples, of label 0, 1, ...
        records: tuple of `ImageRecord`.
        faults: tuple of `Fault`.
    """

    class_names: tuple
    category_ids: tuple
    records: tuple
    faults: tuple


def read_coco(path, images=None):
    """The usable images and boxes of a COCO JSON, and the images' folder.

    Args:
        path: of the JSON.
        images: the folder; files missing there are faults. Default: as
            `load_detection` says.

    Returns:
        `Annotations`, the images in the order of the JSON, and the folder.

    Raises:
        ValueError: the file is no JSON, or lacks what COCO's format has, or
            the folder is not found.
    """
    path = pathlib.Path(path)
    content = _read_json(path)
    faults = []
    categories = _categories(path, content["categories"])
    folder = _folder(path, content["images"], images)
    entries, known = _images(content["images"], folder, faults)
    labels = {number: i for i, (number, _name) in enumerate(categories)}
    objects = collections.defaultdict(list)
    seen = set()
    for annotation in content["annotations"]:
        reason = _reference_fault(annotation, known, labels, seen)
        entry = None if reason else entries.get(annotation["image_id"])
        if entry:
            found, reason = _object(annotation, entry, labels)
        if reason:
            faults.append(_annotation_fault(annotation, known, reason))
        elif entry:  # else the image itself is a fault
            objects[annotation["image_id"]].append(found)
    found = Annotations(
        class_names=tuple(name for _number, name in categories),
        category_ids=tuple(number for number, _name in categories),
        records=tuple(
            record(entry, objects[image_id])
            for image_id, entry in entries.items()
        ),
        faults=tuple(faults),
    )
    return found, folder


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
    return ImageRecord(
        *entry,
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


def _read_json(path):
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is not in COCO's format: it holds a "
            f"{type(content).__name__}, not an object"
        )
    for key in ("images", "annotations", "categories"):
        value = content.get(key)
        if not isinstance(value, list) or not all(
            isinstance(entry, dict) for entry in value
        ):
            raise ValueError(
                f"{path} is not in COCO's format: `{key}` is missing or no "
                "list of objects"
            )
    return content


def _folder(path, entries, images):
    if images is not None:
        if not pathlib.Path(images).is_dir():
            raise ValueError(f"The image folder does not exist: {images}")
        return pathlib.Path(images)
    split = path.stem.removeprefix("instances_")
    tried = [path.parent.parent / split, path.parent / split, path.parent]
    names = [entry.get("file_name") for entry in entries]
    names = [name for name in names if isinstance(name, str) and name]
    for folder in tried:
        if any((folder / name).is_file() for name in names):
            return folder
    raise ValueError(
        f"None of the {len(names)} images of {path} is in "
        f"{', '.join(map(str, tried))}; say `images=` where they are"
    )


def _categories(path, entries):
    categories = {}
    for entry in entries:
        number, name = entry.get("id"), entry.get("name")
        if not _is_integer(number) or not isinstance(name, str):
            raise ValueError(
                f"{path} is not in COCO's format: a category needs an integer "
                f"`id` and a `name`. Received: {entry}"
            )
        if number in categories:
            raise ValueError(f"{path} has two categories of id {number}")
        categories[number] = name
    if not categories:
        raise ValueError(f"{path} has no categories")
    return sorted(categories.items())


def _images(entries, folder, faults):
    """Usable images by id, and the file name of every id."""
    usable, known = {}, {}
    for entry in entries:
        image_id, name = entry.get("id"), entry.get("file_name")
        reason = _image_fault(entry, folder, known)
        if reason:
            faults.append(Fault(image_id, name, None, reason))
        else:
            usable[image_id] = image_id, name, entry["width"], entry["height"]
        if _is_integer(image_id):
            known.setdefault(image_id, name)
    return usable, known


def _image_fault(entry, folder, known):
    image_id, name = entry.get("id"), entry.get("file_name")
    if not _is_integer(image_id):
        return f"the image's id is no integer: {image_id!r}"
    if image_id in known:
        return f"image id {image_id} is used twice"
    if not isinstance(name, str) or not name:
        return f"the image's `file_name` is {name!r}"
    for key in ("width", "height"):
        if not _is_integer(entry.get(key)) or entry[key] <= 0:
            return f"the image's `{key}` is {entry.get(key)!r}"
    if not (folder / name).is_file():
        return f"the file is missing: {folder / name}"
    return ""


def _reference_fault(annotation, known, labels, seen):
    """What is wrong with the ids, or "". Adds the annotation's to `seen`."""
    number, image_id = annotation.get("id"), annotation.get("image_id")
    if not _is_integer(number):
        return f"the annotation's id is no integer: {number!r}"
    if number in seen:
        return f"annotation id {number} is used twice"
    seen.add(number)
    if not _is_integer(image_id) or image_id not in known:
        return f"there is no image of id {image_id!r}"
    category = annotation.get("category_id")
    if not _is_integer(category) or category not in labels:
        return f"there is no category of id {category!r}"
    return ""


def _object(annotation, entry, labels):
    """`(box, label, crowd, area)` and "", or None and what is wrong."""
    box = annotation.get("bbox")
    if not _is_box(box):
        return None, f"`bbox` is not four finite numbers: {box!r}"
    x, y, w, h = box
    _id, _name, width, height = entry
    corners, reason = checked_box((x, y, x + w, y + h), width, height)
    if reason:
        return None, reason
    area = annotation.get("area")
    area = area if _is_number(area) and area >= 0 else None
    crowd = bool(annotation.get("iscrowd", 0))
    return (corners, labels[annotation["category_id"]], crowd, area), ""


def _annotation_fault(annotation, known, reason):
    number, image_id = annotation.get("id"), annotation.get("image_id")
    name = known.get(image_id) if _is_integer(image_id) else None
    return Fault(image_id, name, "?" if number is None else number, reason)


def _is_box(value):
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(map(_is_number, value))
    )


def _is_number(value):
    """Of a size that pixels can have; NaN compares False."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and -_LARGEST < value < _LARGEST
    )


def _is_integer(value):
    return isinstance(value, int) and _is_number(value)
