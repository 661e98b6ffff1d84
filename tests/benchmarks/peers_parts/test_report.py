"""The page and the CSV file, of the committed rows and of others."""

import dataclasses

import numpy as np
import pytest
from harness.results import RESULTS, read_rows
from matplotlib.colors import to_rgb
from peers_parts.pictures import COLOURS, PAPER, draw_savings, draw_speeds
from peers_parts.report import Report, ranked, spearman
from peers_parts.summary import Row, Summary
from PIL import Image

import keras_csp
from keras_csp.analysis.detectors import published_detectors


def published_size(name):
    return keras_csp.published(name).input_size


@pytest.fixture(scope="module")
def summary():
    """Of the committed rows."""

    def value(kind, text):
        if kind in (str, int):
            return kind(text)
        return float(text) if text else None

    kinds = {field.name: field.type for field in dataclasses.fields(Row)}
    return Summary(
        [
            Row(
                **{name: value(kinds[name], text) for name, text in row.items()}
            )
            for row in read_rows(RESULTS / "peers.csv")
        ]
    )


def report(summary, skipped=None):
    return Report(
        summary,
        skipped or {},
        ["A machine."],
        published_size,
        {row.head: row.fps for row in published_detectors()},
    )


def test_the_committed_files_are_made_from_the_committed_rows(
    summary, tmp_path
):
    report(summary).write(tmp_path / "peers")
    committed = (RESULTS / "peers.md").read_text()
    start = committed.index("## Targets")
    tables = committed[start : committed.index("## Not measured")]
    written = (tmp_path / "peers.md").read_text()
    assert written.split("A machine.\n\n")[1] + "\n" == tables
    assert (tmp_path / "peers.csv").read_bytes() == (
        RESULTS / "peers.csv"
    ).read_bytes()


def test_what_is_skipped_is_listed_by_reason():
    key = ("inference", "CSPPeleeNet", "timm", "eager", "none")
    imports = ("imports", "imports", "timm", "", "")
    skipped = {
        (key, "batch 1"): "no timm",
        (imports, "import"): "no timm",
        (key, "batch 8"): "no timm",
    }
    text = report(Summary([]), skipped).text()
    assert text.endswith(
        "## Not measured\n\n"
        "- no timm:\n"
        "    - CSPPeleeNet, timm eager, none: batch 1, batch 8\n"
        "    - imports, timm: import\n"
    )


def test_equal_values_share_a_rank():
    assert ranked([5, 7, 7, 1]) == [3, 1, 1, 4]
    # d = (0, 1, 1): 1 - 6 * 2 / (3 * 8).
    assert spearman([10, 5, 2.5], [169, 132, 148]) == pytest.approx(0.5)


def coloured(path, colours):
    """How many pixels of a picture have each colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    wanted = [np.round(255 * np.array(to_rgb(colour))) for colour in colours]
    return [int((pixels == colour).all(-1).sum()) for colour in wanted]


def _draw_savings(summary, path, note):
    draw_savings(summary, path, published_size, note)


@pytest.mark.parametrize(
    ("draw", "name", "colours"),
    [
        pytest.param(
            draw_speeds,
            "peers.png",
            [*COLOURS.values(), PAPER],
            marks=pytest.mark.slow,  # it has 15 panels
        ),
        (_draw_savings, "peers_savings.png", ["C0", "C1", "C2", "C3"]),
    ],
)
def test_pictures_have_the_bars_and_points_of_the_committed_ones(
    summary, tmp_path, draw, name, colours
):
    draw(summary, tmp_path / name, "")
    found = coloured(tmp_path / name, colours)
    assert found == pytest.approx(coloured(RESULTS / name, colours), rel=0.1)
    assert min(found) > 50
    draw(Summary([]), tmp_path / "nothing.png", "")
    assert not (tmp_path / "nothing.png").exists()


def test_the_longest_bar_is_the_fastest(summary, tmp_path):
    rows = [
        dataclasses.replace(row, seconds=seconds)
        for row, seconds in zip(
            summary.find(network="CSPPeleeNet", quantity="batch 8")[:2],
            (1.0, 3.0),
        )
    ]
    assert [row.framework for row in rows] == 2 * ["keras_csp"]
    rows[1] = dataclasses.replace(rows[1], framework="timm")
    draw_speeds(Summary(rows), tmp_path / "a.png", "")
    ours, theirs = coloured(
        tmp_path / "a.png", [COLOURS["keras_csp"], COLOURS["timm"]]
    )
    assert ours / theirs == pytest.approx(3.0, rel=0.05)
