"""Table 2, counted: `python -m keras_csp table --detectors`."""

import csv
import dataclasses
import functools
import pathlib

from keras_csp import _tables as text
from keras_csp.analysis.cost import build_and_count
from keras_csp.detection.detector import Detector
from keras_csp.detection.necks import get_neck

_FILE = pathlib.Path(__file__).with_name("detectors.csv")

HEADER = (
    "head",
    "Detector(...)",
    "definition of the head",
    "M params",
    "BFLOPs",
    "paper",
    "diff",
    "FPS, 1080 Ti",
    "AP",
    "AP50",
    "AP75",
)
_NUMBERS = range(3, len(HEADER))


@dataclasses.dataclass(frozen=True)
class PublishedDetector:
    """One row of Table 2: CSPPeleeNet at 416, 80 classes, COCO test-dev.

    Attributes:
        head: the name as printed.
        arguments: of `Detector`.
        box_loss: of `YoloLoss`, where it is a part of the row.
        bflops: cost; fps: on a GTX 1080 Ti; ap, ap50, ap75: percent.
    """

    head: str
    arguments: dict
    box_loss: str | None
    bflops: float
    fps: int
    ap: float
    ap50: float
    ap75: float


@dataclasses.dataclass(frozen=True)
class DetectorRow:
    """A printed row and our count of the same detector."""

    published: PublishedDetector
    params_millions: float
    bflops: float

    @property
    def bflops_difference(self):
        """Relative to the paper."""
        return self.bflops / self.published.bflops - 1


def published_detectors():
    """The rows of Table 2, in its order."""
    with _FILE.open(newline="", encoding="utf-8") as file:
        return tuple(_published(record) for record in csv.DictReader(file))


def detector_rows():
    """Builds and counts every detector; yields a `DetectorRow` for each."""
    for row in published_detectors():
        build = functools.partial(Detector, **row.arguments)
        counted = build_and_count(build)
        yield DetectorRow(row, counted.params / 1e6, counted.bflops)


def render(rows, markdown=False):
    """The table as aligned text, or as Markdown."""
    table = text.markdown if markdown else text.aligned
    return "\n".join(table([HEADER, *map(_cells, rows)], right=_NUMBERS))


def _published(record):
    arguments = {"neck": record["neck"]}
    if record["levels"]:
        arguments["levels"] = tuple(record["levels"].split())
    if record["attention"]:
        arguments["attention"] = record["attention"]
    if record["spp"] == "1":
        arguments["spp"] = True
    return PublishedDetector(
        head=record["head"],
        arguments=arguments,
        box_loss=record["box_loss"] or None,
        fps=int(record["fps"]),
        **{key: float(record[key]) for key in ("bflops", "ap", "ap50", "ap75")},
    )


def _provenance(arguments):
    """ "exact" or "inferred"."""
    return get_neck(**arguments).provenance.split()[0].rstrip(":.").lower()


def _cells(row):
    printed = row.published
    arguments = ", ".join(f"{k}={v!r}" for k, v in printed.arguments.items())
    if printed.box_loss:
        arguments += f", compiled with loss={printed.box_loss!r}"
    return (
        printed.head,
        arguments,
        _provenance(printed.arguments),
        f"{row.params_millions:.2f}",
        f"{row.bflops:.3f}",
        f"{printed.bflops:.3f}",
        f"{100 * row.bflops_difference:+.1f} %",
        str(printed.fps),
        *(f"{value:.1f}" for value in (printed.ap, printed.ap50, printed.ap75)),
    )
