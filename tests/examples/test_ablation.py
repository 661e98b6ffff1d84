"""examples/ablation.py: cells that are missing are trained, others kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import types

import ablation_study as ablation
import keras
import numpy as np
import pytest
import tensorflow as tf
from ablation_cells import PAPER, made_up, read_table
from PIL import Image
from support import EXAMPLES, SMALL, load_example

import keras_csp
from keras_csp.data import ClassificationData, load_classification
from keras_csp.models.builder import build_network

SCRIPT = EXAMPLES / "ablation.py"


@pytest.fixture
def example():
    return load_example("ablation")


def run(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    example.main()


class Trainer:
    """In the place of the training: cells made up from name and seed."""

    def __init__(self, dies_at=None):
        self.trained, self.dies_at = [], dies_at

    def __call__(self, entry, seed, _recipe, _data):
        if len(self.trained) == self.dies_at:
            raise KeyboardInterrupt
        self.trained.append((entry.name, seed))
        number = [row[0] for row in PAPER].index(entry.name)
        accuracy = 0.5 + 0.01 * number + 0.001 * seed
        return made_up(entry.name, seed, accuracy, 1.0 + number)


@pytest.fixture
def no_data(example, monkeypatch):
    """For a `Trainer`, which looks at none but their number."""
    train = types.SimpleNamespace(size=1437)
    monkeypatch.setattr(example, "load", lambda *_: (train, None))


PART = ("--data", "digits", "--part", "figure1", "--size", 32)
ORDER = [(row[0], seed) for seed in range(3) for row in PAPER[10:]]


def test_it_goes_on_after_the_last_finished_cell(
    example, monkeypatch, tmp_path, capsys, no_data
):
    command = (*PART, "--output", tmp_path)
    first = Trainer(dies_at=6)
    monkeypatch.setattr(example, "train_cell", first)
    with pytest.raises(SystemExit, match="rerun the same command to resume"):
        run(example, monkeypatch, *command)
    # A whole table of seed 0, and half of seed 1.
    assert first.trained == ORDER[:6]
    assert {row["seeds"] for row in read_table(tmp_path)} == {"1"}
    said = capsys.readouterr().out
    assert "6 of 12: CSPResNet10_reduced2, seed 1, accuracy 0.6110" in said
    assert "about 6 min left" in said

    # One file tampered with, one cut, one emptied.
    cells = tmp_path / "cells"
    kept = cells / "ResNet10_reduced2_0.json"
    kept.write_text(json.dumps(made_up("ResNet10_reduced2", 0, 0.9, 11.0)))
    cut = cells / "ResNeXt50_reduced4_0.json"
    cut.write_text(cut.read_text()[:-20])
    (cells / "CSPResNet10_reduced2_1.json").write_text("")
    second = Trainer()
    monkeypatch.setattr(example, "train_cell", second)
    run(example, monkeypatch, *command)
    assert second.trained == [ORDER[2], *ORDER[5:]]
    assert json.loads(kept.read_text())["accuracy"] == 0.9
    check_numbers(tmp_path, seeds=3)
    # Of 90, 60.1 and 60.2.
    assert read_table(tmp_path)[0]["accuracy %"] == "70.10"
    assert not [*tmp_path.rglob("part-*")]

    third = Trainer()
    monkeypatch.setattr(example, "train_cell", third)
    run(example, monkeypatch, *command)
    assert third.trained == []
    run(example, monkeypatch, *command, "--seeds", 4)
    assert third.trained == [(name, 3) for name, _ in ORDER[:4]]
    check_numbers(tmp_path, seeds=4)


def check_numbers(folder, seeds):
    """The table against the files of the cells, by numpy alone."""
    printed = {row[0]: row for row in PAPER}
    found = {}
    for path in (folder / "cells").iterdir():
        cell = json.loads(path.read_text())
        assert path.name == f"{cell['network']}_{cell['seed']}.json"
        found.setdefault(cell["network"], []).append(cell)
    names = [row[0] for row in PAPER if row[0] in found]
    for name, row in zip(names, read_table(folder), strict=True):
        base = printed[name][3]
        accuracy = {
            n: 100 * np.array([cell["accuracy"] for cell in found[n]])
            for n in (name, base)
        }
        assert int(row["seeds"]) == len(found[name]) == seeds
        assert float(row["M params"]) == pytest.approx(
            found[name][0]["params"] / 1e6, abs=0.005
        )
        cost = {n: found[n][0]["bflops"] for n in (name, base)}
        assert float(row["BFLOPs"]) == pytest.approx(cost[name], abs=5e-5)
        mean = accuracy[name].mean()
        assert float(row["accuracy %"]) == pytest.approx(mean, abs=0.0051)
        spread = np.sqrt(((accuracy[name] - mean) ** 2).sum() / (seeds - 1))
        assert float(row["spread"]) == pytest.approx(spread, abs=0.0051)
        if name == base:
            assert row["saved %"] == row["gain"] == row["paper gain"] == ""
            continue
        for key, value, tolerance in (
            ("gain", mean - accuracy[base].mean(), 0.0051),
            ("saved %", 100 - 100 * cost[name] / cost[base], 0.051),
            ("paper gain", printed[name][1] - printed[base][1], 0.051),
            (
                "paper saved %",
                100 - 100 * printed[name][2] / printed[base][2],
                0.051,
            ),
        ):
            assert float(row[key]) == pytest.approx(value, abs=tolerance), key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 7), "has a run with recipe.steps=400"),
        (("--size", 64), "has a run with recipe.size=32"),
        (("--images", 300), "has a run with images=25000"),
        (("--tests", 9), "has a run with tests=5000"),
    ],
)
def test_other_arguments_are_refused(
    example, monkeypatch, tmp_path, no_data, arguments, message
):
    monkeypatch.setattr(example, "train_cell", Trainer())
    run(example, monkeypatch, *PART, "--seeds", 1, "--output", tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(SystemExit, match=re.escape(message)) as caught:
        run(example, monkeypatch, *PART, "--output", tmp_path, *arguments)
    assert "\n" not in str(caught.value)
    assert before == {
        p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()
    }


def test_the_title_has_what_was_found_and_used(
    example, monkeypatch, tmp_path, no_data
):
    """Fewer images than asked for, and a shorter warmup."""
    monkeypatch.setattr(example, "train_cell", Trainer())
    run(example, monkeypatch, *PART, "--seeds", 1, "--output", tmp_path)
    title = (tmp_path / "ablation.md").read_text("utf-8").splitlines()[0]
    assert title.startswith("digits, 1437 images, 32 pixels; recipe small-")
    assert "400 steps, warmup 40 steps" in title


def test_another_recipe_is_refused(example, monkeypatch, tmp_path, no_data):
    monkeypatch.setattr(example, "train_cell", Trainer())
    run(example, monkeypatch, *PART, "--seeds", 1, "--output", tmp_path)
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    assert content["recipe"]["name"] == "small-classification"
    content["recipe"]["learning_rate"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(
        SystemExit, match=r"has a run with recipe\.learning_rate=0\.5"
    ):
        run(example, monkeypatch, *PART, "--output", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "does not exist: nowhere"),
        (("--data", "tfds:nothing_like_it"), "nothing_like_it"),
        (("--images", 63), "fewer images, 63, than a batch has"),
    ],
)
def test_mistakes_are_one_line(
    example, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example, "train_cell", Trainer())
    with pytest.raises(SystemExit, match=re.escape(message)) as caught:
        run(example, monkeypatch, *PART, *arguments)
    assert str(caught.value).startswith("ablation: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [("--steps", 0), ("--seeds", -1), ("--size", 31), ("--part", "table2")],
)
def test_numbers_out_of_range(example, monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        run(example, monkeypatch, *PART, *arguments)
    assert caught.value.code == 2
    assert str(arguments[1]) in capsys.readouterr().err


TINY = ("--data", "digits", "--size", 32, "--images", 128, "--tests", 50)


@pytest.fixture
def small_network(monkeypatch):
    """One in the place of the paper's."""
    peleenet = ablation.entries()["PeleeNet"].published
    entry = ablation.Entry(
        SMALL["SmallMobile"], "SmallMobile", peleenet, "small"
    )
    found = {"SmallMobile": entry}
    monkeypatch.setattr(ablation, "entries", lambda part="all": found)


def test_real_cells(example, monkeypatch, tmp_path, small_network, capsys):
    command = (*TINY, "--steps", 2, "--seeds", 2, "--output", tmp_path)
    run(example, monkeypatch, *command)
    cells = {
        path.name: json.loads(path.read_text())
        for path in (tmp_path / "cells").iterdir()
    }
    assert sorted(cells) == ["SmallMobile_0.json", "SmallMobile_1.json"]
    model = build_network(
        SMALL["SmallMobile"], input_shape=(32, 32, 1), classes=10
    )
    counted = keras_csp.count(model)
    for cell in cells.values():
        assert cell["params"] == counted.params
        assert cell["bflops"] == counted.bflops
        right = 50 * cell["accuracy"]  # of 50 test images
        assert right == pytest.approx(round(right), abs=1e-4)
        assert cell["seconds"] > 0 and cell["cpu_seconds"] > 0
    one, two = cells.values()
    assert one["loss"] != two["loss"]
    assert "2 of 2: SmallMobile, seed 1" in capsys.readouterr().out
    # A cell trained again, alone, is the same, bit for bit.
    again = tmp_path / "cells" / "SmallMobile_1.json"
    again.unlink()
    run(example, monkeypatch, *command)
    found = json.loads(again.read_text())
    for key in ("accuracy", "loss"):
        assert found[key] == cells["SmallMobile_1.json"][key]


def test_every_network_sees_the_same_images(example):
    recipe = example.make_recipe(types.SimpleNamespace(size=32, steps=9))
    train, _test = load_classification("digits")
    train = train.first(128)

    def first(seed):
        images, labels = next(iter(recipe.training(train, seed=seed)))
        return np.asarray(images), np.asarray(labels)

    images, labels = first(0)
    assert images.shape == (64, 32, 32, 1) and labels.shape == (64, 10)
    np.testing.assert_array_equal(images, first(0)[0])
    assert np.abs(images - first(1)[0]).mean() > 0.01
    # Shifted at most: nothing black comes in from outside, but what half a
    # pixel at the edge is interpolated with.
    white = ClassificationData.from_dataset(whites(64), [*"0123456789"])
    images, _labels = next(iter(recipe.training(white)))
    assert np.asarray(images).min() > 0.5


def whites(number):
    pixels = np.full((number, 32, 32, 3), 255, "uint8")
    return tf.data.Dataset.from_tensor_slices((pixels, np.zeros(number, int)))


def test_a_loss_that_is_not_finite_is_no_cell(
    example, monkeypatch, tmp_path, small_network
):
    diverged = [float("nan"), 0.1]
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: None)
    monkeypatch.setattr(keras.Model, "evaluate", lambda *_, **__: diverged)
    with pytest.raises(SystemExit, match="has a loss of nan"):
        run(example, monkeypatch, *TINY, "--steps", 1, "--output", tmp_path)
    assert not [*(tmp_path / "cells").iterdir()]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """kill -9 in the third cell; what was finished is not done again."""
    command = ("--smoke", "--output", tmp_path)
    cells = tmp_path / "cells"
    process = start(*command)
    try:
        limit = time.monotonic() + 600
        while len([*cells.glob("[!p]*.json")]) < 2:
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    before = {p: p.read_bytes() for p in cells.glob("[!p]*.json")}
    assert 2 <= len(before) < 8
    assert not (tmp_path / "ablation.csv").exists()
    process = start(*command)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-3000:]
    assert output.count(" min left") == 8 - len(before)
    assert {p: p.read_bytes() for p in before} == before
    check_numbers(tmp_path, seeds=2)
    assert np.asarray(Image.open(tmp_path / "ablation.png")).std() > 10


@pytest.mark.slow
def test_it_learns_and_repeats_itself(tmp_path, shared_data):
    """Twice the same process: the same table, far above chance."""
    tables = []
    for name in ("one", "two"):
        process = start(
            *("--data", shared_data / "classification" / "cifar10" / "mini"),
            *("--part", "figure1", "--size", 32, "--steps", 120, "--seeds", 1),
            *("--output", tmp_path / name),
        )
        output, _ = process.communicate(timeout=1800)
        assert process.returncode == 0, output[-3000:]
        tables.append(read_table(tmp_path / name))
    assert tables[0] == tables[1]
    assert all(float(row["accuracy %"]) > 20 for row in tables[0])
