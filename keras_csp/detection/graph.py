"""The graph of a detector of the paper: backbone, neck, a head per level."""

import keras

from keras_csp._registry import get_factory
from keras_csp._validation import (
    check_choice,
    check_input_shape,
    check_positive,
)
from keras_csp.detection.anchors import default_anchors, split_anchors
from keras_csp.detection.necks import get_neck
from keras_csp.layers.precision import float32_if_half
from keras_csp.layers.preprocessing import (
    ImageSpec,
    image_spec,
    with_image_spec,
)
from keras_csp.layers.units import ConvNormAct
from keras_csp.layers.yolo_head import PriorBias, YoloHead
from keras_csp.models.features import feature_extractor, list_levels

# The name of the layer that makes a level beyond the backbone's last.
COARSER = "{}_down"


def build_graph(
    backbone="CSPPeleeNet",
    neck="efm",
    classes=80,
    input_shape=(416, 416, 3),
    levels=None,
    attention=None,
    spp=False,
    anchors=None,
    backbone_weights=None,
    class_names=None,
    spec=None,
    name=None,
):
    """{"inputs", "outputs", "name"} of a functional model.

    Args and errors: see `Detector`.
    """
    table = get_neck(neck, levels, attention, spp)
    check_choice("spp", spp, (True, False))
    classes = check_positive("classes", classes)
    outputs = tuple(sorted(table.outputs))
    if anchors is None:
        anchors = default_anchors(outputs)
    anchors = split_anchors(anchors, outputs)
    label = backbone if isinstance(backbone, str) else backbone.name
    features = _features(backbone, input_shape, table, backbone_weights)
    spec = _spec(spec, features, class_names, classes)
    image, maps = _on_an_image(features, spec)
    pyramid = table.make("neck")(_with_coarser(maps, table.levels))
    return {
        "inputs": image,
        "outputs": {
            level: _head(pyramid[level], level, anchors[level], classes)
            for level in outputs
        },
        "name": name or f"{label.lower()}_{table.name.replace('-', '_')}",
    }


def _features(backbone, input_shape, table, weights):
    """The levels of the backbone that the neck reads, as a model."""
    stride = 2 ** max(5, *(int(level[1:]) for level in table.levels))
    shape = _check_sides(input_shape, stride)
    if isinstance(backbone, str):
        backbone = get_factory(backbone)(
            include_top=False, input_shape=shape, weights=weights
        )
    elif weights is not None:
        raise ValueError(
            'weights="imagenet" needs a backbone given by name, e.g. '
            f'"CSPResNeXt50Timm". Received: backbone={backbone!r}'
        )
    known = list_levels(backbone)
    wanted = [level for level in table.levels if level in known]
    missing = [level for level in table.levels if level not in known]
    if not wanted or (missing and min(missing) < max(wanted)):
        raise ValueError(
            f"The neck {table.name!r} reads {', '.join(table.levels)}, and "
            f"{backbone.name!r} has {', '.join(known)}"
        )
    return feature_extractor(backbone, tuple(wanted))


def _check_sides(shape, stride):
    shape = check_input_shape(shape)
    if any(side and side % stride for side in shape[:2]):
        raise ValueError(
            f"The sides of `input_shape` must divide by {stride}, the largest "
            f"stride. Received: input_shape={shape}"
        )
    return shape


def _spec(spec, features, class_names, classes):
    """The `ImageSpec` of the detector: the backbone's pixels, its own size."""
    if spec is None:
        known = image_spec(features) or ImageSpec()
        size = tuple(features.inputs[0].shape[1:3])
        spec = ImageSpec(
            size=None if None in size else size,
            mean=known.mean,
            std=known.std,
            resize="letterbox",
        )
    if class_names is not None:
        spec = spec.replace(class_names=class_names)
    if spec.class_names and len(spec.class_names) != classes:
        raise ValueError(
            f"`class_names` must name the {classes} classes. Received: "
            f"{len(spec.class_names)} names"
        )
    return spec


def _on_an_image(features, spec):
    """The input and the pyramid of the features with another first layer."""
    model = with_image_spec(features, spec)
    return model.inputs[0], dict(model.output)


def _with_coarser(maps, levels):
    """The maps, and one half as large for each level beyond the last."""
    maps = dict(maps)
    for level in levels:
        if level not in maps:
            coarsest = max(maps)
            layer = ConvNormAct(
                maps[coarsest].shape[-1], 3, 2, name=COARSER.format(level)
            )
            maps[level] = layer(maps[coarsest])
    return maps


def _head(x, level, anchors, classes):
    """The 1x1 convolution that gives each anchor's 5 + classes numbers."""
    x = keras.layers.Conv2D(
        len(anchors) * (5 + classes),
        1,
        bias_initializer=PriorBias(5 + classes),
        dtype=float32_if_half(),
        name=f"head_{level}",
    )(x)
    stride = 2 ** int(level[1:])
    return YoloHead(anchors, classes, stride, name=f"yolo_{level}")(x)
