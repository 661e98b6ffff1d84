"""Writes timm_tensors.json.gz and timm_outputs.npz with the real timm.

    pip install timm safetensors pillow
    python tests/golden/make_timm_outputs.py PHOTOS

PHOTOS is the folder of the photographs that tests/timm_weights.py names. For
each network of timm's models/cspnet.py with published weights: the names and
shapes of its tensors, and every fourth logit that it gives, with the weights
of timm_weights.state_dict, for the photographs and for noise.
"""

import gzip
import json
import pathlib
import sys

import numpy as np
import timm
import torch

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

import timm_weights  # noqa: E402

NETWORKS = (
    "cspresnet50",
    "cspresnext50",
    "cspdarknet53",
    "darknet53",
    "darknetaa53",
    "cs3darknet_m",
    "cs3darknet_l",
    "cs3darknet_x",
    "cs3darknet_focus_s",
    "cs3darknet_focus_m",
    "cs3darknet_focus_l",
    "cs3sedarknet_l",
    "cs3sedarknet_x",
    "cs3edgenet_x",
    "cs3se_edgenet_x",
)


def model_with_seeded_weights(name, **options):
    """timm's network in evaluation mode, and the shapes of its tensors."""
    model = timm.create_model(name, **options).eval()
    shapes = {key: tuple(v.shape) for key, v in model.state_dict().items()}
    weights = timm_weights.state_dict(shapes)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    return model, shapes


def logits(model, images):
    """Of normalised images (n, h, w, 3)."""
    mean, std = (
        np.asarray(model.pretrained_cfg[key], "float32")
        for key in ("mean", "std")
    )
    x = ((images - mean) / std).astype("float32").transpose(0, 3, 1, 2)
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(x))).numpy()


def main(photos):
    images = {
        "photos": timm_weights.photographs(photos),
        "noise": timm_weights.noise(),
    }
    outputs, tensors = {}, {}
    for name in NETWORKS:
        model, tensors[name] = model_with_seeded_weights(name)
        for kind, x in images.items():
            y = logits(model, x)
            outputs[f"{name}/{kind}"] = y[:, ::4]
            spread = np.ptp(y, axis=0).max() / np.abs(y).max()
            print(
                f"{name} {kind}: up to {np.abs(y).max():.3g}, "
                f"{spread:.1%} apart between images"
            )
    np.savez_compressed(FOLDER / "timm_outputs.npz", **outputs)
    text = json.dumps({"timm": timm.__version__, "tensors": tensors})
    (FOLDER / "timm_tensors.json.gz").write_bytes(
        gzip.compress(text.encode(), mtime=0)
    )


if __name__ == "__main__":
    main(sys.argv[1])
