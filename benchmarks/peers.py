"""CSP networks on a CPU beside what else runs them: one command, one table.

    pip install -e ".[bench]" && python benchmarks/peers.py

This package (TensorFlow, XLA, JAX, and its exports in LiteRT, float32 and
int8, onnxruntime and OpenVINO) beside keras-hub, timm and keras.applications:
inference, the training step, and what comes before the first answer; the CSP
networks beside their base networks; the detectors from JPEG to boxes; and the
machine's own matrix product, all in one run.

Every contender has a process of its own with the same cores and threads, and
warms up; then they take turns, and only the one whose turn it is runs. Told
are medians of the rounds. Weights and images are random, which the time does
not depend on. All is float32 where it does not say int8.

Written are peers.csv, peers.md, peers.png and peers_savings.png. What is not
installed is left out, and the report says so: OpenVINO is a "pip install
openvino" away. timm and PyTorch may live in an environment of their own, which
saves this one some gigabytes, and OpenVINO beside them:

    python -m venv timm-venv
    timm-venv/bin/pip install timm safetensors onnx onnxscript
    python benchmarks/peers.py --timm-python timm-venv/bin/python

Nothing else should run meanwhile. A run that is killed goes on where it was,
when the same command is started again.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from peers_lib import machine, plan
from peers_lib.coordinator import SLOW, Coordinator, Rules
from peers_lib.jobs import CLOSE
from peers_lib.picture import draw_savings, draw_speeds
from peers_lib.progress import Progress, guessed
from peers_lib.report import Report
from peers_lib.store import Store
from peers_lib.summary import Summary

from keras_csp.analysis import published
from keras_csp.analysis.detectors import published_detectors
from keras_csp.training.run import cli_errors, positive_int

HERE = pathlib.Path(__file__).parent


def run(options):
    """Measures what is missing, and writes the report."""
    found = machine.find_machine(options.timm_python, options.threads)
    rules = Rules(options.rounds, options.seconds, options.patience)
    groups, left_out = plan.split(
        plan.groups(_request(options, found)), options.level
    )
    if options.plan:
        print("\n".join(_described(groups, found, rules)))
        return
    if options.fresh:
        shutil.rmtree(options.scratch, ignore_errors=True)
    store = Store(options.scratch / "values.csv", _settings(options, found))
    progress = Progress()
    coordinator = Coordinator(
        found, store, rules, options.scratch / "logs", progress
    )
    progress.total = sum(map(coordinator.guessed, groups))
    options.output.mkdir(parents=True, exist_ok=True)
    for group in groups:
        coordinator.measure(group)
        skipped = {**coordinator.skipped, **left_out}
        report = write(store, skipped, options, found)
    print(report.text())


def write(store, skipped, options, found):
    """All files, of what is known so far."""
    report = Report(
        Summary(store.records),
        skipped,
        list(_about(options, found, store.starts)),
        lambda name: published(name).input_size,
        {row.head: row.fps for row in published_detectors()},
    )
    report.write(options.output / "peers")
    note = f"{machine.cpu()}, {threads(found)}"
    draw_speeds(report.summary, options.output / "peers.png", note)
    draw_savings(
        report.summary,
        options.output / "peers_savings.png",
        report.published_size,
        note,
    )
    return report


def _request(options, found):
    """What is asked for, as `plan.groups` takes it."""
    networks = [n for n in plan.NETWORKS if n.title in options.networks]
    pairs = [p for p in plan.PAIRS if p.csp in options.pairs]
    detectors = [
        row for row in published_detectors() if row.box_loss is None
    ]  # of two that differ in the loss alone, one
    return plan.Request(
        sections=tuple(options.sections),
        size=options.size,
        saving_sizes=tuple(options.saving_sizes),
        networks=tuple(networks),
        pairs=tuple(pairs),
        detectors=tuple(detectors),
        threads=len(found.cores),
        folder=options.scratch.absolute(),
    )


def _settings(options, found):
    """What must be equal for values to stand in one table."""
    return {
        "CPU": machine.cpu(),
        "threads": len(found.cores),
        "size": options.size,
        "rounds": options.rounds,
        "seconds": options.seconds,
        **found.versions,
    }


def _about(options, found, starts):
    yield (
        f"{machine.cpu()}; {threads(found)} on as many cores for every "
        f"contender. Medians of {options.rounds} rounds of at least "
        f"{options.seconds:g} s, {CLOSE * options.rounds} for savings and "
        f"detectors, or one where a run takes longer than {SLOW:g} s; the "
        "spread is from the fastest round to the slowest, by the median. "
        f"Images of {options.size}x{options.size}, random weights. "
        "oneDNN is as each package leaves it: keras_csp has it on, the others "
        "have TensorFlow's choice for the CPU. What stands beside "
        "CSPDenseNet-201 of keras.applications and timm are other networks."
        + (f" Measured in {starts} starts." if starts > 1 else "")
    )
    yield ""
    yield ", ".join(f"{k} {v}" for k, v in found.versions.items()) + "."
    yield ""
    yield "    " + shlex.join(["python", "benchmarks/peers.py", *_told()])


def threads(found):
    number = len(found.cores)
    return "1 thread" if number == 1 else f"{number} threads"


def _told():
    """The arguments but for where timm's Python is on this machine."""
    told, hide = [], False
    for argument in sys.argv[1:]:
        told.append("PYTHON" if hide else argument)
        hide = argument == "--timm-python"
    return told


def _described(groups, found, rules):
    for group in groups:
        yield "one after the other" if len(group) == 1 else "in turn"
        for job in group:
            _python, reason = found.interpreter(job)
            quantities = ", ".join(job.quantities)
            why = f" ({reason})" if reason else ""
            yield f"  {job.network}: {job.title}: {quantities}{why}"
    seconds = sum(guessed(job, rules) for group in groups for job in group)
    yield f"about {seconds / 60:.0f} minutes"


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # fmt: off
    add, path = parser.add_argument, pathlib.Path
    titles = [n.title for n in plan.NETWORKS]
    pairs = [p.csp for p in plan.PAIRS]
    add("--sections", nargs="+", choices=plan.SECTIONS, default=plan.SECTIONS,
        help="default: all of " + ", ".join(plan.SECTIONS), metavar="SECTION")
    add("--networks", nargs="+", choices=titles, default=titles,
        help="default: all of " + ", ".join(titles), metavar="NETWORK")
    add("--pairs", nargs="+", choices=pairs, default=pairs, metavar="PAIR",
        help="CSP networks of savings; default: all of " + ", ".join(pairs))
    add("--size", type=positive_int, default=224, help="of images; default 224")
    add("--saving-sizes", type=positive_int, nargs="*", metavar="SIZE",
        default=plan.SAVING_SIZES,
        help="besides the published one; default 128 320")
    add("--timm-python", metavar="PATH",
        help="interpreter with timm; default: this one")
    add("--threads", type=positive_int, help="default: all cores")
    add("--rounds", type=positive_int, default=3, help="default 3")
    add("--seconds", type=float, default=0.4,
        help="of a contender's turn; at least one run; default 0.4")
    add("--patience", type=float, default=300,
        help="seconds until a contender that does not answer is left out, "
        "as one that compiles for too long; default 300")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", dest="level", action="store_const",
        const=plan.QUICK, default=plan.DEFAULT,
        help="leave out what compiles for minutes, and most trainings")
    level.add_argument("--thorough", dest="level", action="store_const",
        const=plan.THOROUGH,
        help="torch.compile, XLA and JAX trainings of every network")
    add("--output", type=path, default=HERE / "results",
        help="folder; default: results beside this script")
    add("--scratch", type=path, default=path("runs", "peers"),
        help="folder for values, files and logs; default runs/peers")
    add("--fresh", action="store_true", help="discard what it has")
    add("--plan", action="store_true", help="only say what would be measured")
    # fmt: on
    return parser.parse_args(arguments)


def main():
    options = parse()
    with cli_errors("peers"):
        run(options)


if __name__ == "__main__":
    main()
