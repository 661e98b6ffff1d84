"""FusionNode and PyramidFusion against numpy."""

import keras
import numpy as np
import pytest
import reference
from support import (
    assert_configuration_round_trip,
    assert_every_weight_gets_a_gradient,
    randomize,
    reload_config,
    unit_weights,
)

from keras_csp.layers import ConvNormAct, FusionNode, PyramidFusion


def maps_of(rng, *shapes):
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def assert_node_gives(node, maps, expected):
    shapes = [x.shape for x in maps]
    node.build(shapes)
    y = np.asarray(node(maps))
    np.testing.assert_allclose(y, expected, 1e-5, 1e-6)
    assert y.shape == tuple(node.compute_output_shape(shapes))


def test_concat(rng):
    maps = maps_of(rng, (2, 3, 4, 2), (2, 3, 4, 5), (2, 3, 4, 2))
    expected = np.concatenate(maps, axis=-1)
    assert_node_gives(FusionNode(("a", "b", "a")), maps, expected)


@pytest.mark.parametrize("merge", ["concat", "sum", "shortcut"])
def test_one_map_is_left_as_it_is(merge, rng):
    (x,) = maps_of(rng, (2, 3, 4, 2))
    node = FusionNode("a", merge=merge)
    assert node.inputs == ("a",)
    assert_node_gives(node, [x], x)


def test_sum_adds_a_1x1_map_to_every_position(rng):
    a, b, image = maps_of(rng, (2, 3, 4, 5), (2, 3, 4, 5), (2, 1, 1, 5))
    node = FusionNode(("a", "b", "image"), merge="sum")
    assert_node_gives(node, [a, b, image], a + b + image)


def test_shortcut_has_the_first_maps_width(rng):
    first, narrow, wide = maps_of(rng, (2, 3, 4, 4), (2, 3, 4, 2), (2, 3, 4, 7))
    expected = first + wide[..., :4]
    expected[..., :2] += narrow
    node = FusionNode(("a", "b", "c"), merge="shortcut")
    assert_node_gives(node, [first, narrow, wide], expected)


def test_layers_follow_the_merge_in_order(rng):
    maps = maps_of(rng, (1, 4, 6, 2), (1, 4, 6, 3))
    node = FusionNode(("a", "b"), [ConvNormAct(4), ConvNormAct(3, 3, 2)])
    node.build([x.shape for x in maps])
    randomize(node)
    y = np.concatenate(maps, axis=-1)
    y = reference.conv_norm_act(y, unit_weights(node.layers[0]))
    y = reference.conv_norm_act(y, unit_weights(node.layers[1]), 2)
    assert y.shape == (1, 2, 3, 3)
    assert_node_gives(node, maps, y)


def small_fusion():
    """A top-down path, and one upwards from what it made."""
    nodes = [
        FusionNode(
            "P4", [ConvNormAct(3), keras.layers.UpSampling2D(2)], name="top"
        ),
        FusionNode(("top", "P3"), ConvNormAct(4, 3), name="fine"),
        FusionNode("fine", ConvNormAct(5, 3, 2), name="down"),
        FusionNode(
            ("P4", "down"),
            keras.layers.LeakyReLU(0.1),
            merge="shortcut",
            name="coarse",
        ),
    ]
    return PyramidFusion(nodes, {"P3": "fine", "P4": "coarse"}, name="fusion")


def pyramid(rng):
    p3, p4 = maps_of(rng, (2, 4, 6, 3), (2, 2, 3, 6))
    return {"P3": p3, "P4": p4}


def test_pyramid_runs_its_nodes_in_order(rng):
    maps = pyramid(rng)
    fusion = small_fusion()
    fusion.build({level: x.shape for level, x in maps.items()})
    randomize(fusion)

    top, fine, down = (
        unit_weights(node.layers[0]) for node in fusion.nodes[:3]
    )
    y = reference.double(reference.conv_norm_act(maps["P4"], top))
    p3 = np.concatenate([y, maps["P3"]], axis=-1)
    p3 = reference.conv_norm_act(p3, fine)
    p4 = maps["P4"].astype("float64")
    p4[..., :5] += reference.conv_norm_act(p3, down, 2)
    expected = {"P3": p3, "P4": reference.leaky(p4)}

    answer = fusion(maps)
    shapes = fusion.compute_output_shape({k: x.shape for k, x in maps.items()})
    assert set(answer) == set(shapes) == {"P3", "P4"}
    for level, y in expected.items():
        assert tuple(shapes[level]) == y.shape
        np.testing.assert_allclose(np.asarray(answer[level]), y, atol=1e-5)


def test_maps_of_open_sides(rng):
    inputs = {
        "P3": keras.Input((None, None, 3), name="P3"),
        "P4": keras.Input((None, None, 6), name="P4"),
    }
    fusion = small_fusion()
    outputs = fusion(inputs)
    assert outputs["P3"].shape == (None, None, None, 4)
    assert outputs["P4"].shape == (None, None, None, 6)
    maps = pyramid(rng)
    answer = keras.Model(inputs, outputs)(maps)
    for level, y in fusion(maps).items():
        np.testing.assert_array_equal(np.asarray(answer[level]), np.asarray(y))


def test_mixed_precision(rng):
    keras.config.set_dtype_policy("mixed_float16")
    inputs = {"P3": keras.Input((4, 6, 3)), "P4": keras.Input((2, 3, 6))}
    fusion = small_fusion()
    outputs = fusion(inputs)
    assert {y.dtype for y in outputs.values()} == {"float16"}
    answer = fusion(pyramid(rng))["P3"]
    assert keras.backend.standardize_dtype(answer.dtype) == "float16"
    assert {w.dtype for w in fusion.weights} == {"float32"}


def test_node_configuration_round_trip(rng):
    node = FusionNode(("a", "b"), [ConvNormAct(3)], "sum", name="node")
    maps = maps_of(rng, (1, 3, 4, 2), (1, 1, 1, 2))
    assert_configuration_round_trip(node, maps)
    again = reload_config(node)
    assert (again.inputs, again.merge) == (("a", "b"), "sum")


def test_pyramid_configuration_round_trip(rng):
    maps = pyramid(rng)
    fusion = small_fusion()
    expected = fusion(maps)
    again = reload_config(fusion)
    answer = again(maps)
    again.set_weights(fusion.get_weights())
    answer = again(maps)
    assert again.outputs == fusion.outputs
    for level, y in expected.items():
        np.testing.assert_array_equal(
            np.asarray(answer[level]), np.asarray(y), level
        )


def test_every_weight_gets_a_gradient(rng):
    inputs = keras.Input((64, 64, 3))
    levels = {
        "P3": keras.layers.AveragePooling2D(8)(inputs),
        "P4": ConvNormAct(6, name="wide")(
            keras.layers.AveragePooling2D(16)(inputs)
        ),
    }
    fused = small_fusion()(levels)
    flat = [keras.layers.Flatten()(fused[level]) for level in ("P3", "P4")]
    model = keras.Model(inputs, keras.layers.Concatenate()(flat))
    assert_every_weight_gets_a_gradient(model, rng)


def node(*names, name="node", merge="concat"):
    return FusionNode(names, merge=merge, name=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FusionNode("a", merge="product"),
            "`merge` must be one of 'concat', 'sum', 'shortcut'. "
            "Received: merge='product'",
        ),
        (
            lambda: FusionNode(()),
            r"`inputs` must be a name or names of maps. Received: inputs=\(\)",
        ),
        (lambda: FusionNode(("a", 4)), r"Received: inputs=\('a', 4\)"),
        (
            lambda: node("a", "b").build([(None, 4, 4, 2), (None, 4, 2, 2)]),
            "The maps of node 'node' must have equal height and width. "
            r"Received: \('a', 'b'\) of "
            r"\[\(None, 4, 4, 2\), \(None, 4, 2, 2\)\]",
        ),
        (  # Only a sum takes a 1x1 map.
            lambda: node("a", "b").build([(None, 4, 4, 2), (None, 1, 1, 2)]),
            "must have equal height and width",
        ),
        (
            lambda: node("a", "b", merge="sum").build(
                [(None, 4, 4, 2), (None, 4, 4, 3)]
            ),
            "The maps that node 'node' sums must have equal channels. "
            r"Received: \('a', 'b'\) of "
            r"\[\(None, 4, 4, 2\), \(None, 4, 4, 3\)\]",
        ),
        (
            lambda: PyramidFusion([node("P3"), node("P4")], {"P3": "node"}),
            "`nodes` must have names of their own. "
            r"Received: \['node', 'node'\]",
        ),
        (
            lambda: PyramidFusion([node("P3")], {"P3": "P3"}),
            r"`outputs` must name nodes, one of \['node'\]. Received: "
            "outputs={'P3': 'P3'}",
        ),
        (lambda: PyramidFusion([node("P3")], {}), "Received: outputs={}"),
        (
            lambda: PyramidFusion(
                [node("later"), node("P3", name="later")],
                {"P3": "node"},
                name="fusion",
            ).build({"P3": (None, 4, 4, 2)}),
            "Node 'node' of layer 'fusion' reads 'later', which nothing "
            r"before it has. Known: \['P3'\]",
        ),
    ],
)
def test_bad_arguments_are_quoted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
