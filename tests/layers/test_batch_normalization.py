"""Beside numpy, and beside keras.layers.BatchNormalization."""

import keras
import numpy as np
import pytest
from support import SMALL, randomize, reload_config, run_python

from keras_csp.layers import BatchNormalization, ConvNormAct, units
from keras_csp.layers import batch_normalization as module
from keras_csp.models.builder import build_network

STOCK = keras.layers.BatchNormalization
OPERATION = "FusedBatchNormV3"
# Neither those of the networks nor Keras' defaults, and large enough to tell.
CONSTANTS = {"momentum": 0.7, "epsilon": 0.05}
SHAPE = (2, 3, 5, 4)  # 30 values a channel: n - 1 for n is an error of 3 %

DTYPES = {
    "float32": "float32",
    "float16": "mixed_float16",
    "bfloat16": "mixed_bfloat16",
}

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's operation"
)


def built(kind, shape=SHAPE, **options):
    layer = kind(name="norm", **{**CONSTANTS, **options})
    layer.build(shape)
    return randomize(layer)


def pair(shape=SHAPE, **options):
    return [
        built(kind, shape, **options) for kind in (BatchNormalization, STOCK)
    ]


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def statistics(layer):
    return array(layer.moving_mean), array(layer.moving_variance)


def images(rng, shape=SHAPE, dtype="float32"):
    """Of a mean that is not small beside the deviation."""
    x = rng.normal(3, 2, shape)
    return keras.ops.cast(keras.ops.convert_to_tensor(x), dtype)


def normalized(x, layer, mean, variance):
    x_hat = (x - mean) / np.sqrt(variance + CONSTANTS["epsilon"])
    return array(layer.gamma) * x_hat + array(layer.beta)


def moved(moving, batch):
    return CONSTANTS["momentum"] * moving + (1 - CONSTANTS["momentum"]) * batch


def close(found, wanted, tolerance=1e-5):
    scale = max(np.abs(wanted).max(), 1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


def test_inference_equals_numpy_and_keras(rng):
    ours, stock = pair()
    x = images(rng)
    for training in (None, False):
        y = array(ours(x, training=training))
        close(y, normalized(array(x), ours, *statistics(ours)))
        close(y, array(stock(x, training=training)))
    for layer in (ours, stock):  # nothing moved
        assert all(map(np.array_equal, statistics(layer), statistics(stock)))


def test_training_equals_numpy_and_keras(rng):
    """Outputs and moving statistics, over several batches."""
    ours, stock = pair()
    means, variances = statistics(ours)
    for _step in range(5):
        x = images(rng)
        axes = (0, 1, 2)
        mean, variance = array(x).mean(axes), array(x).var(axes)
        y = array(ours(x, training=True))
        close(y, normalized(array(x), ours, mean, variance))
        close(y, array(stock(x, training=True)))
        means, variances = moved(means, mean), moved(variances, variance)
        for found in (statistics(ours), statistics(stock)):
            close(found[0], means)
            close(found[1], variances)


def test_a_frozen_layer_infers(rng):
    ours, stock = pair()
    before = statistics(ours)
    x = images(rng)
    expected = array(ours(x, training=False))
    for layer in (ours, stock):
        layer.trainable = False
        close(array(layer(x, training=True)), expected)
        assert all(map(np.array_equal, statistics(layer), before))


def differentiated(layer, x, upstream, function, training):
    """d sum(y upstream) by x, gamma and beta, y = function(x)."""
    import tensorflow as tf

    by = [x, layer.gamma.value, layer.beta.value]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.cast(function(x, training=training), "float32")
        loss = tf.reduce_sum(y * tf.cast(upstream, "float32"))
    return tape.gradient(loss, by)


def derived(layer, x, upstream):
    """The same in training, from arXiv 1502.03167, section 3."""
    axes = (0, 1, 2)
    n = x[..., 0].size
    root = np.sqrt(x.var(axes) + CONSTANTS["epsilon"])
    x_hat = (x - x.mean(axes)) / root
    d_gamma, d_beta = (upstream * x_hat).sum(axes), upstream.sum(axes)
    centred = upstream - d_beta / n - x_hat * d_gamma / n
    return array(layer.gamma) / root * centred, d_gamma, d_beta


@on_tensorflow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_numpys_and_keras(rng, training, frozen):
    ours, stock = pair()
    ours.trainable = stock.trainable = not frozen
    x, upstream = images(rng), images(rng)
    found, wanted = (
        differentiated(layer, x, upstream, layer, training)
        for layer in (ours, stock)
    )
    for a, b in zip(found, wanted, strict=True):
        close(array(a), array(b))
    if training and not frozen:
        wanted = derived(ours, array(x), array(upstream))
        for a, b in zip(found, wanted, strict=True):
            close(array(a), b)


@on_tensorflow
@pytest.mark.parametrize("training", [False, True])
def test_second_derivatives_are_those_of_the_formula(rng, training):
    """Keras' are not: its variance takes the mean for a constant."""
    import tensorflow as tf

    layer = built(BatchNormalization)
    x, upstream = images(rng), images(rng)

    def formula(x, training):
        axes = [0, 1, 2]
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        if training:
            mean = tf.reduce_mean(x, axes)
            variance = tf.reduce_mean((x - mean) ** 2, axes)
        x_hat = (x - mean) / tf.sqrt(variance + CONSTANTS["epsilon"])
        return layer.gamma * x_hat + layer.beta

    def twice(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = differentiated(layer, x, upstream, function, training)
            loss = sum(tf.reduce_sum(g * g * g) for g in first)
        return tape.gradient(loss, [x, layer.gamma.value])

    for a, b in zip(twice(layer), twice(formula), strict=True):
        close(array(a), array(b))


@on_tensorflow
@pytest.mark.parametrize(
    ("half", "unit"), [("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_half_precision_differs_by_its_rounding(rng, half, unit):
    """Statistics are of single precision, as Keras' are."""
    ours, stock = pair(dtype=DTYPES[half])
    x, upstream = images(rng, dtype=half), images(rng, dtype=half)
    for training in (True, False):
        found, wanted = (la(x, training=training) for la in (ours, stock))
        assert found.dtype == wanted.dtype == half
        close(array(found), array(wanted), unit)
        for a, b in zip(statistics(ours), statistics(stock), strict=True):
            close(a, b)
        gradients = [
            differentiated(layer, x, upstream, layer, training)
            for layer in (ours, stock)
        ]
        for a, b in zip(*gradients, strict=True):
            assert a.dtype == b.dtype
            close(array(a), array(b), 2 * unit)


def test_one_value_a_channel(rng):
    """The variance of n = 1 is 0, whatever divides by n - 1 makes of it."""
    ours, stock = pair((1, 1, 1, 4))
    x = images(rng, (1, 1, 1, 4))
    variance = statistics(ours)[1]
    for layer in (ours, stock):
        close(array(layer(x, training=True)).ravel(), array(layer.beta))
        close(statistics(layer)[1], CONSTANTS["momentum"] * variance)
    assert all(map(np.array_equal, statistics(ours), statistics(stock)))


@on_tensorflow
def test_nothing_divided_by_zero_is_kept(rng):
    import tensorflow as tf

    variance = tf.constant([np.nan, np.inf, 0, 1], "float32")
    biased = module._biased(variance, images(rng, (1, 1, 1, 4)))
    np.testing.assert_array_equal(biased, 0)


def test_an_empty_batch():
    """Inference has nothing to do; training has no mean, as Keras has none."""
    ours, stock = pair()
    x = keras.ops.zeros((0, *SHAPE[1:]))
    assert ours(x).shape == stock(x).shape == (0, *SHAPE[1:])
    for layer in (ours, stock):
        layer(x, training=True)
        assert np.isnan(statistics(layer)).all()


def operations(function, *arguments):
    """The kinds of operations of the graph and of the functions within."""
    import tensorflow as tf

    concrete = tf.function(function).get_concrete_function(*arguments)
    graph = concrete.graph.as_graph_def()
    kinds = [node.op for node in graph.node]
    return kinds + [n.op for f in graph.library.function for n in f.node_def]


@on_tensorflow
@pytest.mark.parametrize("training", [None, False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-1, 3])
def test_the_operation_is_used_in_training(rng, axis, dtype, training):
    """Alone: fused with a convolution it predicts one image very slowly."""
    layer = built(BatchNormalization, axis=axis, dtype=DTYPES[dtype])
    x = images(rng, dtype=dtype)
    used = OPERATION in operations(lambda: layer(x, training=training))
    assert used == bool(training)
    layer.trainable = False
    assert OPERATION not in operations(lambda: layer(x, training=training))


MASK = np.array([[1, 1, 0], [1, 0, 0]], bool)
LEFT_TO_KERAS = [
    ((2, 4), {}, {}),
    ((2, 6, 4), {}, {}),
    ((2, 3, 3, 3, 4), {}, {}),
    (SHAPE, {"axis": 1}, {}),
    (SHAPE, {"axis": 0}, {}),
    (SHAPE, {"scale": False}, {}),
    (SHAPE, {"center": False}, {}),
    (SHAPE, {"renorm": True}, {}),
    (SHAPE, {"dtype": "float64"}, {}),
    ((2, 3, 4), {}, {"mask": MASK}),
    (SHAPE, {}, {"mask": np.repeat(MASK[..., None], 5, axis=-1)}),
]


@pytest.mark.parametrize(("shape", "options", "arguments"), LEFT_TO_KERAS)
def test_the_rest_is_left_to_keras(rng, shape, options, arguments):
    ours, stock = pair(shape, **options)
    x = images(rng, shape, options.get("dtype", "float32"))
    for training in (True, False):
        found, wanted = (
            array(layer(x, training=training, **arguments))
            for layer in (ours, stock)
        )
        np.testing.assert_array_equal(found, wanted)
    for a, b in zip(ours.variables, stock.variables, strict=True):
        np.testing.assert_array_equal(array(a), array(b))
    if keras.backend.backend() == "tensorflow":
        assert OPERATION not in operations(
            lambda: ours(x, training=True, **arguments)
        )


def test_an_input_of_another_dtype_is_left_to_keras(rng):
    ours, stock = pair(autocast=False)
    x = images(rng, dtype="float16")
    found, wanted = (layer(x, training=True) for layer in (ours, stock))
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(array(found), array(wanted))


@on_tensorflow
def test_statistics_of_several_devices_are_left_to_keras(rng):
    ours, stock = pair(synchronized=True)
    x = images(rng)
    assert OPERATION not in operations(lambda: ours(x, training=True))
    close(array(ours(x, training=True)), array(stock(x, training=True)))


@on_tensorflow
@pytest.mark.parametrize("name", ["SmallCSPResNeXt", "SmallCSPDense"])
def test_networks_use_the_operation(rng, name):
    """Once a layer, forwards and backwards; Keras' sums do not occur.

    In inference it does not: see the first lines of the layer's module.
    """
    model = build_network(SMALL[name], classes=3, input_shape=(64, 64, 3))
    model.compile("sgd", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    x = images(rng, (2, 64, 64, 3))
    y = images(rng, (2, 3))
    kinds = model._flatten_layers()
    layers = sum(isinstance(layer, STOCK) for layer in kinds)
    trained = operations(model.train_step, (x, y))
    predicted = operations(model.predict_step, (x,))
    assert layers > 5
    assert trained.count(OPERATION) == layers
    assert trained.count("FusedBatchNormGradV3") == layers
    assert not {"SquaredDifference", "Rsqrt"} & {*trained}
    assert OPERATION not in predicted


@on_tensorflow
def test_xla_is_left_to_keras(rng):
    """XLA's own variance of a large mean is negative."""
    import tensorflow as tf

    ours, stock = pair()
    x = images(rng) + 1e4
    for training in (True, False):
        y, wanted = (
            tf.function(
                lambda x, layer=layer, training=training: layer(
                    x, training=training
                ),
                jit_compile=True,
            )(x)
            for layer in (ours, stock)
        )
        np.testing.assert_array_equal(array(y), array(wanted))
    assert all(map(np.array_equal, statistics(ours), statistics(stock)))


@on_tensorflow
def test_a_network_trains_under_xla(rng):
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        unit = ConvNormAct(3, 3)
        model = keras.Sequential([keras.Input(SHAPE[1:]), unit])
        model.compile("sgd", "mse", jit_compile=jit_compile)
        x = np.random.default_rng(1).normal(size=SHAPE)
        losses.append([model.train_on_batch(x, x[..., :3]) for _ in range(3)])
    close(losses[1], np.array(losses[0]))


@on_tensorflow
def test_determinism_is_left_to_keras(rng, monkeypatch):
    from tensorflow.python.framework import config

    layer = built(BatchNormalization)
    x = images(rng)
    assert OPERATION in operations(lambda: layer(x, training=True))
    monkeypatch.setattr(config, "is_op_determinism_enabled", lambda: True)
    assert OPERATION not in operations(lambda: layer(x, training=True))


def test_stateless_call_gives_the_statistics(rng):
    """As training on JAX does."""
    layer = built(BatchNormalization)
    x = images(rng)
    before = statistics(layer)
    state = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    y, new = layer.stateless_call(state, others, x, training=True)
    assert all(map(np.array_equal, statistics(layer), before))
    close(array(y), array(layer(x, training=True)))
    for a, b in zip(new, statistics(layer), strict=True):
        close(array(a), b)


def test_serialisation(rng, tmp_path):
    x = images(rng)
    layer = built(BatchNormalization)
    copy = reload_config(layer)
    assert type(copy) is BatchNormalization
    assert copy.get_config() == layer.get_config()
    # The registration takes nothing from Keras' class of the same name.
    assert type(reload_config(built(STOCK))) is STOCK
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is BatchNormalization
    np.testing.assert_array_equal(array(again(x)), array(model(x)))


def network(monkeypatch, kind):
    def batch_normalization(name, dtype):
        return kind(momentum=0.9, epsilon=1e-5, name=name, dtype=dtype)

    monkeypatch.setattr(units, "batch_normalization", batch_normalization)
    row = SMALL["SmallCSPDense"]  # both orders
    return build_network(row, classes=3, input_shape=(64, 64, 3))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("theirs", [STOCK, BatchNormalization])
def test_files_of_either_layer_load_into_the_other(
    rng, tmp_path, monkeypatch, theirs, suffix
):
    path = str(tmp_path / f"model{suffix}")
    saved = randomize(network(monkeypatch, theirs))
    (saved.save if suffix == ".keras" else saved.save_weights)(path)
    ours = {STOCK: BatchNormalization, BatchNormalization: STOCK}[theirs]
    model = network(monkeypatch, ours)
    assert [v.path for v in model.variables] == [
        v.path for v in saved.variables
    ]
    model.load_weights(path)
    if suffix == ".keras":
        model = keras.saving.load_model(path)
    kinds = {type(la) for la in model._flatten_layers()}
    assert ours in kinds
    assert theirs not in kinds
    x = images(rng, (1, 64, 64, 3))
    close(array(model(x)), array(saved(x)))


# Prints by how much the two layers differ, in the unit whose convolution has
# groups, in a process whose TensorFlow does without oneDNN; and by how much a
# graph that was saved with oneDNN differs from what it gave there.
WITHOUT = """
import sys
import numpy as np, tensorflow as tf
x = np.load(sys.argv[1] + "/x.npy")
model = tf.saved_model.load(sys.argv[1] + "/graph")
print(np.abs(model.serve(x) - np.load(sys.argv[1] + "/y.npy")).max())
import keras_csp, keras
from keras_csp.layers import ConvNormAct, units

def outputs(kind):
    keras.utils.set_random_seed(0)
    units.batch_normalization = lambda name, dtype: kind(
        momentum=0.9, epsilon=1e-5, name=name, dtype=dtype
    )
    unit = ConvNormAct(8, 3, groups=2)
    model = keras.Sequential([keras.Input(x.shape[1:]), unit])
    model.compile("sgd", "mse", jit_compile=False)
    for step in range(3):
        model.train_on_batch(x, np.concatenate([x, -x], axis=-1))
    return [model.predict_on_batch(x), *(v.numpy() for v in model.variables)]

ours = outputs(units.BatchNormalization)
stock = outputs(keras.layers.BatchNormalization)
for a, b in zip(ours, stock, strict=True):
    print(np.abs(a - b).max())
"""


@pytest.mark.slow
@on_tensorflow
def test_without_onednn(rng, tmp_path):
    unit = ConvNormAct(8, 3, groups=2)
    model = keras.Sequential([keras.Input(SHAPE[1:]), unit])
    randomize(model)
    x = np.asarray(images(rng))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model(x))
    model.export(tmp_path / "graph", verbose=False)
    said = run_python(WITHOUT, tmp_path, TF_ENABLE_ONEDNN_OPTS="0")
    saved, *apart = map(float, said.split())
    assert len(apart) == 1 + 5
    assert max(saved, *apart) < 1e-5
