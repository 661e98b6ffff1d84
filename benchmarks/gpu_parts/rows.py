"""The tables of results: a row is in its file as soon as it is known."""

from result_files import RESULTS, cells, read_csv, write_csv

FOLDER = RESULTS / "gpu"

# The columns of each file. The first of them are its key, as many as `KEYS`
# says: a row that exists is not measured again. The key of an ablation cell is
# its network and seed alone: the device that trained it does not matter.
COLUMNS = {
    "checks": (
        "device",
        "backend",
        "check",
        "precision",
        "jit",
        "result",
        "difference",
        "allowed",
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
KEYS = {
    "checks": 5,
    "rates": 4,
    "speed": 6,
    "ablation": 2,
    "ablation_epochs": 3,
}


class Tables:
    """The rows of all tables in a folder, which are dicts of text.

    Args:
        folder: of the files, made when the first row is added.
        known: another folder, whose rows are taken over where `folder` has
            no file of a table yet. Default None.
    """

    def __init__(self, folder, known=None):
        self.folder = folder
        self._rows = {}
        for name in COLUMNS:
            found = self._path(name)
            if known is not None and not found.is_file():
                found = known / found.name
            self._rows[name] = [r for r in read_csv(found) if None not in r]

    def rows(self, name):
        return list(self._rows[name])

    def has(self, name, **values):
        """Whether a row has these values."""
        wanted = {key: str(value) for key, value in values.items()}.items()
        return any(wanted <= row.items() for row in self._rows[name])

    def add(self, name, row):
        """Adds a row, in the place of one that has the same key.

        The file is written anew as a whole: whenever the process dies, what
        was added before is there.
        """
        row = {key: str(row.get(key, "")) for key in COLUMNS[name]}
        columns = COLUMNS[name][: KEYS[name]]
        others = [
            other
            for other in self._rows[name]
            if any(other[column] != row[column] for column in columns)
        ]
        self._rows[name] = [*others, row]
        header = COLUMNS[name]
        write_csv(self._path(name), header, cells(self._rows[name], header))

    def _path(self, name):
        return self.folder / f"{name}.csv"
