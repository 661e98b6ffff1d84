import keras
import numpy as np
import pytest
import reference
from support import assert_configuration_round_trip, randomize, unit_weights

from keras_csp.layers import (
    ConvNormAct,
    CSPStage,
    DenseBlock,
    ResidualBlock,
    Transition,
)


@pytest.mark.parametrize("fusion", ["csp", "first", "last"])
@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75])
def test_stage_is_equation_4(rng, gamma, fusion):
    """y = M([x0', T(F(x0''))]), by numpy, with each of Fig. 3's fusions."""
    x = rng.normal(size=(2, 6, 6, 8))
    block = ConvNormAct(6, 3)
    stage = CSPStage(block, gamma=gamma, fusion=fusion)
    stage.build(x.shape)
    randomize(stage)

    shortcut = int(8 * gamma)
    y = reference.conv_norm_act(x[..., shortcut:], unit_weights(block))
    if fusion != "first":  # T
        weights = unit_weights(stage.partial_transition)
        assert weights[0].shape == (1, 1, 6, 6)
        y = reference.conv_norm_act(y, weights)
    y = np.concatenate([x[..., :shortcut], y], axis=-1)
    if fusion != "last":  # M
        weights = unit_weights(stage.transition)
        assert weights[0].shape == (1, 1, shortcut + 6, shortcut + 6)
        y = reference.conv_norm_act(y, weights)

    answer = np.asarray(stage(x))
    assert answer.shape == stage.compute_output_shape(x.shape)
    np.testing.assert_allclose(answer, y, atol=1e-5)


def test_missing_transitions_have_no_weights():
    first = CSPStage(ConvNormAct(4), fusion="first")
    last = CSPStage(ConvNormAct(4), fusion="last")
    assert first.partial_transition is None
    assert last.transition is None


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75])
def test_two_convolutions_equal_one_and_a_slice(rng, gamma):
    """The authors' two ways to split are one: kernels side by side."""
    x = rng.normal(size=(2, 5, 5, 8)).astype("float32")
    by_convolution = CSPStage(ConvNormAct(4, 3), gamma=gamma, split="conv")
    by_convolution.build(x.shape)
    randomize(by_convolution)
    by_slice = CSPStage(ConvNormAct(4, 3), gamma=gamma, split="slice")
    before = ConvNormAct(8)
    before.build(x.shape)
    by_slice.build(x.shape)

    shortcut, main = by_convolution._branches
    joined = [
        np.concatenate(pair, axis=-1)
        for pair in zip(shortcut.get_weights(), main.get_weights())
    ]
    before.set_weights(joined)
    for name in ("partial_transition", "transition"):
        source = getattr(by_convolution, name)
        getattr(by_slice, name).set_weights(source.get_weights())
    by_slice.blocks[0].set_weights(by_convolution.blocks[0].get_weights())

    np.testing.assert_allclose(
        np.asarray(by_slice(before(x))),
        np.asarray(by_convolution(x)),
        atol=1e-5,
    )


def test_a_pair_of_layers_splits_freely(rng):
    x = rng.normal(size=(1, 8, 8, 4))
    shortcut = ConvNormAct(3, 3, 2)
    main = [ConvNormAct(6), ConvNormAct(5, 3, 2)]
    stage = CSPStage(
        ConvNormAct(5, 3),
        split=(shortcut, main),
        partial_transition=2,
        transition=7,
    )
    stage.build(x.shape)
    randomize(stage)
    x_shortcut = reference.conv_norm_act(x, unit_weights(shortcut), 2)
    y = reference.conv_norm_act(x, unit_weights(main[0]))
    y = reference.conv_norm_act(y, unit_weights(main[1]), 2)
    for layer in (stage.blocks[0], stage.partial_transition):
        y = reference.conv_norm_act(y, unit_weights(layer))
    y = np.concatenate([x_shortcut, y], axis=-1)
    y = reference.conv_norm_act(y, unit_weights(stage.transition))
    assert y.shape == (1, 4, 4, 7)
    np.testing.assert_allclose(np.asarray(stage(x)), y, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Bare(keras.layers.Layer):
    """A user's layer: no build, no output shape, a weight made inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.main = keras.layers.Conv2D(4, 3, padding="same")

    def call(self, x):
        return keras.ops.relu(self.main(x)) + x


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: [Bare(), Bare()],
        lambda: keras.layers.Conv2D(5, 3, padding="same"),
        lambda: [
            keras.Sequential(
                [
                    keras.layers.Conv2D(4, 3, padding="same"),
                    keras.layers.ReLU(),
                ]
            ),
            keras.layers.Dropout(0.5),
        ],
        lambda: [ResidualBlock([ConvNormAct(2), ConvNormAct(4, 3)])],
        lambda: DenseBlock([ConvNormAct(4, 3), ConvNormAct(4, 3)]),
    ],
    ids=["bare", "conv", "sequential", "residual", "dense"],
)
def test_any_keras_layers_as_f(rng, blocks, tmp_path):
    """Trains, and comes back from a file the same."""
    inputs = keras.Input((8, 8, 8))
    x = CSPStage(blocks())(inputs)
    outputs = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, outputs)
    images = rng.normal(size=(4, 8, 8, 8)).astype("float32")
    model.compile("adam", "mse")
    model.train_on_batch(images, np.zeros((4, outputs.shape[-1])))
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 0.25, "fusion": "first"},
        {"fusion": "last", "split": "conv", "activation": "relu"},
        {"transition": [ConvNormAct(4), ConvNormAct(6, 3)]},
        {"split": (ConvNormAct(3), ConvNormAct(5))},
    ],
)
def test_configuration_round_trip(rng, options):
    stage = CSPStage([ConvNormAct(4, 3)], **options)
    x = rng.normal(size=(1, 6, 6, 8))
    assert_configuration_round_trip(stage, x)


def test_mixed_precision(rng):
    stage = CSPStage(
        ConvNormAct(4, 3, dtype="mixed_float16"), dtype="mixed_float16"
    )
    y = stage(rng.normal(size=(1, 6, 6, 8)))
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert {w.dtype for w in stage.weights} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: CSPStage([]), r"blocks=\[\]"),
        (lambda b: CSPStage([b, b]), "more than once"),
        (lambda b: CSPStage(b, gamma=0), "gamma=0"),
        (lambda b: CSPStage(b, gamma=1.0), "gamma=1.0"),
        (lambda b: CSPStage(b, gamma="half"), "gamma='half'"),
        (lambda b: CSPStage(b, fusion="both"), "fusion='both'"),
        (lambda b: CSPStage(b, split="conv2"), "split='conv2'"),
        (lambda b: CSPStage(b, split=(b,)), "pair"),
        (
            lambda b: CSPStage(b, fusion="first", partial_transition=4),
            "partial_transition=4",
        ),
        (lambda b: CSPStage(b, fusion="last", transition=4), "transition=4"),
        (lambda b: CSPStage(b, transition=0), "filters=0"),
        (
            lambda b: CSPStage(b, gamma=0.1).build((None, 8, 8, 4)),
            "gamma=0.1 of 4 channels",
        ),
        (
            lambda b: CSPStage(ConvNormAct(4, 3, 2)).build((None, 8, 8, 4)),
            r"\(4, 4\) and \(8, 8\)",
        ),
        (
            lambda b: CSPStage(
                b, partial_transition=Transition(pool="max")
            ).build((None, 8, 8, 4)),
            r"\(4, 4\) and \(8, 8\)",
        ),
    ],
)
def test_bad_arguments_are_quoted(make, message):
    with pytest.raises(ValueError, match=message):
        make(ConvNormAct(4, 3))


def test_transition_default_is_the_papers():
    stage = CSPStage(ConvNormAct(4, 3))
    assert isinstance(stage.partial_transition, Transition)
    assert isinstance(stage.transition, Transition)
