"""Folders of class folders."""

import logging
import os

from keras_csp.data.reading import printable

_LOGGER = logging.getLogger("keras_csp")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_FORMATS = "JPEG, PNG, BMP, GIF or WebP"
# What a split of test images is called, the first that there is.
TEST_SPLITS = ("test", "val", "validation")


def splits_of(path):
    """The folders of the two splits, or the folder itself and None."""
    test = (path / name for name in TEST_SPLITS if (path / name).is_dir())
    test = next(test, None)
    if (path / "train").is_dir() and test:
        return path / "train", test
    return path, None


def read_folder(path):
    """Class names, and the files as paths below `path` with their labels.

    The classes take turns, so that the first images are of all of them. What
    is hidden is passed over. A class folder without images stays a class; it
    is named in a warning, and so is the first file of another format.

    Raises:
        ValueError: no class folders with images, or one alone.
    """
    names = tuple(
        sorted(
            entry.name
            for entry in path.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
    )
    found = [_files(path, name) for name in names]
    if not any(images for images, _others in found):
        raise ValueError(
            f"{path} is not a folder with one folder of {_FORMATS} images for "
            "each class"
        )
    if len(names) < 2:
        raise ValueError(
            f"{path} has one class, {names[0]!r}; there must be at least two "
            "class folders"
        )
    _warn(path, names, found)
    turns = sorted(
        (turn, label, file)
        for label, (images, _others) in enumerate(found)
        for turn, file in enumerate(images)
    )
    _turns, labels, files = zip(*turns)
    return names, list(files), list(labels)


def _files(path, name):
    """The images of a class folder, and its other files."""
    files = []
    for folder, folders, inside in os.walk(path / name):
        folders[:] = [f for f in folders if not f.startswith(".")]
        below = os.path.relpath(folder, path)
        files += [
            os.path.join(below, f) for f in inside if not f.startswith(".")
        ]
    images = sorted(f for f in files if f.lower().endswith(_SUFFIXES))
    others = sorted(f for f in files if not f.lower().endswith(_SUFFIXES))
    return images, others


def _warn(path, names, found):
    for name, (images, _others) in zip(names, found):
        if not images:
            _LOGGER.warning(
                "The class folder %s has no images", printable(path / name)
            )
    others = [file for _images, others in found for file in others]
    if others:
        _LOGGER.warning(
            "%s: left out %d files that are not %s; the first is %s",
            *(printable(path), len(others), _FORMATS, printable(others[0])),
        )
