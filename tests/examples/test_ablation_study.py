"""The ablation's networks, its table and its picture."""

import json

import ablation_study as ablation
import numpy as np
import pytest
from ablation_cells import PAPER, made_up, read_table
from PIL import Image

import keras_csp
from keras_csp.models.builder import build_network
from keras_csp.models.resnet import (
    CSP_RESNET_10,
    CSP_RESNEXT_50,
    RESNET_10,
    RESNEXT_50,
)

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
    assert small.timm_counterpart is None and small.cfg is None
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
