"""A training that is resumed after its process has died."""

import csv
import json
import os

import keras
import numpy as np
import pytest

from keras_csp import _files
from keras_csp.training.checkpoint import TrainingState

X = np.random.default_rng(0).random((16, 4)).astype("float32")
Y = X @ np.arange(1.0, 5.0, dtype="float32")[:, None]


class Values(keras.callbacks.Callback):
    """Puts given values into the logs, as a validation would."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs["val_AP50"] = self.values[epoch]


def model(seed=0, units=3, optimizer=None):
    keras.utils.set_random_seed(seed)
    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.01, 40)
    made.compile(optimizer or keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return made


def fit(made, state, until, since=0, before=()):
    """Losses of the epochs, always on the same batches in the same order."""
    history = made.fit(
        X,
        Y,
        batch_size=4,
        shuffle=False,
        verbose=0,
        epochs=until,
        initial_epoch=since,
        callbacks=[*before, state],
    )
    return history.history["loss"]


def everything(made):
    """Weights, momenta, iterations: by value."""
    return [v.numpy() for v in made.variables + made.optimizer.variables]


def read_state(folder):
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def weight_files(folder):
    return sorted(path.name for path in folder.glob("*.weights.h5"))


@pytest.mark.parametrize(
    "optimizer", [None, lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)]
)
def test_everything_is_restored_bit_by_bit(tmp_path, optimizer):
    first = model(optimizer=optimizer and optimizer())
    fit(first, TrainingState(tmp_path), until=3)
    second = model(seed=1, optimizer=optimizer and optimizer())
    assert TrainingState(tmp_path).restore(second) == 3
    assert int(second.optimizer.iterations) == 12
    expected = everything(first)
    assert len(expected) > 4
    for value, wanted in zip(everything(second), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    momenta = [v for v in first.optimizer.variables if "kernel" in v.path]
    assert momenta and all(np.abs(v.numpy()).max() > 0 for v in momenta)


def test_two_and_two_epochs_are_four(tmp_path):
    whole = fit(model(), TrainingState(tmp_path / "whole"), until=4)
    first = fit(model(), TrainingState(tmp_path / "parts"), until=2)
    again, state = model(seed=5), TrainingState(tmp_path / "parts")
    epoch = state.restore(again)
    second = fit(again, state, until=4, since=epoch)
    np.testing.assert_allclose(first + second, whole, rtol=0, atol=1e-6)
    assert [row["epoch"] for row in state.history] == [1, 2, 3, 4]
    losses = [row["loss"] for row in state.history]
    np.testing.assert_allclose(losses, whole, rtol=0, atol=1e-6)


def test_nothing_saved_is_epoch_zero(tmp_path):
    state, made = TrainingState(tmp_path / "new"), model()
    before = [v.numpy() for v in made.variables]
    assert state.restore(made) == 0
    assert state.best is None and state.best_path is None
    for value, wanted in zip(made.variables, before):
        np.testing.assert_array_equal(value.numpy(), wanted)
    assert not (tmp_path / "new").exists()


# Of every file that is renamed into place, in the order of an epoch's end.
@pytest.mark.parametrize("victim", ["epoch00003.weights.h5", "state.json"])
def test_a_kill_while_saving_leaves_the_state_before(
    tmp_path, monkeypatch, victim
):
    made, state = model(), TrainingState(tmp_path)
    fit(made, state, until=2)
    expected = everything(made)
    replace = os.replace

    def dies(source, target):
        if os.path.basename(target) == victim:
            # What is still in memory is lost: the file ends in the middle.
            with open(source, "r+b") as file:
                file.truncate(os.path.getsize(source) // 2)
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(_files.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(made, state, until=3, since=2)
    monkeypatch.undo()
    # Which a killed process, unlike this one, could not remove.
    (tmp_path / "part-0123-epoch00003.weights.h5").write_bytes(b"half")

    assert read_state(tmp_path)["epoch"] == 2
    again, state = model(seed=1), TrainingState(tmp_path)
    assert state.restore(again) == 2
    for value, wanted in zip(everything(again), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    # It goes on, and nothing half written stays.
    fit(again, state, until=3, since=2)
    assert weight_files(tmp_path) == ["epoch00003.weights.h5"]
    assert [row["epoch"] for row in state.history] == [1, 2, 3]


def test_a_kill_while_weights_are_written(tmp_path, monkeypatch):
    made, state = model(), TrainingState(tmp_path)
    fit(made, state, until=1)

    def dies(path, **_options):
        path.write_bytes(b"\x89HDF half")
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "save_weights", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(made, state, until=2, since=1)
    assert TrainingState(tmp_path).restore(model(seed=1)) == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda: model(units=4),
        lambda: model(optimizer=keras.optimizers.AdamW()),
    ],
    ids=["layer", "optimizer"],
)
def test_another_model_is_refused(tmp_path, other):
    fit(model(), TrainingState(tmp_path), until=1)
    with pytest.raises(
        ValueError, match="belongs to another model than"
    ) as caught:
        TrainingState(tmp_path).restore(other())
    assert str(tmp_path) in str(caught.value)


def test_an_uncompiled_model_is_refused(tmp_path):
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="Call `compile` before `restore`"):
        TrainingState(tmp_path).restore(made)


def test_the_best_weights_are_kept(tmp_path):
    values = [0.3, 0.7, None, 0.5, 0.7, float("nan")]
    made, kept = model(), []
    state = TrainingState(tmp_path, monitor="val_AP50")
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(made.get_weights())
    )
    fit(made, state, until=6, before=[Values(values), keep])
    assert state.best == {"epoch": 2, "value": 0.7}
    assert weight_files(tmp_path) == [
        "epoch00002.weights.h5",
        "epoch00006.weights.h5",
    ]
    best = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)]
    )
    best.load_weights(state.best_path)
    for value, wanted in zip(best.get_weights(), kept[1], strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_the_best_is_known_after_a_restart(tmp_path):
    state = TrainingState(tmp_path, monitor="val_AP50")
    values = [0.3, 0.7, 0.5, 0.8]
    fit(model(), state, until=2, before=[Values(values)])
    again = model()
    state = TrainingState(tmp_path, monitor="val_AP50")
    assert state.restore(again) == 2
    assert state.best == {"epoch": 2, "value": 0.7}
    fit(again, state, until=3, since=2, before=[Values(values)])
    assert state.best == {"epoch": 2, "value": 0.7}
    fit(again, state, until=4, since=3, before=[Values(values)])
    assert state.best == {"epoch": 4, "value": 0.8}
    assert weight_files(tmp_path) == ["epoch00004.weights.h5"]


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_has_every_epoch_once(tmp_path):
    """Half lines, lines too many and late columns do not matter."""
    log, folder = tmp_path / "out" / "log.csv", tmp_path / "state"
    values = [None, 0.25, None, 0.5]
    state = TrainingState(folder, "val_AP50", log)
    fit(model(), state, until=2, before=[Values(values)])
    with open(log, "a", encoding="utf-8") as file:
        file.write("3,0.12")
    again, state = model(), TrainingState(folder, "val_AP50", log)
    state.restore(again)
    assert [row["epoch"] for row in rows(log)] == ["1", "2"]
    fit(again, state, until=4, since=2, before=[Values(values)])
    table = rows(log)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4"]
    assert [row["val_AP50"] for row in table] == ["", "0.25", "", "0.5"]
    assert all(float(row["loss"]) > 0 for row in table)


def test_another_fit_in_the_same_folder_starts_anew(tmp_path):
    state = TrainingState(tmp_path)
    fit(model(), state, until=3)
    fit(model(), state, until=1)
    assert [row["epoch"] for row in state.history] == [1]
    assert TrainingState(tmp_path).restore(model()) == 1


@pytest.mark.parametrize("second", [0.2, None])
def test_the_best_is_forgotten_where_its_epoch_is_done_again(tmp_path, second):
    """Its weights are overwritten."""
    state = TrainingState(tmp_path, monitor="val_AP50")
    fit(model(), state, until=1, before=[Values([0.5])])
    again = model(seed=1)
    fit(again, state, until=1, before=[Values([second])])
    assert state.best == (second and {"epoch": 1, "value": second})
    restored = model(seed=2)
    state.restore_best(restored)
    for value, wanted in zip(restored.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(value, wanted)


def test_a_value_that_is_no_number_is_not_the_best(tmp_path):
    state = TrainingState(tmp_path, monitor="val_AP50")
    values = [float("nan"), 0.2, float("nan"), 0.1]
    fit(model(), state, until=1, before=[Values(values)])
    assert state.best is None
    fit(model(), state, until=4, since=1, before=[Values(values)])
    assert state.best == {"epoch": 2, "value": 0.2}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_training_that_is_lost_does_not_replace_the_one_before(
    tmp_path, loss
):
    made, state = model(), TrainingState(tmp_path, log=tmp_path / "log.csv")
    fit(made, state, until=2)
    expected = everything(made)
    lost = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(loss=loss)
    )
    with pytest.raises(ValueError, match="The loss of epoch 3 is"):
        fit(made, state, until=4, since=2, before=[lost])
    again = model(seed=1)
    assert TrainingState(tmp_path).restore(again) == 2
    for value, wanted in zip(everything(again), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert [row["epoch"] for row in rows(tmp_path / "log.csv")] == ["1", "2"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in ("part-12-epoch00001.weights.h5", "part-34-state.json"):
        (tmp_path / name).write_bytes(b"half")
    assert TrainingState(tmp_path).restore(model()) == 0
    fit(model(), TrainingState(tmp_path), until=1)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch00001.weights.h5", "state.json"]


# Averaged weights ----------------------------------------------------------


def averaged_model(seed=0):
    rate = keras.optimizers.schedules.CosineDecay(0.01, 40)
    optimizer = keras.optimizers.SGD(rate, 0.9, use_ema=True, ema_momentum=0.7)
    return model(seed, optimizer=optimizer)


def fit_validated(made, state, until, since=0):
    """Losses of the validation, which is of the averaged weights."""
    history = made.fit(
        X,
        Y,
        batch_size=4,
        shuffle=False,
        verbose=0,
        epochs=until,
        initial_epoch=since,
        validation_data=(X, Y),
        callbacks=[keras.callbacks.SwapEMAWeights(), state],
    )
    return history.history["val_loss"]


def test_averages_go_on_where_they_were(tmp_path):
    whole = averaged_model()
    losses = fit_validated(whole, TrainingState(tmp_path / "whole"), 4)
    parts = fit_validated(averaged_model(), TrainingState(tmp_path / "a"), 2)
    again, state = averaged_model(seed=5), TrainingState(tmp_path / "a")
    parts += fit_validated(again, state, 4, since=state.restore(again))
    np.testing.assert_allclose(parts, losses, rtol=0, atol=1e-6)
    for value, wanted in zip(everything(again), everything(whole)):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-6)


def test_the_best_epoch_is_the_one_that_was_validated(tmp_path):
    """With averages: theirs, not the weights that they were made of."""
    made = averaged_model()
    state = TrainingState(tmp_path, monitor="val_loss")  # the first is best
    losses = fit_validated(made, state, until=3)
    assert losses[0] == max(losses) == state.best["value"]
    best = averaged_model(seed=7)
    state.restore_best(best)
    found = best.evaluate(X, Y, batch_size=4, verbose=0)
    assert found == pytest.approx(losses[0], rel=1e-5)
    # The file has them, too, and a training goes on with the others.
    plain = averaged_model(seed=7)
    plain.load_weights(state.best_path)
    found = plain.evaluate(X, Y, batch_size=4, verbose=0)
    assert found == pytest.approx(losses[0], rel=1e-5)
    assert weight_files(tmp_path) == [
        "best00001.weights.h5",
        "epoch00003.weights.h5",
    ]
    one = averaged_model()
    fit_validated(one, TrainingState(tmp_path / "one", "val_loss"), until=1)
    raw = averaged_model(seed=7)
    TrainingState(tmp_path / "one", "val_loss").restore(raw)
    other = raw.evaluate(X, Y, batch_size=4, verbose=0)
    assert abs(other - losses[0]) > 1e-3


def test_the_best_of_another_phase(tmp_path):
    """Its optimizer trained other layers than the present one."""
    made = averaged_model()
    state = TrainingState(tmp_path, monitor="val_loss")  # the first is best
    losses = fit_validated(made, state, until=1)
    made.layers[0].trainable = False
    made.compile(keras.optimizers.SGD(0.01), "mse")
    fit(made, state, until=2, since=1)
    assert state.best["epoch"] == 1
    state.restore_best(made)
    found = made.evaluate(X, Y, batch_size=4, verbose=0)
    assert found == pytest.approx(losses[0], rel=1e-5)
    assert TrainingState(tmp_path).finished() == 2


def test_without_a_best_epoch_it_is_the_last(tmp_path):
    made, state = model(), TrainingState(tmp_path)
    with pytest.raises(ValueError, match="No epoch has been saved in"):
        state.restore_best(made)
    fit(made, state, until=2)
    again = model(seed=1)
    state.restore_best(again)
    for value, wanted in zip(again.get_weights(), made.get_weights()):
        np.testing.assert_array_equal(value, wanted)


def test_the_scale_of_a_float16_loss_is_restored(tmp_path):
    """Keras wraps the optimizer in another one there."""
    keras.config.set_dtype_policy("mixed_float16")
    first = averaged_model()
    assert isinstance(first.optimizer, keras.optimizers.LossScaleOptimizer)
    fit(first, TrainingState(tmp_path), until=2)
    first.optimizer.dynamic_scale.assign(256)
    fit(first, TrainingState(tmp_path), until=3, since=2)
    again = averaged_model(seed=1)
    assert TrainingState(tmp_path).restore(again) == 3
    assert float(again.optimizer.dynamic_scale) == 256
    assert len(again.optimizer.variables) == len(first.optimizer.variables)
    for value, wanted in zip(
        again.optimizer.variables, first.optimizer.variables
    ):
        np.testing.assert_array_equal(value.numpy(), wanted.numpy())
