"""Table 2, counted: the numbers of the README."""

import csv
import os
import pathlib

import pytest
from support import ROOT

from keras_csp.__main__ import main
from keras_csp.analysis.detectors import (
    detector_rows,
    published_detectors,
    render,
)

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def rows():
    return list(detector_rows())


def test_each_detector_of_table_2_is_within_1_percent_of_its_bflops(rows):
    assert len(rows) == 9
    for row in rows:
        assert abs(row.bflops_difference) < 0.01, row


def test_what_sam_adds_is_what_the_paper_says(rows):
    bflops = {row.published.head: row for row in rows}
    for plain, attended in (("CEM", "CEM (SAM)"), ("EFM", "EFM (SAM)")):
        ours = bflops[attended].bflops - bflops[plain].bflops
        theirs = (
            bflops[attended].published.bflops - bflops[plain].published.bflops
        )
        assert ours == pytest.approx(theirs, abs=0.001)


@pytest.mark.skipif(
    "KERAS_CSP_DATA" not in os.environ, reason="KERAS_CSP_DATA is not set"
)
def test_the_published_numbers_are_the_papers():
    path = pathlib.Path(os.environ["KERAS_CSP_DATA"]).parent / "paper"
    with (path / "table2.csv").open() as file:
        theirs = list(csv.DictReader(file))
    for row, printed in zip(published_detectors(), theirs, strict=True):
        assert row.head == printed["head"]
        assert row.bflops == float(printed["bflops"])
        assert row.fps == int(printed["fps_gtx1080ti"])
        assert (row.ap, row.ap50, row.ap75) == tuple(
            float(printed[key]) for key in ("ap", "ap50", "ap75")
        )
        efm = row.arguments["neck"] == "efm"
        assert efm == (printed["exact_fusion"] == "1")
        assert ("attention" in row.arguments) == (printed["attention"] == "1")


def test_command_prints_the_readmes_table(rows, monkeypatch, capsys):
    monkeypatch.setattr(
        "keras_csp.analysis.detectors.detector_rows", lambda: iter(rows)
    )
    assert main(["table", "--detectors", "--markdown"]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed == render(rows, markdown=True)
    start, end = "<!-- detectors -->\n", "<!-- /detectors -->"
    text = README.read_text()
    shown = text[text.index(start) + len(start) : text.index(end)]
    assert shown.strip() == printed, (
        "run: python -m keras_csp table --detectors --markdown"
    )
