"""Every value as soon as it is known, in a file that a new start reads."""

import csv
import dataclasses
import json

_FIELDS = (
    "section",
    "network",
    "framework",
    "engine",
    "model",
    "quantity",
    "what",
    "round",
    "value",
)
# What a value is: seconds of one run, of the first run (compiling included),
# megabytes at the highest, the cost, or that no more rounds are needed.
WHATS = ("seconds", "first", "peak_mb", "bflops", "cio", "complete")


@dataclasses.dataclass(frozen=True)
class Record:
    """One value. `key` is that of the job; `round` is 0 outside the rounds."""

    key: tuple
    quantity: str
    what: str
    round: int
    value: float


class Store:
    """Appends records to `path`, and knows those of the runs before.

    Args:
        path: of a CSV file; beside it a JSON file of the settings.
        settings: values of other settings cannot stand in the same table.

    Attributes:
        records: all of them.
        starts: how often a run was started, this time included.

    Raises:
        ValueError: the file has values of other settings.
    """

    def __init__(self, path, settings):
        self.path, self.records = path, []
        described = path.with_suffix(".json")
        before = {}
        if path.exists() and described.exists():
            before = json.loads(described.read_text())
            _check(path, before, settings)
            self.records = _read(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(_FIELDS)
        self.starts = before.get("starts", 0) + 1
        settings = {**before, **settings, "starts": self.starts}
        described.write_text(json.dumps(settings, indent=1) + "\n")

    def add(self, job, quantity, what, value, number=0):
        record = Record(job.key, quantity, what, number, float(value))
        self.records.append(record)
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(_row(record))

    def rounds(self, job, quantity):
        """The numbers of the rounds that are measured."""
        return {r.round for r in self._of(job, quantity, "seconds")}

    def complete(self, job, quantity):
        return bool(self._of(job, quantity, "complete"))

    def _of(self, job, quantity, what):
        return [
            record
            for record in self.records
            if (record.key, record.quantity, record.what)
            == (job.key, quantity, what)
        ]


def _check(path, before, settings):
    """What both name must be the same; one may name more than the other."""
    for key in before.keys() & settings.keys():
        if before[key] != settings[key]:
            raise ValueError(
                f"{path} has values of another run, whose {key} was "
                f"{before[key]!r}; it is {settings[key]!r}. --fresh discards "
                "them"
            )


def _row(record):
    return (
        *record.key,
        record.quantity,
        record.what,
        record.round,
        f"{record.value:.6g}",
    )


def _read(path):
    with path.open(newline="") as file:
        # The last line may be half written, if the run before was killed.
        rows = [row for row in csv.reader(file) if len(row) == len(_FIELDS)]
    return [
        Record(tuple(row[:5]), row[5], row[6], int(row[7]), float(row[8]))
        for row in rows[1:]
        if row[8]
    ]
