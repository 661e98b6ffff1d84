"""COCO's JSON of boxes, every entry checked, the faulty ones named."""

import collections
import json
import pathlib

from keras_csp._validation import is_integer
from keras_csp.data.sources.records import (
    Annotations,
    Fault,
    checked_box,
    missing_file,
    record,
    usable_area,
)

_LARGEST = 2**53  # the integers that floats, and JSON elsewhere, can hold


def read_coco(path, images=None):
    """The usable images and boxes of a COCO JSON, and the images' folder.

    Args:
        path: of the JSON.
        images: the folder; files missing there are faults. Default: as
            `load_detection` says.

    Returns:
        `Annotations`, the images in the order of the JSON, and the folder.

    Raises:
        ValueError: the file is not JSON, or lacks what COCO's format has, or
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


def _read_json(path):
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
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
                f"{path} is not in COCO's format: `{key}` must be a "
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
        return f"the image's id is not an integer: {image_id!r}"
    if image_id in known:
        return f"image id {image_id} is used twice"
    if not isinstance(name, str) or not name:
        return f"the image's `file_name` is {name!r}"
    for key in ("width", "height"):
        if not _is_integer(entry.get(key)) or entry[key] <= 0:
            return f"the image's `{key}` is {entry.get(key)!r}"
    return missing_file(folder, name)


def _reference_fault(annotation, known, labels, seen):
    """What is wrong with the ids, or "". Adds the annotation's to `seen`."""
    number, image_id = annotation.get("id"), annotation.get("image_id")
    if not _is_integer(number):
        return f"the annotation's id is not an integer: {number!r}"
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
    area = usable_area(annotation.get("area"))
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
    """Whether it is a number small enough for pixels; NaN compares False."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and -_LARGEST < value < _LARGEST
    )


def _is_integer(value):
    return is_integer(value) and _is_number(value)
