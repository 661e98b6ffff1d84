"""Medians of what was measured, and the ways to look them up."""

import collections
import dataclasses
import statistics

from peers_lib.jobs import TRAINING_BATCH


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity of one contender.

    Attributes:
        seconds: median of the rounds of one run; `low`, `high` of the rounds.
        rounds: their number.
        first: seconds of the first run, compiling included, or None.
        peak_mb: highest resident set of its process so far, megabytes.
        bflops, cio: for one image, or None.
    """

    section: str
    network: str
    framework: str
    engine: str
    model: str
    quantity: str
    seconds: float
    low: float
    high: float
    rounds: int
    first: float | None
    peak_mb: float | None
    bflops: float | None
    cio: float | None

    @property
    def batch(self):
        """Images of one run, where the quantity says it; else 1."""
        if self.quantity == "training":
            return TRAINING_BATCH
        word, _, number = self.quantity.partition(" ")
        return int(number) if word == "batch" else 1

    @property
    def images_per_second(self):
        return self.batch / self.seconds

    @property
    def spread(self):
        """From the fastest to the slowest round, relative to the median."""
        return (self.high - self.low) / self.seconds

    @property
    def gflops(self):
        """Counted, per second; None without a count."""
        if self.bflops is None:
            return None
        return self.bflops * self.images_per_second


class Summary:
    """Rows, in the order in which they were first measured."""

    def __init__(self, records):
        records = list(records)
        grouped = collections.defaultdict(lambda: collections.defaultdict(list))
        for record in records:
            grouped[record.key, record.quantity][record.what].append(record)
        costs = _costs(records)
        self.rows = [
            _row(key, quantity, values, costs)
            for (key, quantity), values in grouped.items()
            if values["seconds"]
        ]

    def find(self, **wanted):
        """The rows whose fields have these values."""
        return [
            row
            for row in self.rows
            if all(getattr(row, k) == v for k, v in wanted.items())
        ]

    def one(self, **wanted):
        """The row with these values, or None."""
        rows = self.find(**wanted)
        return rows[0] if rows else None

    def contenders(self, network):
        """(framework, engine, model) of inference, the machine left out."""
        return list(
            dict.fromkeys(
                (row.framework, row.engine, row.model)
                for row in self.find(section="inference", network=network)
                if row.framework != "sgemm"
            )
        )

    def sgemm(self, network):
        """GFLOP/s of the machine's fastest matrix product, or None."""
        speeds = []
        for row in self.find(network=network, framework="sgemm"):
            speeds.append(2 * int(row.model) ** 3 / 1e9 / row.seconds)
        return max(speeds, default=None)


def _costs(records):
    """{(section, model, quantity, what): value}; engines cost the same."""
    return {
        (r.key[0], r.key[4], r.quantity, r.what): r.value
        for r in records
        if r.what in ("bflops", "cio")
    }


def _row(key, quantity, values, costs):
    # A round measured twice, by a run that was killed between, counts once.
    rounds = {r.round: r.value for r in values["seconds"]}
    first = values["first"][0].value if values["first"] else None
    peak = max((r.value for r in values["peak_mb"]), default=None)
    section, model = key[0], key[4]
    return Row(
        *key,
        quantity,
        seconds=statistics.median(rounds.values()),
        low=min(rounds.values()),
        high=max(rounds.values()),
        rounds=len(rounds),
        first=first,
        peak_mb=peak,
        bflops=costs.get((section, model, quantity, "bflops")),
        cio=costs.get((section, model, quantity, "cio")),
    )
