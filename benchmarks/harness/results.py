"""A benchmark's files: CSV of its rows, a page of Markdown, pictures.

Each appears whole or not at all. Rows are dicts of text.
"""

import csv
import json
import pathlib

from keras_csp._files import atomic_write
from keras_csp._tables import markdown

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def read_rows(path):
    """The rows of a CSV file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path, columns, rows):
    """Writes dicts as CSV; a missing value is left empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, "", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table_lines(columns, rows, right=()):
    """Lines of a Markdown table of dicts; a missing value is left empty."""
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    return markdown([columns, *cells], right=right)


def write_page(path, lines):
    """Writes the lines, and prints them."""
    text = "\n".join(lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    print(text, end="")


class Table:
    """A CSV file to which rows are added as soon as they are known.

    Args:
        path: of the file, made when the first row is added.
        columns: names.
        key: those that identify a row. A row replaces one of the same key.
        known: path of another file, which is read where there is no `path`.
            Default None.
    """

    def __init__(self, path, columns, key, known=None):
        self.path, self.columns, self.key = path, columns, key
        found = path if known is None or path.is_file() else known
        self.rows = read_rows(found)

    def has(self, **values):
        """Whether a row has these values."""
        wanted = {name: str(value) for name, value in values.items()}.items()
        return any(wanted <= row.items() for row in self.rows)

    def add(self, row):
        """Adds a row, or replaces the one of its key, and writes the file.

        The file is written as a whole: whenever the process dies, all rows
        added before are there.
        """
        row = {name: str(row.get(name, "")) for name in self.columns}
        keys = [self._key(other) for other in self.rows]
        if self._key(row) in keys:
            self.rows[keys.index(self._key(row))] = row
        else:
            self.rows.append(row)
        write_rows(self.path, self.columns, self.rows)

    def _key(self, row):
        return tuple(row[name] for name in self.key)


class Store:
    """Every value of a run as soon as it is known; a new start reads them.

    A value is of a job's quantity, and one of "seconds" of one run, "first"
    (of the first run, compilation included), "peak_mb", "bflops", "cio" and
    "complete" (1 where no more rounds are needed).

    Args:
        path: of a CSV file; the settings are in a JSON file beside it.
        settings: dict. Values measured with other settings do not belong in
            the same table.

    Attributes:
        starts: how many times a run was started, this time included.

    Raises:
        ValueError: the file has values measured with other settings.
    """

    JOB = ("section", "network", "framework", "engine", "model")
    COLUMNS = (*JOB, "quantity", "measure", "round", "value")

    def __init__(self, path, settings):
        described, before = path.with_suffix(".json"), {}
        if path.exists() and described.exists():
            before = json.loads(described.read_text())
            _check_settings(path, before, settings)
        else:
            path.unlink(missing_ok=True)
        self._table = Table(path, self.COLUMNS, self.COLUMNS[:-1])
        self.starts = before.get("starts", 0) + 1
        settings = {**before, **settings, "starts": self.starts}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(described) as part:
            part.write_text(json.dumps(settings, indent=1) + "\n")

    @property
    def rows(self):
        return self._table.rows

    def add(self, job, quantity, measure, value, number=0):
        """Args: `number` is that of the round; 0 outside the rounds."""
        values = (*job.key, quantity, measure, number, f"{value:.6g}")
        self._table.add(dict(zip(self.COLUMNS, values)))

    def rounds(self, job, quantity):
        """The numbers of the rounds that are measured."""
        wanted = (*job.key, quantity, "seconds")
        return {
            int(row["round"])
            for row in self.rows
            if tuple(row[name] for name in self.COLUMNS[:-2]) == wanted
        }

    def complete(self, job, quantity):
        return self._table.has(
            **dict(zip(self.JOB, job.key)),
            quantity=quantity,
            measure="complete",
        )


def _check_settings(path, before, settings):
    """What both name must be equal; one may name more than the other."""
    for key in before.keys() & settings.keys():
        if before[key] != settings[key]:
            raise ValueError(
                f"{path} has values of another run, whose {key} was "
                f"{before[key]!r}; now it is {settings[key]!r}. --fresh "
                "discards them"
            )


def save_picture(figure, path, **options):
    """Args: `options` are of matplotlib's `Figure.savefig`."""
    with atomic_write(path) as part:
        figure.savefig(part, **options)


def draw_curves(path, curves, size, dpi, legend=None, **axis):
    """One line for each curve, by epoch.

    Args:
        path: of the picture.
        curves: {label: {epoch: value}}.
        size: of the picture, inches; dpi: pixels an inch.
        legend: arguments of matplotlib's `legend`.
        axis: properties of the axes, as of `Axes.set`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(list(values), list(values.values()), marker=".", label=label)
    axes.set(xlabel="epoch", **axis)
    axes.grid(alpha=0.3)
    axes.legend(**(legend or {}))
    save_picture(figure, path, dpi=dpi)
