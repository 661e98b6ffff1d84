"""A training that goes on after its process has died."""

import csv
import json
import os

import keras
import numpy as np
import pytest

from keras_csp import writing
from keras_csp.callbacks import TrainingState

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
    rate = keras.optimizers.schedules.CosineDecay(0.05, 40)
    made.compile(optimizer or keras.optimizers.SGD(rate, momentum=0.9), "mse")
    return made


def fit(made, state, until, since=0, before=()):
    """Losses of the epochs, always on the same batches in the same order."""
    return made.fit(
        X, Y, batch_size=4, shuffle=False, verbose=0, epochs=until,
        initial_epoch=since, callbacks=[*before, state],
    ).history["loss"]  # fmt: skip


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

    monkeypatch.setattr(writing.os, "replace", dies)
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
    with pytest.raises(ValueError, match="is of another model than") as caught:
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
