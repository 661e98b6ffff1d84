"""The training that a Darknet .cfg file asks for, as a recipe."""

import logging
import os
import pathlib

from keras_csp.darknet.cfg import parse, read_bytes
from keras_csp.darknet.options import kind_of
from keras_csp.training.recipes import DetectionRecipe

_LOGGER = logging.getLogger("keras_csp")
_STRIDE = 32
# Darknet's random=1 draws sizes from s / 1.4 to 1.4 s, and one step above it.
_RANDOM = 1.4
# Darknet's mosaic=1 makes one half of the batches of four images.
_MOSAIC = 0.5
_POLICIES = {
    "constant": "constant",
    "steps": "steps",
    "poly": "polynomial",
    "sgdr": "cosine",
}
# Options that change a training and are not followed here, with the value
# that leaves them off.
_NOT_DONE = {
    "net": {
        "adam": 0,
        "angle": 0,
        "adversarial_lr": 0,
        "attention": 0,
        "badlabels_rejection_percentage": 0,
        "blur": 0,
        "contrastive": 0,
        "cutmix": 0,
        "dynamic_minibatch": 0,
        "equidistant_point": 0,
        "gaussian_noise": 0,
        "mixup": 0,
        "mosaic_bound": 0,
        "num_sigmas_reject_badlabels": 0,
        "sgdr_cycle": None,
        "sgdr_mult": None,
        "time_steps": 1,
        "track": 0,
        "unsupervised": 0,
        "weights_reject_freq": 0,
    },
    "yolo": {
        "delta_normalizer": 1,
        "embedding_layer": None,
        "focal_loss": 0,
        "map": None,
        "max_delta": None,
        "resize": 1,
    },
    "convolutional": {"assisted_excitation": 0, "grad_centr": 0},
    "dropout": {"dropblock": 0},
}
_EVERY_NOT_DONE = {
    "burnin_update": 0,
    "clip": 0,
    "dont_update": 0,
    "learning_rate": None,
    "stopbackward": 0,
    "train_only_bn": 0,
}


def read_cfg(path):
    """The `DetectionRecipe` of a detector's .cfg file.

    Optimizer, rate, burn-in, its policy and steps, batch and subdivisions,
    moving average, size, random sizes, augmentation and mosaic are those of
    [net] and of the last [yolo]. The loss is what the heads say, which
    `Detector.from_darknet` takes from the same file. What the file asks for
    and is not done here is named in a warning of the "keras_csp" logger.

    Args:
        path: of the file.

    Raises:
        ValueError: not a detector's cfg, a policy that is not supported, or a
            value out of range.
    Source: Darknet, src/parser.c, parse_net_options; src/detector.c,
    train_detector; src/data.c, load_data_detection.
    """
    source = os.fsdecode(path)
    net, *layers = parse(read_bytes(path), source)
    heads = [section for section in layers if kind_of(section) == "yolo"]
    if not heads:
        raise ValueError(
            f"{source} has no [yolo] section, so it is not a detector's"
        )
    subdivisions = net.integer("subdivisions", 1, minimum=1)
    steps = net.integer("max_batches", 0)
    if steps < 1:
        raise net.error("`max_batches` is missing: the steps of the training")
    recipe = DetectionRecipe(
        name=pathlib.Path(source).stem,
        source=f"{os.path.basename(source)}, a Darknet cfg",
        optimizer="sgd",
        learning_rate=net.number("learning_rate", 0.001),
        momentum=net.number("momentum", 0.9),
        weight_decay=net.number("decay", 0.0001),
        batch_size=max(1, net.integer("batch", 1, minimum=1) // subdivisions),
        accumulation=subdivisions,
        steps=steps,
        warmup=net.integer("burn_in", 0),
        warmup_power=net.number("power", 4),
        ema=net.number("ema_alpha", 0) or None,
        augmentation=_augmentation(net, heads[-1]),
        **_decay(net, steps),
        **_sizes(net, heads[-1]),
    )
    _name_what_is_not_done(source, [net, *layers])
    return recipe


def _decay(net, steps):
    """The policy, its drops and their factors."""
    policy = net.choice("policy", "constant", _POLICIES)
    if policy == "poly" and net.number("power", 4) != 4:
        raise net.error("policy=poly must have power=4", "power")
    if policy != "steps":
        return {"decay": _POLICIES[policy]}
    drops, factors = net.integers("steps"), net.numbers("scales")
    if len(drops) != len(factors):
        raise net.error(
            "`scales` must have a number for each of `steps`. Received: "
            f"{len(factors)} for {len(drops)} steps",
            "scales",
        )
    pairs = [pair for pair in zip(drops, factors) if pair[0] < steps]
    return {
        "decay": "steps",
        "drops": tuple(drop / steps for drop, _ in pairs),
        "drop_factors": tuple(factor for _, factor in pairs),
    }


def _sizes(net, head):
    """The size, and those that random=1 draws from."""
    height = net.integer("height", None, minimum=1)
    size = height, net.integer("width", None, minimum=1)
    random = head.number("random", 0)
    if not random:
        return {"size": size, "sizes": (size,)}
    factor = _RANDOM if random == 1 else random
    least, most = (
        round(size[0] * scale / _STRIDE + 1) for scale in (1 / factor, factor)
    )
    heights = range(least, most + 1)
    sizes = dict.fromkeys(
        (n * _STRIDE, max(1, round(n * size[1] / size[0])) * _STRIDE)
        for n in heights
    )
    return {"size": size, "sizes": tuple(sizes)}


def _augmentation(net, head):
    return {
        "jitter": head.number("jitter", 0.2),
        "flip": 0.5 if net.integer("flip", 1) else 0.0,
        "vertical_flip": 0.0,
        "hue": net.number("hue", 0),
        "saturation": net.number("saturation", 1),
        "brightness": net.number("exposure", 1),
        "mosaic": _MOSAIC if net.integer("mosaic", 0) else 0.0,
        "rotate90": False,
    }


def _name_what_is_not_done(source, sections):
    found = {}
    for section in sections:
        known = {**_EVERY_NOT_DONE, **_NOT_DONE.get(kind_of(section), {})}
        if section is sections[0]:
            del known["learning_rate"]
        for key, off in known.items():
            option = section.options.get(key)
            if option and not _is_off(section, key, off):
                found.setdefault(f"{key}={option.text}", option.line)
    if found:
        named = ", ".join(f"{text} (line {n})" for text, n in found.items())
        _LOGGER.warning("%s: not done in training: %s", source, named)


def _is_off(section, key, off):
    return off is not None and section.text(key, None) in (
        str(off),
        f"{off}.0",
    )
