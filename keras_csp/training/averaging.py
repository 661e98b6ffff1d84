"""The average of several files of weights of one network."""

import contextlib
import json
import pathlib
import tempfile
import zipfile

import h5py
import numpy as np

from keras_csp._files import atomic_write
from keras_csp.training.checkpoint import without_optimizer

# Of a .keras file, which is a zip archive.
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_ENDINGS = (".weights.h5", ".keras")


def average_checkpoints(paths, model=None, output=None):
    """w = (w_1 + ... + w_n) / n of each weight of n files, in float64.

        average_checkpoints(["epoch8.keras", "epoch9.keras", "epoch10.keras"],
                            output="averaged.keras")

    The statistics of batch normalization are averaged like the weights.
    Integers, such as counters and the states of random generators, are those
    of the last file. What the files have of optimizers is left out.

    Args:
        paths: of `.weights.h5` and `.keras` files of one network, as
            `model.save_weights` and `model.save` write them.
        model: which gets the average. Default None.
        output: path of a file with the average, which replaces one that is
            there when it is complete: `.weights.h5`, or `.keras`, the model
            of the last of `paths`, not compiled; that must be such a file.
            Default None.

    Returns:
        `model`.

    Raises:
        ValueError: neither `model` nor `output`; no files, or one that is
            missing, damaged, of another network, or has values that are not
            finite. The message names the first difference.
    Source: arXiv 1803.05407, "Averaging Weights Leads to Wider Optima"; as
        timm's avg_checkpoints.py.
    """
    paths = _check_paths(paths)
    if model is None and output is None:
        raise ValueError("Give the `model` or the `output` of the average")
    ending = None if output is None else _ending(output)
    if ending == ".keras" and _ending(paths[-1]) != ".keras":
        raise ValueError(
            "For an `output` of a .keras file the last of `paths` must be "
            f"one. Received: {paths[-1]}"
        )
    with tempfile.TemporaryDirectory() as folder:
        average = pathlib.Path(folder) / "average.weights.h5"
        _write(average, paths, _average(paths))
        if model is not None:
            _load(model, average)
        if output is not None:
            with atomic_write(output) as part:
                _copy(average, part, paths[-1], ending)
    return model


def _check_paths(paths):
    if isinstance(paths, (str, pathlib.Path)):
        raise ValueError(
            f"`paths` must be a list of paths. Received: paths={paths!r}"
        )
    paths = [pathlib.Path(path) for path in paths]
    if not paths:
        raise ValueError("`paths` must have at least one path. Received: none")
    for path in paths:
        _ending(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}")
    return paths


def _ending(path):
    for ending in _ENDINGS:
        if str(path).endswith(ending):
            return ending
    raise ValueError(
        f"A file of weights ends in {' or '.join(_ENDINGS)}. Received: {path}"
    )


@contextlib.contextmanager
def _opened(path):
    """The weights of a file as an open `h5py.File`."""
    try:
        with contextlib.ExitStack() as stack:
            source = path
            if _ending(path) == ".keras":
                archive = stack.enter_context(zipfile.ZipFile(path))
                source = stack.enter_context(archive.open(_WEIGHTS))
            file = stack.enter_context(h5py.File(source, "r"))
            yield file
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"Cannot read weights in {path}: {error}") from error


def _weights(file):
    """{place: data set} of the model's weights."""
    found = {}

    def note(place, item):
        if isinstance(item, h5py.Dataset):
            found[place] = item

    file.visititems(note)
    return {
        place: item
        for place, item in found.items()
        if place.split("/")[0] != "optimizer"
    }


def _average(paths):
    """{place: the average}; integers as in the last file."""
    sums = {}
    for number, path in enumerate(paths):
        with _opened(path) as file:
            items = _weights(file)
            if number:
                _check_same(paths[0], sums, path, items)
            for place, item in items.items():
                sums[place] = _added(path, place, sums.get(place), item)
    return {
        place: value / len(paths) if value.dtype == np.float64 else value
        for place, value in sums.items()
    }


def _added(path, place, value, item):
    """The sum with one more file's values; integers as they are."""
    new = _values(item)
    if not _is_float(new):
        # Bytes are a mark, as of the activation in a `ConvNormAct`.
        same = value is None or np.array_equal(value, new)
        if new.dtype == np.uint8 and not same:
            raise ValueError(
                f"{path} is of another network: its {place!r} is "
                f"{new.tobytes()!r}, and before it was {value.tobytes()!r}"
            )
        return new
    if not np.isfinite(new.astype("float64")).all():
        raise ValueError(f"{path} has values at {place!r} that are not finite")
    return new.astype("float64") + (0.0 if value is None else value)


def _is_float(values):
    # bfloat16 is none to NumPy.
    return values.dtype.name == "bfloat16" or values.dtype.kind == "f"


def _values(item):
    """The array of a data set; Keras writes bfloat16 as bytes."""
    values = item[()]
    if item.attrs.get("dtype") == "bfloat16":
        import ml_dtypes

        return np.asarray(values).view(ml_dtypes.bfloat16)
    return np.asarray(values)


def _check_same(first, known, path, items):
    for place in [*known, *items]:
        if place not in items or place not in known:
            has, lacks = (first, path) if place in known else (path, first)
            raise ValueError(
                f"{path} is of another network than {first}: {has} has the "
                f"weight {place!r}, and {lacks} has not"
            )
        shape, expected = items[place].shape, known[place].shape
        if shape != expected:
            raise ValueError(
                f"{path} is of another network than {first}: the weight "
                f"{place!r} has the shape {shape}, and there {expected}"
            )


def _write(target, paths, averages):
    """Writes what the last file has, optimizer left out, with the averages."""
    with _opened(paths[-1]) as last, h5py.File(target, "w") as file:
        for name in last:
            if name != "optimizer":
                last.copy(name, file)
        file.attrs.update(last.attrs)
        for place, item in _weights(file).items():
            kind = _values(item).dtype
            value = np.asarray(averages[place]).astype(kind)
            item[...] = value.view(item.dtype) if kind != item.dtype else value


def _load(model, path):
    try:
        with without_optimizer(model):
            model.load_weights(path)
    except ValueError as error:
        raise ValueError(
            f"The files are of another network than {model.name!r}: "
            f"{str(error)[:200]}"
        ) from error


def _copy(average, target, last, ending):
    if ending == ".weights.h5":
        target.write_bytes(average.read_bytes())
        return
    with zipfile.ZipFile(last) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == _WEIGHTS:
                content = average.read_bytes()
            elif name == _CONFIG:
                config = {**json.loads(content), "compile_config": None}
                content = json.dumps(config)
            new.writestr(name, content)
