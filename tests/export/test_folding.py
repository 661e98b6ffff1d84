"""Folding against the formula in numpy, and against the model itself."""

import keras
import numpy as np
import pytest
from support import SMALL, randomize, tiny_backbone

import keras_csp
from keras_csp._keras_internals import producer
from keras_csp.export import fold_batchnorm
from keras_csp.layers import ConvNormAct, GroupedConv2D, with_image_spec
from keras_csp.models.builder import build_network


def norms_after_convolutions(model):
    """Of which the convolution's output goes nowhere else."""
    found = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            source = producer(layer.input)
            alone = len(source._outbound_nodes) == 1
            found += alone and isinstance(
                source, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
            )
    return found


@pytest.mark.parametrize("name", SMALL)
def test_the_answers_are_the_models(name, rng, tmp_path):
    model = randomize(
        build_network(SMALL[name], classes=5, input_shape=(64, 64, 3))
    )
    x = rng.random((2, 64, 64, 3), dtype="float32")
    before = model.get_weights()
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    folded = fold_batchnorm(model)
    found = keras.ops.convert_to_numpy(folded(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - expected.mean()).max() > 1e-3  # not a constant
    assert norms_after_convolutions(folded) == 0
    assert folded.count_params() < model.count_params()
    assert folded.name == model.name
    for mine, theirs in zip(model.get_weights(), before):
        np.testing.assert_array_equal(mine, theirs)
    folded.save(tmp_path / "folded.keras")
    again = keras.saving.load_model(tmp_path / "folded.keras")
    np.testing.assert_array_equal(
        again.get_weights()[0], folded.get_weights()[0]
    )
    np.testing.assert_allclose(again(x), found, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 4], ids=["full", "grouped", "depth"])
def test_the_formula(groups, rng):
    """s K and s (b - m) + t, of statistics drawn here."""
    inputs = keras.Input((9, 9, 4))
    unit = ConvNormAct(8, 3, strides=2, groups=groups, activation="relu")
    model = keras.Model(inputs, unit(inputs))
    kernel = rng.normal(size=unit.layers[1].kernel.shape)
    gamma, beta, mean = rng.normal(size=(3, 8))
    variance = rng.uniform(0.5, 2, 8)
    unit.layers[1].set_weights([kernel])
    unit.layers[2].set_weights([gamma, beta, mean, variance])
    (convolution,) = [
        layer for layer in fold_batchnorm(model).layers if layer.weights
    ]
    found, bias = convolution.get_weights()
    scale = gamma / np.sqrt(variance + 1e-5)
    flat = kernel.reshape(3, 3, -1, 8) if groups == 4 else kernel
    np.testing.assert_allclose(
        found.reshape(flat.shape), flat * scale, rtol=1e-5
    )
    np.testing.assert_allclose(bias, beta - mean * scale, rtol=1e-5, atol=1e-6)
    kinds = {1: keras.layers.Conv2D, 2: GroupedConv2D}
    assert type(convolution) is kinds.get(groups, keras.layers.DepthwiseConv2D)


def test_what_has_no_convolution_of_its_own_stays(rng):
    """Of a map that is used twice, of an activation, and without any."""
    inputs = keras.Input((8, 8, 3))
    convolve = keras.layers.Conv2D(4, 3, use_bias=False)
    shared = convolve(inputs)
    x = keras.layers.BatchNormalization(name="of_shared")(shared)
    x = keras.layers.Add()([x, shared])
    x = keras.layers.Conv2D(4, 1, activation="relu")(x)
    x = keras.layers.BatchNormalization(name="of_activation")(x)
    x = keras.layers.Conv2D(4, 1)(x)
    x = keras.layers.BatchNormalization(name="folded", scale=False)(x)
    x = keras.layers.BatchNormalization(name="second", center=False)(x)
    model = randomize(keras.Model(inputs, x))
    folded = fold_batchnorm(model)
    left = [
        layer.name
        for layer in folded.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert left == ["of_shared", "of_activation", "second"]
    images = rng.random((2, 8, 8, 3), dtype="float32")
    np.testing.assert_allclose(
        folded(images), model(images), rtol=1e-4, atol=1e-5
    )


def test_an_output_that_is_also_a_models_output_stays(rng):
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(features)
    model = randomize(keras.Model(inputs, {"before": features, "after": x}))
    images = rng.random((2, 8, 8, 3), dtype="float32")
    found, expected = fold_batchnorm(model)(images), model(images)
    for name in ("before", "after"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_a_detector_with_its_suppression(rng):
    detector = keras_csp.Detector(
        tiny_backbone(), classes=2, input_shape=(64, 64, 3)
    )
    model = randomize(detector).inference_model(score_threshold=0.3)
    x = rng.random((2, 64, 64, 3), dtype="float32")
    found = fold_batchnorm(model).predict_on_batch(x)
    expected = model.predict_on_batch(x)
    assert expected["count"].min() > 3
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-3, atol=1e-3)


def test_the_image_spec_stays(rng):
    """Of the first layer, which normalises; a model inside is no obstacle."""
    image = keras.Input((32, 32, 3))
    inner = keras.Model(image, ConvNormAct(4, 3, name="unit")(image))
    model = keras.Model(
        image, inner(keras.layers.ReLU()(inner.output[..., :3]))
    )
    model = randomize(
        with_image_spec(model, mean=(0.4, 0.5, 0.6), std=0.2, crop=0.5)
    )
    x = rng.random((2, 32, 32, 3), dtype="float32")
    folded = fold_batchnorm(model)
    assert keras_csp.image_spec(folded) == keras_csp.image_spec(model)
    assert keras_csp.image_spec(folded).crop == 0.5
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)
    kinds = [type(layer).__name__ for layer in folded.layers]
    assert kinds.count("Conv2D") == 1  # shared by its two calls
    assert kinds.count("BatchNormalization") == 1


def test_names_that_would_be_equal_are_told_apart(rng):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.ReLU(name="unit_conv")(inputs)
    x = keras.layers.ReLU(name="unit_conv_2")(x)
    model = randomize(keras.Model(inputs, ConvNormAct(4, name="unit")(x)))
    folded = fold_batchnorm(model)
    names = [layer.name for layer in folded.layers]
    assert names[1:4] == ["unit_conv", "unit_conv_2", "unit_conv_3"]
    x = rng.random((2, 8, 8, 3), dtype="float32")
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", ["model", None, keras.layers.Conv2D(3, 3)])
def test_mistakes(what):
    with pytest.raises(ValueError, match=r"functional keras\.Model\. Received"):
        fold_batchnorm(what)
