"""Callbacks of the examples: a training that survives being killed."""

import json
import os
import pathlib

import keras


class TrainingState(keras.callbacks.Callback):
    """Saves a training after every epoch, so that it can go on from there.

        state = TrainingState("runs/mine", monitor="val_AP50")
        epoch = state.restore(model)
        model.fit(..., epochs=100, initial_epoch=epoch, callbacks=[state])

    Weights, optimizer and counters are written under a new name; then one
    rename of `state.json`, which names them, makes them the state. Whenever
    the process dies, the file that `state.json` names is whole.
    (`keras.callbacks.BackupAndRestore` writes in place.)

    Args:
        folder: made if it does not exist.
        monitor: a name of the logs, the larger the better; the weights of
            the best epoch are kept in `best.weights.h5`. Default None.
    """

    def __init__(self, folder, monitor=None):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.monitor = monitor
        self._state = {"epoch": 0, "weights": None, "best": None}

    @property
    def best(self):
        """{"epoch", "value"} of the best epoch so far, None before."""
        return self._state["best"]

    @property
    def best_path(self):
        return self.folder / "best.weights.h5"

    def restore(self, model):
        """Puts the saved state into a compiled model.

        Returns:
            The number of finished epochs, 0 where nothing was saved.

        Raises:
            ValueError: the state belongs to another model.
        """
        path = self.folder / "state.json"
        if not path.is_file():
            return 0
        self._state = json.loads(path.read_text(encoding="utf-8"))
        weights = self.folder / self._state["weights"]
        model.optimizer.build(model.trainable_variables)
        try:
            model.load_weights(weights)
        except ValueError as error:
            raise ValueError(
                f"The training saved in {self.folder} is of another model "
                f"than {model.name!r}; continue with the same arguments or "
                f"choose another folder: {str(error)[:200]}"
            ) from error
        return self._state["epoch"]

    def on_epoch_end(self, epoch, logs=None):
        self.folder.mkdir(parents=True, exist_ok=True)
        value = (logs or {}).get(self.monitor)
        best = self._state["best"]
        if value is not None and (best is None or value > best["value"]):
            best = {"epoch": epoch + 1, "value": float(value)}
            self._save_weights(self.best_path)
        name = f"epoch{epoch + 1:05d}.weights.h5"
        self._save_weights(self.folder / name)
        old = self._state["weights"]
        self._state = {"epoch": epoch + 1, "weights": name, "best": best}
        temporary = self.folder / "state.json.part"
        temporary.write_text(json.dumps(self._state), encoding="utf-8")
        os.replace(temporary, self.folder / "state.json")
        if old and old != name:
            (self.folder / old).unlink(missing_ok=True)

    def _save_weights(self, path):
        temporary = path.with_name("part." + path.name)
        self.model.save_weights(temporary, overwrite=True)
        os.replace(temporary, path)
