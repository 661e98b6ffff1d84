"""Imports point one way: layers <- checkpoints <- models <- the rest."""

import ast
import pathlib

import keras_csp

PACKAGE = pathlib.Path(keras_csp.__file__).parent
# What a room may import from the package, besides itself.
ALLOWED = {
    "layers": set(),
    "tracing": set(),
    "conversion": set(),
    "darknet": {"layers", "tracing", "conversion", "writing"},
    "checkpoints": {"layers", "conversion", "darknet"},
    "text": set(),
    "counting": {"layers", "tracing", "text"},
    "features": {"tracing"},
    "preprocessing": {"checkpoints", "layers"},
    "models": {"layers", "checkpoints"},
    "weights": {"models", "checkpoints", "text"},
    "published": {"models"},
    "table": {"counting", "models", "published", "text"},
    "detection": {
        "layers",
        "checkpoints",
        "models",
        "features",
        "counting",
        "text",
    },
    "recipes": {"layers"},
    "ten_crop": set(),
    "callbacks": {"writing"},
    "runs": {"writing"},
    "ablation": {"layers", "models", "published", "text", "writing"},
    "devices": set(),
    "hosts": {"callbacks", "runs", "writing"},
    "data": set(),
    "export": {"checkpoints", "layers", "text", "writing", "_version"},
    "commands": {
        "checkpoints",
        "counting",
        "data",
        "detection",
        "export",
        "table",
        "writing",
    },
    "writing": set(),
    "_onednn": set(),
    "_version": set(),
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
        above = set(rooms(path)) - ALLOWED[room] - {room}
        assert not above, f"{path.name} of {room} imports {above}"


def test_tensorflow_only_where_the_job_is_tensorflows():
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == "tensorflow" for name, _ in imported(path))
    }
    assert users == {
        "layers/batch_normalization.py",
        "layers/grouped_convolution.py",
        "data/classification.py",
        "data/classification_augmentation.py",
        "data/crops.py",
        "data/draws.py",
        "data/detection_augmentation.py",
        "data/detection.py",
        "data/reading.py",
        "data/tfds.py",
        "data/views.py",
        "detection/detector.py",  # of data sets, on JAX
        "devices.py",
        "hosts.py",
        "export/onnx.py",
        "export/conversion.py",
        "export/runtimes.py",
        "export/saved_model.py",
    }
