"""The contract of keras.applications, on small networks with all layers."""

import copy
import inspect
import io
import pickle

import keras
import numpy as np
import pytest
from support import (
    SMALL,
    TESTS,
    assert_every_weight_gets_a_gradient,
    randomize,
    run_python,
)

import keras_csp
from keras_csp import _registry
from keras_csp.analysis.published import published_rows
from keras_csp.models.builder import build_network

small = pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
LAST = {
    "SmallCSPResNeXt": 24,
    "SmallCSPPelee": 40,
    "SmallCSPDense": None,
    "SmallElastic": 16,
    "SmallCS3": 24,
    "SmallMobile": 24,
}


def test_signature_is_that_of_keras_applications():
    theirs = inspect.signature(keras.applications.DenseNet201).parameters
    for name in keras_csp.list_models():
        ours = inspect.signature(keras_csp.get_factory(name)).parameters
        assert list(ours)[: len(theirs)] == list(theirs), name
        for key, parameter in theirs.items():
            if key not in ("weights", "name"):
                assert ours[key].default == parameter.default, (name, key)


def test_list_models_names_what_the_package_exports():
    names = keras_csp.list_models()
    assert set(names) == {
        name for name in keras_csp.models.__all__ if name[0].isupper()
    }
    for name in names:
        assert getattr(keras_csp, name) is keras_csp.get_factory(name)
        assert keras_csp.get_factory(name).__name__ == name


def test_docstrings_say_what_is_known():
    """The table of published numbers and the specs say the same of each."""
    for row in published_rows():
        text = keras_csp.get_factory(row.factory).__doc__
        words = {"exact": ("Exact", "Published")}
        expected = words.get(row.provenance, (row.provenance.capitalize(),))
        assert text.split("\n\n")[1].startswith(expected), row.factory


class _Unpickled(pickle.Unpickler):
    """Notes what is looked up by name."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.names = []

    def find_class(self, module, name):
        self.names.append((module, name))
        return super().find_class(module, name)


@pytest.mark.parametrize("name", keras_csp.list_models())
def test_factories_are_pickled_by_name_and_copied(name):
    made = keras_csp.get_factory(name)
    reader = _Unpickled(pickle.dumps(made))
    assert reader.load() is made
    assert reader.names == [(made.__module__, name)]
    assert copy.deepcopy(made) is made


def test_factory_of_a_module_is_pickled_from_there(tmp_path, monkeypatch):
    """A network of the user's, in a file of the user's."""
    (tmp_path / "my_networks.py").write_text(
        "from keras_csp.models.builder import factory\n"
        "from support import SMALL\n"
        "SmallMobile = factory(SMALL['SmallMobile'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_registry, "_FACTORIES", dict(_registry._FACTORIES))
    import my_networks

    made = my_networks.SmallMobile
    assert made.__module__ == "my_networks"
    assert pickle.loads(pickle.dumps(made)) is made


def test_integers_of_numpy():
    network = SMALL["SmallMobile"]
    configurations = set()
    for kind in (int, np.int64, np.uint8):
        keras.utils.clear_session()  # the numbers in names start anew
        model = build_network(
            network,
            input_shape=(kind(64), kind(32), kind(3)),
            classes=kind(2),
        )
        configurations.add(model.to_json())
    assert len(configurations) == 1


def test_first_layer_holds_the_image_spec():
    network = SMALL["SmallMobile"]
    spec = keras_csp.image_spec(build_network(network))
    assert spec == keras_csp.ImageSpec(size=(64, 64))
    spec = keras_csp.image_spec(build_network(network, include_top=False))
    assert spec.size == (64, 64)  # the published size
    image = keras.Input((40, 50, 3))
    model = build_network(network, include_top=False, input_tensor=image)
    assert model.layers[1].name == "preprocessing"
    assert keras_csp.image_spec(model).size == (40, 50)


@small
def test_no_top(network):
    model = build_network(network, include_top=False)
    assert model.input_shape == (None, None, None, 3)
    assert len(model.output_shape) == 4
    assert LAST[network.name] in (None, model.output_shape[-1])


@small
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling(network, pooling, rng):
    features = build_network(network, include_top=False)
    pooled = build_network(network, include_top=False, pooling=pooling)
    pooled.set_weights(randomize(features).get_weights())
    x = rng.random((2, 33, 47, 3), dtype="float32")
    reduce = {"avg": np.mean, "max": np.max}[pooling]
    np.testing.assert_allclose(
        np.asarray(pooled(x)),
        reduce(np.asarray(features(x)), axis=(1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )


@small
@pytest.mark.parametrize("channels", [1, 4])
def test_other_input_channels(network, channels, rng):
    model = build_network(
        network, include_top=False, input_shape=(None, None, channels)
    )
    assert model(rng.random((1, 40, 33, channels))).shape[0] == 1


@small
@pytest.mark.parametrize("sides", [(32, 32), (33, 47), (65, 34)])
def test_odd_sizes_have_the_shape_they_announce(network, sides, rng):
    model = build_network(network, input_shape=(*sides, 3), classes=5)
    outputs = keras.Model(model.input, [la.output for la in model.layers[1:]])
    for real, announced in zip(
        outputs(rng.random((2, *sides, 3))), outputs.outputs
    ):
        assert tuple(real.shape)[1:] == tuple(announced.shape)[1:]


@small
def test_open_sides_equal_fixed_sides(network, rng):
    fixed = build_network(network, include_top=False, input_shape=(45, 39, 3))
    opened = build_network(network, include_top=False)
    opened.set_weights(randomize(fixed).get_weights())
    x = rng.random((1, 45, 39, 3), dtype="float32")
    np.testing.assert_allclose(
        np.asarray(opened(x)), np.asarray(fixed(x)), atol=1e-5
    )
    np.testing.assert_allclose(  # compiled, the sides are unknown
        opened.predict(x, verbose=0), np.asarray(fixed(x)), atol=1e-4
    )


def test_custom_input_tensor(rng):
    network = SMALL["SmallCSPPelee"]
    inputs = keras.Input((200, 200, 4), name="custom_input")
    x = keras.layers.Conv2D(3, 2, strides=2)(inputs)
    model = build_network(network, include_top=False, input_tensor=x)
    assert model.input_shape == (None, 200, 200, 4)
    assert model(rng.random((1, 200, 200, 4))).shape[-1] == 40
    top = build_network(network, input_tensor=inputs, classes=3)
    assert top.output_shape == (None, 3)


def test_classifier(rng):
    network = SMALL["SmallCSPPelee"]
    x = rng.random((2, 64, 64, 3), dtype="float32")
    model = build_network(network, classes=7)
    assert model.name == "smallcsppelee"
    assert model.layers[-1].name == "predictions"
    assert model.layers[-1].activation is keras.activations.softmax
    np.testing.assert_allclose(np.asarray(model(x)).sum(1), 1, atol=1e-5)
    logits = build_network(
        network, classes=7, classifier_activation=None, name="mine"
    )
    assert logits.name == "mine"
    logits.set_weights(model.get_weights())
    np.testing.assert_allclose(
        keras.activations.softmax(logits(x)), np.asarray(model(x)), atol=1e-6
    )


RELOAD = """
import sys
sys.path.insert(0, sys.argv[2])
import keras_csp, keras, numpy as np
from keras_csp.models.builder import build_network
from support import SMALL
folder = sys.argv[1]
for name, network in SMALL.items():
    x = np.load(f"{folder}/{name}.npy")
    whole = keras.saving.load_model(f"{folder}/{name}.keras")
    spec = keras_csp.image_spec(whole)
    assert spec.class_names == ("a", "b", "c", "d", "e"), spec
    assert spec.crop == 0.875, spec
    again = build_network(network, classes=5, weights=f"{folder}/{name}.keras")
    assert (np.asarray(again(x)) == np.asarray(whole(x))).all()
    weighted = build_network(
        network, classes=5, weights=f"{folder}/{name}.weights.h5")
    features = build_network(
        network, include_top=False, weights=f"{folder}/{name}.weights.h5")
    np.savez(f"{folder}/{name}_reloaded.npz", whole=whole(x),
             weighted=weighted(x), features=features(x))
"""


@pytest.mark.slow
def test_files_come_back_in_a_new_process(tmp_path, rng):
    """.keras, .weights.h5, and the latter without the classifier."""

    expected = {}
    for name, network in SMALL.items():
        model = randomize(build_network(network, classes=5))
        x = rng.random((2, 64, 64, 3), dtype="float32")
        np.save(tmp_path / f"{name}.npy", x)
        named = keras_csp.with_image_spec(
            model, crop=0.875, class_names=list("abcde")
        )
        named.save(tmp_path / f"{name}.keras")
        model.save_weights(tmp_path / f"{name}.weights.h5")
        last = [la for la in model.layers if len(la.output.shape) == 4]
        pooled = [la for la in last if "avg_pool" in la.name]
        end = model.layers.index(pooled[0]) if pooled else len(last)
        features = keras.Model(model.input, model.layers[end - 1].output)
        expected[name] = np.asarray(model(x)), np.asarray(features(x))
    run_python(RELOAD, tmp_path, TESTS)
    for name, (predictions, features) in expected.items():
        answer = np.load(tmp_path / f"{name}_reloaded.npz")
        np.testing.assert_array_equal(answer["whole"], predictions)
        np.testing.assert_array_equal(answer["weighted"], predictions)
        np.testing.assert_array_equal(answer["features"], features)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "pelee.weights.h5"
    build_network(SMALL["SmallCSPPelee"], classes=5).save_weights(path)
    for network, options in (
        (SMALL["SmallMobile"], {}),
        (SMALL["SmallCSPPelee"], {"classes": 6}),
    ):
        with pytest.raises(ValueError, match=r"pelee\.weights\.h5.*not fit"):
            build_network(network, weights=path, **{"classes": 5, **options})


def test_truncated_weights_are_refused(tmp_path):
    path = tmp_path / "cut.weights.h5"
    build_network(SMALL["SmallMobile"], classes=5).save_weights(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cut\.weights\.h5"):
        build_network(SMALL["SmallMobile"], classes=5, weights=path)


def test_weights_with_a_part_missing_are_refused(tmp_path):
    import h5py

    path = tmp_path / "part.weights.h5"
    build_network(SMALL["SmallMobile"], classes=5).save_weights(path)
    with h5py.File(path, "r+") as file:
        del file["layers/csp_stage/blocks"]
    with pytest.raises(ValueError, match=r"part\.weights\.h5.*not fit"):
        build_network(SMALL["SmallMobile"], classes=5, weights=path)


@small
def test_every_trainable_weight_gets_a_gradient(network, rng):
    model = build_network(network, classes=5)
    assert_every_weight_gets_a_gradient(model, rng)


@small
def test_frozen_network_keeps_its_statistics(network, rng):
    model = build_network(network, classes=5)
    model.trainable = False
    statistics = [w for w in model.weights if "moving" in w.path]
    assert statistics
    before = [w.numpy() for w in statistics]
    model(rng.random((4, 64, 64, 3)), training=True)
    for weight, old in zip(statistics, before):
        np.testing.assert_array_equal(weight.numpy(), old)
    model.trainable = True
    model(rng.random((4, 64, 64, 3)), training=True)
    assert all((w.numpy() != b).any() for w, b in zip(statistics, before))


@pytest.mark.parametrize("name", ["SmallCSPResNeXt", "SmallElastic"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_step_is_finite(name, policy, rng):
    keras.config.set_dtype_policy(policy)
    model = build_network(SMALL[name], classes=5)
    assert model.layers[-1].compute_dtype == "float32"
    half = policy.removeprefix("mixed_")
    assert model.get_layer("stem_1").compute_dtype == half
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = rng.random((4, 64, 64, 3), dtype="float32")
    labels = np.arange(4)
    losses = [model.train_on_batch(images, labels) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "imagenet"}, "no published ImageNet weights of Small"),
        ({"weights": "missing.weights.h5"}, "'missing.weights.h5'"),
        ({"weights": "model.pth"}, "execute code.*'model.pth'"),
        ({"weights": "model.npz"}, "'model.npz'"),
        ({"weights": "missing.safetensors"}, "'missing.safetensors'"),
        ({"weights": "missing.weights"}, "'missing.weights'"),
        ({"weights": 3}, "weights=3"),
        ({"pooling": "mean"}, "pooling='mean'"),
        ({"classes": 0}, "classes=0"),
        ({"classes": "ten"}, "classes='ten'"),
        ({"classifier_activation": "softmin"}, "'softmin'"),
        ({"input_shape": (224, 224)}, r"\(224, 224\)"),
        ({"input_shape": 224}, "input_shape=224"),
        ({"input_shape": (16, 64, 3)}, r"at least 32x32.*\(16, 64, 3\)"),
        ({"input_shape": (None, None, 3)}, "static"),
        ({"input_shape": (64, 64, None)}, "channels"),
        ({"input_shape": (64, 64.0, 3)}, "64.0"),
        ({"input_tensor": "image"}, "'image'"),
        ({"input_tensor": np.zeros((1, 64, 64, 3))}, "ndarray"),
        ({"input_tensor": keras.Input((64, 64))}, r"\(None, 64, 64\)"),
        (
            {
                "input_tensor": keras.Input((64, 64, 3)),
                "input_shape": (32, 64, 3),
            },
            r"\(32, 64, 3\).*\(None, 64, 64, 3\)",
        ),
    ],
)
def test_mistakes_are_named_with_the_value_received(options, message):
    with pytest.raises(ValueError, match=message):
        build_network(SMALL["SmallMobile"], **options)


def test_channels_first_is_refused_clearly():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            build_network(SMALL["SmallMobile"])
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    ("name", "argument"), [("CSPResNet50", "gamma"), ("CSPPeleeNet", "gama")]
)
def test_unknown_arguments_are_refused(name, argument):
    with pytest.raises(TypeError, match=rf"{name}\(\) got .*'{argument}'"):
        keras_csp.get_factory(name)(**{argument: 0.5})


def test_unknown_factory_names_the_closest():
    with pytest.raises(ValueError, match="CSPResNeXt50"):
        keras_csp.get_factory("cspresnext_50")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"gamma": 0.3}, "gamma=0.3"), ({"fusion": "none"}, "fusion='none'")],
)
def test_csppeleenet_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        keras_csp.CSPPeleeNet(**options)
