"""The config.json that timm writes beside a model.safetensors."""

import json
import os
import pathlib

from keras_csp.layers.preprocessing import INTERPOLATIONS
from keras_csp.weights.imagenet import imagenet_classes

CONFIG_FILE = "config.json"
# timm's crop_mode; "border" letterboxes, then crops.
_RESIZE = {"center": "crop", "squash": "stretch", "border": "letterbox"}


def beside(path):
    """The path of the config beside a file, None where there is none."""
    config = os.path.join(os.path.dirname(path), CONFIG_FILE)
    return config if os.path.isfile(config) else None


def read(path):
    """The fields of `ImageSpec` that a config states.

    Older files have the settings at the top level, newer ones under
    "pretrained_cfg". Where classes have no names, a tag that ends in "in1k"
    stands for ImageNet's, as in timm.

    Raises:
        ValueError: not a JSON object, or one without timm's settings.
    """
    try:
        config = json.loads(pathlib.Path(path).read_text("utf-8"))
        settings = {**config, **config.get("pretrained_cfg", {})}
        fields = {
            "mean": tuple(settings["mean"]),
            "std": tuple(settings["std"]),
            "size": tuple(settings["input_size"][1:]),
            "crop": settings.get("crop_pct", 1.0),
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{str(path)!r} is not a config.json of timm's with mean, std and "
            f"input_size: {type(error).__name__}: {error}. Correct it, or "
            "move it away from the weights to use the published settings"
        ) from error
    fields["resize"] = _RESIZE.get(settings.get("crop_mode"), "crop")
    if settings.get("interpolation") in INTERPOLATIONS:
        fields["interpolation"] = settings["interpolation"]
    fields["class_names"] = _class_names(settings)
    return fields


def _class_names(settings):
    names = settings.get("label_names")
    if names:
        return tuple(map(str, names))
    tag = str(settings.get("tag") or "")
    if tag.endswith("in1k") and settings.get("num_classes") == 1000:
        return tuple(imagenet_classes().values())
    return None
