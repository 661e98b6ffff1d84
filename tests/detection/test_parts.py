"""Backbone, neck and heads of detectors, against what their authors say."""

import darknet_reference as reference
import keras
import pytest
from support import slow_unless, tiny_backbone

import keras_csp
from keras_csp.detection.parts import detector_parts
from keras_csp.layers import ConvNormAct, SpatialPyramidPooling, YoloHead

TEXTS = reference.author_cfgs()
# The last layer of each backbone, by Darknet's index. Where the authors have
# the classifier as well, `test_the_backbone_is_the_classifiers` counts. The
# others: darknet53.conv.74 (layers 0 to 73 have its weights; 74 is a
# shortcut); yolov7's from its authors' cfg/training/yolov7*.yaml, whose heads
# begin with SPPCSPC; the others read from the cfg files: the last stage, which
# SPP or the first 1x1 convolution of a head follows.
LAST = {
    "darknet/cfg/yolov3.cfg": 74,
    "darknet/cfg/yolov3-tiny.cfg": 12,
    "darknet/cfg/yolov3-tiny-prn.cfg": 13,
    "darknet/cfg/yolov3_5l.cfg": 74,
    "darknet/cfg/yolov4-csp.cfg": 98,
    "darknet/cfg/yolov4-csp-s-mish.cfg": 44,
    "darknet/cfg/yolov4-p6.cfg": 186,
    "darknet/cfg/yolov4-tiny.cfg": 26,
    "darknet/cfg/yolov4-tiny-3l.cfg": 26,
    "darknet/cfg/yolov7.cfg": 57,
    "darknet/cfg/yolov7-tiny.cfg": 32,
    # EfficientNet's last convolution, of 1,280 channels.
    "darknet/cfg/enet-coco.cfg": 131,
}
# Detectors and classifiers of one backbone.
PAIRS = {
    "cfg/csresnext50-panet-spp.cfg": "cfg/csresnext50.cfg",
    "cfg/csresnet50-panet-spp.cfg": "cfg/csresnet50.cfg",
    "cfg/csdarknet53-panet-spp.cfg": "cfg/csdarknet53.cfg",
    "in progress/csresnext50-fpn-spp.cfg": "cfg/csresnext50.cfg",
    "in progress/csresnext50-elastic-panet-spp.cfg": (
        "cfg/csresnext50-elastic.cfg"
    ),
    "darknet/cfg/yolov3-spp.cfg": "cfg/darknet53.cfg",
    "darknet/cfg/yolov4.cfg": "cfg/csdarknet53-omega.cfg",
}
FAST = ("darknet/cfg/yolov4-tiny.cfg", "darknet/cfg/yolov7-tiny.cfg")


def parts_of(text, folder):
    """{part: Darknet's indexes of its layers}."""
    (folder / "network.cfg").write_text(text)
    detector = keras_csp.Detector.from_darknet(folder / "network.cfg")
    parts = detector_parts(detector)
    every = [layer for layers in parts.values() for layer in layers]
    assert len(every) == len(set(every)) == len(detector.layers) - 1
    keras.utils.clear_session()
    return {
        part: [
            int(layer.name.split("_")[-1])
            for layer in layers
            if layer.name != "preprocessing"
        ]
        for part, layers in parts.items()
    }


def check(text, last, folder):
    _net, sections = reference.parsed(text)
    kinds = [kind for kind, _options in sections]
    parts = parts_of(text, folder)
    assert max(parts["backbone"]) == last
    assert min(parts["neck"]) > last
    heads = [n for n, kind in enumerate(kinds) if kind == "yolo"]
    assert set(parts["head"]) == {n - back for n in heads for back in (0, 1)}
    with_weights = {
        n for n, kind in enumerate(kinds) if kind.startswith("conv")
    }
    assert with_weights <= {n for part in parts.values() for n in part}


@pytest.mark.parametrize("name", slow_unless(FAST, LAST))
def test_the_backbone_ends_where_its_authors_say(name, tmp_path):
    check(reference.resized(TEXTS[name], 128, 128), LAST[name], tmp_path)


@pytest.mark.parametrize("name", slow_unless((), PAIRS))
def test_the_backbone_is_the_classifiers(name, tmp_path):
    """The layers that the two files have in common, from the first on."""
    detector, classifier = (
        reference.parsed(TEXTS[each])[1] for each in (name, PAIRS[name])
    )
    common = 0
    while detector[common] == classifier[common]:
        common += 1
    assert common > 70
    check(reference.resized(TEXTS[name], 128, 128), common - 1, tmp_path)


def test_a_backbone_of_inverted_bottlenecks(shared_data, tmp_path):
    """Yolo-Fastest's: linear 1x1 convolutions narrow it everywhere."""
    path = shared_data / "darknet/yolo-fastest-1.1/yolo-fastest-1.1.cfg"
    lines = path.read_text().splitlines()
    text = "\n".join(line.split("#")[0].replace(" ", "") for line in lines)
    check(text, 108, tmp_path)


def named(detector):
    return {
        part: [layer.name for layer in layers if layer.weights]
        for part, layers in detector_parts(detector).items()
    }


def test_the_papers_detectors():
    detector = keras_csp.Detector(
        tiny_backbone(64), "efm", classes=2, input_shape=(64, 64, 3)
    )
    found = named(detector)
    assert found["neck"] == ["neck"]
    assert set(found["head"]) == {"head_P3", "head_P4", "head_P5"}
    assert len(found["backbone"]) == 5
    # Levels beyond the backbone's are new, as the neck is.
    levels = ("P4", "P5", "P6", "P7")
    detector = keras_csp.Detector(
        tiny_backbone(128),
        "fpn",
        classes=2,
        input_shape=(128, 128, 3),
        levels=levels,
    )
    found = named(detector)
    assert found["neck"] == ["P6_down", "P7_down", "neck"]
    assert len(found["backbone"]) == 5


def test_a_backbone_of_keras_applications():
    backbone = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, include_top=False, weights=None
    )
    detector = keras_csp.Detector(
        backbone, "prn", classes=2, input_shape=(64, 64, 3)
    )
    found = named(detector)
    assert found["neck"] == ["neck"] and len(found["head"]) == 2
    theirs = {layer.name for layer in backbone.layers if layer.weights}
    assert set(found["backbone"]) == theirs


def own_graph(pooling, plain):
    """One head of stride 4 after a neck of Keras' layers, or of ours."""
    image = keras.Input((32, 32, 3))
    x = ConvNormAct(8, 3, 2, name="stem")(image)
    x = ConvNormAct(16, 3, 2, name="stage")(x)
    if pooling:
        x = SpatialPyramidPooling(name="spp")(x)
    if plain:
        x = keras.layers.Conv2D(8, 1, name="reduce")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        x = keras.layers.ReLU(name="relu")(x)
    else:
        x = ConvNormAct(8, 1, name="reduce")(x)
    x = keras.layers.Conv2D(7, 1, name="boxes")(x)
    x = YoloHead([(8, 8)], classes=2, stride=4, name="yolo")(x)
    return keras_csp.Detector(image, {"P2": x})


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("pooling", [False, True])
def test_a_graph_of_ones_own(pooling, plain):
    found = named(own_graph(pooling, plain))
    assert found == {
        "backbone": ["stem", "stage"],
        "neck": ["reduce", "norm"] if plain else ["reduce"],
        "head": ["boxes"],
    }


def test_heads_that_have_no_map_in_common():
    """As SSD's, which read the backbone; and a stride that is no power."""
    image = keras.Input((48, 48, 3))
    fine = ConvNormAct(8, 3, 2, name="fine")(image)
    coarse = ConvNormAct(8, 3, 2, name="coarse")(fine)
    outputs = {}
    for name, source, stride in (("a", fine, 2), ("b", coarse, 4)):
        x = keras.layers.Conv2D(7, 1, name=name)(source)
        outputs[name] = YoloHead([(8, 8)], classes=2, stride=stride)(x)
    found = named(keras_csp.Detector(image, outputs))
    assert found == {
        "backbone": ["fine", "coarse"],
        "neck": [],
        "head": ["b", "a"],
    }
    x = ConvNormAct(8, 3, 3, name="third")(image)
    x = keras.layers.Conv2D(7, 1, name="c")(x)
    head = YoloHead([(8, 8)], classes=2, stride=3)(x)
    found = named(keras_csp.Detector(image, {"c": head}))
    assert found["head"] == ["c"]
    assert found["backbone"] == ["third"]
