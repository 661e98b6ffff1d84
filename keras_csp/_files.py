"""Files that appear whole or not at all, and lists of names."""

import contextlib
import os
import pathlib
import secrets
import shutil


@contextlib.contextmanager
def atomic_write(path):
    """Writes beside `path`, then renames: never half a file under its name.

        with atomic_write("run.json") as part:
            part.write_text(text)

    What was under `path` stays if the block raises, or the process dies.

    Args:
        path: of the file; its folder must exist.

    Yields:
        A `pathlib.Path` in the same folder and with the same ending (Keras
        chooses the format by it), to be written in the block. It takes the
        place of `path` at the end of the block, and is removed if it raises.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = pathlib.Path(path)
    part = _beside(path, "part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write_together(*paths):
    """`atomic_write` for files that belong together: all of them, or none.

    Several renames are not one step: what was there is moved aside first,
    and back if one of them fails. Where the process dies between two of them,
    the earlier files lie beside, under names that start with "old-".

    Yields:
        A list of `pathlib.Path`s, as `atomic_write` one each.

    Raises:
        FileNotFoundError: a folder of `paths` does not exist.
        IsADirectoryError: one of `paths` is a folder.
    """
    paths = [pathlib.Path(path) for path in paths]
    for path in paths:
        if path.is_dir():
            raise IsADirectoryError(
                f"A file cannot take the place of a folder. Received: "
                f"{str(path)!r}"
            )
    parts = [_beside(path, "part") for path in paths]
    olds = [_beside(path, "old") for path in paths]
    try:
        yield parts
        _replace_all(paths, parts, olds)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _replace_all(paths, parts, olds):
    """Renames each part to its path, or none of them."""
    try:
        for path, old in zip(paths, olds):
            if os.path.lexists(path):
                path.rename(old)
        for path, part in zip(paths, parts):
            part.rename(path)
    except BaseException:  # an interruption included
        for path, part, old in zip(paths, parts, olds):
            if not part.exists():
                path.unlink(missing_ok=True)
            if os.path.lexists(old):
                old.rename(path)
        raise
    for old in olds:
        old.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write_folder(path):
    """`atomic_write` for a whole folder.

    A folder cannot be renamed onto another in one step: the one that was
    there is moved aside first, and back if the second step fails.

    Yields:
        A `pathlib.Path` of a new, empty folder beside `path`.

    Raises:
        FileNotFoundError: the folder that `path` is in does not exist.
    """
    path = pathlib.Path(path)
    part, old = _beside(path, "part"), _beside(path, "old")
    part.mkdir()
    try:
        yield part
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except BaseException:  # an interruption included
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_names(path):
    """The names of classes in a text file with one a line, e.g. coco.names.

    Raises:
        ValueError: no such file, not text, or no name in it.
    """
    try:
        text = pathlib.Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Cannot read the names of the classes in {path}: {error}"
        ) from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(
            f"{path} must have the name of a class in each line; it is empty"
        )
    return names


def _beside(path, what):
    """A name that is not in use, in the same folder, with the same ending."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(path.parent)!r} to write to. Received: "
            f"{str(path)!r}"
        )
    return path.with_name(f"{what}-{secrets.token_hex(4)}-{path.name}")
