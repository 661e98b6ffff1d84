"""Several devices of one host against one device, step by step."""

import json

import keras
import numpy as np
import pytest
from support import TESTS, run_python

from keras_csp.training.multi_device import make_strategy, shard_safe_batches

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="uses tf.distribute"
)

# Of the losses; and of weights, statistics, momenta and averages, by the
# largest of a tensor or 1. Two devices add up in another order than one does.
TOLERANCE = 2e-5

# A process of its own: the CPU is divided before TensorFlow's first operation.
# It trains twice, on two devices and on one, and prints by how much they
# differ.
TWO_DEVICES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import keras_csp, keras, numpy as np
from keras_csp.training.multi_device import make_strategy, shard_safe_batches
from keras_csp.training.recipes import get_recipe
strategy = make_strategy(2, batch_size=8)
import tensorflow as tf
from support import randomize
from keras_csp.layers import ConvNormAct

EPOCHS, STEPS, BATCH = 2, 4, 8
recipe = get_recipe(
    "paper-classification",
    batch_size=BATCH,
    steps=EPOCHS * STEPS,
    learning_rate=0.03,
    ema=0.8,
)
rng = np.random.default_rng(0)
x = rng.random((STEPS * BATCH, 16, 16, 3)).astype("float32")
y = np.eye(3, dtype="float32")[rng.integers(0, 3, len(x))]
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)

def make(frozen):
    y = image = keras.Input((16, 16, 3))
    for name in ("a", "b"):
        y = ConvNormAct(8, 3, 2, name=name)(y)
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    y = keras.layers.Dense(3, activation="softmax", name="predictions")(y)
    model = keras.Model(image, y)
    randomize(model)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen
    model.compile(
        recipe.make_optimizer(), recipe.make_loss(), jit_compile=False
    )
    return model

def fit(model):
    history = model.fit(batches, epochs=EPOCHS, shuffle=False, verbose=0)
    return history.history["loss"]

def halves(model):
    '''One device that takes the halves of a batch one after the other, each
    with statistics of its own, and the mean of their gradients.'''
    weights = model.trainable_variables
    statistics = model.non_trainable_variables
    kept = [[v.numpy() for v in statistics] for _half in range(2)]
    model.optimizer.build(weights)
    losses = []
    for step in range(EPOCHS * STEPS):
        first = step % STEPS * BATCH
        gradients = []
        for half in range(2):
            start = first + half * BATCH // 2
            part = slice(start, start + BATCH // 2)
            for variable, value in zip(statistics, kept[half]):
                variable.assign(value)
            with tf.GradientTape() as tape:
                predicted = model(x[part], training=True)
                loss = recipe.make_loss()(y[part], predicted)
            gradients.append(tape.gradient(loss, [w.value for w in weights]))
            kept[half] = [v.numpy() for v in statistics]
            losses.append(float(loss))
        mean = [(a + b) / 2 for a, b in zip(*gradients)]
        model.optimizer.apply(mean)
    for variable, value in zip(statistics, kept[0]):
        variable.assign(value)
    model.optimizer.finalize_variable_values(weights)
    means = np.reshape(losses, (EPOCHS, -1)).mean(axis=1).tolist()
    return means, (losses[0] + losses[1]) / 2

def values(variables):
    return [np.asarray(v.numpy(), "float64") for v in variables]

def apart(a, b):
    return max(
        float(np.abs(p - q).max() / max(np.abs(q).max(), 1))
        for p, q in zip(a, b, strict=True)
    )

def everything(model):
    return values(model.variables) + values(model.optimizer.variables)

found = {}
one = make(frozen=True)
before = values(one.variables)
found["frozen_one"] = fit(one)
with strategy.scope():
    two = make(frozen=True)
found["frozen_two"] = fit(two)
found["frozen_apart"] = apart(everything(two), everything(one))
found["moved"] = apart(values(one.variables), before)

one = make(frozen=False)
found["whole"] = float(recipe.make_loss()(y[:8], one(x[:8], training=True)))
randomize(one)
found["own_one"], found["halves"] = halves(one)
with strategy.scope():
    two = make(frozen=False)
found["own_two"] = fit(two)
found["own_apart"] = apart(everything(two), everything(one))

with strategy.scope():
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 16)]
    tiny = keras.Sequential([*layers, keras.layers.Flatten()])
    tiny.compile(loss="mse", metrics=["mae"])
for count in (7, 8, 9, 10, 11):
    data = tf.data.Dataset.from_tensor_slices((x[:count], y[:count]))
    batches_of_two = shard_safe_batches(data.batch(8), strategy)
    lengths = [len(batch) for batch, _labels in batches_of_two]
    kept = sum(lengths)
    expected = np.abs(tiny(x[:kept]) - y[:kept]).mean()
    error = abs(tiny.evaluate(batches_of_two, verbose=0)[1] - expected)
    found[f"shared {count}"] = lengths
    found[f"error {count}"] = float(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    said = run_python(TWO_DEVICES, TESTS)

    return json.loads(said.splitlines()[-1])


@pytest.mark.slow
def test_two_devices_are_one_where_statistics_are_frozen(found):
    """The same batches: losses, weights, momenta and averages."""
    np.testing.assert_allclose(
        found["frozen_two"], found["frozen_one"], rtol=TOLERANCE
    )
    assert found["frozen_apart"] < TOLERANCE
    assert found["moved"] > 1000 * TOLERANCE


@pytest.mark.slow
def test_two_devices_are_one_that_takes_the_halves_of_a_batch(found):
    """Each normalises its own half; the first one's statistics are saved."""
    np.testing.assert_allclose(
        found["own_two"], found["own_one"], rtol=TOLERANCE
    )
    assert found["own_apart"] < TOLERANCE


@pytest.mark.slow
def test_the_halves_are_not_the_batch(found):
    """Their statistics differ: it shows which of both two devices use."""
    assert abs(found["halves"] - found["whole"]) > 100 * TOLERANCE


@pytest.mark.slow
def test_images_that_cannot_be_divided_are_dropped(found):
    """Keras fails where a device has no image, or the first shares differ."""
    assert found["shared 7"] == [6]
    assert found["shared 8"] == found["shared 9"] == [8]
    assert found["shared 10"] == [8, 2]
    assert found["shared 11"] == [8, 3]
    assert max(found[f"error {count}"] for count in range(7, 12)) < 1e-5


def test_one_device_needs_no_strategy():
    import tensorflow as tf

    for count in (None, 1):
        strategy = make_strategy(count, batch_size=7, accumulation=3)
        assert strategy.num_replicas_in_sync == 1
        assert strategy is tf.distribute.get_strategy()
    dataset = tf.data.Dataset.range(3).batch(2)
    assert shard_safe_batches(dataset, strategy) is dataset


def test_mistakes(monkeypatch):
    import tensorflow as tf

    tf.constant(1.0)  # TensorFlow's first operation, or a later one
    with pytest.raises(ValueError, match="before TensorFlow's first operation"):
        make_strategy(2)
    with pytest.raises(ValueError, match="multiple of the 3 devices") as caught:
        make_strategy(3, batch_size=64)
    assert "Received: 64" in str(caught.value)
    with pytest.raises(
        ValueError, match=r"on one device only\. Received: accumulation=4"
    ):
        make_strategy(2, batch_size=64, accumulation=4)
    gpus = ["GPU:0", "GPU:1"]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    with pytest.raises(ValueError, match=r"There are 2 GPUs\. Received: 3"):
        make_strategy(3)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ValueError, match=r"TensorFlow backend\. Received: 'jax'"
    ):
        make_strategy(2)


def test_all_gpus_are_used_unless_it_is_said(monkeypatch):
    """Of a host that has two, made up."""
    import tensorflow as tf

    class Device:
        def __init__(self, name):
            self.name = name

    gpus = [Device("GPU:0"), Device("GPU:1")]
    for function in ("list_physical_devices", "list_logical_devices"):
        monkeypatch.setattr(
            tf.config, function, lambda kind: gpus if kind == "GPU" else []
        )
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: names)
    assert make_strategy() == ["GPU:0", "GPU:1"]
    assert make_strategy(2) == ["GPU:0", "GPU:1"]
    assert make_strategy(1).num_replicas_in_sync == 1
    with pytest.raises(ValueError, match="multiple of the 2 devices"):
        make_strategy(batch_size=7)
