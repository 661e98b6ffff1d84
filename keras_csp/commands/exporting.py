"""`export`: a network or a trained model as a file for another runtime."""

import pathlib
import sys

import keras
import numpy as np

from keras_csp.commands.models import add_model, load_model

_HELP = "a model as TFLite, ONNX or SavedModel, checked before it is written"
_MOST = 300  # photographs that int8's ranges are set by


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
        "model on them, and int8's ranges are set by them",
    )
    parser.add_argument(
        "--calibration",
        choices=("minmax", "mse"),
        help="of int8's ranges: of all values seen (default), or narrower "
        "ones of the least error",
    )
    parser.add_argument(
        "--minimum-agreement",
        type=float,
        help="least share of the images with the model's answer; quantised",
    )
    parser.add_argument(
        "--maximum-difference",
        type=float,
        help="of float32 outputs, as a share of the largest; default 1e-4",
    )
    parser.set_defaults(run=_export)


def _export(options):
    from keras_csp import export

    suffix = options.file.suffix.lower()
    if suffix not in (".tflite", ".onnx", ""):
        raise ValueError(
            "the file must end in .tflite or .onnx, or be a folder. Received: "
            f"{options.file}"
        )
    quantized = options.quantize or options.minimum_agreement is not None
    if suffix != ".tflite" and quantized:
        raise ValueError("--quantize is of .tflite files")
    if options.quantize == "int8" and not options.images:
        raise ValueError("--quantize int8 needs --images, some hundred")
    if options.calibration and options.quantize != "int8":
        raise ValueError("--calibration is of --quantize int8")
    model, size, preprocessing, labels = load_model(options)
    shape = _shape(model, size, options.size)
    described = {
        "labels": labels,
        "preprocessing": preprocessing,
        "maximum_difference": options.maximum_difference,
    }
    samples = None
    if options.images:
        samples = _samples(options.images, model, shape, preprocessing)
    else:
        described["input_shape"] = shape
    write = {
        ".tflite": export.to_tflite,
        ".onnx": export.to_onnx,
        "": export.to_saved_model,
    }[suffix]
    if suffix == ".tflite":
        described |= {
            "quantize": options.quantize,
            "minimum_agreement": options.minimum_agreement,
        }
    if options.quantize == "int8":
        described["representative"] = samples
        described["calibration"] = options.calibration or "minmax"
    print(write(model, options.file, samples, **described))


def _shape(model, size, asked):
    """Of the file's images, every side known; none other than the one asked
    for, if any is."""
    shape = tuple(n or size for n in model.input_shape[1:])
    if None in shape:
        raise ValueError("the model takes images of any size: give --size")
    if asked and shape[:2] != (asked, asked):
        raise ValueError(
            f"the model takes images of {shape[0]}x{shape[1]} only. Received: "
            f"--size {asked}"
        )
    return shape


def _samples(paths, model, shape, preprocessing):
    """Photographs as the model takes them, at most 300, evenly chosen."""
    from keras_csp import export
    from keras_csp.commands.photographs import Inputs
    from keras_csp.data.photographs import find_photographs

    files = find_photographs(paths)
    chosen = np.linspace(0, len(files) - 1, min(_MOST, len(files)))
    metadata = export.describe(model, shape, preprocessing=preprocessing)
    inputs = Inputs(metadata, detects=export.detects(model.output))
    bar = keras.utils.Progbar(len(chosen), unit_name="photograph")
    read = []
    for number, index in enumerate(chosen.round().astype(int), 1):
        read.append(inputs.read(files[index])[0])
        bar.update(number)
    print(file=sys.stderr)
    return np.stack(read)
