"""`export`: a network or a trained model as a file for another runtime."""

import pathlib
import sys
import warnings

import numpy as np

from keras_csp.commands.models import (
    add_model,
    input_size,
    load_model,
    parse_size,
)
from keras_csp.commands.progress import Progress

_HELP = "a model as TFLite, ONNX or SavedModel, verified before it is written"
_MOST = 300  # photographs that set the ranges of int8


def add_to(commands):
    parser = commands.add_parser(
        "export", help=_HELP, description=f"Writes {_HELP}."
    )
    add_model(parser)
    parser.add_argument(
        "file",
        type=pathlib.Path,
        help="NAME.tflite, NAME.onnx, or a folder for a SavedModel",
    )
    parser.add_argument(
        "--quantize",
        choices=("float16", "dynamic", "int8"),
        help="TFLite: fewer bits; int8 needs --images",
    )
    parser.add_argument(
        "--images",
        type=pathlib.Path,
        nargs="+",
        help="photographs or folders of them: the file is compared with the "
        "model on them, and they set the ranges of int8",
    )
    parser.add_argument(
        "--calibration",
        choices=("minmax", "mse"),
        help="how int8's ranges are set: from all values seen (default), or "
        "narrower with the least error",
    )
    parser.add_argument(
        "--minimum-match-rate",
        type=float,
        help="of a quantised file: the least fraction of the images with the "
        "model's answer",
    )
    parser.add_argument(
        "--maximum-difference",
        type=float,
        help="of a float32 file's outputs, relative to the largest; default "
        "1e-4",
    )
    parser.set_defaults(run=_export)


def _export(options):
    from keras_csp import export
    from keras_csp.export.formats import writable_format

    settings = _settings(options, writable_format(options.file).name)
    model = load_model(options)
    metadata = export.describe(model)
    size = parse_size(options.size)
    samples = None
    if options.images:
        samples = _samples(options.images, metadata, size)
    if options.quantize == "int8":
        settings["representative"] = samples
    sides = input_size(metadata, size)
    settings["input_shape"] = (*sides, *metadata.input_shape[2:])
    with warnings.catch_warnings(record=True) as caught:
        print(export.save(model, options.file, samples, **settings))
    for warning in caught:
        if warning.category is UserWarning:  # ours, not the libraries'
            print(f"keras-csp: {warning.message}", file=sys.stderr)


def _settings(options, kind):
    """The arguments of `export.save` that were given.

    Raises:
        ValueError: some that do not belong together.
    """
    names = (
        "quantize",
        "calibration",
        "minimum_match_rate",
        "maximum_difference",
    )
    given = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given.keys() - {"maximum_difference"}:
        if kind != "TFLite":
            raise ValueError(
                f"--{name.replace('_', '-')} is only valid for .tflite files. "
                f"Received: {options.file}"
            )
    if options.quantize == "int8" and not options.images:
        raise ValueError(
            "--quantize int8 needs --images, about a hundred photographs"
        )
    if options.calibration and options.quantize != "int8":
        raise ValueError("--calibration is only valid with --quantize int8")
    return given


def _samples(paths, metadata, size):
    """Photographs as the model takes them, at most 300, evenly chosen."""
    from keras_csp.commands.photographs import PhotographReader
    from keras_csp.data.photographs import find_photographs

    files = find_photographs(paths)
    chosen = np.linspace(0, len(files) - 1, min(_MOST, len(files)))
    reader = PhotographReader(metadata, size)
    progress = Progress(len(chosen))
    samples = []
    for number, index in enumerate(chosen.round().astype(int)):
        progress.update(number, files[index].name)
        samples.append(reader.read(files[index])[0])
    progress.clear()
    return np.stack(samples)
