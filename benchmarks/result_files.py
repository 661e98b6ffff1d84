"""A result's two files: a CSV of numbers, and a page of Markdown about them."""

import csv
import pathlib

from keras_csp._files import atomic_write

RESULTS = pathlib.Path(__file__).with_name("results")


def read_csv(path):
    """Its rows as dicts of text; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path, header, rows):
    """Whole or not at all; each row has a value for each name of `header`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def cells(rows, header):
    """Values of dicts, in the order of `header`."""
    return [[row[name] for name in header] for row in rows]


def write_page(path, lines):
    """Whole or not at all, and on the screen."""
    text = "\n".join(lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    print(text, end="")
