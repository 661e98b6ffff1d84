"""What a command takes for a model: a network's name or a file of it."""

import json
import pathlib

import keras

import keras_csp
from keras_csp.detection import Detector
from keras_csp.weights import find_record


def add_model(parser):
    parser.add_argument(
        "model",
        help="a .keras file, or a network, e.g. CSPResNeXt50Timm",
    )
    parser.add_argument(
        "--weights",
        help="of a network: imagenet, or a file. Default: none, random",
    )
    parser.add_argument(
        "--size",
        type=int,
        help="side of the images; default: the training's or the paper's",
    )
    parser.add_argument(
        "--labels",
        type=pathlib.Path,
        help="the classes: text, one a line, or JSON with `names`; default: "
        "classes.json beside the model",
    )


def load_model(options):
    """(model, side or None, what it expects of pixels, labels or None).

    A detector comes as its inference model, non-maximum suppression included.
    """
    if options.size is not None and options.size < 1:
        raise ValueError(f"--size must be 1 or more. Received: {options.size}")
    path = pathlib.Path(options.model)
    if path.suffix != ".keras":
        return (*_network(options), _labels(options.labels)[0])
    if options.weights:
        raise ValueError(
            "--weights are of a network; a .keras file has its own. Received: "
            f"{options.model} and {options.weights}"
        )
    if not path.is_file():
        raise ValueError(f"no such model: {path}")
    model = _read(path)
    beside = path.with_name("classes.json")
    file = options.labels or (beside if beside.is_file() else None)
    labels, size = _labels(file)
    return model, options.size or size, None, labels


def _read(path):
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"cannot read {path}: {reason}") from error
    return model.inference_model() if isinstance(model, Detector) else model


def _network(options):
    factory = keras_csp.get_factory(options.model)
    shape = (options.size, options.size, 3) if options.size else None
    model = factory(weights=options.weights, input_shape=shape)
    return model, options.size, _checkpoint(options.weights, model.name)


def _checkpoint(weights, network):
    """Whose statistics of pixels are wanted: timm's files come by name or as
    safetensors, and a name may have built timm's network of the paper's."""
    if weights == "imagenet" or str(weights).endswith(".safetensors"):
        return find_record(network).name
    return None


def _labels(path):
    """(names of the classes, side of the images), each `None` if not known."""
    if path is None:
        return None, None
    if not path.is_file():
        raise ValueError(f"no such file of labels: {path}")
    text = path.read_text("utf-8")
    if path.suffix.lower() != ".json":
        return [line for line in text.splitlines() if line.strip()], None
    try:
        noted = json.loads(text)
        return list(noted["names"]), noted.get("size")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"no JSON with `names`: {path}") from error
