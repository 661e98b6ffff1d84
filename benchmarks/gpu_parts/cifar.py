"""CIFAR-10 as arrays, from its JPEG files, without TensorFlow."""

import collections
import concurrent.futures
import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

SPLITS = ("train", "test")
CLASSES = 10
Split = collections.namedtuple("Split", "images labels")


def read(path):
    """{"train": Split, "test": Split} of a folder or a .tar.gz archive.

    Args:
        path: has `train` and `test`, at any depth, with a folder of JPEG
            files for each class. Labels number the classes alphabetically.

    Returns:
        For each split `images` `(n, 32, 32, 3)` uint8 and `labels` `(n,)`
        int32, both in the order of the files' names.

    Raises:
        ValueError: the path is neither, or a split has not ten classes.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        files = {str(p): p.read_bytes() for p in path.rglob("*.jpg")}
    elif path.is_file() and tarfile.is_tarfile(path):
        files = _members(path)
    else:
        raise ValueError(
            "The images must be a folder or a .tar.gz file with train/CLASS/"
            f"NAME.jpg and test/CLASS/NAME.jpg. Received: {str(path)!r}"
        )
    return {name: _split(path, name, files) for name in SPLITS}


def _members(path):
    with tarfile.open(path) as archive:
        return {
            member.name: archive.extractfile(member).read()
            for member in archive
            if member.isfile() and member.name.endswith(".jpg")
        }


def _split(path, split, files):
    parts = {name: pathlib.PurePath(name).parts for name in sorted(files)}
    names = [n for n, p in parts.items() if len(p) > 2 and p[-3] == split]
    classes = sorted({parts[name][-2] for name in names})
    if len(classes) != CLASSES:
        raise ValueError(
            f"{path} must have {CLASSES} class folders in `{split}`. "
            f"Received: {len(classes)}"
        )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(_decode, (files[n] for n in names))))
    labels = [classes.index(parts[name][-2]) for name in names]
    return Split(images, np.array(labels, "int32"))


def _decode(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
