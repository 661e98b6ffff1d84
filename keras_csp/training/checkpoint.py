"""A callback that saves a training after every epoch, to resume it."""

import contextlib
import csv
import io
import json
import math
import pathlib
import warnings

import keras

from keras_csp._files import atomic_write


class TrainingState(keras.callbacks.Callback):
    """Saves a training after every epoch, so that it can be resumed.

        state = TrainingState("runs/mine", monitor="val_AP50")
        epoch = state.restore(model)
        model.fit(..., epochs=100, initial_epoch=epoch, callbacks=[state])

    Weights and optimizer are written to a new file; then `state.json`, which
    names that file, is replaced in one step. If the process dies at any time,
    the files that `state.json` names are complete.
    (`keras.callbacks.BackupAndRestore` writes in place.) An epoch whose loss
    is not finite is not saved: it raises a ValueError.

    Where the optimizer averages weights (`use_ema`), the averages are the
    result, and those of the best epoch are kept in a file of their own. Give
    `fit` a `keras.callbacks.SwapEMAWeights` too, as `recipe.callbacks()`
    does: it validates the averages, so that `monitor` is their value.

    Args:
        folder: created if it does not exist.
        monitor: a name of the logs, larger values being better; the weights of
            the best epoch are kept. Default None.
        log: path of a CSV file, rewritten after every epoch: "epoch" from 1,
            and the logs, each epoch once. Default None.
            (`keras.callbacks.CSVLogger` appends, also epochs done again.)
    """

    def __init__(self, folder, monitor=None, log=None):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.monitor = monitor
        self.log = None if log is None else pathlib.Path(log)
        self._state = {
            "epoch": 0,
            "weights": None,
            "best": None,
            "history": [],
        }

    @property
    def history(self):
        """A dict for each finished epoch: "epoch" from 1, and its logs."""
        return list(self._state["history"])

    @property
    def best(self):
        """{"epoch", "value"} of the best epoch so far, None before."""
        best = self._state["best"]
        return best and {key: best[key] for key in ("epoch", "value")}

    @property
    def best_path(self):
        """The `.weights.h5` file of the best epoch so far, None before.

        If the optimizer averages weights, the file has the averages.
        """
        best = self._state["best"]
        return best and self.folder / best["weights"]

    def finished(self):
        """The number of epochs that the folder's state has, 0 for none."""
        return self._read()["epoch"]

    def restore(self, model):
        """Loads the saved state into a compiled model.

        Returns:
            The number of finished epochs, 0 where nothing was saved.

        Raises:
            ValueError: the model is not compiled, or the state belongs to
                another model.
        """
        state = self._read()
        self._load(model, state["weights"])
        self._state.update(state)
        if state["epoch"]:
            self._write_log()
        return state["epoch"]

    def restore_best(self, model):
        """Loads the weights of the best epoch into a compiled model.

        Those of the last epoch, if none is the best. If the optimizer
        averages weights, the model gets the averages. The optimizer is left
        as it is where there is a best epoch, which may be of an earlier phase
        with other trained layers.

        Raises:
            ValueError: as `restore`, or nothing was saved.
        """
        if self._state["weights"] is None:
            raise ValueError(f"No epoch has been saved in {self.folder}")
        best = self._state["best"]
        if best:
            with without_optimizer(model):
                self._load_weights(model, best["weights"])
            return
        self._load(model, self._state["weights"])
        model.optimizer.finalize_variable_values(model.trainable_variables)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        number, logs = epoch + 1, logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ValueError(
                f"The loss of epoch {number} is {logs['loss']}; the epochs "
                "before it are kept. A smaller learning rate may help"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch{number:05d}.weights.h5"
        with atomic_write(self.folder / name) as part:
            self.model.save_weights(part, overwrite=True)
        row = {"epoch": number}
        row.update({key: float(value) for key, value in logs.items()})
        # An epoch that is trained again replaces the old one.
        before = [r for r in self._state["history"] if r["epoch"] < number]
        self._state = {
            "epoch": number,
            "weights": name,
            "best": self._better(row, name),
            "history": [*before, row],
        }
        best = self._state["best"]
        if best and best["weights"] == name and _averages(self.model):
            best["weights"] = self._save_averages(number)
        with atomic_write(self.folder / "state.json") as part:
            part.write_text(json.dumps(self._state), encoding="utf-8")
        self._write_log()
        self._remove_old()

    def _save_averages(self, number):
        """Writes the averages alone; the name of the file."""
        name = f"best{number:05d}.weights.h5"
        with (
            atomic_write(self.folder / name) as part,
            _averaged(self.model),
            without_optimizer(self.model),
        ):
            self.model.save_weights(part, overwrite=True)
        return name

    def _read(self):
        """What the folder's state.json has, or else what is known here."""
        path = self.folder / "state.json"
        if not path.is_file():
            return self._state
        return json.loads(path.read_text(encoding="utf-8"))

    def _load(self, model, name):
        """Weights and optimizer of a file of this folder, if there is one."""
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                f"Call `compile` before `restore`. Received: {model.name!r}, "
                "without an optimizer"
            )
        if name is None:
            return
        model.optimizer.build(model.trainable_variables)
        self._load_weights(model, name)

    def _load_weights(self, model, name):
        try:
            with warnings.catch_warnings():
                # Keras leaves another optimizer's variables as they are.
                warnings.filterwarnings("error", "Skipping variable loading")
                model.load_weights(self.folder / name)
        except (ValueError, UserWarning) as error:
            raise ValueError(
                f"The training saved in {self.folder} belongs to another "
                f"model than {model.name!r}; resume with the same arguments "
                f"or choose another folder: {str(error)[:200]}"
            ) from error

    def _better(self, row, name):
        best, value = self._state["best"], row.get(self.monitor)
        if best and best["epoch"] >= row["epoch"]:
            best = None  # its epoch was trained again
        if value is None or math.isnan(value):
            return best
        if best and value <= best["value"]:
            return best
        return {"epoch": row["epoch"], "value": value, "weights": name}

    def _write_log(self):
        if self.log is None:
            return
        rows = self._state["history"]
        columns = dict.fromkeys(key for row in rows for key in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.log) as part:
            part.write_text(text.getvalue(), encoding="utf-8")

    def _remove_old(self):
        best = self._state["best"] or {}
        kept = {self._state["weights"], best.get("weights")}
        # Also files that were being written when the process died.
        for pattern in ("*.weights.h5", "part-*"):
            for path in self.folder.glob(pattern):
                if path.name not in kept:
                    path.unlink(missing_ok=True)


def _averages(model):
    """Whether the model's optimizer has moving averages of the weights."""
    optimizer = model.optimizer  # which float16 wraps in another one
    return getattr(optimizer, "inner_optimizer", optimizer).use_ema


@contextlib.contextmanager
def _averaged(model):
    """In the block the model has the averages in the place of its weights."""
    variables = model.trainable_variables
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    # A copy: on some backends the array is a view of the variable.
    values = [value.copy() for value in values]
    model.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, values):
            variable.assign(value)


@contextlib.contextmanager
def without_optimizer(model):
    """In the block the model's files have no optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        model.optimizer = None
    try:
        yield
    finally:
        if optimizer is not None:
            model.optimizer = optimizer
