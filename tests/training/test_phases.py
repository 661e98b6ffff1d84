"""Which layers each phase trains, on networks; how phases are run."""

import darknet_reference as reference
import keras
import numpy as np
import pytest
from PIL import Image
from support import SMALL, randomize, tiny_backbone

import keras_csp
from keras_csp.data import ClassificationData, DetectionData, ImageRecord
from keras_csp.models.builder import build_network
from keras_csp.training import TrainingState, fit_in_phases
from keras_csp.training.phases import Phase, phase_ends
from keras_csp.training.recipes import FINE_TUNING, FINE_TUNING_DETECTION


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


# Detectors -----------------------------------------------------------------


def small_detector(**options):
    return keras_csp.Detector(
        tiny_backbone(64),
        "prn",
        classes=2,
        input_shape=(64, 64, 3),
        **options,
    )


def tiny_yolo(folder):
    text = reference.author_cfgs()["darknet/cfg/yolov4-tiny.cfg"]
    (folder / "tiny.cfg").write_text(reference.resized(text, 64, 64))
    return keras_csp.Detector.from_darknet(folder / "tiny.cfg")


HEADS = {"head_P4", "head_P5"}
TINY_HEADS = {"convolutional_29", "convolutional_36"}
TINY_NECK = {f"convolutional_{n}" for n in (27, 28, 32, 35)}


@pytest.mark.parametrize("darknet", [False, True])
def test_what_each_part_of_a_detector_trains(darknet, tmp_path):
    model = tiny_yolo(tmp_path) if darknet else small_detector()
    everything = trained_layers(model)
    head, neck = (TINY_HEADS, TINY_NECK) if darknet else (HEADS, {"neck"})
    wanted = {"head": head, "neck": head | neck, "all": everything}
    assert wanted["neck"] < everything
    for part in ("neck", "head", "all", "head"):
        Phase(part, 1.0, batch_normalization=True).apply(model)
        assert trained_layers(model) == wanted[part], part
        kernels = len([v for v in model.trainable_variables if not is_scale(v)])
        Phase(part, 1.0).apply(model)
        assert not any(map(is_scale, model.trainable_variables))
        assert len(model.trainable_variables) == kernels
    keras.utils.clear_session()


def test_a_frozen_part_of_a_detector_does_not_move(rng):
    detector = small_detector()
    Phase("neck", 1.0, batch_normalization=True).apply(detector)
    detector.compile(keras.optimizers.SGD(0.1))
    before = {v.path: v.numpy() for v in detector.variables}
    images = rng.random((2, 64, 64, 3)).astype("float32")
    boxes = np.array([[[8, 8, 30, 40]]] * 2, "float32")
    targets = {"boxes": boxes, "labels": np.zeros((2, 1), "int32")}
    detector.fit(images, targets, verbose=0)
    changed = {
        v.path.split("/")[0]
        for v in detector.variables
        if (v.numpy() != before[v.path]).any()
    }
    assert changed == HEADS | {"neck"}


def test_a_part_of_another_kind_of_model_is_refused():
    with pytest.raises(
        ValueError, match=r"a detector, .*head, neck, all\. Rec"
    ):
        Phase("last_stage", 1.0).apply(small_detector())
    model = small_network("SmallCSPPelee")
    message = r"a classifier, .*head, last_stage, all\. .*part='neck'"
    with pytest.raises(ValueError, match=message):
        Phase("neck", 1.0).apply(model)


def test_a_network_of_keras_applications():
    model = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, weights=None, classes=3
    )
    Phase("head", 1.0).apply(model)
    assert trained_layers(model) == {"predictions"}
    Phase("last_stage", 1.0, batch_normalization=True).apply(model)
    # From the convolution of stride 2 on, whose output has the stride 32.
    found = trained_layers(model)
    assert "block_13_depthwise" in found and "Conv_1" in found
    assert "block_13_expand" not in found and "block_12_project" not in found


# Running them --------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured():
    """Eight noisy images of two colours."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (8, 16, 16, 3), "uint8")
    images[::2, ..., 0] += 150
    pairs = tf.data.Dataset.from_tensor_slices((images, [0, 1] * 4))
    return ClassificationData.from_dataset(pairs, ("a", "b"))


PHASES = (
    Phase("head", 0.5, learning_rate_factor=2.0),
    Phase("all", 0.5, batch_normalization=True),
)
RECIPE = FINE_TUNING.at_size(16).replace(
    batch_size=4, learning_rate=0.02, ema=0.5, layer_decay=0.9, phases=PHASES
)


def small_classifier():
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 2, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, 2, name="next")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2, activation="softmax", name="classes")(x)
    return keras_csp.with_image_spec(keras.Model(image, x), mean=0.5)


class Noting(keras.callbacks.Callback):
    """Notes what each epoch begins with; interrupts one, as a user might."""

    def __init__(self, interrupted=None):
        super().__init__()
        self.interrupted, self.seen = interrupted, []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.interrupted:
            raise KeyboardInterrupt
        rate = float(self.model.optimizer.learning_rate)
        self.seen.append((epoch, len(self.model.trainable_variables), rate))


def fit_classifier(data, state=None, fresh=False, interrupted=None, epochs=4):
    keras.utils.set_random_seed(0)
    model, noting = small_classifier(), Noting(interrupted)
    if fresh:
        randomize(model)  # not what the training began with
    history = fit_in_phases(
        model,
        RECIPE,
        data,
        data,
        epochs,
        state,
        compile_options={"metrics": ["accuracy"], "jit_compile": False},
        callbacks=[noting],
        verbose=0,
    )
    return model, history, noting.seen


def test_each_phase_has_its_layers_and_its_rate(coloured):
    model, history, seen = fit_classifier(coloured)
    assert len(history["loss"]) == len(history["val_accuracy"]) == 4
    rate, every = RECIPE.learning_rate, len(model.trainable_variables)
    assert every == 8
    assert [(epoch, count) for epoch, count, _ in seen] == [
        *((0, 2), (1, 2), (2, every), (3, every))
    ]
    # Each from the begin of a schedule of its own.
    assert seen[0][2] == pytest.approx(2 * rate)
    assert seen[1][2] < rate * 1.01
    assert seen[2][2] == pytest.approx(rate)


@pytest.mark.slow
@pytest.mark.parametrize(
    "epoch", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))]
)
def test_a_fine_tuning_is_resumed(coloured, epoch, tmp_path):
    """Within a phase, and at the end of one."""
    state = TrainingState(tmp_path / "whole")
    whole, wanted, _ = fit_classifier(coloured, state)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(
            coloured, TrainingState(tmp_path / "parts"), interrupted=epoch
        )
    state = TrainingState(tmp_path / "parts")
    assert state.finished() == epoch
    again, found, seen = fit_classifier(coloured, state, fresh=True)
    assert [number for number, *_ in seen] == [*range(epoch, 4)]
    assert {len(values) for values in found.values()} == {4}
    # After an interruption within a phase the images come in another order.
    same = 4 if epoch == 2 else epoch
    for name, values in wanted.items():
        np.testing.assert_allclose(
            found[name][:same], values[:same], rtol=1e-4, atol=1e-5
        )
    if epoch == 2:
        for value, expected in zip(again.get_weights(), whole.get_weights()):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5)


def test_a_finished_fine_tuning_is_loaded(coloured, tmp_path):
    """The best epoch, of whichever phase, with its averages."""
    state = TrainingState(tmp_path, monitor="val_loss")
    model, wanted, _ = fit_classifier(coloured, state)
    # The larger value is better: the first epoch, of the first phase.
    assert state.best["epoch"] == 1
    state = TrainingState(tmp_path, monitor="val_loss")
    again, found, seen = fit_classifier(coloured, state, fresh=True)
    assert not seen and found == wanted
    for value, expected in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(value, expected)
    tests = RECIPE.evaluation(coloured, again)
    loss = again.evaluate(tests, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(wanted["val_loss"][0], rel=1e-5)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """Four images of a bright square each."""
    folder, records = tmp_path_factory.mktemp("boxed"), []
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 60, (64, 64, 3), "uint8")
        x, y = 4 + 8 * number, 30 - 6 * number
        pixels[y : y + 24, x : x + 24] = 230
        Image.fromarray(pixels).save(folder / f"{number}.png")
        box = (x, y, x + 24, y + 24)
        records.append(ImageRecord(f"{number}.png", [box], [0]))
    return DetectionData.from_records(records, ["a", "b"], folder)


@pytest.mark.slow
def test_the_averaged_weights_of_a_detector_are_validated(boxed, tmp_path):
    """What is reported is what the best epoch's file gives."""
    phase = Phase("all", 1.0, batch_normalization=True)
    recipe = FINE_TUNING_DETECTION.replace(
        size=64,
        sizes=(64,),
        batch_size=2,
        learning_rate=0.02,
        phases=(phase,),
    ).with_augmentation(mosaic=0.0, jitter=0.0)
    detector = small_detector()
    state = TrainingState(tmp_path, monitor="val_loss")
    history = fit_in_phases(detector, recipe, boxed, boxed, 1, state, verbose=0)
    (value,) = history["val_loss"]
    assert value == state.best["value"]
    tests = recipe.evaluation(boxed, detector)
    found = detector.evaluate(tests, verbose=0)
    assert found["loss"] == pytest.approx(value, rel=1e-5)
    # The weights that the average is made of are not that.
    TrainingState(tmp_path).restore(detector)
    other = detector.evaluate(tests, verbose=0)["loss"]
    assert abs(other - value) > 1e-3 * value


def test_without_phases_what_is_trainable_is_trained(coloured):
    model = small_classifier()
    Phase("head", 1.0).apply(model)
    before = model.get_weights()
    recipe = RECIPE.replace(phases=(), steps=4)
    history = fit_in_phases(model, recipe, coloured, verbose=0)
    assert len(history["loss"]) == 2 and "val_loss" not in history
    moved = [
        v.path.split("/")[0]
        for v, old in zip(model.weights, before)
        if (v.numpy() != old).any()
    ]
    assert set(moved) == {"classes"}


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
