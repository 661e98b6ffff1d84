"""The page and the CSV file of benchmarks/peers.py."""

import dataclasses

from harness.networks import NETWORKS
from harness.results import write_rows

from keras_csp._files import atomic_write
from keras_csp._tables import markdown
from peers_parts.plan import BATCH_1, BATCH_8, TRAINING, TRAINING_BATCH
from peers_parts.summary import Row, savings, targets


@dataclasses.dataclass(frozen=True)
class Report:
    """What the files say.

    Attributes:
        summary: a `Summary`.
        skipped: {(key of a job, quantity): why}, left out included.
        about: lines on the machine, the versions and the command.
        published_size: gives the image size of a factory.
        published_fps: {head of a detector: the paper's images a second}.
    """

    summary: object
    skipped: dict
    about: list
    published_size: object
    published_fps: dict

    def write(self, stem):
        """Writes `stem`.csv and `stem`.md."""
        with atomic_write(stem.with_suffix(".md")) as part:
            part.write_text(self.text(), encoding="utf-8")
        columns = [field.name for field in dataclasses.fields(Row)]
        rows = [
            {name: _number(getattr(row, name)) for name in columns}
            for row in self.summary.rows
        ]
        write_rows(stem.with_suffix(".csv"), columns, rows)

    def text(self):
        parts = (
            ("CSP networks beside their peers on a CPU", self.about),
            ("Targets", self._targets()),
            ("Images per second", self._speeds()),
            ("Before the first answer", self._costs()),
            ("What a CSP stage saves", self._savings()),
            ("Detectors", self._detectors()),
            ("Not measured", self._not_measured()),
        )
        lines = []
        for number, (title, content) in enumerate(parts):
            body = list(content)
            if body:
                lines += [f"{'##' if number else '#'} {title}", "", *body, ""]
        return "\n".join(lines)

    def _targets(self):
        rows = [
            (t.text, _or(t.ratio, ".2f"), f"{t.wanted:.1f}", t.verdict)
            for t in targets(self.summary, self.published_size)
        ]
        header = ("what", "ratio", "wanted", "")
        yield "Speed ratios: above 1, the first named is faster."
        yield ""
        yield from markdown([header, *rows], right=(1, 2))

    def _speeds(self):
        for network in NETWORKS:
            rows = [
                self._speed_cells(network, *key)
                for key in self.summary.contenders(network.title)
            ]
            if rows:
                yield f"### {network.title}"
                yield ""
                sgemm = self.summary.sgemm(network.title)
                if sgemm:
                    yield f"sgemm beside it: {sgemm:.0f} GFLOP/s."
                    yield ""
                yield from markdown([_SPEED_HEADER, *rows], right=range(2, 11))
                yield ""

    def _speed_cells(self, network, framework, engine, model):
        found = self.summary.find(
            section="inference",
            network=network.title,
            framework=framework,
            engine=engine,
            model=model,
        )
        rows = {row.quantity: row for row in found}
        one, eight, training = map(rows.get, (BATCH_1, BATCH_8, TRAINING))
        inferred = [row for row in (one, eight) if row]
        bflops = [row.bflops for row in found if row.bflops is not None]
        gflops = [row.gflops for row in inferred if row.gflops]
        peaks = [row.peak_mb for row in inferred if row.peak_mb]
        sgemm = self.summary.sgemm(network.title)
        relative = max(gflops) / sgemm if gflops and sgemm else None
        return (
            f"{framework} {engine}",
            model,
            _or(bflops[0] if bflops else None, ".2f"),
            *(
                _or(row.images_per_second if row else None, ".2f")
                for row in (one, eight, training)
            ),
            _or(relative, ".2f"),
            _or(training.first if training else None, ".1f"),
            _or(max(peaks, default=None), ".0f"),
            _or(training.peak_mb if training else None, ".0f"),
            f"{max(row.spread for row in found):.0%}",
        )

    def _costs(self):
        rows = [row for row in self.summary.rows if row.section == "costs"]
        imports = {
            row.framework: row.seconds
            for row in self.summary.find(section="imports")
        }
        keys = dict.fromkeys((r.framework, r.model) for r in rows)
        body = []
        for framework, model in keys:
            own = {
                row.quantity: row
                for row in rows
                if (row.framework, row.model) == (framework, model)
            }
            seconds = [
                _or(own[name].seconds if name in own else None, ".2f")
                for name in _COSTS
            ]
            peak = max(r.peak_mb or 0 for r in own.values())
            imported = _or(imports.get(framework), ".2f")
            body.append((framework, model, imported, *seconds, f"{peak:.0f}"))
        if body:
            yield (
                "Seconds, each step once, importing the median of fresh "
                "processes; the highest resident set of all steps, exports "
                "included, in MB."
            )
            yield ""
            header = ("framework", "network", "import", *_COSTS, "peak, MB")
            yield from markdown([header, *body], right=range(2, len(header)))
        if "keras" in imports:
            yield ""
            yield f"Importing Keras alone: {imports['keras']:.2f} s."

    def _savings(self):
        body = [
            (
                f"{s.pair.csp} / {s.pair.base}",
                s.quantity + (" (paper's)" if s.published else ""),
                s.engine,
                _percent(s.time),
                _percent(s.bflops),
                _percent(s.cio),
                f"-{s.pair.saving} %" if s.published else "",
                {True: "yes", False: "no"}[s.reached],
            )
            for s in savings(self.summary, self.published_size)
        ]
        if body:
            yield (
                "Each CSP network by its base network: does the time fall as "
                "the BFLOPs do? LiteRT with one image, TensorFlow with "
                f"{TRAINING_BATCH}."
            )
            yield ""
            header = (
                "pair",
                "size",
                "engine",
                "time",
                "BFLOPs",
                "CIO",
                "paper's BFLOPs",
                "time falls as much",
            )
            yield from markdown([header, *body], right=range(3, 7))

    def _detectors(self):
        rows = self.summary.find(section="detectors")
        if not rows:
            return
        yield (
            "From the bytes of a JPEG of 640x427 to boxes after non-maximum "
            "suppression, one after the other, 416 pixels, 80 classes. The "
            "heads are not trained; every candidate goes through the "
            "suppression."
        )
        yield ""
        ours = [row.images_per_second for row in rows]
        paper = [self.published_fps[row.model] for row in rows]
        ranks = ranked(ours), ranked(paper)
        body = [
            (
                row.model,
                _or(row.bflops, ".3f"),
                f"{fps:.1f}",
                str(rank),
                str(printed),
                str(their_rank),
                f"{row.spread:.0%}",
            )
            for row, fps, rank, printed, their_rank in zip(
                rows, ours, ranks[0], paper, ranks[1]
            )
        ]
        header = (
            "head",
            "BFLOPs",
            "FPS",
            "rank",
            "paper's FPS, 1080 Ti",
            "rank",
            "spread",
        )
        yield from markdown([header, *body], right=range(1, 7))
        if len(rows) > 2:
            yield ""
            yield f"Spearman's correlation: {spearman(ours, paper):.2f}."

    def _not_measured(self):
        reasons = {}
        for (key, quantity), reason in self.skipped.items():
            _, network, framework, engine, model = key
            engine = " ".join(filter(None, (framework, engine)))
            names = dict.fromkeys(filter(None, (network, engine, model)))
            contenders = reasons.setdefault(reason, {})
            contenders.setdefault(", ".join(names), []).append(quantity)
        for reason, contenders in reasons.items():
            yield f"- {reason}:"
            for name, quantities in contenders.items():
                yield f"    - {name}: {', '.join(quantities)}"


_COSTS = (
    "build",
    "save weights",
    "load weights",
    "export LiteRT",
    "export LiteRT int8",
    "export ONNX",
)
_SPEED_HEADER = (
    "contender",
    "network",
    "BFLOPs",
    "batch 1",
    "batch 8",
    "training",
    "GFLOP/s / sgemm",
    "first training step, s",
    "peak, MB",
    "peak of training, MB",
    "largest spread",
)


def ranked(values):
    """1 for the largest; equal values share the better rank."""
    return [1 + sum(other > value for other in values) for value in values]


def spearman(a, b):
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def _or(value, form):
    """The formatted value; empty for None."""
    return "" if value is None else format(value, form)


def _percent(ratio):
    return "" if ratio is None else f"{100 * (ratio - 1):+.1f} %"


def _number(value):
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
