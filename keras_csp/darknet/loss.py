"""How a [yolo] section says its head is trained, as `LossOptions`."""

from keras_csp.layers.loss_options import (
    BOX_LOSSES,
    SIMILARITIES,
    LossOptions,
)

# Darknet ignores predictions near a true box only where some class's
# probability is above this: src/yolo_layer.c, compare_yolo_class.
_IGNORE_SCORE = 0.25


def loss_options(section, classes):
    """The `LossOptions` of a [yolo] section.

    Source: Darknet, src/parser.c, parse_yolo. Its `cls_normalizer` has no
    effect without `counters_per_class`.

    Raises:
        ValueError: a value that is out of range; file, line and section are
            named.
    """
    box = section.text("iou_loss", "mse")
    weights = _class_weights(section, classes)
    values = {
        "ignore_threshold": section.number("ignore_thresh", 0.5),
        "truth_threshold": section.number("truth_thresh", 1.0),
        "anchor_threshold": section.number("iou_thresh", 1.0),
        "box_weight": section.number("iou_normalizer", 0.75),
        "objectness_weight": section.number("obj_normalizer", 1.0),
        "label_smoothing": section.number("label_smooth_eps", 0.0),
    }
    try:
        return LossOptions(
            box=box if box in BOX_LOSSES else "iou",  # as Darknet
            ignore_score=_IGNORE_SCORE,
            anchor_similarity=section.choice(
                "iou_thresh_kind", "iou", SIMILARITIES
            ),
            class_weights=weights,
            iou_objectness=section.integer("objectness_smooth", 0) != 0,
            gradient="darknet",
            **values,
        )
    except ValueError as error:
        raise section.error(str(error)) from error


def _class_weights(section, classes):
    """The largest count by that of each class, as Darknet weights them."""
    if section.text("counters_per_class", None) is None:
        return None
    counts = [
        max(1, number) for number in section.numbers("counters_per_class")
    ]
    if len(counts) != classes:
        raise section.error(
            f"`counters_per_class` must have a number for each of {classes} "
            f"classes. Received: {len(counts)}",
            "counters_per_class",
        )
    most = section.number("max_delta", max(counts))
    factor = section.number("cls_normalizer", 1.0)
    return tuple(factor * min(most, max(counts) / count) for count in counts)
