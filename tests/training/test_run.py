"""The folder of a run: its arguments refused or kept, and its pictures."""

import argparse
import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_csp.training import recipes
from keras_csp.training import run as runs

RECIPE = recipes.FINE_TUNING


def test_the_arguments_are_kept_and_others_refused(tmp_path):
    folder = tmp_path / "runs" / "mine"
    run = {"size": 32, "data": "digits", "epochs": 3}
    runs.save_run_args(folder, run, RECIPE, free=("epochs",))
    kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert kept.keys() == {"size", "data", "recipe"}
    assert kept["recipe"]["phases"][0]["part"] == "head"
    assert kept["recipe"]["batch_size"] == RECIPE.batch_size
    runs.save_run_args(folder, {**run, "epochs": 9}, RECIPE, free=("epochs",))
    with pytest.raises(ValueError, match="has a run with size=32") as caught:
        runs.save_run_args(
            folder, {**run, "size": 64}, RECIPE, free=("epochs",)
        )
    assert str(folder) in str(caught.value)
    assert "Received: 64" in str(caught.value)
    other = dataclasses.replace(RECIPE, batch_size=7)
    with pytest.raises(ValueError, match="has a run with recipe="):
        runs.save_run_args(folder, run, other, free=("epochs",))
    assert json.loads((folder / "run.json").read_text("utf-8")) == kept


def test_a_damaged_run_is_named_and_left(tmp_path):
    (tmp_path / "run.json").write_text("{half")
    with pytest.raises(ValueError, match=r"run\.json is no readable JSON"):
        runs.save_run_args(tmp_path, {"size": 32})
    assert (tmp_path / "run.json").read_text() == "{half"


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    runs.write_json(path, {"names": ("cat", "dog")})
    with pytest.raises(TypeError):
        runs.write_json(path, {"names": object()})
    assert json.loads(path.read_text()) == {"names": ["cat", "dog"]}
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    runs.save_model(tmp_path / "m.keras", model)
    copy = keras.saving.load_model(tmp_path / "m.keras")
    for value, wanted in zip(copy.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(value, wanted)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a.json", "m.keras"]


def test_numbers_of_arguments():
    assert runs.positive_int("12") == 12
    for text in ("0", "-1", "1.5", "", "two"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a positive"):
            runs.positive_int(text)


@pytest.mark.parametrize("error", [ValueError, OSError, ImportError])
def test_mistakes_are_one_line(error):
    with (
        pytest.raises(SystemExit) as caught,
        runs.cli_errors("mine"),
    ):
        raise error("what was wrong")
    assert caught.value.code == "mine: what was wrong"


def test_what_is_no_mistake_keeps_its_stack():
    with (
        pytest.raises(SystemExit, match="mine: stopped; the same command"),
        runs.cli_errors("mine"),
    ):
        raise KeyboardInterrupt
    with (
        pytest.raises(SystemExit, match=r"^mine: stopped$"),
        runs.cli_errors("mine", resumes=False),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyError), runs.cli_errors("mine"):
        raise KeyError("a defect")


def history(epochs, validated=lambda epoch: True):
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "accuracy": epoch / epochs, "loss": 1 / epoch}
        if validated(epoch):
            row.update(val_accuracy=epoch / (epochs + 1), val_loss=2 / epoch)
        yield row


def drawn(path):
    """Shares of the picture that are of the first and the second line."""
    pixels = np.asarray(Image.open(path).convert("RGB"), int)
    colours = ((31, 119, 180), (255, 127, 14))  # matplotlib's C0 and C1
    return [
        (np.abs(pixels - colour).sum(axis=-1) < 60).mean() for colour in colours
    ]


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_the_curves_are_drawn(tmp_path, epochs):
    path = tmp_path / "curves.png"
    runs.draw_curves(path, list(history(epochs)), "A network")
    assert all(share > 2e-4 for share in drawn(path))
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_the_curves_of_some_epochs_and_none_validated(tmp_path):
    rare = list(history(9, lambda epoch: epoch % 3 == 0))
    runs.draw_curves(tmp_path / "rare.png", rare)
    assert all(share > 2e-4 for share in drawn(tmp_path / "rare.png"))
    never = list(history(9, lambda epoch: False))
    runs.draw_curves(tmp_path / "never.png", never)
    first, second = drawn(tmp_path / "never.png")
    assert first > 2e-4 and second == 0


def test_accuracies_are_drawn_beside_each_other(tmp_path):
    results = {
        "fine-tuned": {"accuracies": [0.2, 0.6, 0.9], "ends": [1, 3]},
        "from scratch": {"accuracies": [0.1, 0.3, 0.5], "ends": [3]},
    }
    runs.draw_accuracies(tmp_path / "both.png", results)
    assert all(share > 2e-4 for share in drawn(tmp_path / "both.png"))
    del results["from scratch"]
    runs.draw_accuracies(tmp_path / "one.png", results)
    first, second = drawn(tmp_path / "one.png")
    assert first > 2e-4 and second == 0


def test_no_epochs_no_curves(tmp_path):
    with pytest.raises(ValueError, match="no epochs"):
        runs.draw_curves(tmp_path / "curves.png", [])
    assert not list(tmp_path.iterdir())
