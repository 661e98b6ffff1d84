"""Steps that shrink from layer to layer, against AdamW and SGD in NumPy."""

import keras
import numpy as np
import pytest
from support import SMALL, run_python, slow_unless, tiny_backbone

import keras_csp
from keras_csp.models.builder import build_network
from keras_csp.training import TrainingState, layer_groups, with_layer_decay
from keras_csp.training.layer_decay import _optimizers, _scaled
from keras_csp.training.recipes import FINE_TUNING

X = np.random.default_rng(0).random((8, 4)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [3.0], [4.0]], "float32")
FACTORS = [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
KERNELS = [True, False] * 3


def model(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", name="first"),
            keras.layers.Dense(3, activation="tanh", name="second"),
            keras.layers.Dense(1, name="last"),
        ]
    )


def fit(made, optimizer, epochs=3, **options):
    made.compile(optimizer, "mse", jit_compile=False)
    made.fit(
        X, Y, batch_size=4, shuffle=False, verbose=0, epochs=epochs, **options
    )
    return made.get_weights()


def gradients(weights):
    """Of the mean squared error on one batch, by the chain rule."""

    def of(x, y, values):
        w1, b1, w2, b2, w3, b3 = values
        h1 = np.tanh(x @ w1 + b1)
        h2 = np.tanh(h1 @ w2 + b2)
        d3 = 2 * (h2 @ w3 + b3 - y) / len(x)
        d2 = (d3 @ w3.T) * (1 - h2**2)
        d1 = (d2 @ w2.T) * (1 - h1**2)
        return [
            *(x.T @ d1, d1.sum(0)),
            *(h1.T @ d2, d2.sum(0)),
            *(h2.T @ d3, d3.sum(0)),
        ]

    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    return [lambda values, b=b: of(*b, values) for b in batches]


def rate(step):
    """A cosine decay over 8 steps, from 0.02."""
    return 0.02 * (1 + np.cos(np.pi * step / 8)) / 2


def clipped(found, limit):
    norm = np.sqrt(sum((g**2).sum() for g in found))
    return [g * limit / max(norm, limit) for g in found]


def sgd(weights, momentum=0.9, decay=0.1, clip=1.0, ema=0.7, epochs=3):
    """(weights, their averages): Keras' SGD, a rate for each variable."""
    weights = [np.asarray(w, "float64") for w in weights]
    velocity = [0 * w for w in weights]
    average, step = None, 0
    for _ in range(epochs):
        for gradient in gradients(weights):
            found = clipped(gradient(weights), clip)
            for i, (g, factor) in enumerate(zip(found, FACTORS)):
                lr = factor * rate(step)
                weights[i] = weights[i] - lr * decay * weights[i] * KERNELS[i]
                velocity[i] = momentum * velocity[i] - lr * g
                weights[i] = weights[i] + velocity[i]
            m = ema if step else 0.0
            average = [
                m * a + (1 - m) * w for a, w in zip(average or weights, weights)
            ]
            step += 1
    return weights, average


def adamw(weights, decay=0.1, accumulation=2, epochs=4):
    """Loshchilov and Hutter's Algorithm 2 on pairs of batches."""
    weights = [np.asarray(w, "float64") for w in weights]
    m, v = [0 * w for w in weights], [0 * w for w in weights]
    for step in range(1, epochs * 2 // accumulation + 1):
        both = [gradient(weights) for gradient in gradients(weights)]
        # Keras looks at the schedule by batches.
        whole = rate(accumulation * step - 1)
        for i, pair in enumerate(zip(*both)):
            g, lr = sum(pair) / 2, FACTORS[i] * whole
            weights[i] = weights[i] - lr * decay * weights[i] * KERNELS[i]
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            alpha = lr * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights[i] = weights[i] - alpha * m[i] / (np.sqrt(v[i]) + 1e-7)
    return weights


def schedule():
    return keras.optimizers.schedules.CosineDecay(0.02, 8)


def make_sgd(**options):
    made = keras.optimizers.SGD(
        schedule(), 0.9, weight_decay=0.1, global_clipnorm=1.0, **options
    )
    made.exclude_from_weight_decay(var_names=["bias"])
    return made


def make_adamw(**options):
    made = keras.optimizers.AdamW(schedule(), weight_decay=0.1, **options)
    made.exclude_from_weight_decay(var_names=["bias"])
    return made


def assert_close(found, wanted):
    for value, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("ema", [False, True])
def test_sgd_with_momentum_is_numpys(ema):
    made = model()
    weights, average = sgd(made.get_weights())
    optimizer = make_sgd(use_ema=ema, ema_momentum=0.7)
    optimizer = with_layer_decay(optimizer, made, 0.5)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert_close(fit(made, optimizer), average if ema else weights)
    assert float(optimizer.learning_rate) == pytest.approx(rate(6), 1e-5)


def test_adamw_with_accumulation_is_numpys():
    made = model()
    wanted = adamw(made.get_weights())
    optimizer = make_adamw(gradient_accumulation_steps=2)
    optimizer = with_layer_decay(optimizer, made, 0.5)
    assert_close(fit(made, optimizer, epochs=4), wanted)


@pytest.mark.parametrize(
    "kind",
    slow_unless((keras.optimizers.SGD, keras.optimizers.AdamW), _optimizers()),
    ids=lambda kind: kind.__name__,
)
def test_a_factor_of_1_is_the_plain_optimizer_bit_by_bit(kind):
    """That is what `with_layer_decay` returns; a factor of 1 is no other."""
    options = {"learning_rate": 0.01}
    if kind is not keras.optimizers.Adafactor:  # which has a decay of its own
        options["weight_decay"] = 0.1
    plain = kind(**options)
    assert with_layer_decay(plain, model(), 1) is plain
    scaled = _scaled(kind)(learning_rate_factors=6 * [1.0], **options)
    wanted = fit(model(), plain, epochs=1)
    for value, expected in zip(fit(model(), scaled, epochs=1), wanted):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("make", [make_sgd, make_adamw])
def test_an_adaptive_optimizer_does_smaller_steps_too(make):
    """Each step, not the gradient, which AdamW would scale back."""
    steps = []
    for decay in (1, 0.25):
        made = model()
        before = made.get_weights()
        optimizer = with_layer_decay(make(), made, decay)
        made.compile(optimizer, "mse", jit_compile=False)
        made.train_on_batch(X, Y)
        steps.append([a - b for a, b in zip(made.get_weights(), before)])
    for plain, scaled, factor in zip(*steps, [1 / 16, 1 / 16, 1 / 4, 1 / 4]):
        np.testing.assert_allclose(scaled, factor * plain, rtol=0, atol=1e-7)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_float16_and_xla(jit_compile):
    """Keras wraps the optimizer where it scales the loss."""
    keras.config.set_dtype_policy("mixed_float16")
    made = model()
    made.compile(
        with_layer_decay(make_adamw(), made, 0.5),
        "mse",
        jit_compile=jit_compile,
    )
    assert isinstance(made.optimizer, keras.optimizers.LossScaleOptimizer)
    made.optimizer.build(made.trainable_variables)
    made.optimizer.dynamic_scale.assign(256)  # a larger one skips steps
    before = made.get_weights()
    made.train_on_batch(X, Y)
    # AdamW's first step is the learning rate, whatever the gradient.
    for i in (1, 3, 5):
        step = np.abs(made.get_weights()[i] - before[i])
        np.testing.assert_allclose(step, 0.02 * FACTORS[i], rtol=2e-2)


RELOAD = """
import sys
import keras_csp, keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
x, y = (np.load(path) for path in sys.argv[2:4])
model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
np.savez(sys.argv[4], *model.get_weights())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)]
)
def test_a_compiled_model_goes_on_in_a_new_process(backend, tmp_path):
    made = model()
    fit(made, with_layer_decay(keras.optimizers.AdamW(0.01), made, 0.5))
    made.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    made.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    names = ("model.keras", "x.npy", "y.npy", "w.npz")
    run_python(
        RELOAD, *(tmp_path / name for name in names), KERAS_BACKEND=backend
    )
    found = np.load(tmp_path / "w.npz")
    for name, wanted in zip(found, made.get_weights(), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-6)


def test_a_training_is_resumed(tmp_path):
    whole = model()
    wanted = fit(whole, with_layer_decay(make_sgd(), whole, 0.5), epochs=4)
    first, state = model(), TrainingState(tmp_path)
    fit(first, with_layer_decay(make_sgd(), first, 0.5), 2, callbacks=[state])
    again, state = model(seed=1), TrainingState(tmp_path)
    optimizer = with_layer_decay(make_sgd(), again, 0.5)
    again.compile(optimizer, "mse", jit_compile=False)
    epoch = state.restore(again)
    found = fit(again, optimizer, 4, initial_epoch=epoch, callbacks=[state])
    assert_close(found, wanted)


def names(groups):
    return {key: [layer.name for layer in g] for key, g in groups.items()}


def weighted(groups):
    """Names of the layers that have weights."""
    return {
        key: [layer.name for layer in group if layer.weights]
        for key, group in groups.items()
    }


def test_groups_of_this_packages_networks():
    options = {"input_shape": (64, 64, 3), "classes": 3}
    found = layer_groups(build_network(SMALL["SmallCSPPelee"], **options))
    assert list(found) == ["head", "stage2", "stage1", "stem"]
    assert weighted(found)["head"] == ["pre_logits_1", "predictions"]
    assert weighted(found)["stage2"] == ["stage2_down_2", "stage2"]
    every = [layer for group in found.values() for layer in group]
    assert len(every) == len(set(every))


def test_groups_of_others_are_those_of_a_stride():
    found = weighted(layer_groups(tiny_backbone(64)))
    # The last map's stage, though there is no classifier after it.
    assert list(found) == ["head", *(f"stride{2**n}" for n in (5, 4, 3, 2, 1))]
    assert found["head"] == [] and all(
        len(g) == 1 for g in [*found.values()][1:]
    )
    image = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(4, 3, 2, "same", name="down")(image)
    y = keras.layers.Conv2D(4, 3, 2, "same", name="inside")(x)
    y = keras.layers.UpSampling2D()(y)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Conv2D(8, 3, 2, "same", name="next")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, name="classes")(x)
    found = weighted(layer_groups(keras.Model(image, x)))
    assert found == {
        "head": ["classes"],
        "stride4": ["next"],
        "stride2": ["down", "inside"],
    }


def test_groups_of_a_detector_and_of_a_model_without_maps():
    detector = keras_csp.Detector(
        tiny_backbone(64), "prn", classes=2, input_shape=(64, 64, 3)
    )
    found = weighted(layer_groups(detector))
    strides = [f"stride{2**n}" for n in (5, 4, 3, 2, 1)]
    assert list(found) == ["head", "neck", *strides]
    assert set(found["head"]) == {"head_P4", "head_P5"}
    assert found["neck"] == ["neck"]
    found = names(layer_groups(model()))
    assert found == {
        "head": ["last"],
        "layer2": ["second"],
        "layer1": ["first"],
    }


def test_a_recipe_has_it():
    recipe = FINE_TUNING.replace(layer_decay=0.5)
    made = model()
    optimizer = recipe.make_optimizer(made)
    assert optimizer.learning_rate_factors == FACTORS
    assert "layer decay 0.5" in recipe.summary()
    # What is frozen has none, and changes nothing for the others.
    made.layers[1].trainable = False
    optimizer = recipe.make_optimizer(made)
    assert optimizer.learning_rate_factors == [0.25, 0.25, 1.0, 1.0]
    with pytest.raises(ValueError, match="needs the `model`"):
        recipe.make_optimizer()
    for wrong in (0, 1.5, True, float("nan")):
        with pytest.raises(ValueError, match=f"`layer_decay`.*={wrong}"):
            recipe.replace(layer_decay=wrong)


def test_wrong_optimizers():
    made = model()
    optimizer = make_sgd()
    scaled = with_layer_decay(optimizer, made, 0.5)
    made.layers[0].trainable = False
    made.compile(scaled, "mse", jit_compile=False)
    with pytest.raises(ValueError, match=r"for 6 variables.*Received: 4"):
        made.train_on_batch(X, Y)
    optimizer.build(made.trainable_variables)
    wrapped = keras.optimizers.LossScaleOptimizer(make_sgd())
    for wrong in (optimizer, wrapped):
        with pytest.raises(ValueError, match="`optimizer` must be a new one"):
            with_layer_decay(wrong, made, 0.5)
    with pytest.raises(ValueError, match="`decay` must be above 0"):
        with_layer_decay(make_sgd(), made, 0.0)
