"""Which layers each phase trains, on networks; how phases divide epochs."""

import keras
import numpy as np
import pytest
from support import SMALL, randomize

import keras_csp
from keras_csp.models.builder import build_network
from keras_csp.training.phases import Phase, phase_ends
from keras_csp.training.recipes import FINE_TUNING


def small_network(name, **options):
    row = SMALL[name]
    return build_network(row, input_shape=(64, 64, 3), classes=3, **options)


def trained_layers(model):
    """Names of layers of the model that have something to train."""
    return {layer.name for layer in model.layers if layer.trainable_variables}


def is_scale(variable):
    return variable.path.rsplit("/", 1)[-1] in ("gamma", "beta")


# The last stage and what comes after it, as the rows of support.py say.
LAST = {
    "SmallCSPResNeXt": ({"stage2_down", "stage2"}, {"predictions"}),
    "SmallCSPPelee": (
        {"stage2_down_2", "stage2"},
        {"pre_logits_1", "predictions"},
    ),
    "SmallCSPDense": ({"stage2_1", "stage2_2"}, {"head", "predictions"}),
    "SmallElastic": (
        {"stage2_down", "stage2_1", "stage2_2", "stage2_3"},
        {"predictions"},
    ),
    "SmallMobile": ({"stage1"}, {"predictions"}),
}


@pytest.mark.parametrize("name", LAST)
def test_what_each_part_trains(name):
    model = small_network(name)
    everything = trained_layers(model)
    stage, head = LAST[name]
    wanted = {"head": head, "last_stage": stage | head, "all": everything}
    assert wanted["last_stage"] < everything
    for part in ("last_stage", "head", "all", "head"):
        Phase(part, 1.0, batch_normalization=True).apply(model)
        assert trained_layers(model) == wanted[part], part
        assert any(map(is_scale, model.trainable_variables)) == (
            part != "head" or len(head) > 1
        )
        kernels = len([v for v in model.trainable_variables if not is_scale(v)])
        # Frozen from there; then the next part opens what it should.
        Phase(part, 1.0).apply(model)
        assert not any(map(is_scale, model.trainable_variables))
        assert len(model.trainable_variables) == kernels


def statistics(model):
    return {
        variable.path: variable.numpy()
        for variable in model.non_trainable_variables
        if "moving_" in variable.path
    }


def moved(model, phase, rng):
    """Paths of what a step of the phase changes: weights, and statistics."""
    phase.apply(model)
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    before = {v.path: v.numpy() for v in model.variables}
    x = rng.random((8, 64, 64, 3)).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 8)]
    model.train_on_batch(x, y)
    changed = {
        v.path for v in model.variables if (v.numpy() != before[v.path]).any()
    }
    statistics = {path for path in changed if "moving_" in path}
    return changed - statistics, statistics


@pytest.mark.parametrize("name", ["SmallCSPPelee", "SmallCSPDense"])
def test_what_is_frozen_does_not_move(rng, name):
    model = randomize(small_network(name))
    stage, head = LAST[name]
    weights, moving = moved(model, Phase("last_stage", 1.0), rng)
    # What has kernels, not normalisation alone.
    kernels = stage | head - {"head"}
    assert {path.split("/")[0] for path in weights} == kernels
    assert not any(path.endswith(("gamma", "beta")) for path in weights)
    assert not moving
    phase = Phase("last_stage", 1.0, batch_normalization=True)
    weights, moving = moved(model, phase, rng)
    assert {path.split("/")[0] for path in weights} == stage | head
    assert moving and {p.split("/")[0] for p in moving} <= stage | head
    # Of all layers that have statistics there, both of them.
    there = [p for p in statistics(model) if p.split("/")[0] in stage | head]
    assert moving == set(there)


@pytest.mark.parametrize(
    ("epochs", "ends"),
    [(3, [1, 2, 3]), (5, [1, 2, 5]), (20, [2, 4, 20]), (40, [4, 8, 40])],
)
def test_the_phases_divide_the_epochs(epochs, ends):
    """A tenth, a tenth, the rest; each at least an epoch."""
    assert phase_ends(FINE_TUNING.phases, epochs) == ends
    assert phase_ends(FINE_TUNING.phases[-1:], epochs) == [
        max(1, round(0.8 * epochs))
    ]


def test_fewer_epochs_than_phases():
    with pytest.raises(ValueError, match=r"at least 3 epochs\. .*epochs=2"):
        phase_ends(FINE_TUNING.phases, 2)


def test_fine_tuning_opens_the_network_backwards():
    model, before = small_network("SmallCSPResNeXt"), 0
    for phase in FINE_TUNING.phases:
        phase.apply(model)
        assert len(model.trainable_variables) > before
        before = len(model.trainable_variables)
    assert before == len(small_network("SmallCSPResNeXt").trainable_variables)


def test_a_network_inside_another_model():
    """As where an `ImageSpec` is put before a model of one's own."""
    inner = small_network("SmallCSPPelee")
    image = keras.Input(inner.input_shape[1:])
    model = keras.Model(image, inner(keras.layers.Rescaling(2.0)(image)))
    Phase("head", 1.0, batch_normalization=True).apply(model)
    assert trained_layers(inner) == LAST["SmallCSPPelee"][1]
    assert len(model.trainable_variables) == len(inner.trainable_variables)


def test_with_another_image_spec_the_same_layers_are_trained():
    model = keras_csp.with_image_spec(small_network("SmallCSPPelee"), mean=0.5)
    Phase("last_stage", 1.0).apply(model)
    stage, head = LAST["SmallCSPPelee"]
    paths = {v.path.split("/")[0] for v in model.trainable_variables}
    assert paths == stage | head


def test_errors():
    model = small_network("SmallCSPPelee")
    with pytest.raises(ValueError, match="'tail'"):
        Phase("tail", 1.0).apply(model)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"networks of keras_csp.*dense"):
        Phase("head", 1.0).apply(other)
    bare = small_network("SmallCSPPelee", include_top=False)
    with pytest.raises(ValueError, match="nothing to train in the part 'head'"):
        Phase("head", 1.0).apply(bare)
