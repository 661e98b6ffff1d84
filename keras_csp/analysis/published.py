"""What the paper and its authors' repository print about each network."""

import csv
import dataclasses
import functools
import pathlib

from keras_csp._registry import get_factory

_FILE = pathlib.Path(__file__).with_name("published.csv")


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed row. Numbers that are not printed are `None`.

    Attributes:
        model: the name as printed.
        factory: the name of the factory.
        variant: the factory's own arguments, `gamma` and `fusion`, or `{}`.
        crops: crops the accuracies are averaged over, 1 or 10.
        params_millions, bflops: cost at `input_size` in `convention`.
        top1, top5: ImageNet accuracy, percent.
        input_size: side of the image.
        convention: which program counted; see `keras_csp.count`.
        provenance: "exact", "published" or "inferred": where the network's
            definition comes from.
        source: "Table 1", "Table 3" or "repository".
        note: why our count differs from an exact row's, if it does.
        decimals: how many decimals `params_millions` and `bflops` have.
    """

    model: str
    factory: str
    variant: dict
    crops: int
    params_millions: float | None
    bflops: float
    top1: float
    top5: float | None
    input_size: int
    convention: str
    provenance: str
    source: str
    note: str
    decimals: dict

    @property
    def input_shape(self):
        return (self.input_size, self.input_size, 3)


@functools.cache
def published_rows():
    """All printed rows, in the order of the tables."""
    with _FILE.open(newline="", encoding="utf-8") as file:
        return tuple(_row(record) for record in csv.DictReader(file))


def published(name, gamma=None, fusion=None):
    """The paper's numbers for a factory.

    Args:
        name: of the factory, e.g. "CSPResNeXt50".
        gamma, fusion: of the row of Table 1, for "CSPPeleeNet" only.
            Default 0.5 and "csp".

    Returns:
        A `Published`; of a network printed with one and with ten crops, the
        row with one.

    Raises:
        ValueError: no such factory, or no row with these arguments.
    """
    rows = [row for row in published_rows() if row.factory == name]
    if not rows:
        get_factory(name)  # raises, naming the closest factories
        raise ValueError(
            "Neither the paper nor its authors' repository prints numbers of "
            f"this network. Received: {name!r}"
        )
    if gamma is not None or fusion is not None:
        wanted = {
            "gamma": 0.5 if gamma is None else gamma,
            "fusion": "csp" if fusion is None else fusion,
        }
        rows = [row for row in rows if row.variant == wanted]
        if not rows:
            raise ValueError(
                "Only CSPPeleeNet is published with gamma 0.25, 0.5, 0.75 and "
                'fusion "csp", "first", "last". Received: '
                f"{name}, gamma={gamma!r}, fusion={fusion!r}"
            )
    return rows[0]


def _row(record):
    text = {key: value or None for key, value in record.items()}
    variant = {}
    if text["gamma"]:
        variant = {"gamma": float(text["gamma"]), "fusion": text["fusion"]}

    def number(key):
        return None if text[key] is None else float(text[key])

    return Published(
        model=text["model"],
        factory=text["factory"],
        variant=variant,
        crops=int(text["crops"]),
        params_millions=number("params_millions"),
        bflops=number("bflops"),
        top1=number("top1"),
        top5=number("top5"),
        input_size=int(text["input_size"]),
        convention=text["convention"],
        provenance=text["provenance"],
        source=text["source"],
        note=text["note"] or "",
        decimals={
            key: len((text[key] or ".").split(".")[1])
            for key in ("params_millions", "bflops")
        },
    )
