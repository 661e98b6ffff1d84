"""What the table must show, each with its ratio."""

import dataclasses

from peers_lib.networks import NETWORKS, PAIRS

BATCH_1, BATCH_8, TRAINING = "batch 1", "batch 8", "training"
INFERENCE = (BATCH_1, BATCH_8)


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
    """All of them. `published_size` gives a factory's size of image."""
    return [
        *_against_timm(summary),
        *_against_stock_keras(summary),
        *_against_the_machine(summary),
        *_int8(summary),
        _savings(summary, published_size),
    ]


def speed_ratio(ours, theirs):
    """By how much `ours` is faster; None if either is None."""
    if ours is None or theirs is None:
        return None
    return ours.images_per_second / theirs.images_per_second


def _row(summary, network, framework, engine, model, quantity):
    return summary.one(
        section="inference",
        network=network.title,
        framework=framework,
        engine=engine,
        model=model,
        quantity=quantity,
    )


def _against_timm(summary):
    for text, engine, their_engine, quantity, wanted, only in (
        ("training step", "TensorFlow", "eager", TRAINING, 1.0, NETWORKS[:2]),
        ("predict, batch 8", "TensorFlow", "eager", BATCH_8, 1.1, NETWORKS),
        ("float32, batch 1", "LiteRT", "onnxruntime", BATCH_1, 1.1, NETWORKS),
    ):
        for network in only:
            if network.timm:
                ours = (network, "keras_csp", engine, network.factory)
                theirs = (network, "timm", their_engine, network.timm)
                yield Target(
                    f"{network.title}, {text}: {engine} / timm {their_engine}",
                    wanted,
                    speed_ratio(
                        _row(summary, *ours, quantity),
                        _row(summary, *theirs, quantity),
                    ),
                )


def _against_stock_keras(summary):
    for network in NETWORKS:
        if network.timm:
            ours = (network, "keras_csp", "TensorFlow", network.factory)
            theirs = (network, "keras-hub", "TensorFlow", network.timm)
            yield Target(
                f"{network.title}, training step: TensorFlow / keras-hub",
                1.2,
                speed_ratio(
                    _row(summary, *ours, TRAINING),
                    _row(summary, *theirs, TRAINING),
                ),
            )


def _against_the_machine(summary):
    """The best float32 engine of ours, by what sgemm reaches beside it."""
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
            ours = (network, "keras_csp")
            yield Target(
                f"{network.title}, {quantity}: LiteRT int8 / float32",
                1.0,
                speed_ratio(
                    *(
                        _row(summary, *ours, engine, network.factory, quantity)
                        for engine in ("LiteRT int8", "LiteRT")
                    )
                ),
            )


@dataclasses.dataclass(frozen=True)
class Saving:
    """A pair at one size: each ratio is CSP / base.

    Attributes:
        pair: of `plan.PAIRS`; quantity, engine: of the rows.
        time, bflops, cio: ratios, the last two None without a count.
        published: whether this is the size that the paper counts at.
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
        bases = summary.find(section="savings", model=pair.base)
        for base in bases:
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


def _savings(summary, published_size):
    """The share of the four pairs; three of them are wanted."""
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
