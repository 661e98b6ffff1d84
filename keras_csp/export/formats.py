"""The formats of files: who writes them and who runs them.

    FORMATS[".mine"] = Format("Mine", write=to_mine, runtime=MineRuntime)

makes `save`, `load` and the commands write and read one more.
"""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable

from keras_csp.export.onnx import to_onnx
from keras_csp.export.runtimes import (
    KerasRuntime,
    ONNXRuntime,
    SavedModelRuntime,
    TFLiteRuntime,
)
from keras_csp.export.saved_model import to_saved_model
from keras_csp.export.tflite import to_tflite


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: as messages call it.
        write: a function `(model, path, samples=None, **options)` that
            returns an `ExportCheck`; None for a format that is only read.
        runtime: a function of a path and a number of threads or None, which
            returns a function of batches of inputs; that has an attribute
            `metadata`, a `Metadata` or None.
    """

    name: str
    write: Callable | None
    runtime: Callable


# By the ending of the file's name; "" is a folder.
FORMATS = {
    ".tflite": Format("TFLite", to_tflite, TFLiteRuntime),
    ".onnx": Format("ONNX", to_onnx, ONNXRuntime),
    "": Format("SavedModel", to_saved_model, SavedModelRuntime),
    ".keras": Format("Keras", None, KerasRuntime),
}


def save(model, path, samples=None, **options):
    """Writes `model` in the format that the ending of `path` names.

    Args:
        model: a `keras.Model` or a `Detector`.
        path: NAME.tflite, NAME.onnx, or a folder for a SavedModel; or another
            format of `FORMATS`.
        samples: real inputs, on which the file is compared with the model.
            Default: parts of two photographs.
        **options: of `to_tflite`, `to_onnx` or `to_saved_model`.

    Returns:
        An `ExportCheck`.

    Raises:
        ValueError: an unknown ending, an option that this format does not
            have, and as the function that writes it.
    """
    file_format = writable_format(path)
    known = inspect.signature(file_format.write).parameters
    unknown = [name for name in options if not _takes(known, name)]
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` is not an option of {file_format.name} files. "
            f"Received: {unknown[0]}={options[unknown[0]]!r} for {str(path)!r}"
        )
    return file_format.write(model, path, samples, **options)


def load(path, threads=None):
    """The file at `path` as a function from inputs to outputs.

    Args:
        path: a `.tflite`, `.onnx` or `.keras` file, or the folder of a
            SavedModel; or another format of `FORMATS`.
        threads: of the runtime; default its own choice.

    Returns:
        A function of a batch of inputs, as the model takes them (float32,
        also where the file itself takes int8), that returns what the model's
        `predict_on_batch` does. Its attribute `metadata` is the `Metadata` in
        the file, or None.

    Raises:
        ValueError: no such file, another kind of file, or one that its
            runtime cannot read.
        ImportError: the runtime is not installed.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"There is no file {str(path)!r}")
    suffix = suffix_of(path)
    if suffix not in FORMATS or (not suffix and not path.is_dir()):
        raise ValueError(
            f"Expected {_endings(FORMATS)}. Received: {str(path)!r}"
        )
    try:
        return FORMATS[suffix].runtime(path, threads)
    except ImportError:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0][:300]
        raise ValueError(f"Cannot read {str(path)!r}: {reason}") from error


def suffix_of(path):
    """The key in `FORMATS` of a path, "" for the path of a folder."""
    path = pathlib.Path(path)
    return "" if path.is_dir() else path.suffix.lower()


def writable_format(path):
    """The `Format` that the ending of `path` names.

    Raises:
        ValueError: an ending of no format, or of one that is only read.
    """
    found = FORMATS.get(suffix_of(path))
    if found is None or found.write is None:
        known = {k: v for k, v in FORMATS.items() if v.write is not None}
        raise ValueError(
            f"Expected {_endings(known)} to write. Received: {str(path)!r}"
        )
    return found


def _takes(parameters, name):
    return name in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in parameters.values()
    )


def _endings(formats):
    *first, last = filter(None, formats)
    files = f"{', '.join(first)} or {last}" if first else last
    return f"a {files} file or the folder of a SavedModel"
