"""The tables of results, one CSV file each."""

from harness.results import RESULTS, Table

FOLDER = RESULTS / "gpu"

# The columns of each file.
COLUMNS = {
    "checks": (
        "device",
        "backend",
        "check",
        "precision",
        "jit",
        "result",
        "difference",
        "tolerance",
        "seconds",
        "detail",
    ),
    "rates": ("device", "engine", "precision", "what", "rate", "unit"),
    "speed": (
        "device",
        "engine",
        "network",
        "quantity",
        "batch",
        "precision",
        "size",
        "images_per_second",
        "fastest",
        "slowest",
        "steps",
        "compile_seconds",
        "memory_mb",
        "detail",
    ),
    "ablation": (
        "network",
        "seed",
        "device",
        "backend",
        "epochs",
        "accuracy",
        "loss",
        "params",
        "bflops",
        "seconds",
        "cpu_seconds",
        "recipe",
    ),
    "ablation_epochs": (
        "network",
        "seed",
        "epoch",
        "loss",
        "accuracy",
        "test_accuracy",
    ),
}
# How many of the first columns identify a row: what has a row is not measured
# again. A cell of the ablation is a network and a seed, whatever device has
# trained it.
KEYS = {
    "checks": 5,
    "rates": 4,
    "speed": 6,
    "ablation": 2,
    "ablation_epochs": 3,
}


class Tables:
    """The tables in a folder.

    Args:
        folder: of the files, made when the first row is added.
        known: another folder, whose rows are taken over where `folder` has
            no file of a table yet. Default None.
    """

    def __init__(self, folder, known=None):
        self.folder = folder
        self._tables = {
            name: Table(
                folder / f"{name}.csv",
                columns,
                key=columns[: KEYS[name]],
                known=known and known / f"{name}.csv",
            )
            for name, columns in COLUMNS.items()
        }

    def rows(self, name):
        return list(self._tables[name].rows)

    def has(self, name, **values):
        """Whether a row of the table has these values."""
        return self._tables[name].has(**values)

    def add(self, name, row):
        """Adds a row, or replaces the one of its key."""
        self._tables[name].add(row)
