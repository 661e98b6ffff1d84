"""Medians of what was measured, and the ratios that are the targets."""

import collections
import dataclasses
import statistics

from harness.networks import NETWORKS, PAIRS
from harness.results import Store

from peers_parts.plan import BATCH_1, BATCH_8, TRAINING, TRAINING_BATCH

INFERENCE = (BATCH_1, BATCH_8)


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity of one contender.

    Attributes:
        seconds: of one run, the median over the rounds; `low` and `high` are
            the fastest and the slowest round.
        rounds: their number.
        first: seconds of the first run, compilation included, or None.
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
        if self.quantity == TRAINING:
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
        """Counted BFLOPs per second; None without a count."""
        if self.bflops is None:
            return None
        return self.bflops * self.images_per_second


def summarize(stored):
    """A `Summary` of the rows of a `Store`."""
    grouped = collections.defaultdict(lambda: collections.defaultdict(dict))
    costs = {}
    for values in stored:
        key = tuple(values[name] for name in (*Store.JOB, "quantity"))
        measure, value = values["measure"], float(values["value"])
        grouped[key][measure][int(values["round"])] = value
        # All engines of a network cost the same; one of them counts.
        costs[values["section"], values["model"], key[-1], measure] = value
    return Summary(
        [
            _row(key, values, costs)
            for key, values in grouped.items()
            if "seconds" in values
        ]
    )


def _row(key, values, costs):
    rounds = values["seconds"].values()
    section, model, quantity = key[0], key[4], key[5]
    return Row(
        *key,
        seconds=statistics.median(rounds),
        low=min(rounds),
        high=max(rounds),
        rounds=len(rounds),
        first=values["first"].get(0),
        peak_mb=values["peak_mb"].get(0),
        bflops=costs.get((section, model, quantity, "bflops")),
        cio=costs.get((section, model, quantity, "cio")),
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """Rows, in the order in which they were first measured."""

    rows: list

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
        """(framework, engine, model) of inference, except the products."""
        return list(
            dict.fromkeys(
                (row.framework, row.engine, row.model)
                for row in self.find(section="inference", network=network)
                if row.framework != "sgemm"
            )
        )

    def sgemm(self, network):
        """GFLOP/s of the machine's fastest matrix product, or None."""
        return max(
            (
                2 * int(row.model) ** 3 / 1e9 / row.seconds
                for row in self.find(network=network, framework="sgemm")
            ),
            default=None,
        )


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio that must be at least `wanted`; None where not measured."""

    text: str
    wanted: float
    ratio: float | None

    @property
    def verdict(self):
        if self.ratio is None:
            return "not measured"
        return "reached" if self.ratio >= self.wanted else "not reached"


def targets(summary, published_size):
    """All of them. `published_size` gives the image size of a factory."""
    return [
        *_against_timm(summary),
        *_against_keras_hub(summary),
        *_against_the_machine(summary),
        *_int8(summary),
        _savings_target(summary, published_size),
    ]


def _speed_ratio(summary, network, quantity, ours, theirs):
    """How many times `ours` is as fast; None if either is not measured.

    Args:
        ours, theirs: (framework, engine, model).
    """
    rows = [
        summary.one(
            section="inference",
            network=network.title,
            framework=framework,
            engine=engine,
            model=model,
            quantity=quantity,
        )
        for framework, engine, model in (ours, theirs)
    ]
    if None in rows:
        return None
    return rows[0].images_per_second / rows[1].images_per_second


def _against_timm(summary):
    for text, engine, their_engine, quantity, wanted, networks in (
        ("training step", "TensorFlow", "eager", TRAINING, 1.0, NETWORKS[:2]),
        ("predict, batch 8", "TensorFlow", "eager", BATCH_8, 1.1, NETWORKS),
        ("float32, batch 1", "LiteRT", "onnxruntime", BATCH_1, 1.1, NETWORKS),
    ):
        for network in networks:
            if network.timm:
                ratio = _speed_ratio(
                    summary,
                    network,
                    quantity,
                    ("keras_csp", engine, network.factory),
                    ("timm", their_engine, network.timm),
                )
                title = f"{network.title}, {text}: {engine} / timm"
                yield Target(f"{title} {their_engine}", wanted, ratio)


def _against_keras_hub(summary):
    for network in NETWORKS:
        if network.timm:
            ratio = _speed_ratio(
                summary,
                network,
                TRAINING,
                ("keras_csp", "TensorFlow", network.factory),
                ("keras-hub", "TensorFlow", network.timm),
            )
            title = f"{network.title}, training step: TensorFlow / keras-hub"
            yield Target(title, 1.2, ratio)


def _against_the_machine(summary):
    """Our best float32 engine, relative to the product measured beside it."""
    for title, wanted in (
        ("CSPResNet-50", 1.0),
        ("CSPResNeXt-50", 1.0),
        ("CSPPeleeNet", 0.6),
    ):
        rows = [
            row
            for row in summary.find(network=title, framework="keras_csp")
            if row.section == "inference"
            and row.quantity in INFERENCE
            and "int8" not in row.engine
            and row.gflops is not None
        ]
        sgemm = summary.sgemm(title)
        ratio, how = None, "best float32 engine"
        if rows and sgemm:
            best = max(rows, key=lambda row: row.gflops)
            ratio = best.gflops / sgemm
            how = f"{best.engine}, {best.quantity} ({best.model})"
        yield Target(f"{title}, GFLOP/s: {how} / sgemm", wanted, ratio)


def _int8(summary):
    for network in NETWORKS:
        for quantity in INFERENCE:
            ratio = _speed_ratio(
                summary,
                network,
                quantity,
                ("keras_csp", "LiteRT int8", network.factory),
                ("keras_csp", "LiteRT", network.factory),
            )
            title = f"{network.title}, {quantity}: LiteRT int8 / float32"
            yield Target(title, 1.0, ratio)


@dataclasses.dataclass(frozen=True)
class Saving:
    """A pair at one size; each ratio is CSP / base.

    Attributes:
        pair: of `PAIRS`; quantity, engine: of the rows.
        time, bflops, cio: ratios, the last two None without a count.
        published: whether this is the size for which the paper counts.
    """

    pair: object
    quantity: str
    engine: str
    time: float
    bflops: float | None
    cio: float | None
    published: bool

    @property
    def reached(self):
        return self.bflops is not None and self.time <= self.bflops


def savings(summary, published_size):
    """Every pair, size and engine that is measured."""
    for pair in PAIRS:
        published = f"{published_size(pair.base)} px"
        for base in summary.find(section="savings", model=pair.base):
            csp = summary.one(
                section="savings",
                model=pair.csp,
                network=base.network,
                engine=base.engine,
                quantity=base.quantity,
            )
            if csp:
                yield Saving(
                    pair,
                    base.quantity,
                    base.engine,
                    csp.seconds / base.seconds,
                    _divided(csp.bflops, base.bflops),
                    _divided(csp.cio, base.cio),
                    base.quantity == published,
                )


def _divided(a, b):
    return None if a is None or b is None else a / b


def _savings_target(summary, published_size):
    """How many of the four pairs; three of them are wanted."""
    decided = [
        saving
        for saving in savings(summary, published_size)
        if saving.published
        and saving.engine == "LiteRT"
        and saving.bflops is not None
    ]
    reached = sum(saving.reached for saving in decided)
    return Target(
        "Pairs whose time in LiteRT falls at least as their BFLOPs do, at "
        f"the paper's size: {reached} of {len(decided)} measured",
        3.0,
        float(reached) if decided else None,
    )
