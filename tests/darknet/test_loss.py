"""The loss of a [yolo] section: each kind of head, against Darknet's words."""

import numpy as np
import pytest
from yolo_loss_loops import PARTS, Geometry, loops

from keras_csp import darknet
from keras_csp.detection import YoloLoss
from keras_csp.layers import LossOptions

# What the [yolo] sections of published cfgs say of training, as facts.
KINDS = {
    "yolov3": "ignore_thresh=.7 truth_thresh=1 random=1",
    "yolov3-tiny": "ignore_thresh=.7 truth_thresh=1 random=1",
    "csresnext50-panet-spp-original-optimal": "ignore_thresh=.7 truth_thresh=1 "
    "random=1 scale_x_y=1.05 iou_thresh=0.213 cls_normalizer=1.0 "
    "iou_normalizer=0.07 iou_loss=ciou",
    "csresnext50-panet-spp-giou": "ignore_thresh=.7 truth_thresh=1 random=1 "
    "cls_normalizer=1.0 iou_normalizer=0.07 iou_loss=giou",
    "yolov4": "ignore_thresh=.7 truth_thresh=1 random=1 scale_x_y=1.2 "
    "iou_thresh=0.213 cls_normalizer=1.0 iou_normalizer=0.07 iou_loss=ciou "
    "nms_kind=greedynms beta_nms=0.6 max_delta=5",
    "yolov4-tiny": "scale_x_y=1.05 cls_normalizer=1.0 iou_normalizer=0.07 "
    "iou_loss=ciou ignore_thresh=.7 truth_thresh=1 random=0 resize=1.5 "
    "nms_kind=greedynms beta_nms=0.6",
    "yolov4-csp": "scale_x_y=2.0 objectness_smooth=1 ignore_thresh=.7 "
    "truth_thresh=1 resize=1.5 iou_thresh=0.2 iou_normalizer=0.05 "
    "cls_normalizer=0.5 obj_normalizer=0.4 iou_loss=ciou nms_kind=diounms "
    "beta_nms=0.6 new_coords=1 max_delta=2",
    "yolov4-p5": "scale_x_y=2.0 objectness_smooth=1 ignore_thresh=.7 "
    "truth_thresh=1 resize=1.5 iou_thresh=0.2 iou_normalizer=0.05 "
    "cls_normalizer=0.5 obj_normalizer=1.0 iou_loss=ciou nms_kind=diounms "
    "beta_nms=0.6 new_coords=1 max_delta=2",
    "yolov7": "scale_x_y=2.0 objectness_smooth=1 ignore_thresh=.7 "
    "truth_thresh=1 resize=1.5 iou_thresh=0.2 iou_normalizer=0.05 "
    "cls_normalizer=0.5 obj_normalizer=1.0 iou_loss=ciou nms_kind=diounms "
    "beta_nms=0.6 new_coords=1 max_delta=2",
    "yolo-fastest-1.1": "ignore_thresh=.5 truth_thresh=1 random=0 "
    "scale_x_y=1.0 iou_thresh=0.213 cls_normalizer=1.0 iou_normalizer=0.07 "
    "iou_loss=ciou nms_kind=greedynms beta_nms=0.6",
    # None of a published cfg: the options that these leave out.
    "others": "ignore_thresh=.2 truth_thresh=.5 iou_thresh=.3 "
    "iou_thresh_kind=giou iou_loss=diou label_smooth_eps=0.1 "
    "counters_per_class=10,5,20 cls_normalizer=0.5 iou_normalizer=0.3",
}
CLASSES = 3
ANCHORS = (12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146)


def cfg_text(options, height=64, width=96):
    """Two heads of three anchors, P5 and P4, each with these options."""
    section = [
        f"classes={CLASSES}",
        "num=6",
        "anchors=" + ",".join(map(str, ANCHORS)),
        *options.split(),
    ]
    filters = 3 * (5 + CLASSES)
    activation = "logistic" if "new_coords=1" in options else "linear"
    head = [
        "[convolutional]",
        f"filters={filters}",
        "size=1",
        f"activation={activation}",
    ]
    lines = ["[net]", f"height={height}", f"width={width}", "channels=3"]
    for stride in (16, 2):
        lines += ["[convolutional]", "filters=4", "size=3", "pad=1"]
        lines += [f"stride={stride}", "activation=leaky"]
    lines += [*head, "[yolo]", "mask=3,4,5", *section]
    lines += ["[route]", "layers=-4"]
    lines += [*head, "[yolo]", "mask=0,1,2", *section]
    return "\n".join(lines) + "\n"


def described(text):
    """`LossOptions` as Darknet's parse_yolo reads them, and the geometry."""
    said = dict(word.split("=") for word in text.split())

    def number(key, default):
        return float(said.get(key, default))

    weights = None
    if "counters_per_class" in said:
        counts = [int(n) for n in said["counters_per_class"].split(",")]
        factor = number("cls_normalizer", 1)
        weights = tuple(factor * max(counts) / count for count in counts)
    options = LossOptions(
        box=said.get("iou_loss", "mse"),
        ignore_threshold=number("ignore_thresh", 0.5),
        ignore_score=0.25,
        truth_threshold=number("truth_thresh", 1),
        anchor_threshold=number("iou_thresh", 1),
        anchor_similarity=said.get("iou_thresh_kind", "iou"),
        box_weight=number("iou_normalizer", 0.75),
        objectness_weight=number("obj_normalizer", 1),
        label_smoothing=number("label_smooth_eps", 0),
        class_weights=weights,
        iou_objectness="objectness_smooth=1" in text,
        gradient="darknet",
    )
    geometry = Geometry(number("scale_x_y", 1), "new_coords=1" in text)
    return options, geometry


TARGETS = {
    "boxes": np.float32(
        [
            [[10, 8, 30, 40], [12, 9, 31, 41], [40, 2, 93, 62], [0, 0, 0, 0]],
            [
                [60, 20, 73, 37],
                [60, 20, 73, 37],
                [5, 5, 44, 33],
                [3, 40, 9, 50],
            ],
        ]
    ),
    "labels": np.int32([[0, 2, 1, -1], [1, 0, 2, 1]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_every_kind_of_head(kind, tmp_path, rng):
    path = tmp_path / f"{kind}.cfg"
    path.write_text(cfg_text(KINDS[kind]))
    detector = darknet.load(path)
    options, geometry = described(KINDS[kind])
    anchors = {head.level: tuple(head.anchors) for head in detector.heads}
    pairs = list(zip(ANCHORS[::2], ANCHORS[1::2]))
    assert anchors == {"P4": tuple(pairs[:3]), "P5": tuple(pairs[3:])}
    maps = {}
    for level, stride in (("P4", 16), ("P5", 32)):
        shape = (2, 64 // stride, 96 // stride, 3 * (5 + CLASSES))
        maps[level] = rng.normal(0, 0.5, shape).astype("float32")
        if geometry.new_coords:
            maps[level] = 1 / (1 + np.exp(-maps[level]))
    found = YoloLoss()(TARGETS, list(maps.values()), detector.heads)
    expected = loops(TARGETS, maps, anchors, options, geometry)
    for name, weight in zip(PARTS, options.weights()):
        value = weight * expected[name] / 2
        assert float(found[name]) == pytest.approx(value, rel=1e-5), name


def test_the_kinds_differ(tmp_path, rng):
    """So that the test above would notice an option that is not read."""
    maps = [
        rng.normal(0, 0.5, (2, 64 // stride, 96 // stride, 24))
        for stride in (16, 32)
    ]
    plain = "ignore_thresh=.2 truth_thresh=1"  # of a key, the first counts
    values = {}
    for option in (
        "",
        "ignore_thresh=.4",
        "truth_thresh=.4",
        "iou_thresh=.4",
        "iou_thresh=.4 iou_thresh_kind=giou",
        "iou_loss=iou",
        "iou_loss=ciou",
        "iou_normalizer=.07",
        "obj_normalizer=.4",
        "label_smooth_eps=.1",
        "objectness_smooth=1",
        "counters_per_class=1,2,3",
        "counters_per_class=1,2,3 cls_normalizer=.5",
        "counters_per_class=1,2,3 max_delta=2",
        "counters_per_class=1,2,3 max_delta=2 iou_loss=giou",
    ):
        path = tmp_path / "a.cfg"
        path.write_text(cfg_text(f"{option} {plain}"))
        parts = YoloLoss()(TARGETS, maps, darknet.load(path).heads)
        values[option] = tuple(round(float(v), 5) for v in parts.values())
    assert len(set(values.values())) == len(values), values


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ignore_thresh=7", r"\[yolo\].*ignore_threshold=7"),
        ("iou_normalizer=-1", "box_weight=-1"),
        ("iou_thresh_kind=l2", "`iou_thresh_kind` must be one of iou, giou"),
        ("counters_per_class=1,2", "a number for each of 3 classes"),
    ],
)
def test_values_out_of_range(option, message, tmp_path):
    path = tmp_path / "a.cfg"
    path.write_text(cfg_text(option))
    with pytest.raises(ValueError, match=message):
        darknet.load(path)


def test_settings_are_saved(tmp_path):
    import keras

    path = tmp_path / "a.cfg"
    path.write_text(cfg_text(KINDS["others"]))
    detector = darknet.load(path)
    detector.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    assert [head.loss for head in again.heads] == [
        head.loss for head in detector.heads
    ]
    assert again.heads[0].loss == described(KINDS["others"])[0]


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("[yolo]\nmask=3", "[dropout]\nprobability=.1\n[yolo]\nmask=3"),
        ("activation=linear", "activation=logistic\nbatch_normalize=0"),
    ],
)
def test_random_heads_say_background(change, tmp_path):
    """Their objectness starts at 1 %, where a convolution has a bias."""
    text = cfg_text("new_coords=1" if "logistic" in change[1] else "")
    if "dropout" in change[1]:
        text = text.replace("layers=-4", "layers=-5")
    path = tmp_path / "a.cfg"
    path.write_text(text.replace(*change, 1) if change[0] else text)
    detector = darknet.load(path)
    x = np.zeros((1, 64, 96, 3), "float32")
    for level, found in detector(x).items():
        rows = np.asarray(found).reshape(-1, 5 + CLASSES)
        objectness = rows[:, 4]
        if "new_coords" not in text:
            objectness = 1 / (1 + np.exp(-objectness))
        started = level == "P4" or "dropout" not in change[1]
        expected = 0.01 if started else 0.5
        np.testing.assert_allclose(objectness, expected, rtol=1e-4)
