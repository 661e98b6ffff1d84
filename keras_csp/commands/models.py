"""What a command takes for a model: a file, a repository, or a network."""

import pathlib
import re

import keras

import keras_csp
from keras_csp._files import read_names
from keras_csp._validation import check_fraction
from keras_csp.detection import Detector
from keras_csp.layers.preprocessing import image_spec, with_image_spec
from keras_csp.weights import hub

_KINDS = (
    "a .keras, .tflite or .onnx file, the folder of a SavedModel, "
    "hf://user/name, a Darknet .cfg, or a network, e.g. CSPResNeXt50Timm"
)


def add_model(parser):
    """The arguments that say which model, of what size and thresholds."""
    parser.add_argument("model", help=_KINDS)
    parser.add_argument(
        "--weights",
        help="of a network: imagenet, or a file; of a .cfg: its .weights file",
    )
    parser.add_argument(
        "--names",
        type=pathlib.Path,
        help="the names of the classes, a text file with one a line; default: "
        "those in the model",
    )
    parser.add_argument(
        "--size",
        help="of the images, SIDE or HEIGHTxWIDTH in pixels, for a model of "
        "open sides, a network or a .cfg; default: the model's own",
    )
    parser.add_argument(
        "--score",
        type=float,
        help="of a detector: the least score of a box; default: the model's, "
        "0.25 unless its .cfg says otherwise",
    )
    parser.add_argument(
        "--iou",
        type=float,
        help="of a detector: of two boxes of one class that overlap by more, "
        "only the better one is kept; default: the model's, 0.45 unless its "
        ".cfg says otherwise",
    )


def load_runtime(options):
    """The model as `keras_csp.export.load` returns it.

    Raises:
        ValueError: no such model, or options that do not belong to it.
    """
    from keras_csp.export import load
    from keras_csp.export.runtimes import KerasRuntime

    kind = kind_of(options.model)
    if kind != "exported":
        if kind in ("cfg", "network") and options.weights is None:
            raise ValueError(
                f"{options.model} has random weights without --weights"
            )
        return KerasRuntime(load_model(options))
    for name in ("weights", "names", "score", "iou"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name} cannot change an exported file; pass it to "
                f"`keras-csp export`. Received: --{name} for {options.model}"
            )
    run = load(options.model)
    if run.metadata is None:
        raise ValueError(
            f"{options.model} does not say what its images are; `keras-csp "
            "export` writes files that do"
        )
    return run


def load_model(options):
    """The `keras.Model` that the arguments name; of a detector, the model
    that gives boxes.

    Raises:
        ValueError: no such model, or options that do not belong to it.
    """
    size = parse_size(options.size)
    _check_thresholds(options)
    kind = kind_of(options.model)
    if kind == "exported":
        raise ValueError(
            f"{options.model} is not a Keras model: expected a .keras file, "
            "hf://user/name, a Darknet .cfg or the name of a network"
        )
    if kind in ("keras", "hub") and options.weights is not None:
        raise ValueError(
            "--weights is only valid for a network or a .cfg file; "
            f"{options.model} has its own. Received: {options.weights}"
        )
    model = _LOADERS[kind](options, size)
    if isinstance(model, Detector):
        if size and None in model.input_shape[1:3]:
            _check_stride(model, size)
        return model.inference_model(
            score_threshold=options.score, iou_threshold=options.iou
        )
    if (options.score, options.iou) != (None, None):
        raise ValueError(
            "--score and --iou are only valid for detectors. Received: "
            f"{options.model}, which is none"
        )
    return model


def kind_of(name):
    """How this model is loaded: "hub", "cfg", "keras", "exported", "network".

    Raises:
        ValueError: a file that does not exist, or an unknown network.
    """
    if hub.is_address(name):
        return "hub"
    # A network also where a folder is called so.
    if name in keras_csp.list_models():
        return "network"
    path = pathlib.Path(name)
    if path.exists():
        kinds = {".cfg": "cfg", ".keras": "keras"}
        return kinds.get(path.suffix.lower(), "exported")
    if re.fullmatch(r"\w+", name):
        keras_csp.get_factory(name)  # names the networks that are similar
    raise ValueError(f"no such model: {name}; expected {_KINDS}")


def parse_size(text):
    """(height, width) of the argument --size; None without it."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not found:
        raise ValueError(
            "--size must be a side, or HEIGHTxWIDTH, of positive integers. "
            f"Received: {text}"
        )
    height, width = found[1], found[2] or found[1]
    return int(height), int(width)


def input_size(metadata, size):
    """(height, width) of the images that a model is given.

    Args:
        metadata: the model's `Metadata`.
        size: the pair that is asked for, or None.

    Raises:
        ValueError: another size than the model's, or none at all.
    """
    sides = metadata.input_shape[:2]
    if None in sides:
        if size is None and metadata.image.size is None:
            raise ValueError("the model takes images of any size: give --size")
        return size or metadata.image.size
    if size not in (None, sides):
        raise ValueError(
            f"the model takes images of {sides[0]}x{sides[1]} only. Received: "
            f"--size {size[0]}x{size[1]}"
        )
    return sides


def _darknet(options, size):
    model = _load_darknet(options)
    if size is not None and size != model.input_shape[1:3]:
        model = _load_darknet(options, (*size, model.input_shape[-1]))
    # Not by `load`, which takes other names for those of new classes.
    return _with_names(model, _names(options))


def _load_darknet(options, shape=None):
    return keras_csp.darknet.load(options.model, options.weights, shape)


def _network(options, size):
    names = _names(options)
    factory = keras_csp.get_factory(options.model)
    arguments = {"classes": len(names)} if names else {}
    if size:
        arguments["input_shape"] = (*size, 3)
    model = factory(weights=options.weights, **arguments)
    return _with_names(model, names)


def _keras_file(options, _size):
    model = _read(options.model, options.model)
    return _with_names(model, _names(options))


def _hub_model(options, _size):
    model = _read(hub.find_model(options.model), options.model)
    return _with_names(model, _names(options))


def _read(path, name):
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"cannot read {name}: {reason}") from error


def _names(options):
    return None if options.names is None else read_names(options.names)


def _with_names(model, names):
    if names is None:
        return model
    model = with_image_spec(model, class_names=names)
    # It does not keep names that are not as many as the classes.
    if image_spec(model).class_names is None:
        detector = isinstance(model, Detector)
        there = (
            f"{model.classes} classes"
            if detector
            else f"an output of {model.output_shape}"
        )
        raise ValueError(
            f"--names must name the classes of {model.name}. Received: "
            f"{len(names)} names for {there}"
        )
    return model


def _check_thresholds(options):
    for name in ("score", "iou"):
        value = getattr(options, name)
        if value is not None:
            check_fraction(f"--{name}", value)


def _check_stride(detector, size):
    stride = detector.largest_stride
    if size[0] % stride or size[1] % stride:
        raise ValueError(
            f"--size must be a multiple of {stride}. Received: "
            f"{size[0]}x{size[1]}"
        )


_LOADERS = {
    "cfg": _darknet,
    "hub": _hub_model,
    "keras": _keras_file,
    "network": _network,
}
