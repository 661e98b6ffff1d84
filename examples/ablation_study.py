"""The paper's ablation, trained anew: what CSP saves and what it gains.

Table 1: PeleeNet and its CSP stages, fusion first, last and both, at three
gammas. Figure 1: ResNet-10 and ResNeXt-50 beside their CSP networks, here of
reduced width. A cell is one network trained with one seed.
"""

import csv
import dataclasses
import json

import numpy as np

from keras_csp import _tables
from keras_csp._files import atomic_write
from keras_csp._validation import check_choice
from keras_csp.analysis.published import Published, published
from keras_csp.models.peleenet import GAMMAS, PELEENET, csp_peleenet
from keras_csp.models.resnet import (
    CSP_RESNET_10,
    CSP_RESNEXT_50,
    RESNET_10,
    RESNEXT_50,
)
from keras_csp.models.spec import NetworkSpec

# Base, CSP network, and what their widths are divided by.
PAIRS = ((RESNET_10, CSP_RESNET_10, 2), (RESNEXT_50, CSP_RESNEXT_50, 4))

PARTS = ("all", "table1", "figure1")

HEADER = (
    "network",
    "seeds",
    "M params",
    "BFLOPs",
    "saved %",
    "paper saved %",
    "accuracy %",
    "spread",
    "gain",
    "paper gain",
)


def reduced(spec, by):
    """The network with all widths and groups divided: a group keeps its width.

    Args:
        spec: a `NetworkSpec`.
        by: a divisor of its widths and groups.
    """
    return dataclasses.replace(
        _divided(spec, by),
        name=f"{spec.name}_reduced{by}",
        provenance=f"Reduced: {spec.name}, widths and groups divided by {by}.",
        cfg=None,
        timm_counterpart=None,
    )


def _divided(item, by):
    if isinstance(item, tuple):
        return tuple(_divided(part, by) for part in item)
    if isinstance(item, dict):
        return {
            key: value // by
            if key in ("filters", "groups")
            else _divided(value, by)
            for key, value in item.items()
        }
    if dataclasses.is_dataclass(item):
        parts = {
            field.name: _divided(getattr(item, field.name), by)
            for field in dataclasses.fields(item)
        }
        return dataclasses.replace(item, **parts)
    return item


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network of the ablation.

    Attributes:
        spec: its definition.
        base: name of the network that it is compared with; of that, its own.
        published: the paper's numbers.
        label: as in the table.
    """

    spec: NetworkSpec
    base: str
    published: Published
    label: str

    @property
    def name(self):
        return self.spec.name


def entries(part="all"):
    """The networks, in the order of Table 1, then the pairs.

    Args:
        part: "all" (default), "table1" or "figure1", the pairs.

    Returns:
        {name: Entry}.
    """
    check_choice("part", part, PARTS)
    found = (_table1() if part != "figure1" else []) + (
        _figure1() if part != "table1" else []
    )
    return {entry.name: entry for entry in found}


def _table1():
    found = [Entry(PELEENET, PELEENET.name, published("PeleeNet"), "PeleeNet")]
    for fusion in ("first", "last", "csp"):
        for gamma in sorted(GAMMAS, reverse=True):
            printed = published("CSPPeleeNet", gamma, fusion)
            spec = csp_peleenet(gamma, fusion)
            label = f"{printed.model}, gamma {gamma}"
            found.append(Entry(spec, PELEENET.name, printed, label))
    return found


def _figure1():
    found = []
    for base, csp, by in PAIRS:
        for spec in (base, csp):
            printed = published(spec.name)
            label = f"{printed.model}, 1/{by} width"
            name = reduced(base, by).name
            found.append(Entry(reduced(spec, by), name, printed, label))
    return found


@dataclasses.dataclass(frozen=True)
class Result:
    """What a network costs and reaches.

    Attributes:
        entry: the network.
        params, bflops: as `keras_csp.count` at the size of the input.
        accuracies: percent, one for each seed.
    """

    entry: Entry
    params: int
    bflops: float
    accuracies: tuple

    @property
    def accuracy(self):
        """Mean over the seeds, percent."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self):
        """Standard deviation over the seeds, percent; None for one seed."""
        if len(self.accuracies) < 2:
            return None
        return float(np.std(self.accuracies, ddof=1))


def read_cell(path, network, seed):
    """The cell of this network and seed in a JSON file.

    Returns:
        A dict with "network", "seed", "accuracy" between 0 and 1, "params",
        "bflops" and "seconds"; None without a file, or where what it has is
        not all of that.
    """
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        mine = cell["network"] == network and cell["seed"] == seed
        costs = min(cell[key] for key in ("params", "bflops", "seconds"))
        whole = mine and costs > 0 and 0 <= cell["accuracy"] <= 1
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return cell if whole else None


def minutes_left(cells):
    """For the unfinished cells, from what the finished ones took.

    Args:
        cells: {(network, seed): cell}, None where it is not finished; at
            least one is.
    """
    took = {c["network"]: c["seconds"] for c in cells.values() if c}
    average = np.mean(list(took.values()))
    left = [name for (name, _seed), cell in cells.items() if cell is None]
    return sum(took.get(name, average) for name in left) / 60


def results(cells):
    """{name: Result} from cells.

    Args:
        cells: as `read_cell` gives them; those of one network have cost the
            same.
    """
    made = {}
    for name, entry in entries().items():
        mine = [cell for cell in cells if cell["network"] == name]
        if mine:
            accuracies = tuple(100 * cell["accuracy"] for cell in mine)
            cost = mine[0]["params"], mine[0]["bflops"]
            made[name] = Result(entry, *cost, accuracies)
    return made


def table(made):
    """Rows of strings below `HEADER`.

    "saved" is the fraction of the base network's BFLOPs that a network does
    without, "gain" its accuracy less the base network's, in points. Both are
    empty while there is no result of the base network.
    """
    return [
        _cells(result, made.get(result.entry.base)) for result in made.values()
    ]


def _cells(result, base):
    printed, spread = result.entry.published, result.spread
    compared = [""] * 4
    if base not in (None, result):
        printed_base = base.entry.published
        compared = [
            f"{100 * (1 - result.bflops / base.bflops):.1f}",
            f"{100 * (1 - printed.bflops / printed_base.bflops):.1f}",
            f"{result.accuracy - base.accuracy:+.2f}",
            f"{printed.top1 - printed_base.top1:+.1f}",
        ]
    return [
        result.entry.label,
        str(len(result.accuracies)),
        f"{result.params / 1e6:.2f}",
        f"{result.bflops:.4f}",
        *compared[:2],
        f"{result.accuracy:.2f}",
        "" if spread is None else f"{spread:.2f}",
        *compared[2:],
    ]


def write(folder, cells, title):
    """Writes ablation.csv, ablation.md and ablation.png.

    Args:
        folder: a `pathlib.Path` that exists.
        cells: as `results`; of every network and its base, or none of them.
        title: a sentence about the training, for the Markdown file.
    """
    made = results(cells)
    rows = [HEADER, *table(made)]
    lines = _tables.markdown(rows, right=range(1, len(HEADER)))
    with (
        atomic_write(folder / "ablation.csv") as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)
    with atomic_write(folder / "ablation.md") as part:
        explained = "spread: standard deviation over the seeds; gain: points."
        content = [title, "", *lines, "", explained, ""]
        part.write_text("\n".join(content), encoding="utf-8")
    with atomic_write(folder / "ablation.png") as part:
        draw(part, made)


def draw(path, made):
    """Accuracy against BFLOPs: measured, and the paper's beside it.

    Above PeleeNet and its variants (Table 1), below the pairs (Figure 1); an
    error bar is the standard deviation over the seeds.
    """
    from matplotlib.figure import Figure

    lines = _lines(made)
    figure = Figure(figsize=(11, 4.4 * len(lines)), layout="constrained")
    panels = figure.subplots(len(lines), 2, squeeze=False)
    for (title, series), (ours, theirs) in zip(lines.items(), panels):
        for label, group in series.items():
            printed = [result.entry.published for result in group]
            marks = [str(p.variant.get("gamma", p.model)) for p in printed]
            measured = [(r.bflops, r.accuracy, r.spread or 0) for r in group]
            _line(ours, label, marks, measured)
            _line(theirs, label, marks, [(p.bflops, p.top1) for p in printed])
        for axes, what in ((ours, "measured"), (theirs, "paper, ImageNet")):
            axes.set(title=f"{title}: {what}", xlabel="BFLOPs")
            axes.set(ylabel="top-1 accuracy, %")
            axes.locator_params(axis="x", nbins=6)
            axes.grid(alpha=0.3)
            axes.margins(0.2)
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _line(axes, label, marks, points):
    axes.errorbar(*zip(*points), marker="o", capsize=3, label=label)
    for mark, point in zip(marks, points):
        axes.annotate(
            mark, point[:2], (5, 5), textcoords="offset points", fontsize=8
        )


def _lines(made):
    """By panel and by line: a fusion's gammas, or a pair."""
    found = {}
    for result in made.values():
        entry = result.entry
        if entry.base == PELEENET.name:
            title, label = "PeleeNet, and CSP by gamma", entry.published.model
        else:
            title = "pairs"
            label = f"{entries()[entry.base].published.model} and CSP"
        found.setdefault(title, {}).setdefault(label, []).append(result)
    return found
