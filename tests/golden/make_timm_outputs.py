"""Writes timm_tensors.json.gz and timm_outputs.npz with the real timm.

    pip install timm safetensors pillow
    python tests/golden/make_timm_outputs.py --photos PHOTOS

PHOTOS is the folder of the photographs that tests/timm_weights.py names. For
each network of timm's models/cspnet.py with published weights: the names and
shapes of its tensors, and every fourth logit that it gives, with the weights
of timm_weights.state_dict, for the photographs and for noise; of one network
also for images of 1 and 4 channels, loaded as timm loads pretrained weights;
of another every eighth channel of its features of the photographs.
tests/weights/test_timm.py runs this, where timm is installed, with
--every-logit.
"""

import argparse
import gzip
import json
import pathlib
import sys
import tempfile

import numpy as np
import timm
import torch
from safetensors.numpy import save_file

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


CHANNELS_OF = "cs3darknet_focus_s"
FEATURES_OF = "cspresnet50"


def seeded(name):
    """timm's network in evaluation mode, and its seeded weights."""
    model = timm.create_model(name).eval()
    shapes = {key: tuple(v.shape) for key, v in model.state_dict().items()}
    weights = timm_weights.state_dict(shapes)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    return model, weights


def with_channels(name, weights, channels):
    """The network for other images, its first kernel adapted by timm."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.safetensors"
        save_file(weights, path)
        return timm.create_model(
            name,
            pretrained=True,
            in_chans=channels,
            pretrained_cfg_overlay={"file": str(path)},
        ).eval()


def normalized(images, cfg):
    mean, std = (np.asarray(cfg[key], "float32") for key in ("mean", "std"))
    return ((images - mean) / std).astype("float32")


def logits(model, images):
    """Of images (n, h, w, c)."""
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


def features(photos):
    """{level: every eighth channel, (n, h, w, c / 8)} of the photographs."""
    model, _ = seeded(FEATURES_OF)
    x = normalized(timm_weights.photographs(photos), model.pretrained_cfg)
    x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        maps = model.forward_intermediates(x, intermediates_only=True)
    strides = {timm_weights.SIDE // y.shape[-1]: y.numpy() for y in maps}
    return {
        f"P{level}": strides[2**level].transpose(0, 2, 3, 1)[..., ::8]
        for level in (3, 4, 5)
    }


def all_outputs(photos):
    """(network, kind of images, logits, shapes of its tensors)"""
    images = {"noise": timm_weights.noise()}
    if photos:
        images["photos"] = timm_weights.photographs(photos)
    for name in NETWORKS:
        model, weights = seeded(name)
        shapes = {key: value.shape for key, value in weights.items()}
        for kind, x in images.items():
            y = logits(model, normalized(x, model.pretrained_cfg))
            yield name, kind, y, shapes
        for channels in (1, 4) if name == CHANNELS_OF else ():
            model = with_channels(name, weights, channels)
            x = timm_weights.noise(channels)
            yield name, f"{channels} channels", logits(model, x), shapes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER)
    parser.add_argument("--every-logit", action="store_true")
    options = parser.parse_args()
    step = 1 if options.every_logit else 4
    outputs, tensors = {}, {}
    for name, kind, y, tensors[name] in all_outputs(options.photos):
        outputs[f"{name}/{kind}"] = y[:, ::step]
        spread = np.ptp(y, axis=0).max() / np.abs(y).max()
        print(f"{name}/{kind}: {spread:.1%} apart between images", flush=True)
    np.savez_compressed(options.folder / "timm_outputs.npz", **outputs)
    if options.photos:
        path = options.folder / "timm_features.npz"
        np.savez_compressed(path, **features(options.photos))
    text = json.dumps({"timm": timm.__version__, "tensors": tensors})
    (options.folder / "timm_tensors.json.gz").write_bytes(
        gzip.compress(text.encode(), mtime=0)
    )


if __name__ == "__main__":
    main()
