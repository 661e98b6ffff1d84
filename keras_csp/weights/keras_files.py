"""Keras' own files: .weights.h5 and .keras."""

import json
import os
import zipfile

import h5py

from keras_csp.layers.preprocessing import ImageSpec

_PREPROCESSING = "keras_csp>Preprocessing"
_YOLO_HEAD = "keras_csp>YoloHead"


def load(model, path):
    """Fills `model` from a file that `save` or `save_weights` wrote.

    Raises:
        ValueError: the file does not fit, is cut or damaged; the message
            names both networks, as far as the file says which it is from.
    """
    try:
        model.load_weights(path)
    except Exception as error:
        saved = _saved_name(path)
        summary = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"The weights file {path!r}{f' of {saved!r}' if saved else ''} "
            f"does not fit {model.name!r} with input {model.input_shape} and "
            f"output {model.output_shape}: {summary[:500]}"
        ) from error


def image_spec(path):
    """The `ImageSpec` of a saved model; None where the file has none.

    A `.weights.h5` file holds no configuration; that of a folder as Keras
    saves it has it beside.
    """
    for layer in _layers(path):
        if layer.get("registered_name") == _PREPROCESSING:
            return ImageSpec(**layer["config"]["spec"])
    return None


def detector_classes(path):
    """How many classes a saved detector has; None where that is not known."""
    for layer in _layers(path):
        if layer.get("registered_name") == _YOLO_HEAD:
            return layer["config"]["classes"]
    return None


def _layers(path):
    """The configurations of the layers of a saved model, [] of weights."""
    try:
        config = _config(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []
    return config.get("config", {}).get("layers", [])


def _config(path):
    """The configuration of the model in a `.keras` file, or in its folder."""
    folder, name = os.path.split(path)
    saved = os.path.isfile(os.path.join(folder, "metadata.json"))
    if saved and name == "model.weights.h5":
        with open(os.path.join(folder, "config.json")) as file:
            return json.load(file)
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def _saved_name(path):
    """The name of the model that was saved, None if it cannot be read."""
    try:
        if path.endswith(".keras"):
            return _config(path)["config"]["name"]
        with h5py.File(path) as file:
            return file["vars"].attrs["name"]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None
