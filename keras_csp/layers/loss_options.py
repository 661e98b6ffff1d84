"""How a YOLO head is trained: the options of its loss."""

import dataclasses

from keras_csp._validation import check_choice, check_fraction

SIMILARITIES = ("iou", "giou", "diou", "ciou")
BOX_LOSSES = ("mse", *SIMILARITIES)
GRADIENTS = ("exact", "darknet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What `YoloLoss` computes for one head; each head may have its own.

    `Detector(backbone, ...)` has the defaults. `Detector.from_darknet` takes
    them from the [yolo] sections of the cfg, whose names stand in brackets.

    Attributes:
        box: "mse", "iou", "giou", "diou" or "ciou" (default) [iou_loss].
        ignore_threshold: objectness above this IoU with a true box is not
            trained to be 0. Default 0.7 [ignore_thresh].
        ignore_score: and only where the probability of some class is above
            this. Default 0: any; 0.25 in Darknet.
        truth_threshold: predictions above this IoU with a true box answer for
            it, too. Default 1: none [truth_thresh].
        anchor_threshold: other anchors whose shape has a larger similarity
            with the box's than this are taken as well. Default 1: only the
            best, as YOLOv3 [iou_thresh].
        anchor_similarity: "iou" (default), "giou", "diou" or "ciou", of those
            shapes [iou_thresh_kind].
        box_weight: of the error of the boxes. Default None: 1 for "mse", 2 for
            others [iou_normalizer].
        objectness_weight: default 1 [obj_normalizer].
        class_weight: default 1.
        class_weights: of the true boxes of each class, a tuple; the errors of
            a box, of its objectness and of its own class are multiplied by it.
            Default None: 1 [counters_per_class].
        label_smoothing: s: class targets become s / 2 and 1 - s / 2. Default
            0 [label_smooth_eps].
        iou_objectness: whether the objectness of a prediction above
            `ignore_threshold` is trained to be its IoU, instead of 1 where it
            answers for a box, else nothing. Default False
            [objectness_smooth].
        gradient: of the IoU losses. "exact" (default) is that of the value, in
            pixels. "darknet" is the one that Darknet's weights of the losses
            are made for: boxes are relative to the input's sides, and the
            derivative by x goes to t_x as it is, the one by w to t_w times
            exp(t_w), see `YoloLoss`.

    Raises ValueError for values out of range.
    Source: Darknet, src/parser.c and src/yolo_layer.c.
    """

    box: str = "ciou"
    ignore_threshold: float = 0.7
    ignore_score: float = 0.0
    truth_threshold: float = 1.0
    anchor_threshold: float = 1.0
    anchor_similarity: str = "iou"
    box_weight: float | None = None
    objectness_weight: float = 1.0
    class_weight: float = 1.0
    class_weights: tuple | None = None
    label_smoothing: float = 0.0
    iou_objectness: bool = False
    gradient: str = "exact"

    def __post_init__(self):
        check_choice("box", self.box, BOX_LOSSES)
        check_choice("anchor_similarity", self.anchor_similarity, SIMILARITIES)
        check_choice("iou_objectness", self.iou_objectness, (True, False))
        check_choice("gradient", self.gradient, GRADIENTS)
        for name in (
            "ignore_threshold",
            "ignore_score",
            "truth_threshold",
            "anchor_threshold",
            "label_smoothing",
        ):
            check_fraction(name, getattr(self, name))
        for name in ("objectness_weight", "class_weight"):
            _check_weight(name, getattr(self, name))
        if self.box_weight is not None:
            _check_weight("box_weight", self.box_weight)
        if self.class_weights is not None:
            weights = tuple(self.class_weights)
            for weight in weights:
                _check_weight("class_weights", weight)
            object.__setattr__(self, "class_weights", weights)

    def weights(self):
        """Those of the errors of boxes, objectness and classes."""
        boxes = self.box_weight
        if boxes is None:
            boxes = 1.0 if self.box == "mse" else 2.0
        return boxes, self.objectness_weight, self.class_weight

    def replace(self, **changes):
        """Other values in some fields; None leaves a field as it is."""
        changes = {k: v for k, v in changes.items() if v is not None}
        return dataclasses.replace(self, **changes)

    def get_config(self):
        """The fields, as JSON has them."""
        config = dataclasses.asdict(self)
        if self.class_weights is not None:
            config["class_weights"] = list(self.class_weights)
        return config


def as_loss_options(value):
    """`LossOptions` of None, of a dict of fields, or as they are.

    Raises:
        ValueError: another type, or an unknown field.
    """
    if isinstance(value, LossOptions):
        return value
    if value is None:
        return LossOptions()
    known = [field.name for field in dataclasses.fields(LossOptions)]
    if not isinstance(value, dict) or set(value) - set(known):
        raise ValueError(
            "`loss` of a head must be LossOptions or a dict of some of "
            f"{', '.join(known)}. Received: loss={value!r}"
        )
    return LossOptions(**value)


def _check_weight(argument, value):
    if isinstance(value, bool) or not value >= 0:
        raise ValueError(
            f"`{argument}` must be a number of at least 0. Received: "
            f"{argument}={value!r}"
        )
