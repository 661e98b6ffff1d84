"""The options of each kind of section: what matters, what does not.

Those read elsewhere in this package (`USED`), those that only steer training,
display or speed (`IGNORED`), and those that change what a network computes in
a way that is not supported, with the value that leaves them off (`REFUSED`).
Collected from Darknet's src/parser.c and from its own and the CSPNet authors'
cfg files.
"""

import warnings

from keras_csp.darknet.cfg import quoted

# The alternative names of Darknet's src/parser.c.
ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "soft": "softmax",
}

USED = {
    "net": "height width channels letter_box",
    "convolutional": "filters size stride stride_x stride_y pad padding groups "
    "batch_normalize activation share_index",
    "maxpool": "size stride padding maxpool_depth out_channels",
    "local_avgpool": "size stride padding",
    "avgpool": "",
    "route": "layers groups group_id",
    "shortcut": "from activation",
    "upsample": "stride scale",
    "scale_channels": "from activation",
    "sam": "from activation",
    "dropout": "probability",
    "softmax": "groups temperature",
    "cost": "",
    "yolo": "mask anchors num classes scale_x_y new_coords nms_kind beta_nms "
    "thresh ignore_thresh truth_thresh iou_thresh iou_thresh_kind iou_loss "
    "iou_normalizer obj_normalizer cls_normalizer label_smooth_eps "
    "objectness_smooth counters_per_class max_delta",
}

_EVERY = (
    "clip onlyforward dont_update burnin_update stopbackward train_only_bn "
    "learning_rate"
)

IGNORED = {
    "net": "batch subdivisions momentum decay angle saturation exposure hue "
    "burn_in max_batches policy steps scales seq_scales max_epochs max_crop "
    "min_crop power aspect mosaic mosaic_bound cutmix mixup time_steps "
    "try_fix_nan label_smooth_eps step scale gamma blur "
    "gaussian_noise sgdr_cycle sgdr_mult seen track augment_speed ema_alpha "
    "contrastive contrastive_jit_flip contrastive_color unsupervised "
    "show_receptive_field learning_rate_min sequential_subdivisions "
    "weights_reject_freq equidistant_point badlabels_rejection_percentage "
    "num_sigmas_reject_badlabels use_cuda_graph loss_scale dynamic_minibatch "
    "optimized_memory workspace_size_limit_MB adam B1 B2 eps inputs flip "
    "resize_step attention adversarial_lr max_chart_loss",
    "convolutional": "stream wait_stream grad_centr angle assisted_excitation",
    "maxpool": "maxpool_zero_nonmax",
    "route": "stream wait_stream",
    "shortcut": "weights_normalization",  # nothing without weights_type
    "dropout": "dropblock dropblock_size_rel dropblock_size_abs",
    "softmax": "noloss",
    "cost": "type scale ratio",
    "yolo": "jitter delta_normalizer uc_normalizer beta1 random resize "
    "focal_loss max show_details map track_history_size sim_thresh "
    "dets_for_track dets_for_show track_ciou_norm embedding_layer",
}

_EVERY_REFUSED = {"dontload": 0, "dontloadscales": 0}

# Kinds of convolution: 0 in every one of them is the usual kind.
_VARIANTS = (
    "antialiasing",
    "binary",
    "bin_output",
    "cbn",
    "coordconv",
    "dot",
    "flipped",
    "reverse",
    "rotate",
    "stretch",
    "stretch_sway",
    "sway",
    "xnor",
)

REFUSED = {
    "convolutional": {
        **dict.fromkeys(_VARIANTS, 0),
        "dilation": 1,
    },
    "maxpool": {"antialiasing": 0},
    "shortcut": {"weights_type": "none"},
    "scale_channels": {"scale_wh": 0},
    "softmax": {"tree": None, "spatial": 0},
}

_KNOWN = {
    kind: frozenset(f"{used} {IGNORED.get(kind, '')} {_EVERY}".split())
    for kind, used in USED.items()
}

# Windows whose vertical and horizontal strides must be equal.
_STRIDED = ("maxpool", "local_avgpool")


def check_kinds(sections):
    """Raises at the first section that is not supported, or a second [net]."""
    for position, section in enumerate(sections):
        kind = kind_of(section)
        if kind not in USED:
            raise section.error(
                "unknown or unsupported section. Supported: "
                + ", ".join(f"[{name}]" for name in USED)
            )
        if (kind == "net") != (position == 0):
            raise section.error(
                "a cfg starts with [net] or [network], and has only one"
            )


def kind_of(section):
    return ALIASES.get(section.kind, section.kind)


def check_options(sections, warn=True):
    """Refuses active options that are unsupported; warns of unknown ones."""
    unknown = []
    for section in sections:
        kind = kind_of(section)
        refused = {**_EVERY_REFUSED, **REFUSED.get(kind, {})}
        for key, option in section.options.items():
            if key in refused:
                _refuse(section, key, refused[key])
            elif key in ("stride_x", "stride_y") and kind in _STRIDED:
                _check_stride(section, key)
            elif key not in _KNOWN[kind]:
                unknown.append(f"{key} (line {option.line})")
    if unknown and warn:
        warnings.warn(
            f"{sections[0].source}: unknown options are ignored: "
            + ", ".join(unknown[:20])
            + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""),
            stacklevel=2,
        )


def _refuse(section, key, off):
    text = section.text(key, None)
    if text == off:
        return
    if isinstance(off, int) and section.number(key, off) == off:
        return
    allowed = "must be left out" if off is None else f"must be {off}"
    raise section.error(
        f"`{key}` {allowed}: it changes what the layer computes and is not "
        f"supported. Received: {key}={quoted(text)}",
        key,
    )


def _check_stride(section, key):
    stride = section.integer("stride", 1)
    if section.integer(key, stride, minimum=1) != stride:
        raise section.error(
            f"`{key}` must equal `stride`={stride}: strides that differ "
            "between the two directions are not supported. Received: "
            f"{key}={quoted(section.text(key, None))}",
            key,
        )
