"""Every network, counted beside published: `python -m keras_csp table`."""

import dataclasses
import functools

from keras_csp import _tables as text
from keras_csp._registry import get_factory
from keras_csp.analysis.cost import build_and_count
from keras_csp.analysis.published import Published, published_rows

HEADER = (
    "network",
    "factory",
    "size",
    "definition",
    "M params",
    "paper",
    "diff",
    "BFLOPs",
    "paper",
    "diff",
    "top-1",
    "top-5",
)
_NUMBERS = range(4, len(HEADER))


@dataclasses.dataclass(frozen=True)
class Row:
    """A printed row and our count of the same network."""

    published: Published
    params_millions: float
    bflops: float

    @property
    def params_difference(self):
        """Relative to the paper; `None` where it prints no parameters."""
        if self.published.params_millions is None:
            return None
        return self.params_millions / self.published.params_millions - 1

    @property
    def bflops_difference(self):
        return self.bflops / self.published.bflops - 1

    def prints_as_published(self, field):
        """Whether our number rounds to the paper's printed digits."""
        printed = getattr(self.published, field)
        decimals = self.published.decimals[field]
        return (
            printed is None
            or f"{getattr(self, field):.{decimals}f}"
            == f"{printed:.{decimals}f}"
        )


def table_rows(progress=None):
    """Builds and counts every network; yields a `Row` for each printed row.

    Args:
        progress: called with (rows done, rows in all, next network's name).
    """
    printed = published_rows()
    counts = {}
    for index, row in enumerate(printed):
        if progress:
            progress(index, len(printed), row.model)
        key = (row.factory, tuple(row.variant.items()), row.convention)
        if key not in counts:
            counts[key] = _counted(row)
        yield Row(row, *counts[key])


def _counted(row):
    build = functools.partial(
        get_factory(row.factory),
        weights=None,
        input_shape=row.input_shape,
        **row.variant,
    )
    counted = build_and_count(build, row.convention)
    return counted.params / 1e6, counted.bflops


def render(rows, markdown=False):
    """The table as aligned text, or as Markdown; footnotes below it."""
    notes = []
    cells = [_cells(row, notes) for row in rows]
    table = text.markdown if markdown else text.aligned
    lines = table([HEADER, *cells], right=_NUMBERS)
    lines.append("")
    for number, note in enumerate(notes, 1):
        lines.append(f"[{number}] {note}" + ("  " if markdown else ""))
    return "\n".join(lines).rstrip()


def _cells(row, notes):
    printed = row.published
    mark = ""
    if printed.note:
        if printed.note not in notes:
            notes.append(printed.note)
        mark = f" [{notes.index(printed.note) + 1}]"
    factory = printed.factory
    if printed.source == "Table 1":
        arguments = ", ".join(f"{k}={v!r}" for k, v in printed.variant.items())
        factory += f"({arguments})"
    return (
        printed.model + mark,
        factory,
        str(printed.input_size),
        printed.provenance,
        *_compared(row, "params_millions", row.params_difference),
        *_compared(row, "bflops", row.bflops_difference),
        *(
            "" if accuracy is None else f"{accuracy:.1f}"
            for accuracy in (printed.top1, printed.top5)
        ),
    )


def _compared(row, field, difference):
    """Ours, the paper's, the relative difference."""
    printed = getattr(row.published, field)
    decimals = row.published.decimals[field] or 2
    ours = f"{getattr(row, field):.{decimals}f}"
    if printed is None:
        return ours, "", ""
    if row.prints_as_published(field):
        return ours, f"{printed:.{decimals}f}", "="
    return ours, f"{printed:.{decimals}f}", f"{100 * difference:+.1f} %"
