import keras
import numpy as np
import pytest
from support import SMALL

import keras_csp
from keras_csp.models.builder import build_network


@pytest.fixture
def two_layers():
    inputs = keras.Input((10, 10, 3))
    x = keras.layers.ZeroPadding2D(1)(inputs)
    x = keras.layers.Conv2D(4, 3, 2, use_bias=False)(x)  # 5x5
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D(2, padding="same")(x)  # 3x3
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(7)(x))


def test_counts_by_hand(two_layers):
    """3x3x3 kernels of 4 filters at 5x5; 2x2 pooling at 3x3; 4 to 7."""
    convolution, classifier, pooling = 2 * 108 * 25, 2 * 28, 4 * 4 * 9
    counted = keras_csp.count(two_layers)
    assert counted.params == 108 + 28
    assert counted.bflops == (convolution + classifier + pooling) / 1e9
    original = keras_csp.count(two_layers, "darknet-original")
    assert original.bflops == (convolution + classifier) / 1e9
    torch = keras_csp.count(two_layers, convention="torch")
    assert torch.params == 108 + 8 + 28 + 7
    assert torch.bflops == (convolution + classifier + 2 * 100) / 1e9
    # Read and written; the zeros around the image are not read from memory.
    cio = (300 + 100) + (100 + 36) + (36 + 4) + (4 + 7)
    assert counted.cio == original.cio == cio


@pytest.mark.parametrize(
    ("name", "millions"), [("ResNeXt50", 34.4), ("CSPResNeXt50", 32.6)]
)
def test_cio_of_figure_8(name, millions):
    model = keras_csp.get_factory(name)(input_shape=(256, 256, 3))
    assert f"{keras_csp.count(model).cio / 1e6:.1f}" == str(millions)


def test_cio_of_hardnet_138s():
    """HarDNet's paper counts convolutions alone, at 224: 19.6 M (Table 4)."""
    counted = keras_csp.count(keras_csp.HarDNet138s())
    cio = sum(layer.cio for layer in counted.layers if layer.kind == "Conv2D")
    assert f"{cio / 1e6:.1f}" == "19.6"


@pytest.mark.parametrize("row", SMALL.values(), ids=SMALL)
def test_torch_params_are_all_trainable_weights(row):
    model = build_network(row)
    counted = keras_csp.count(model, "torch")
    assert counted.params == sum(
        np.prod(w.shape) for w in model.trainable_weights
    )
    assert counted.params == sum(layer.params for layer in counted.layers)
    assert not counted.uncounted


def test_a_shared_layer_is_run_twice_and_owned_once():
    inputs = keras.Input((8, 8, 4))
    layer = keras.layers.Conv2D(4, 1, use_bias=False)
    once = keras.Model(inputs, layer(inputs))
    twice = keras.Model(inputs, layer(layer(inputs)))
    assert keras_csp.count(twice).params == keras_csp.count(once).params
    assert keras_csp.count(twice).bflops == 2 * keras_csp.count(once).bflops


def test_another_packages_model_is_counted_too():
    """MobileNet of keras.applications: 4.2 M parameters, 569 M mult-adds."""
    model = keras.applications.MobileNet(weights=None)
    counted = keras_csp.count(model, "darknet-original")
    assert f"{counted.params / 1e6:.1f}" == "4.2"
    assert round(counted.bflops / 2 * 1000) == 569


def test_weights_that_the_count_cannot_see_are_named():
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(4, 1)(inputs)
    x = keras.layers.Conv2DTranspose(4, 3, name="unknown")(x)
    counted = keras_csp.count(keras.Model(inputs, x))
    assert counted.uncounted == ("unknown",)
    assert "not counted: unknown" in str(counted)


def test_the_table_prints(two_layers):
    text = str(keras_csp.count(two_layers))
    lines = text.splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "output",
        "params",
        "MFLOPs",
        "CIO",
    ]
    assert any("Conv2D" in line and "5x5x4" in line for line in lines)
    assert "10x10x3" in lines[-1]


def test_models_inside_models_and_operations_between_layers():
    """By hand: 3x3x4x4 kernels at 8x8, twice, then 4x4x4 at 8x4."""
    inner_input = keras.Input((None, None, 4))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(inner_input)
    inner = keras.Model(inner_input, x + inner_input)
    inputs = keras.Input((8, 8, 4))
    x = keras.ops.relu(inner(inner(inputs)))[:, :, :4]
    x = keras.Sequential([keras.layers.Conv2D(4, 1, use_bias=False)])(x)
    counted = keras_csp.count(keras.Model(inputs, x))
    assert counted.params == 9 * 16 + 16
    assert counted.bflops == 2 * (2 * 9 * 16 * 64 + 16 * 32) / 1e9
    assert counted.cio == 2 * (256 + 256) + (128 + 128)
    assert not counted.uncounted


def test_open_sides_need_a_shape():
    model = build_network(SMALL["SmallMobile"], include_top=False)
    with pytest.raises(ValueError, match="input_shape=None"):
        keras_csp.count(model)
    small = keras_csp.count(model, input_shape=(64, 64, 3))
    large = keras_csp.count(model, input_shape=(128, 128, 3))
    assert large.bflops == pytest.approx(4 * small.bflops)


def test_build_and_count_counts_the_same_without_values():
    made = []

    def build():
        made.append(keras_csp.CSPPeleeNet(weights=None))
        return made[-1]

    counted = keras_csp.analysis.cost.build_and_count(build, "torch")
    assert all(variable._value is None for variable in made[0].variables)
    model = keras_csp.CSPPeleeNet(weights=None)
    assert np.std(model.get_weights()[0]) > 0  # Keras makes values again
    expected = keras_csp.count(model, "torch")
    assert counted.params == expected.params
    assert counted.bflops == expected.bflops
    assert counted.cio == expected.cio
    assert len(counted.layers) == len(expected.layers) > 100


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("model", {}, "'model' of type str"),
        (None, {}, "None"),
        ("two_layers", {"convention": "mac"}, "convention='mac'"),
        ("two_layers", {"input_shape": (8, 8)}, r"\(8, 8\)"),
        ("two_layers", {"input_shape": (10, 10, 5)}, r"3 channels.*10, 5\)"),
        (keras.Sequential([keras.layers.ReLU()]), {}, "knows its input"),
    ],
)
def test_bad_arguments_are_quoted(request, model, options, message):
    if model == "two_layers":
        model = request.getfixturevalue(model)
    with pytest.raises(ValueError, match=message):
        keras_csp.count(model, **options)
