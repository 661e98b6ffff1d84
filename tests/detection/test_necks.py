"""The fusion tables of Fig. 6: widths, and the wiring of EFM and of PRN."""

import keras
import numpy as np
import pytest
from keras import ops
from support import randomize

from keras_csp.detection import NECKS, get_neck
from keras_csp.layers import (
    ConvNormAct,
    Maxout,
    SpatialAttention,
    SpatialPyramidPooling,
)

# The maps of a backbone for an image of 32 x 64, of widths like no neck's.
PYRAMID = {"P3": (4, 8, 20), "P4": (2, 4, 24), "P5": (1, 2, 28)}
LEVELS = {
    "fpn": ("P4", "P5"),
    "prn": ("P4", "P5"),
    "cem": ("P3", "P4", "P5"),
    "gfm": ("P3", "P4", "P5"),
    "efm": ("P3", "P4", "P5"),
    "panet": ("P3", "P4", "P5"),
}


def built(name, attention=None, spp=False, pyramid=PYRAMID, levels=None):
    neck = get_neck(name, levels, attention, spp)
    fusion = neck.make("neck")
    fusion.build({level: (None, *pyramid[level]) for level in neck.levels})
    return fusion


@pytest.mark.parametrize("name", NECKS)
@pytest.mark.parametrize("attention", [None, "sam"])
@pytest.mark.parametrize("spp", [False, True])
def test_every_neck_builds_with_every_option(name, attention, spp):
    fusion = built(name, attention, spp)
    shapes = {level: (2, *shape) for level, shape in PYRAMID.items()}
    answer = fusion.compute_output_shape(shapes)
    assert {level: shape[:3] for level, shape in answer.items()} == {
        level: (2, *PYRAMID[level][:2]) for level in LEVELS[name]
    }
    kinds = [type(layer).__name__ for layer in fusion._flatten_layers()]
    assert kinds.count("SpatialAttention") == (
        len(LEVELS[name]) if attention else 0
    )
    assert kinds.count("SpatialPyramidPooling") == int(spp)


@pytest.mark.parametrize("name", NECKS)
@pytest.mark.parametrize(
    "levels", [("P3", "P4"), ("P2", "P3", "P4", "P5"), ("P3", "P4", "P5", "P6")]
)
def test_every_neck_takes_other_levels(name, levels, rng):
    """Every level of its own size, and each depends on the coarsest one: in
    efm, which exchanges with neighbours, the coarsest two alone."""
    pyramid = {
        level: (2 ** (len(levels) - i), 2 ** (len(levels) - i), 8 + i)
        for i, level in enumerate(levels)
    }
    neck = NECKS[name](levels=levels)
    fusion = randomize(built(name, pyramid=pyramid, levels=levels))
    assert neck.levels == levels
    maps = maps_of(rng, pyramid)
    answer = fusion(maps)
    for level, shape in pyramid.items():
        assert answer[level].shape[:3] == (2, *shape[:2])
    changed = fusion({**maps, levels[-1]: maps[levels[-1]] + 1})
    for level in levels[-2:] if name == "efm" else levels:
        assert np.abs(np.asarray(changed[level] - answer[level])).max() > 1e-3


@pytest.mark.parametrize("widths", [24, {"P3": 16, "P4": 24, "P5": 40}])
@pytest.mark.parametrize("name", NECKS)
def test_widths_are_an_option(name, widths):
    levels = ("P3", "P4", "P5")
    if name == "cem" and isinstance(widths, dict):
        with pytest.raises(ValueError, match="one width"):
            NECKS[name](levels=levels, widths=widths)
        return
    fusion = NECKS[name](levels=levels, widths=widths).make("neck")
    shapes = {level: (2, *shape) for level, shape in PYRAMID.items()}
    fusion.build(shapes)
    answer = fusion.compute_output_shape(shapes)
    each = widths if isinstance(widths, dict) else dict.fromkeys(levels, widths)
    assert {level: shape[-1] for level, shape in answer.items()} == each


def test_wrong_options_are_quoted():
    with pytest.raises(ValueError, match=r"one of 'fpn', .*neck='bifpn'"):
        get_neck("bifpn")
    with pytest.raises(ValueError, match=r"one of 'fpn', .*neck=\['efm'\]"):
        get_neck(["efm"])
    for levels in (("P3",), ("P3", "P5"), ("P5", "P4"), "P3P4", ("P1", "P2")):
        with pytest.raises(ValueError, match="two to five of P2 to P7"):
            get_neck("efm", levels)
    with pytest.raises(ValueError, match=r"must have the levels .*\{'P3': 8\}"):
        NECKS["efm"](widths={"P3": 8})
    with pytest.raises(ValueError, match=r"options of the neck.*attention='sa"):
        get_neck(NECKS["efm"](), attention="sam")


@pytest.mark.parametrize("name", NECKS)
def test_every_node_is_read(name):
    neck = get_neck(name)
    read = {name for node in neck.nodes for name in node.inputs}
    nodes = {node.name for node in neck.nodes}
    assert nodes - read <= set(neck.outputs.values())


def maps_of(rng, pyramid=PYRAMID):
    return {
        level: rng.normal(size=(2, *shape)).astype("float32")
        for level, shape in pyramid.items()
    }


class Rebuilt:
    """Layers written out by hand, each with the next weights of a neck."""

    def __init__(self, fusion):
        layers = [layer for node in fusion.nodes for layer in node.layers]
        self.given = [x for x in layers if isinstance(x, ConvNormAct)]
        self.sams = [x for x in layers if isinstance(x, SpatialAttention)]

    def conv(self, x, filters, size=1, strides=1):
        """The layer of these sizes that comes next in the neck."""
        source = self.given.pop(0)
        layer = ConvNormAct(filters, size, strides)
        layer.build(x.shape)
        layer.set_weights(source.get_weights())
        return layer(x)


def up(x):
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)


def leaky(x):
    return ops.leaky_relu(x, 0.1)


def assert_same(fusion, maps, expected):
    answer = fusion(maps)
    assert set(answer) == set(expected)
    for level in expected:
        y = np.asarray(expected[level])
        assert y.std() > 0.01
        np.testing.assert_allclose(
            np.asarray(answer[level]), y, atol=1e-4, err_msg=level
        )


@pytest.mark.parametrize(
    ("attention", "spp"), [(None, False), ("sam", False), (None, True)]
)
def test_efm_as_the_paper_describes_it(attention, spp, rng):
    """From 13 to 26 and from 26 to 52 a 1x1 and up; downwards a 3x3 / 2."""
    fusion = randomize(built("efm", attention, spp))
    maps = maps_of(rng)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    p5 = conv(maps["P5"], 256)
    p4 = conv(maps["P4"], 128)
    p3 = conv(maps["P3"], 64)
    from_13 = up(conv(p5, 128))
    from_26_up = up(conv(p4, 64))
    from_52 = conv(p3, 128, 3, 2)
    from_26_down = conv(p4, 256, 3, 2)
    inputs = {
        "P3": (p3, p3, from_26_up),
        "P4": (from_52, p4, from_13),
        "P5": (from_26_down, p5, p5),
    }
    fused = {}
    for level, three in inputs.items():
        width = three[0].shape[-1]
        y = ops.maximum(ops.maximum(*three[:2]), three[2])
        if attention:
            sam = SpatialAttention(Maxout(width))
            x = ops.concatenate(three, axis=-1)
            sam.build(x.shape)
            sam.set_weights(by_hand.sams.pop(0).get_weights())
            y = y * sam.weigh(x)
        fused[level] = y
    expected = {}
    for level, x in fused.items():
        width = x.shape[-1]
        if spp and level == "P5":
            y = conv(SpatialPyramidPooling()(x), 512)
            y = ops.maximum(y[..., :256], y[..., 256:])
        else:
            y = conv(x, width, 3)
        expected[level] = conv(y, width, 3)
    assert not by_hand.given
    assert not by_hand.sams
    assert_same(fusion, maps, expected)


@pytest.mark.parametrize("channels", [28, 160])
def test_prn_as_enet_coco_has_it(channels, rng):
    """With a P4 narrower and one wider than the 128 that it is added to."""
    pyramid = {"P4": (2, 4, channels), "P5": (1, 2, 36)}
    fusion = randomize(built("prn", pyramid=pyramid))
    maps = maps_of(rng, pyramid)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    reduced = conv(maps["P5"], 256)
    wide = conv(reduced, 256, 3)
    p5 = leaky(wide + reduced)
    top = up(conv(wide, 128))
    c4 = maps["P4"][..., :128]
    c4 = np.pad(c4, [(0, 0)] * 3 + [(0, 128 - c4.shape[-1])])
    p4 = leaky(top + c4)
    p4 = conv(p4, 128, 3)
    p4 = leaky(p4 + top)
    p4 = leaky(p4 + c4)
    assert not by_hand.given
    assert_same(fusion, maps, {"P4": p4, "P5": p5})


def test_prn_3l_repeats_the_joint_a_level_below(rng):
    """P4 and P5 are PRN's; P3 starts from the 3x3 of P4."""
    fusion = randomize(built("prn", levels=("P3", "P4", "P5")))
    maps = maps_of(rng)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    reduced = conv(maps["P5"], 256)
    wide = conv(reduced, 256, 3)
    expected = {"P5": leaky(wide + reduced)}
    for level in ("P4", "P3"):
        top = up(conv(wide, 128))
        c = np.pad(
            maps[level], [(0, 0)] * 3 + [(0, 128 - maps[level].shape[-1])]
        )
        wide = conv(leaky(top + c), 128, 3)
        expected[level] = leaky(leaky(wide + top) + c)
    assert not by_hand.given
    assert_same(fusion, maps, expected)


def test_fpn_is_yolov3_tinys(rng):
    fusion = randomize(built("fpn", levels=("P3", "P4", "P5")))
    maps = maps_of(rng)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    p5 = conv(maps["P5"], 256)
    expected = {"P5": conv(p5, 256, 3)}
    p4 = ops.concatenate([up(conv(p5, 128)), maps["P4"]], axis=-1)
    expected["P4"] = conv(p4, 128, 3)
    p3 = up(conv(expected["P4"], 128))
    p3 = ops.concatenate([p3, maps["P3"]], axis=-1)
    expected["P3"] = conv(p3, 128, 3)
    assert not by_hand.given
    assert_same(fusion, maps, expected)


def test_cem_sums_three_levels_and_the_image(rng):
    fusion = randomize(built("cem"))
    maps = maps_of(rng)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    total = up(conv(maps["P5"], 128)) + conv(maps["P4"], 128)
    total = total + conv(conv(maps["P3"], 128), 128, 3, 2)
    image = maps["P5"].mean((1, 2), keepdims=True)
    total = total + conv(image, 128)
    whole = conv(conv(total, 128), 128, 3)
    expected = {"P3": up(whole), "P4": whole, "P5": conv(whole, 128, 3, 2)}
    assert not by_hand.given
    assert_same(fusion, maps, expected)


def test_gfm_gathers_one_map_that_all_levels_read(rng):
    fusion = randomize(built("gfm"))
    maps = maps_of(rng)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    p5, p4, p3 = (
        conv(maps[level], width)
        for level, width in (("P5", 256), ("P4", 128), ("P3", 64))
    )
    from_p5 = up(conv(p5, 128))
    from_p3 = conv(p3, 128, 3, 2)
    whole = ops.maximum(ops.maximum(from_p3, p4), from_p5)
    whole = conv(whole, 128, 3)
    down, across = up(conv(whole, 64)), conv(whole, 256, 3, 2)
    expected = {}
    for level, pair in (
        ("P3", (down, p3)),
        ("P4", (whole, p4)),
        ("P5", (across, p5)),
    ):
        width = pair[1].shape[-1]
        y = conv(ops.concatenate(pair, axis=-1), width)
        expected[level] = conv(y, width, 3)
    assert not by_hand.given
    assert_same(fusion, maps, expected)


def test_panet_goes_down_and_then_up(rng):
    """Top-down as FPN with laterals, then bottom-up by strided 3x3."""
    fusion = randomize(built("panet"))
    maps = maps_of(rng)
    by_hand = Rebuilt(fusion)
    conv = by_hand.conv
    widths = {"P5": 256, "P4": 128, "P3": 64}
    down = {"P5": conv(maps["P5"], 256)}
    for level, coarser in (("P4", "P5"), ("P3", "P4")):
        lateral = conv(maps[level], widths[level])
        top = up(conv(down[coarser], widths[level]))
        y = conv(ops.concatenate([top, lateral], axis=-1), widths[level])
        down[level] = conv(y, widths[level], 3)
    expected = {"P3": down["P3"]}
    for level, finer in (("P4", "P3"), ("P5", "P4")):
        bottom = conv(expected[finer], widths[level], 3, 2)
        y = ops.concatenate([bottom, down[level]], axis=-1)
        expected[level] = conv(conv(y, widths[level]), widths[level], 3)
    assert not by_hand.given
    assert_same(fusion, maps, expected)


def test_configuration_round_trip(rng):
    fusion = randomize(built("efm", "sam", spp=True))
    config = keras.saving.serialize_keras_object(fusion)
    again = keras.saving.deserialize_keras_object(config)
    again.build({level: (None, *shape) for level, shape in PYRAMID.items()})
    again.set_weights(fusion.get_weights())
    maps = maps_of(rng)
    assert_same(again, maps, fusion(maps))
