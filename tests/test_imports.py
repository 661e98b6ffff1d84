"""Imports point one way: layers <- darknet <- weights <- models <- the rest."""

import ast
import pathlib

import keras_csp

PACKAGE = pathlib.Path(keras_csp.__file__).parent
# Modules of the package's root whose names start with "_", for every room.
SHARED = {
    "_channels",
    "_files",
    "_keras_internals",
    "_onednn",
    "_registry",
    "_structure",
    "_tables",
    "_validation",
    "_version",
}
# What a room may import from the package, besides itself and the shared ones.
ALLOWED = {
    "layers": set(),
    "darknet": {"layers"},
    "weights": {"layers", "darknet"},
    "models": {"layers", "weights"},
    "detection": {"layers", "darknet", "weights", "models"},
    "data": {"layers"},
    "preprocessing": {"layers", "data", "weights"},
    "analysis": {"models", "detection"},
    "training": {"darknet", "layers", "data", "models", "detection"},
    "export": {"layers", "detection"},
    "commands": {
        "analysis",
        "data",
        "detection",
        "export",
        "layers",
        "weights",
        "preprocessing",
    },
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, set()


def rooms(path):
    for module, names in imported(path):
        if module == "keras_csp":
            yield from names
        elif module.startswith("keras_csp."):
            yield module.split(".")[1]


def test_each_room_imports_only_what_is_below_it():
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        above = set(rooms(path)) - ALLOWED.get(room, set()) - {room} - SHARED
        assert not above, f"{path.name} of {room} imports {above}"


def test_tensorflow_only_where_the_job_is_tensorflows():
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == "tensorflow" for name, _ in imported(path))
    }
    assert users == {
        "_keras_internals.py",
        "layers/batch_normalization.py",
        "layers/grouped_convolution.py",
        "data/classification.py",
        "data/classification_augmentation.py",
        "data/ten_crops.py",
        "data/random_ops.py",
        "data/detection_augmentation.py",
        "data/detection.py",
        "data/reading.py",
        "data/sources/tfds.py",
        "data/resizing.py",
        "detection/inputs.py",  # of data sets, on JAX
        "training/multi_device.py",
        "training/multi_host.py",
        "export/onnx.py",
        "export/tflite_conversion.py",
        "export/runtimes.py",
        "export/saved_model.py",
    }
