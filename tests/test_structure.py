"""The walk through a model: what it reports, and what it leaves alone."""

import threading

import keras
import numpy as np
import pytest
from support import SMALL, randomize

import keras_csp
from keras_csp import darknet
from keras_csp._structure import trace, with_layers
from keras_csp.export import fold_batchnorm
from keras_csp.layers import ConvNormAct, CSPStage, DenseBlock
from keras_csp.models.builder import build_network


def names(calls):
    return [call.layer.name for call in calls]


def convolution(filters, name, **options):
    options = {"padding": "same", "use_bias": False, **options}
    return keras.layers.Conv2D(filters, 3, name=name, **options)


def test_layers_of_layers_are_reported_inner_ones_first():
    inputs = keras.Input((8, 8, 4))
    stage = CSPStage([ConvNormAct(2, name="block")], name="stage")
    calls = trace(keras.Model(inputs, stage(inputs)), (8, 8, 4))
    unit = ["conv", "norm", "act"]
    assert names(calls) == [
        *unit,
        "block",
        *unit,
        "unit",
        "partial_transition",
        *unit,
        "unit",
        "transition",
        "stage",
    ]
    widths = {call.layer.name: call.output_shape for call in calls}
    assert widths["block"] == (8, 8, 2)
    assert widths["stage"] == (8, 8, 4)


def test_several_inputs_and_outputs_are_reported():
    @keras.saving.register_keras_serializable()
    class Halves(keras.layers.Layer):
        def call(self, x):
            return {"b": x[..., :1], "a": x[..., 1:]}

    inputs = keras.Input((8, 8, 3))
    parts = Halves(name="halves")(inputs)
    merged = keras.layers.Concatenate(name="merged")([parts["b"], parts["a"]])
    total = keras.layers.Add(name="total")([merged, inputs])
    found = {
        call.layer.name: (call.input_shapes, call.output_shapes)
        for call in trace(keras.Model(inputs, total), (6, 4, 3))
    }
    assert found == {
        "halves": (((6, 4, 3),), ((6, 4, 2), (6, 4, 1))),
        "merged": (((6, 4, 1), (6, 4, 2)), ((6, 4, 3),)),
        "total": (((6, 4, 3), (6, 4, 3)), ((6, 4, 3),)),
    }


def test_calls_of_other_models_are_not_this_models():
    """`with_image_spec` calls the same layers in another graph."""
    model = build_network(SMALL["SmallMobile"], include_top=False)
    before = trace(model, (64, 64, 3))
    other = keras_csp.layers.with_image_spec(model, mean=0.5)
    longer = keras.layers.ReLU()(model.layers[-1](model.layers[-1].output))
    keras.Model(model.inputs, longer)
    assert trace(model, (64, 64, 3)) == before
    assert len(trace(other, (64, 64, 3))) == len(before)


def test_layers_are_replaced_at_any_depth_and_the_others_shared(rng):
    inputs = keras.Input((8, 8, 4))
    a, b, c = (convolution(4, name) for name in "abc")
    inner = keras.Sequential([b], name="inner")
    model = keras.Model(inputs, c(inner(a(inputs))), name="outer")
    new = with_layers(
        model, [(b, convolution(4, "b2")), (c, convolution(4, "c2"))]
    )
    assert names(trace(new, (8, 8, 4))) == ["a", "b2", "inner", "c2"]
    assert names(trace(model, (8, 8, 4))) == ["a", "b", "inner", "c"]
    assert new.name == "outer" and new.get_layer("a") is a
    new.set_weights(model.get_weights())
    x = rng.random((1, 8, 8, 4), dtype="float32")
    np.testing.assert_array_equal(np.asarray(new(x)), np.asarray(model(x)))
    # A model in which nothing changes stays the same object.
    kept = with_layers(model, [(c, convolution(4, "c3"))])
    assert kept.get_layer("inner") is inner


def test_a_layer_used_twice_and_a_model_used_twice():
    inputs = keras.Input((8, 8, 4))
    shared = convolution(4, "shared")
    inner = keras.Model(inputs, shared(shared(inputs)), name="inner")
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, inner(inner(image)))
    twice = ["shared", "shared", "inner"]
    assert names(trace(model, (8, 8, 4))) == 2 * twice


def test_sequential_models():
    inner = keras.Sequential([convolution(4, "b")], name="inner")
    model = keras.Sequential([keras.Input((8, 8, 4)), convolution(4, "a")])
    model.add(inner)
    assert names(trace(model, (6, 6, 4))) == ["a", "b", "inner"]


def test_a_part_of_a_graph_has_the_calls_of_that_part():
    inputs = keras.Input((8, 8, 4))
    x = convolution(4, "a")(inputs)
    y = convolution(4, "b")(x)
    z = convolution(4, "c")(y)
    assert names(trace(keras.Model(x, y), (8, 8, 4))) == ["b"]
    assert names(trace(keras.Model(inputs, z), (8, 8, 4))) == ["a", "b", "c"]


class Branches(keras.layers.Layer):
    """A block as a user may write it: layers in a dict of lists."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.ways = {
            "deep": [convolution(4, "deep1"), convolution(4, "deep2")],
            "flat": (convolution(4, "flat"),),
        }
        self.act = keras.Sequential([keras.layers.ReLU(name="relu")])

    def call(self, x, training=None):
        assert not training
        y = x
        for layer in self.ways["deep"]:
            assert isinstance(layer, keras.layers.Conv2D)
            assert layer.filters == 4
            y = layer(y)
        return self.act(y + self.ways["flat"][0](x))


class Backend(keras.layers.Layer):
    """A block that calls TensorFlow, not Keras' operations."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = convolution(4, "within")

    def call(self, x):
        import tensorflow as tf

        return tf.nn.relu(self.convolution(tf.nn.relu(x)))


@pytest.mark.parametrize(
    ("block", "convolutions"), [(Branches, 3), (Backend, 1)]
)
def test_a_users_own_block_in_a_stage(block, convolutions):
    if block is Backend and keras.backend.backend() != "tensorflow":
        pytest.skip("a block for TensorFlow")
    inputs = keras.Input((None, None, 8))
    stage = CSPStage([block()], partial_transition=None, activation=None)
    model = keras.Model(inputs, stage(inputs))
    counted = keras_csp.count(model, input_shape=(6, 6, 8))
    by_hand = convolutions * 9 * 4 * 4 + 4 * 4 + 8 * 8  # and T, and M
    assert counted.params == by_hand
    assert counted.bflops == pytest.approx(2 * by_hand * 36 / 1e9)
    assert not counted.uncounted


def test_the_layers_of_a_block_that_cannot_be_traced_are_named():
    """By `call`, an inner layer is run past the walk."""

    class PastTheWalk(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.hidden = convolution(4, "hidden")
            self.seen = convolution(4, "seen")

        def build(self, input_shape):
            self.hidden.build(input_shape)
            self.seen.build(input_shape)

        def call(self, x):
            return self.hidden.call(self.seen(x))

    class Picky(PastTheWalk):
        def call(self, x):
            if type(self.hidden) is not keras.layers.Conv2D:
                raise TypeError("not a Conv2D")
            return self.hidden(x)

    inputs = keras.Input((8, 8, 4))
    past = keras_csp.count(keras.Model(inputs, PastTheWalk()(inputs)))
    assert past.params == 9 * 16
    assert [path.split("/")[-1] for path in past.uncounted] == ["hidden"]
    picky = keras_csp.count(keras.Model(inputs, Picky()(inputs)))
    assert picky.params == 0
    names = [path.split("/")[-1] for path in picky.uncounted]
    assert sorted(names) == ["hidden", "seen"]


def test_an_error_of_a_layer_itself_is_not_hidden():
    class Fails(keras.layers.Layer):
        fails = False

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.act = keras.layers.ReLU()

        def call(self, x):
            if Fails.fails:
                raise RuntimeError("on purpose")
            return self.act(x)

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, Fails()(inputs))
    Fails.fails = True
    with pytest.raises(Exception, match="on purpose"):
        trace(model, (8, 8, 3))


def test_the_input_is_that_before_a_padding():
    inputs = keras.Input((8, 8, 4))
    x = ConvNormAct(4, 3, strides=2, name="unit")(inputs)
    padded = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.MaxPooling2D(3, 1, name="pool")(padded)
    found = {
        call.layer.name: call.input_shape
        for call in trace(keras.Model(inputs, x), (8, 8, 4))
    }
    assert found["conv"] == (8, 8, 4)
    assert found["pool"] == (4, 4, 4)


def test_nothing_of_the_model_is_changed(rng):
    inputs = keras.Input((8, 8, 4))
    block = DenseBlock([Branches()])
    model = randomize(keras.Model(inputs, block(inputs)))
    x = rng.random((2, 8, 8, 4), dtype="float32")
    expected = np.asarray(model(x, training=False))
    parts = [block, *block.layers, *block.layers[0].ways["deep"]]
    held = [dict(vars(part)) for part in parts]
    calls = [len(part._inbound_nodes) for part in parts]
    name = keras.layers.Concatenate().name
    trace(model, (4, 4, 4))
    # Names that Keras gives are numbered: an operation would have had one.
    number = int(name.rpartition("_")[2]) if "_" in name else 0
    assert keras.layers.Concatenate().name == f"concatenate_{number + 1}"
    assert [len(part._inbound_nodes) for part in parts] == calls
    for part, before in zip(parts, held):
        for key, value in before.items():
            assert vars(part)[key] is value, key
    np.testing.assert_array_equal(model(x, training=False), expected)


# From here on: while a model is walked, everything else works as before.


@keras.saving.register_keras_serializable(package="tests")
class Probe(keras.layers.Layer):
    """Calls `Probe.during` wherever it is called, shapes being asked."""

    during = None

    def call(self, x):
        if Probe.during is not None:
            Probe.during()
        return 1.0 * x


@pytest.fixture
def probed():
    inputs = keras.Input((64, 64, 3))
    x = ConvNormAct(4, 3, 2)(inputs)
    x = keras.layers.BatchNormalization()(Probe()(x))
    x = ConvNormAct(4, 3, 2, activation="relu")(x)
    yield keras.Model(inputs, x)
    Probe.during = None


def features(model):
    return keras_csp.feature_extractor(model, ("P1", "P2"))


def darknet_slots(model):
    return darknet.slots.find_slots(model)


WALKS = [keras_csp.count, features, fold_batchnorm]


@pytest.mark.parametrize("walk", [*WALKS, darknet_slots])
def test_the_call_of_keras_layers_is_never_replaced(walk, probed):
    original, seen = keras.layers.Layer.__call__, []
    Probe.during = lambda: seen.append(keras.layers.Layer.__call__)
    try:
        walk(probed)
    except ValueError as error:
        assert walk is darknet_slots, error  # the lone normalisation
    assert seen
    assert all(call is original for call in seen)
    assert keras.layers.Layer.__call__ is original


@pytest.mark.parametrize("walk", WALKS)
def test_other_threads_are_not_affected(walk, probed, rng):
    """A thread stands in the middle of a walk while this one works."""
    other = randomize(
        build_network(SMALL["SmallCSPPelee"], input_shape=(64, 64, 3))
    )
    x = rng.random((2, 64, 64, 3), dtype="float32")
    expected = np.asarray(other(x, training=False))
    assert expected.std() > 1e-5
    inside, go_on, walked = threading.Event(), threading.Event(), []

    def wait():
        if threading.current_thread() is thread:
            inside.set()
            assert go_on.wait(120)

    Probe.during = wait
    thread = threading.Thread(target=lambda: walked.append(walk(probed)))
    thread.start()
    try:
        assert inside.wait(120)
        meanwhile = np.asarray(other(x, training=False))
        compiled = other.predict(x, verbose=0)
        assert not walked
    finally:
        go_on.set()
        thread.join()
    assert walked
    np.testing.assert_allclose(meanwhile, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(compiled, expected, rtol=1e-4, atol=1e-7)
    again = other.predict(x, verbose=0)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-7)


def test_two_threads_walk_one_model(probed):
    """Each is let go on when the other is in the middle, too."""
    expected = trace(probed, (32, 32, 3))
    both, found = threading.Barrier(2, timeout=120), []
    threads = [
        threading.Thread(
            target=lambda: found.append(trace(probed, (32, 32, 3)))
        )
        for _ in range(2)
    ]
    Probe.during = both.wait
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected, expected]


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_within_a_walk(walk, probed):
    small = build_network(SMALL["SmallMobile"], input_shape=(32, 32, 3))
    inner = keras_csp.count(small).bflops
    outer = keras_csp.count(probed).bflops
    found, results = [], []

    def within():
        found.append(keras_csp.count(small).bflops)
        found.append(len(features(small).outputs))

    Probe.during = within
    # In a thread that may be left behind: a lock would never let it go on.
    thread = threading.Thread(
        target=lambda: results.append(walk(probed)), daemon=True
    )
    thread.start()
    thread.join(120)
    Probe.during = None
    assert results
    assert found[:2] == [inner, 2]
    assert keras_csp.count(probed).bflops == outer
