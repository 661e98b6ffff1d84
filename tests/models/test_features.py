import darknet_reference
import keras
import numpy as np
import pytest
from support import SMALL, randomize, tiny_backbone

import keras_csp
from keras_csp._keras_internals import producer
from keras_csp.darknet.layers import Route, Shortcut
from keras_csp.layers import YoloHead
from keras_csp.models.builder import build_network
from keras_csp.models.features import list_levels

# Architectures, section 4: C3, C4, C5 that the detectors read.
PYRAMIDS = {
    "CSPPeleeNet": (256, 512, 704),
    "PeleeNet": (256, 512, 704),
    "CSPResNeXt50": (512, 1024, 2048),
    "CSPDarkNet53": (256, 512, 1024),
    "CSPMobileNetV2": (192, 288, 640),
}


@pytest.mark.parametrize("name", PYRAMIDS)
@pytest.mark.parametrize("include_top", [False, True])
def test_levels_are_named_by_stride(name, include_top):
    shape = (128, 96, 3)
    with keras.StatelessScope(initialize_variables=False):
        model = keras_csp.get_factory(name)(
            include_top=include_top, input_shape=shape
        )
    features = keras_csp.feature_extractor(model)
    assert list(features.output) == ["P3", "P4", "P5"]
    for level, width in zip(features.output, PYRAMIDS[name]):
        stride = 2 ** int(level[1])
        assert features.output[level].shape[1:] == (
            128 // stride,
            96 // stride,
            width,
        )


def test_p5_is_the_last_feature_map(rng):
    model = keras_csp.CSPDenseNetbReference(include_top=False)
    features = keras_csp.feature_extractor(model, levels=("P5", "P2"))
    x = rng.random((1, 64, 64, 3), dtype="float32")
    answer = features(x)
    assert list(answer) == ["P5", "P2"]
    np.testing.assert_array_equal(
        np.asarray(answer["P5"]), np.asarray(model(x))
    )
    assert answer["P2"].shape == (1, 16, 16, 64)


def test_small_and_odd_inputs_do_not_confuse_the_levels():
    model = keras_csp.PeleeNet(include_top=False, input_shape=(33, 47, 3))
    features = keras_csp.feature_extractor(model)
    assert features.output["P4"].shape[1:] == (3, 3, 512)


def test_a_reloaded_model_and_shared_weights(tmp_path, rng):
    model = randomize(build_network(SMALL["SmallCSPPelee"], classes=4))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    features = keras_csp.feature_extractor(loaded, levels=("P2", "P3"))
    x = rng.random((1, 64, 64, 3), dtype="float32")
    before = np.asarray(features(x)["P3"])
    first = next(layer for layer in loaded.layers if layer.weights)
    first.set_weights([0.5 * w for w in first.get_weights()])
    assert np.abs(np.asarray(features(x)["P3"]) - before).max() > 0


def test_models_of_keras_applications_have_levels_too():
    model = keras.applications.MobileNetV2(weights=None, include_top=False)
    features = keras_csp.feature_extractor(model, levels=("P3", "P5"))
    assert features.output["P5"].shape[-1] == 1280


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), r"levels=\(\)"),
        ("P3", "levels='P3'"),
        (("C3",), "C3"),
        ((3,), "3"),
        (("P3", "P3"), "twice"),
        (("P3", "P6"), "no level P6; it has P1, P2, P3"),
    ],
)
def test_bad_levels_are_quoted(levels, message):
    model = build_network(SMALL["SmallMobile"], include_top=False)
    with pytest.raises(ValueError, match=message):
        keras_csp.feature_extractor(model, levels)


def test_not_a_model():
    with pytest.raises(ValueError, match="'CSPPeleeNet' of type str"):
        keras_csp.feature_extractor("CSPPeleeNet")


def steps(x, filters, name, kind=keras.layers.Conv2D, **options):
    """A stride of 2, to twice the stride."""
    return kind(
        filters, 3, strides=2, padding="same", name=f"{name}_down", **options
    )(x)


def operations(features):
    """{level: the name of the operation that gives it}."""
    return {
        level: producer(tensor).name
        for level, tensor in features.output.items()
    }


MERGES = {
    "Add": lambda x, y: keras.layers.Add()([x, y]),
    "Concatenate": lambda x, y: keras.layers.Concatenate()([x, y]),
    "Route": lambda x, y: Route()([x, y]),
    "Shortcut": lambda x, y: Shortcut()([x, y]),
    "layer of a dict": lambda x, y: Merge()({"x": x, "y": y}),
    "operation": keras.ops.add,
    "+": lambda x, y: x + y,
}


class Merge(keras.layers.Layer):
    def call(self, maps):
        return maps["x"] * maps["y"]


@pytest.mark.parametrize("merge", MERGES)
def test_the_last_map_whatever_made_it(merge, rng):
    """By hand, from the tensors that the graph was made of."""
    inputs = keras.Input((None, None, 3))
    x, tensors = inputs, {}
    for level in range(1, 4):
        x = keras.layers.Conv2D(4, 3, 2, padding="same")(x)
        y = keras.layers.Conv2D(4, 3, padding="same")(x)
        x = MERGES[merge](x, y)
        tensors[f"P{level}"] = x
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(x))
    features = keras_csp.feature_extractor(model, ("P1", "P2", "P3"))
    image = rng.random((1, 32, 32, 3), dtype="float32")
    expected = keras.Model(inputs, tensors)(image)
    for level, found in features(image).items():
        np.testing.assert_array_equal(found, expected[level])


def test_what_the_whole_block_reads_not_a_part_of_the_block():
    """A ResNet's block halves within, an Inception's in its branches."""
    inputs = keras.Input((64, 64, 3))
    x = steps(inputs, 8, "stem")
    x = keras.layers.Conv2D(16, 1, name="whole1")(x)
    narrow = keras.layers.Conv2D(4, 1, name="narrow")(x)
    narrow = keras.layers.ZeroPadding2D(1, name="pad")(narrow)
    branch = keras.layers.Conv2D(16, 3, 2, name="branch")(narrow)
    shortcut = steps(x, 16, "shortcut")
    x = keras.layers.Add(name="whole2")([branch, shortcut])
    # Squeeze and excitation: a pooled map that leads back to the level.
    weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Multiply(name="weighed")([x, weights])
    side = keras.layers.Conv2D(4, 1, name="side")(x)
    x = keras.layers.Concatenate(name="whole3")(
        [steps(side, 8, "side"), keras.layers.MaxPooling2D(2)(x)]
    )
    features = keras_csp.feature_extractor(
        keras.Model(inputs, x), ("P1", "P2", "P3")
    )
    assert operations(features) == {
        "P1": "whole1",
        "P2": "weighed",
        "P3": "whole3",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ResNet50V2", ("conv2_block2_out", "conv3_block3_out")),
        ("DenseNet121", ("pool2_conv", "pool3_conv")),
        ("InceptionV3", (None, "mixed2")),
        ("Xception", ("add", "add_1")),
    ],
)
def test_networks_of_keras_applications(name, expected):
    """As their own papers' figures: what each reduction reads."""
    keras.utils.clear_session()  # Xception's sums have no names of their own
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, name)(weights=None)
    found = operations(keras_csp.feature_extractor(model, ("P2", "P3")))
    for level, operation in zip(("P2", "P3"), expected):
        assert operation in (None, found[level])


def loaded(name, tmp_path):
    path = tmp_path / "network.cfg"
    path.write_text(darknet_reference.author_cfgs()[name])
    with keras.StatelessScope(initialize_variables=False):
        return keras_csp.darknet.load(path)


def test_shortcuts_and_routes_of_darknet(tmp_path):
    """By the cfg: darknet53's stage of stride 8 ends in layer 36."""
    network = loaded("cfg/darknet53.cfg", tmp_path)
    features = keras_csp.feature_extractor(network)
    assert operations(features) == {
        "P3": "shortcut_36",
        "P4": "shortcut_61",
        "P5": "shortcut_74",
    }


def test_a_darknet_detector_ends_before_its_heads(tmp_path):
    """By the cfg: 28 and 35 are the last before the heads' own, 29 and 36."""
    network = loaded("darknet/cfg/yolov4-tiny.cfg", tmp_path)
    features = keras_csp.feature_extractor(network, ("P2", "P3", "P4", "P5"))
    assert operations(features) == {
        "P2": "route_8",
        "P3": "route_16",
        "P4": "convolutional_35",
        "P5": "convolutional_28",
    }
    widths = [tensor.shape[-1] for tensor in features.outputs]
    assert widths == [128, 256, 256, 512]
    boxes = keras_csp.feature_extractor(network.inference_model(), ("P5",))
    assert operations(boxes) == {"P5": "convolutional_28"}


def test_of_a_detector_the_necks_maps(rng):
    detector = keras_csp.Detector(
        tiny_backbone(), classes=2, input_shape=(64, 64, 3)
    )
    neck = keras.tree.flatten(detector.get_layer("neck").output)
    features = keras_csp.feature_extractor(detector)
    for level, tensor in features.output.items():
        assert producer(tensor).name == "neck"
        assert any(tensor is output for output in neck)
        assert tensor.shape[1] == 64 // 2 ** int(level[1])


def test_a_head_whose_map_is_used_elsewhere_is_a_feature():
    """Only what is there for the head alone is left out."""
    inputs = keras.Input((64, 64, 3))
    x = steps(inputs, 7, "head", activation="relu")
    act = keras.layers.ReLU(name="act")(x)
    head = YoloHead([(10, 10)], 2, 2)
    alone = keras.Model(inputs, head(act))
    with pytest.raises(ValueError, match="no level P1; it has none"):
        keras_csp.feature_extractor(alone, ("P1",))
    used = keras.Model(inputs, [head(act), keras.layers.Flatten()(act)])
    features = keras_csp.feature_extractor(used, ("P1",))
    assert operations(features) == {"P1": "act"}


def test_models_inside_models(rng):
    backbone = randomize(tiny_backbone())
    image = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(0.5)(image)
    x = keras.layers.Conv2D(8, 3, 2, padding="same", name="P6")(backbone(x))
    model = keras.Model(image, keras.Sequential([keras.layers.Flatten()])(x))
    images = rng.random((2, 64, 64, 3), dtype="float32")
    features = keras_csp.feature_extractor(model, ("P3", "P5", "P6"))
    inside = keras_csp.feature_extractor(backbone, ("P3", "P5"))
    found, expected = features(images), inside(0.5 * images)
    for level in ("P3", "P5"):
        np.testing.assert_array_equal(found[level], expected[level])
    assert found["P6"].shape == (2, 1, 1, 8)
    assert np.asarray(found["P3"]).std() > 0
    # The weights are the same variables.
    shared = {id(weight) for weight in model.weights}
    assert {id(weight) for weight in features.weights} <= shared
    nested = keras.Model(image, model(image))
    again = keras_csp.feature_extractor(nested, ("P3", "P6"))(images)
    np.testing.assert_array_equal(again["P3"], found["P3"])


def test_layers_of_one_name_inside_two_models():
    image = keras.Input((64, 64, 3))
    first, second = (
        keras.Sequential(
            [
                keras.Input((None, None, 3)),
                keras.layers.Conv2D(3, 3, 2, name="same"),
            ]
        )
        for _ in range(2)
    )
    model = keras.Model(image, second(first(image)))
    with pytest.raises(ValueError, match=r'inside .*"same" is used 2 times'):
        keras_csp.feature_extractor(model, ("P1",))


def test_nine_levels_and_no_pooled_map():
    """A global pooling gives a 1x1 map, which is of no stride."""
    x = inputs = keras.Input((None, None, 3))
    for level in range(1, 10):
        x = steps(x, 2, f"P{level}")
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    pooled = keras.layers.Conv2D(4, 1)(pooled)
    model = keras.Model(inputs, pooled)
    levels = tuple(f"P{n}" for n in range(1, 10))
    assert list_levels(model) == levels
    features = keras_csp.feature_extractor(model, levels)
    assert set(operations(features).values()) == {
        f"P{n}_down" for n in range(1, 10)
    }


def test_what_only_the_models_own_size_fits_is_no_obstacle():
    """A `Reshape` of fixed sides; the maps before it have levels."""
    inputs = keras.Input((32, 32, 3))
    x = steps(steps(inputs, 4, "P1"), 4, "P2")
    flat = keras.layers.Reshape((8, 8, 4))(keras.layers.Flatten()(x))
    flat = keras.layers.Conv2D(4, 1)(flat)
    model = keras.Model(inputs, flat)
    assert operations(keras_csp.feature_extractor(model, ("P2",))) == {
        "P2": "P2_down"
    }


def test_two_images():
    one, other = keras.Input((64, 64, 3)), keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="with one image input"):
        keras_csp.feature_extractor(keras.Model([one, other], one + other))
