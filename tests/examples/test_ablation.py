"""The ablation: its networks, its table, and an example that fills it."""

import csv
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
from PIL import Image
from support import EXAMPLES, SMALL, load_example

import keras_csp
from keras_csp.data import ClassificationData, load_classification
from keras_csp.models.builder import build_network
from keras_csp.models.resnet import (
    CSP_RESNET_10,
    CSP_RESNEXT_50,
    RESNET_10,
    RESNEXT_50,
)

SCRIPT = EXAMPLES / "ablation.py"

# As printed in Tables 1 and 3: name here, top-1, BFLOPs, and its base.
PAPER = [
    ("PeleeNet", 70.7, 1.017, "PeleeNet"),
    ("CSPPeleeNet_gamma0.75_first", 68.4, 0.649, "PeleeNet"),
    ("CSPPeleeNet_gamma0.5_first", 69.2, 0.755, "PeleeNet"),
    ("CSPPeleeNet_gamma0.25_first", 70.0, 0.861, "PeleeNet"),
    ("CSPPeleeNet_gamma0.75_last", 69.2, 0.716, "PeleeNet"),
    ("CSPPeleeNet_gamma0.5_last", 70.6, 0.804, "PeleeNet"),
    ("CSPPeleeNet_gamma0.25_last", 70.8, 0.902, "PeleeNet"),
    ("CSPPeleeNet_gamma0.75_csp", 70.4, 0.800, "PeleeNet"),
    ("CSPPeleeNet", 70.9, 0.888, "PeleeNet"),
    ("CSPPeleeNet_gamma0.25_csp", 71.5, 0.986, "PeleeNet"),
    ("ResNet10_reduced2", 63.5, 2.273, "ResNet10_reduced2"),
    ("CSPResNet10_reduced2", 65.3, 1.905, "ResNet10_reduced2"),
    ("ResNeXt50_reduced4", 77.8, 10.11, "ResNeXt50_reduced4"),
    ("CSPResNeXt50_reduced4", 77.9, 7.93, "ResNeXt50_reduced4"),
]
LABELS = [
    "PeleeNet",
    *(f"CSP (fusion first), gamma {g}" for g in (0.75, 0.5, 0.25)),
    *(f"CSP (fusion last), gamma {g}" for g in (0.75, 0.5, 0.25)),
    *(f"CSPPeleeNet, gamma {g}" for g in (0.75, 0.5, 0.25)),
    "ResNet-10, 1/2 width",
    "CSPResNet-10, 1/2 width",
    "ResNeXt-50, 1/4 width",
    "CSPResNeXt-50, 1/4 width",
]


def test_the_networks_and_numbers_of_the_paper():
    found = ablation.entries()
    assert [
        (name, e.published.top1, e.published.bflops, e.base)
        for name, e in found.items()
    ] == PAPER
    assert [entry.label for entry in found.values()] == LABELS
    assert [*ablation.entries("table1")] == [row[0] for row in PAPER[:10]]
    assert [*ablation.entries("figure1")] == [row[0] for row in PAPER[10:]]
    with pytest.raises(ValueError, match="`part` must be"):
        ablation.entries("table2")


REDUCED = [
    pytest.param(row, by, id=row.name)
    for pair, by in (
        ((RESNET_10, CSP_RESNET_10), 2),
        ((RESNEXT_50, CSP_RESNEXT_50), 4),
    )
    for row in pair
]


@pytest.mark.parametrize(("row", "by"), REDUCED)
def test_a_reduced_row_is_the_same_network_with_less_width(row, by):
    """Layer by layer: the same kinds and sides, channels divided."""
    small = ablation.reduced(row, by)
    counts = [
        keras_csp.count(
            build_network(one, input_shape=(64, 64, 3), classes=1000)
        )
        for one in (row, small)
    ]
    whole, less = ([*count.layers] for count in counts)
    assert len(whole) == len(less) > 10
    for layer, other in zip(whole, less):
        assert layer.kind == other.kind
        *sides, channels = layer.output_shape
        divided = channels if layer is whole[-1] else channels // by
        assert other.output_shape == (*sides, divided)
    assert small.name == f"{row.name}_reduced{by}"
    assert small.provenance.startswith(f"Reduced: {row.name}, ")
    assert small.pretrained is None and small.cfg is None
    assert "reduced" not in row.name


def convolution(inputs, outputs, kernel, side, groups=1):
    """Multiply-adds, twice; `side` of what comes out."""
    return 2 * kernel**2 * inputs // groups * outputs * side**2


WIDTHS, SIDES = (32, 64, 128, 256), (16, 8, 4, 2)


def resnet10():
    stem, total, before = 32, 0, 32
    for width, side in zip(WIDTHS, SIDES):
        total += convolution(before, width, 3, side)
        total += convolution(width, width, 3, side)
        before = width
    return stem, total, 256


def csp_resnet10():
    stem = 32
    total = 2 * convolution(32, 32, 1, 16) + 2 * convolution(32, 32, 3, 16)
    total += convolution(64, 64, 1, 16)
    for down, half, side in zip((64, 64, 128), (32, 64, 128), SIDES[1:]):
        total += convolution(down, down, 3, side)
        total += 2 * convolution(down, half, 1, side)
        total += convolution(half, half, 3, side)
    return stem, total + convolution(256, 256, 1, 2), 256


def resnext50():
    stem, total, before = 16, 0, 16
    for width, depth, side in zip(WIDTHS, (3, 4, 6, 3), SIDES):
        sides = depth * [side]
        if width > 32:
            sides[0] = 2 * side  # the first 3x3 has the stride
        for entry in sides:
            total += convolution(before, width, 1, entry)
            total += convolution(width, width, 3, side, groups=8)
            total += convolution(width, 2 * width, 1, side)
            before = 2 * width
    return stem, total, 512


def csp_resnext50():
    stem, total = 16, 0
    for width, depth, side in zip(WIDTHS, (3, 3, 5, 2), SIDES):
        before = entering = width
        if width == 32:
            before = entering = 16
        else:
            total += convolution(width, width, 3, side, groups=8)
        total += convolution(before, width, 1, side)
        total += convolution(before, entering, 1, side)
        for inputs in [entering, *(depth - 1) * [width]]:
            total += convolution(inputs, width, 1, side)
            total += convolution(width, width, 3, side, groups=8)
            total += convolution(width, width, 1, side)
        total += convolution(width, width, 1, side)
        total += convolution(2 * width, 2 * width, 1, side)
    return stem, total, 512


def by_hand(stem, blocks, last):
    """BFLOPs at 64 pixels with 10 classes, by Darknet's formula."""
    pooling = 4 * stem * 16**2
    classifier = 2 * last * 10
    return (convolution(3, stem, 7, 32) + pooling + blocks + classifier) / 1e9


BY_HAND = {
    "ResNet10": by_hand(*resnet10()),
    "CSPResNet10": by_hand(*csp_resnet10()),
    "ResNeXt50": by_hand(*resnext50()),
    "CSPResNeXt50": by_hand(*csp_resnext50()),
}


@pytest.mark.parametrize(("row", "by"), REDUCED)
def test_what_the_reduced_networks_cost(row, by):
    small = ablation.reduced(row, by)
    model = build_network(small, input_shape=(64, 64, 3), classes=10)
    found = keras_csp.count(model).bflops
    assert found == pytest.approx(BY_HAND[row.name], rel=1e-9)


def test_csp_saves_in_small_as_in_the_paper():
    """The signs, and the size within five points."""
    saved = 1 - BY_HAND["CSPResNet10"] / BY_HAND["ResNet10"]
    assert saved == pytest.approx(0.162, abs=0.05)
    saved = 1 - BY_HAND["CSPResNeXt50"] / BY_HAND["ResNeXt50"]
    assert saved == pytest.approx(0.216, abs=0.05)


def made_up(name, seed, accuracy, bflops=1.0, seconds=60.0):
    return {
        "network": name,
        "seed": seed,
        "accuracy": accuracy,
        "params": 2_345_678,
        "bflops": bflops,
        "seconds": seconds,
    }


def read_table(folder):
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_by_hand(tmp_path):
    cells = [
        made_up("PeleeNet", 0, 0.50, 0.10),
        made_up("PeleeNet", 1, 0.54, 0.10),
        made_up("CSPPeleeNet", 0, 0.53, 0.08),
        made_up("CSPPeleeNet", 1, 0.59, 0.08),
        made_up("CSPPeleeNet_gamma0.75_first", 0, 0.40, 0.11),
        made_up("CSPPeleeNet_gamma0.75_first", 1, 0.41, 0.11),
    ]
    ablation.write(tmp_path, cells, "A title.")
    base, first, csp = read_table(tmp_path)
    assert base == {
        "network": "PeleeNet",
        "seeds": "2",
        "M params": "2.35",
        "BFLOPs": "0.1000",
        "saved %": "",
        "paper saved %": "",
        "accuracy %": "52.00",
        "spread": "2.83",  # of 50 and 54: sqrt(2^2 + 2^2)
        "gain": "",
        "paper gain": "",
    }
    assert csp["network"] == "CSPPeleeNet, gamma 0.5"
    assert (csp["saved %"], csp["paper saved %"]) == ("20.0", "12.7")
    assert (csp["accuracy %"], csp["spread"]) == ("56.00", "4.24")
    assert (csp["gain"], csp["paper gain"]) == ("+4.00", "+0.2")
    # Which costs more and reaches less.
    assert (first["saved %"], first["gain"]) == ("-10.0", "-11.50")
    assert first["paper gain"] == "-2.3"
    text = (tmp_path / "ablation.md").read_text("utf-8").splitlines()
    assert text[0] == "A title."
    assert text[2].split(" | ")[0] == "| network"
    assert "| 56.00 | 4.24 | +4.00 | +0.2 |" in text[6]
    assert np.asarray(Image.open(tmp_path / "ablation.png")).std() > 10
    assert len([*tmp_path.iterdir()]) == 3


def test_one_seed_has_no_spread(tmp_path):
    ablation.write(tmp_path, [made_up("PeleeNet", 0, 0.5)], "")
    (row,) = read_table(tmp_path)
    assert (row["seeds"], row["spread"]) == ("1", "")


def test_the_picture_has_both_tables_and_the_spread(tmp_path, monkeypatch):
    """Every point where it belongs, measured and printed."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(
        Figure, "savefig", lambda f, *_, **__: figures.append(f)
    )
    rng = np.random.default_rng(0)
    cells = [
        made_up(name, seed, rng.random(), 1 + number)
        for number, (name, *_) in enumerate(PAPER)
        for seed in range(3)
    ]
    ablation.draw(tmp_path / "x.png", ablation.results(cells))
    (figure,) = figures
    points = [[], [], [], []]
    bars = [[], [], [], []]
    for place, axes in enumerate(figure.axes):
        for container in axes.containers:
            line, _caps, segments = container.lines
            points[place] += [tuple(xy) for xy in line.get_xydata()]
            for lines in segments:
                bars[place] += [s[1, 1] - s[0, 1] for s in lines.get_segments()]
    accuracy = np.array([c["accuracy"] for c in cells]).reshape(14, 3) * 100
    measured = [(1.0 + n, accuracy[n].mean()) for n in range(14)]
    printed = [(bflops, top1) for _, top1, bflops, _ in PAPER]
    np.testing.assert_allclose(points[0], measured[:10])
    np.testing.assert_allclose(points[2], measured[10:])
    np.testing.assert_allclose(points[1], printed[:10])
    np.testing.assert_allclose(points[3], printed[10:])
    spread = 2 * accuracy.std(axis=1, ddof=1)
    np.testing.assert_allclose(bars[0] + bars[2], spread)
    assert bars[1] == bars[3] == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"PeleeNet"',
        json.dumps(made_up("PeleeNet", 3, 0.5))[:-9],
        json.dumps(made_up("PeleeNet", 4, 0.5)),
        json.dumps(made_up("CSPPeleeNet", 3, 0.5)),
        json.dumps(made_up("PeleeNet", 3, 1.5)),
        json.dumps(made_up("PeleeNet", 3, -0.1)),
        json.dumps(made_up("PeleeNet", 3, float("nan"))),
        json.dumps(made_up("PeleeNet", 3, "0.5")),
        json.dumps(made_up("PeleeNet", 3, None)),
        json.dumps(made_up("PeleeNet", 3, 0.5, bflops=0)),
        json.dumps({"network": "PeleeNet", "seed": 3, "accuracy": 0.5}),
        b"\xff\xfe{}",
    ],
)
def test_half_a_cell_is_none(tmp_path, content):
    path = tmp_path / "cell.json"
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    assert ablation.read_cell(path, "PeleeNet", 3) is None


def test_a_whole_cell_is_read(tmp_path):
    path = tmp_path / "cell.json"
    assert ablation.read_cell(path, "PeleeNet", 3) is None
    for accuracy in (0.0, 0.5, 1.0):
        cell = made_up("PeleeNet", 3, accuracy)
        path.write_text(json.dumps(cell))
        assert ablation.read_cell(path, "PeleeNet", 3) == cell


def test_the_time_that_is_left():
    cells = {
        ("a", 0): made_up("a", 0, 0.5, seconds=60),
        ("b", 0): made_up("b", 0, 0.5, seconds=180),
        ("c", 0): None,
        ("a", 1): None,
        ("b", 1): None,
    }
    # c: two minutes, as a and b on average.
    assert ablation.minutes_left(cells) == pytest.approx(2 + 1 + 3)
    assert ablation.minutes_left({("a", 0): cells["a", 0]}) == 0


# The example.


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

    def __call__(self, entry, seed, _data, _options):
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
    monkeypatch.setattr(example, "load", lambda _options: (train, None))


PART = ("--data", "digits", "--part", "figure1", "--size", 32)
ORDER = [(row[0], seed) for seed in range(3) for row in PAPER[10:]]


def test_it_goes_on_after_the_last_finished_cell(
    example, monkeypatch, tmp_path, capsys, no_data
):
    command = (*PART, "--output", tmp_path)
    first = Trainer(dies_at=6)
    monkeypatch.setattr(example, "cell", first)
    with pytest.raises(SystemExit, match="the same command goes on"):
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
    monkeypatch.setattr(example, "cell", second)
    run(example, monkeypatch, *command)
    assert second.trained == [ORDER[2], *ORDER[5:]]
    assert json.loads(kept.read_text())["accuracy"] == 0.9
    check_numbers(tmp_path, seeds=3)
    # Of 90, 60.1 and 60.2.
    assert read_table(tmp_path)[0]["accuracy %"] == "70.10"
    assert not [*tmp_path.rglob("part-*")]

    third = Trainer()
    monkeypatch.setattr(example, "cell", third)
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
        (("--steps", 7), "has a run with steps=400"),
        (("--size", 64), "has a run with size=32"),
        (("--images", 300), "has a run with images=25000"),
        (("--tests", 9), "has a run with tests=5000"),
    ],
)
def test_other_arguments_are_refused(
    example, monkeypatch, tmp_path, no_data, arguments, message
):
    monkeypatch.setattr(example, "cell", Trainer())
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
    """Fewer images than asked for, and a shorter burn-in."""
    monkeypatch.setattr(example, "cell", Trainer())
    run(example, monkeypatch, *PART, "--seeds", 1, "--output", tmp_path)
    title = (tmp_path / "ablation.md").read_text("utf-8").splitlines()[0]
    assert title.startswith("digits, 1437 images, 32 pixels, 400 steps; ")
    assert "burn-in 40 steps" in title


def test_another_recipe_is_refused(example, monkeypatch, tmp_path, no_data):
    monkeypatch.setattr(example, "cell", Trainer())
    run(example, monkeypatch, *PART, "--seeds", 1, "--output", tmp_path)
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    assert content["recipe"]["name"] == "small-classification"
    content["recipe"]["learning_rate"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="has a run with recipe="):
        run(example, monkeypatch, *PART, "--output", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "does not exist: nowhere"),
        (("--data", "tfds:nothing_like_it"), "cannot be had"),
        (("--images", 63), "63 images are less than a batch"),
    ],
)
def test_mistakes_are_one_line(
    example, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example, "cell", Trainer())
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
    class Options:
        size = 32

    train, _test = load_classification("digits")
    train = train.first(128)

    def first(seed):
        images, labels = next(iter(example.batches(train, seed, Options)))
        return np.asarray(images), np.asarray(labels)

    images, labels = first(0)
    assert images.shape == (64, 32, 32, 1) and labels.shape == (64, 10)
    np.testing.assert_array_equal(images, first(0)[0])
    assert np.abs(images - first(1)[0]).mean() > 0.01
    # Shifted at most: nothing black comes in from outside, but what half a
    # pixel at the edge is interpolated with.
    white = ClassificationData.from_dataset(whites(64), [*"0123456789"])
    images, _labels = next(iter(example.batches(white, 0, Options)))
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
