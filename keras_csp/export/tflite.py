"""TFLite files: built-in operations only, checked with LiteRT."""

import pathlib

from keras_csp._files import atomic_write
from keras_csp._validation import check_choice, check_fraction
from keras_csp.export.inputs import (
    exportable,
    file_shape,
    prepare,
    representative_inputs,
)
from keras_csp.export.layer_errors import layer_errors, report
from keras_csp.export.runtimes import TFLiteRuntime
from keras_csp.export.tflite_conversion import convert, convert_int8, split_head
from keras_csp.export.tflite_file import finished
from keras_csp.export.verification import (
    MatchRateError,
    Tolerance,
    float_tolerance,
    verify,
)

# What a quantised file may differ by. One of half floats rounds what is nearly
# equal; one of 8 bits does so often, more for a network that is unsure.
TOLERANCES = {
    "float16": Tolerance(match_rate=0.99),
    "dynamic": Tolerance(match_rate=0.95),
    "int8": Tolerance(match_rate=0.95),
}
_TYPES = ("float32", "int8", "uint8")
_CALIBRATIONS = ("minmax", "mse")
# Samples whose every tensor is compared when a file fails.
_LOOKED_AT = 20


def to_tflite(
    model,
    path,
    samples=None,
    *,
    quantize=None,
    representative=None,
    calibration="minmax",
    input_shape=None,
    input_type="float32",
    output_type="float32",
    minimum_match_rate=None,
    maximum_difference=None,
):
    """Writes `model` as a TFLite file after running the file on `samples`.

    The file holds the network's name and the model's `ImageSpec`: how a
    photograph becomes its input, and the names of its classes, as
    `keras_csp.export.load` and TensorFlow Lite's task libraries read them.
    Every model of this package has one; `keras_csp.with_image_spec(model,
    class_names=...)` gives one to any other model, or changes it. The network
    itself subtracts `mean` and divides by `std`: its input is pixels / 255.

    Args:
        model: a functional `keras.Model` on the TensorFlow backend with one
            input, or a `Detector`, whose boxes come out after non-maximum
            suppression (which is never quantised);
            `Detector.inference_model(score_threshold=...)` has other
            thresholds.
        path: of the file; its folder is made if need be.
        samples: `(n, height, width, channels)` real inputs, as the model
            takes them, on which the file is compared with the model. Default:
            `representative` if given, else parts of two photographs.
        quantize: `None` (default): float32. "float16": weights of 16 bits,
            half the size. "dynamic": weights of 8 bits. "int8": activations
            too, a quarter of the size and faster on most processors.
        representative: for "int8", real inputs as the model takes them, which
            set the ranges of the activations: an array, or batches (a
            `tf.data.Dataset`; its labels are ignored). A hundred are enough;
            the first 500 are used.
        calibration: for "int8", how the ranges are set. "minmax" (default):
            from the least to the largest value seen. "mse": the narrower
            range with the least mean squared error on the first 100 inputs,
            which cuts rare values off and rounds all others finer; it takes a
            few seconds more. In benchmarks/results/quantization.md it helps
            classifiers of CIFAR-10, but not a detector, whose boxes are its
            rare values.
        input_shape: `(height, width, channels)` of the file; needed only for
            a model of open sides without samples or a size in its
            `ImageSpec`. The file's batch is 1.
        input_type, output_type: "float32" (default), "int8" or "uint8", the
            last two with quantize="int8" only.
        minimum_match_rate: of a quantised file, the least fraction of samples
            for which it gives the model's answer. Default 0.99 for "float16",
            0.95 for the 8-bit ones.
        maximum_difference: of a float32 file's outputs from the model's,
            relative to the largest output; default 1e-4. Rounding grows with
            depth: for a ResNet-152 with random weights, float32 itself is
            2.5e-4 from float64.

    Returns:
        An `ExportCheck`.

    Raises:
        ValueError: another backend, an argument out of range, samples that do
            not fit the model, an operation that is not built into TFLite, or
            a file that fails the comparison; for "int8" the message names the
            layers with the largest errors. No file is left then, and one that
            was there before stays.
    """
    _check(quantize, representative, calibration, input_type, output_type)
    tolerance = _tolerance(quantize, minimum_match_rate, maximum_difference)
    model = exportable(model, "TFLite")
    if representative is not None:
        given = representative if samples is None else samples
        shape = file_shape(model, given, input_shape)
        representative = representative_inputs(representative, shape)
        samples = representative if samples is None else samples
    metadata, samples = prepare(model, samples, input_shape)
    shape = metadata.input_shape
    parts = _converted(
        model,
        shape,
        quantize,
        representative=representative,
        types=(input_type, output_type),
        calibration=calibration,
    )
    content = finished(*parts, metadata)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = f"TFLite {quantize}" if quantize else "TFLite"
    with atomic_write(path) as part:
        part.write_bytes(content)
        try:
            return verify(model, kind, path, samples, part, _run, tolerance)
        except MatchRateError as error:
            if quantize != "int8":
                raise
            raise ValueError(
                f"{error}. {_where(model, shape, content, samples)}"
            ) from None


def _where(model, shape, content, samples):
    """Which layers of the int8 file differ most from the float one's."""
    exact, _head = _converted(split_head(model)[0], shape)
    return report(layer_errors(exact, content, samples[:_LOOKED_AT]))


def _check(quantize, representative, calibration, input_type, output_type):
    check_choice("quantize", quantize, (None, *TOLERANCES))
    check_choice("calibration", calibration, _CALIBRATIONS)
    check_choice("input_type", input_type, _TYPES)
    check_choice("output_type", output_type, _TYPES)
    if quantize != "int8" and {input_type, output_type} != {"float32"}:
        raise ValueError(
            "Integer inputs and outputs need quantize='int8'. Received: "
            f"quantize={quantize!r}, input_type={input_type!r}, "
            f"output_type={output_type!r}"
        )
    if quantize != "int8" and calibration != "minmax":
        raise ValueError(
            "`calibration` is only valid with quantize='int8'. Received: "
            f"quantize={quantize!r}, calibration={calibration!r}"
        )
    if quantize == "int8" and representative is None:
        raise ValueError(
            "quantize='int8' needs `representative`: about a hundred real "
            "inputs, as the model takes them, which set the ranges of its "
            "activations. Received: representative=None"
        )


def _tolerance(quantize, minimum_match_rate, maximum_difference):
    if quantize is None and minimum_match_rate is not None:
        raise ValueError(
            "`minimum_match_rate` is only valid for quantised files, "
            "`maximum_difference` for float32 ones. Received: "
            f"minimum_match_rate={minimum_match_rate!r}, quantize=None"
        )
    if quantize is None:
        return float_tolerance(maximum_difference)
    if maximum_difference is not None:
        raise ValueError(
            "`maximum_difference` is only valid for float32 files, "
            "`minimum_match_rate` for quantised ones. Received: "
            f"maximum_difference={maximum_difference!r}, "
            f"quantize={quantize!r}"
        )
    if minimum_match_rate is None:
        return TOLERANCES[quantize]
    least = check_fraction("minimum_match_rate", minimum_match_rate)
    return Tolerance(match_rate=least)


def _converted(model, shape, quantize=None, **int8):
    """Contents of a TFLite file, and of a head behind it or `None`.

    The further arguments are those of `convert_int8`, for "int8" only.
    """
    images = {"images": (1, *shape)}
    if quantize != "int8":
        return convert(model, images, quantize), None
    body, head = split_head(model)
    output_type = int8["types"][1]
    if head is not None and output_type != "float32":
        raise ValueError(
            f"The outputs of {model.name!r} are not quantised. Received: "
            f"output_type={output_type!r}"
        )
    content = convert_int8(body, images, **int8)
    if head is None:
        return content, None
    # Of the file's size, where the model's sides are open.
    shapes = body.compute_output_shape((1, *shape))
    names = [f"map_{i}" for i in range(len(head.inputs))]
    maps = {name: tuple(shapes[name]) for name in names}
    return content, convert(head, maps)


def _run(path, samples):
    return TFLiteRuntime(path)(samples)
