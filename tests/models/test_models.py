"""The full networks, against the authors' files and other people's code."""

import keras
import numpy as np
import pytest
from support import (
    GOLDEN,
    assert_every_weight_gets_a_gradient,
    randomize,
    run_python,
)

import keras_csp
from keras_csp._structure import trace
from keras_csp.layers import ConvNormAct, ResidualBlock
from keras_csp.training.phases import CLASSIFIER_PARTS, Phase


def authors_layers():
    """{factory: lines of facts} of the authors' cfg files."""
    path = GOLDEN / "darknet_layers.txt"
    networks = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            facts = networks.setdefault(line[1 : line.index("]")], [])
        elif not line.startswith("#"):
            facts.append(line)
    return networks


def our_layers(model, input_shape):
    for call in trace(model, input_shape):
        layer, side = call.layer, call.output_shape[0]
        activation = getattr(layer, "activation", "") or "linear"
        if isinstance(layer, ConvNormAct):
            yield (
                f"conv {layer.filters} {layer.kernel_size} {layer.strides} "
                f"{layer.groups} {activation} {side}"
            )
        elif isinstance(layer, ResidualBlock):
            yield f"shortcut {activation} {side}"
        elif isinstance(layer, keras.layers.MaxPooling2D):
            yield f"maxpool {layer.pool_size[0]} {layer.strides[0]} {side}"
        elif isinstance(layer, keras.layers.UpSampling2D):
            yield f"upsample {layer.size[0]} {side}"


@pytest.mark.parametrize("name", authors_layers())
def test_layers_are_those_of_the_authors_cfg(name):
    """Kind, width, kernel, stride, groups, activation, size, in order."""
    row = keras_csp.published(name)
    model = keras_csp.get_factory(name)(include_top=False)
    assert list(our_layers(model, row.input_shape)) == authors_layers()[name]


def leaves(model):
    """Convolutions, normalisations and classifier in order of execution."""
    kinds = (
        keras.layers.Conv2D,
        keras.layers.BatchNormalization,
        keras.layers.Dense,
    )
    calls = trace(model, (64, 64, 3))
    return [c.layer for c in calls if isinstance(c.layer, kinds)]


@pytest.mark.slow
def test_densenet_201_equals_keras_applications(rng):
    """Another implementation, the same weights: the same outputs."""
    shape = {"input_shape": (64, 64, 3), "weights": None, "classes": 10}
    ours = keras_csp.DenseNet201(**shape)
    theirs = randomize(keras.applications.DenseNet201(**shape))
    pairs = list(zip(leaves(ours), leaves(theirs), strict=True))
    for our_layer, their_layer in pairs:
        our_layer.set_weights(their_layer.get_weights())
    x = rng.random((2, 64, 64, 3), dtype="float32")
    np.testing.assert_allclose(
        np.asarray(ours(x)), np.asarray(theirs(x)), rtol=1e-3, atol=1e-5
    )


def every(names):
    return pytest.mark.parametrize("name", names)


@pytest.mark.slow
@every(keras_csp.list_models())
def test_every_network_takes_odd_sizes_and_channels(name, rng):
    """One network of open sides: a fixed size is one of those it takes."""
    model = keras_csp.get_factory(name)(
        include_top=False, pooling="avg", input_shape=(None, None, 4)
    )
    for size in ((33, 47), (65, 34)):
        y = np.asarray(model(rng.random((1, *size, 4), dtype="float32")))
        assert y.shape == (1, model.output_shape[-1])
        assert np.isfinite(y).all()
        assert np.ptp(y) > 0
    keras.utils.clear_session()


@pytest.mark.slow
@every(keras_csp.list_models())
def test_every_network_is_trained_whole_and_in_parts(name, rng):
    model = keras_csp.get_factory(name)(input_shape=(64, 64, 3), classes=5)
    assert_every_weight_gets_a_gradient(model, rng)
    trained = {}
    for part in CLASSIFIER_PARTS:
        Phase(part, 1.0, batch_normalization=True).apply(model)
        trained[part] = len(model.trainable_variables)
    assert 0 < trained["head"] < trained["last_stage"] < trained["all"]
    keras.utils.clear_session()


RELOAD = """
import sys
import keras_csp, keras, numpy as np
folder, name = sys.argv[1:]
x = np.load(f"{folder}/x.npy")
whole = keras.saving.load_model(f"{folder}/m.keras")
features = keras_csp.get_factory(name)(
    include_top=False, pooling="avg", weights=f"{folder}/m.weights.h5")
np.savez(f"{folder}/y.npz", whole=whole(x), features=features(x))
"""


@pytest.mark.slow
@every(["CSPResNeXt50", "CSPDenseNet201"])  # test_builder.py: the small
def test_full_networks_come_back_in_a_new_process(name, tmp_path, rng):
    model = keras_csp.get_factory(name)(input_shape=(64, 64, 3), classes=5)
    randomize(model)
    x = rng.random((2, 64, 64, 3), dtype="float32")
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    run_python(RELOAD, tmp_path, name)
    answer = np.load(tmp_path / "y.npz")
    np.testing.assert_array_equal(answer["whole"], np.asarray(model(x)))
    pooled = keras.Model(model.input, model.get_layer("avg_pool").output)
    np.testing.assert_allclose(
        answer["features"], np.asarray(pooled(x)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@every(["CSPResNeXt50", "CSPDarkNet53"])  # tests/test_mixed_precision.py: more
def test_mixed_float16_step_of_full_networks(name, rng):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras_csp.get_factory(name)(input_shape=(64, 64, 3), classes=5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = rng.random((4, 64, 64, 3), dtype="float32")
    for _ in range(2):
        assert np.isfinite(model.train_on_batch(images, np.arange(4)))
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)
