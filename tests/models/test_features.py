import keras
import numpy as np
import pytest
from support import SMALL, randomize

import keras_csp
from keras_csp.models.builder import build_network

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
    loaded.layers[1].set_weights(
        [0.5 * w for w in loaded.layers[1].get_weights()]
    )
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
