"""The folder of a run: its recipe and arguments kept, others refused."""

import argparse
import json

import keras
import numpy as np
import pytest

from keras_csp.training import run
from keras_csp.training.recipes import FINE_TUNING, SMALL_DETECTION, get_recipe

ARGUMENTS = {"model": "A", "data": "digits", "epochs": 3}
FREE = ("epochs", "recipe.steps")


def read(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_the_recipe_and_the_arguments_are_kept(tmp_path):
    folder = tmp_path / "runs" / "mine"
    recipe = FINE_TUNING.with_augmentation(mixup=0.25).replace(steps=77)
    run.save_run(folder, recipe, ARGUMENTS)
    kept = read(folder)
    assert {k: kept[k] for k in ARGUMENTS} == ARGUMENTS
    assert get_recipe(folder / "run.json") == recipe


@pytest.mark.parametrize(
    ("recipe", "arguments", "name"),
    [
        (FINE_TUNING, {**ARGUMENTS, "model": "B"}, "model='A'"),
        (FINE_TUNING, {"data": "digits", "epochs": 3}, "model='A'"),
        (FINE_TUNING, {**ARGUMENTS, "more": 1}, "more=None"),
        (FINE_TUNING.replace(batch_size=7), ARGUMENTS, "recipe.batch_size=64"),
        (
            FINE_TUNING.with_augmentation(mosaic=0.5),
            ARGUMENTS,
            r"recipe.augmentation.mosaic=0\.0",
        ),
        (FINE_TUNING.replace(phases=()), ARGUMENTS, "recipe.phases="),
        (SMALL_DETECTION, ARGUMENTS, "recipe.kind='classification'"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    tmp_path, recipe, arguments, name
):
    run.save_run(tmp_path, FINE_TUNING, ARGUMENTS, FREE)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match=f"has a run with {name}.*Received: "):
        run.save_run(tmp_path, recipe, arguments, FREE)
    assert (tmp_path / "run.json").read_bytes() == before


def test_what_is_free_may_differ_and_is_kept(tmp_path):
    run.save_run(tmp_path, FINE_TUNING, ARGUMENTS, FREE)
    longer = FINE_TUNING.replace(steps=9999)
    run.save_run(tmp_path, longer, {**ARGUMENTS, "epochs": 9}, FREE)
    assert read(tmp_path)["epochs"] == 9
    assert get_recipe(tmp_path / "run.json") == longer


def test_a_recipe_out_of_range_makes_no_folder(tmp_path):
    recipe = FINE_TUNING.with_augmentation(mosaic=2.0)
    with pytest.raises(ValueError, match="`mosaic` must be"):
        run.save_run(tmp_path / "mine", recipe, ARGUMENTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [("{half", "is not valid JSON"), ("[]", "is not the file of a run")],
)
def test_a_damaged_run_is_named_and_left(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=rf"run\.json {message}"):
        run.save_run(tmp_path, FINE_TUNING, ARGUMENTS)
    assert (tmp_path / "run.json").read_text() == content


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    run.write_json(path, {"names": ("cat", "dog")})
    with pytest.raises(TypeError):
        run.write_json(path, {"names": object()})
    assert json.loads(path.read_text()) == {"names": ["cat", "dog"]}
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    run.save_model(tmp_path / "m.keras", model)
    copy = keras.saving.load_model(tmp_path / "m.keras")
    for value, wanted in zip(copy.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(value, wanted)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a.json", "m.keras"]


def test_numbers_of_arguments():
    assert run.positive_int("12") == 12
    for text in ("0", "-1", "1.5", "", "two"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a positive"):
            run.positive_int(text)


@pytest.mark.parametrize("error", [ValueError, OSError, ImportError])
def test_mistakes_are_one_line(error):
    with (
        pytest.raises(SystemExit) as caught,
        run.cli_errors("mine"),
    ):
        raise error("what was wrong")
    assert caught.value.code == "mine: what was wrong"


def test_what_is_no_mistake_keeps_its_stack():
    with (
        pytest.raises(SystemExit, match="mine: interrupted; rerun the same"),
        run.cli_errors("mine"),
    ):
        raise KeyboardInterrupt
    with (
        pytest.raises(SystemExit, match=r"^mine: interrupted$"),
        run.cli_errors("mine", resumes=False),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyError), run.cli_errors("mine"):
        raise KeyError("a defect")


def parsed(monkeypatch, parser, *arguments, smoke=None):
    monkeypatch.setattr("sys.argv", ["x", *arguments])
    return run.parse_arguments(parser, smoke)


def test_arguments_of_every_example(monkeypatch, capsys):
    parser = run.make_parser("What it does.", output="runs/mine")
    run.add_classification_arguments(parser, model="A", size="the recipe's")
    run.add_recipe_arguments(parser, "detection", "small-detection", epochs=5)
    parser.add_argument("--smoke", action="store_true")
    found = parsed(monkeypatch, parser)
    assert (found.data, found.model, found.size) == ("digits", "A", None)
    assert (found.recipe, found.batch) == ("small-detection", None)
    assert (found.epochs, found.seed) == (5, 0)
    assert str(found.output) == "runs/mine"
    smoke = {"size": 32, "output": "runs/smoke"}
    found = parsed(monkeypatch, parser, "--smoke", "--size", "64", smoke=smoke)
    assert (found.size, str(found.output)) == (64, "runs/smoke")
    with pytest.raises(SystemExit):
        parsed(monkeypatch, parser, "--help")
    said = capsys.readouterr().out
    assert "What it does." in said
    names = "paper-detection, small-detection, fine-tuning-detection; or the"
    assert names in " ".join(said.split())


def test_tensorboard_is_not_needed(tmp_path, monkeypatch, capsys):
    find = "keras_csp.training.run.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name: None)
    assert run.tensorboard(tmp_path) == []
    said = capsys.readouterr().out
    assert "pip install tensorboard" in said and said.count("\n") == 1
    monkeypatch.setattr(find, lambda name: object())
    (callback,) = run.tensorboard(tmp_path)
    assert isinstance(callback, keras.callbacks.TensorBoard)
    assert callback.log_dir == str(tmp_path)
    assert capsys.readouterr().out == ""
