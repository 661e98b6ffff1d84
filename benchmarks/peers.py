"""CSP networks on a CPU beside what else runs them: one command, one table.

    pip install -e ".[bench]" && python benchmarks/peers.py

This package (TensorFlow, XLA, JAX, and its exports in LiteRT, float32 and
int8, onnxruntime and OpenVINO) beside keras-hub, timm and keras.applications:
inference, the training step, and what comes before the first answer; the CSP
networks beside their base networks; the detectors from JPEG to boxes; and the
machine's own matrix product, all in one run.

Every contender has a process of its own with the same cores and threads, and
warms up; then they take turns, and only the one whose turn it is runs.
Reported values are medians over rounds. Weights and images are random: the
time does not depend on them. All is float32 where it does not say int8.

The results are peers.csv, peers.md, peers.png and peers_savings.png. What is
not installed is left out, and the report says so: "pip install openvino" adds
OpenVINO. timm and PyTorch may be in an environment of their own:

    python -m venv timm-venv
    timm-venv/bin/pip install timm safetensors onnx onnxscript
    python benchmarks/peers.py --timm-python timm-venv/bin/python

Nothing else should run at the same time. If interrupted, rerun the same
command to resume.
"""

import argparse
import os
import pathlib
import shlex
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from harness import machine, results
from harness.networks import NETWORKS, PAIRS
from harness.timing import Coordinator, Rules
from peers_parts import plan
from peers_parts.pictures import draw_savings, draw_speeds
from peers_parts.report import Report
from peers_parts.summary import summarize

from keras_csp.analysis.detectors import published_detectors
from keras_csp.analysis.published import published
from keras_csp.training.run import cli_errors, positive_int


def run(options):
    """Measures what is missing, and writes the report."""
    found = machine.find_machine(options.timm_python, options.threads)
    rules = Rules(options.rounds, options.seconds, options.patience)
    groups, left_out = plan.split(
        plan.groups(_request(options, found)), options.level
    )
    if options.plan:
        print("\n".join(_plan_lines(groups, found)))
        return
    if options.fresh:
        shutil.rmtree(options.scratch, ignore_errors=True)
    store = results.Store(
        options.scratch / "values.csv", _settings(options, found)
    )
    coordinator = Coordinator(found, store, rules, options.scratch / "logs")
    options.output.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(groups, 1):
        print(f"[{number}/{len(groups)}]", file=sys.stderr)
        coordinator.measure(group)
        skipped = {**coordinator.skipped, **left_out}
        report = write(store, skipped, options, rules, found)
    print(report.text())


def write(store, skipped, options, rules, found):
    """Writes all files, of what is known so far; returns the `Report`."""
    report = Report(
        summarize(store.rows),
        skipped,
        list(_about(options, rules, found, store.starts)),
        lambda name: published(name).input_size,
        {row.head: row.fps for row in published_detectors()},
    )
    report.write(options.output / "peers")
    note = f"{machine.cpu_name()}, {_threads(found)}"
    draw_speeds(report.summary, options.output / "peers.png", note)
    draw_savings(
        report.summary,
        options.output / "peers_savings.png",
        report.published_size,
        note,
    )
    return report


def _request(options, found):
    """The `plan.Request` of the options."""
    networks = [n for n in NETWORKS if n.title in options.networks]
    pairs = [p for p in PAIRS if p.csp in options.pairs]
    # Detectors that differ only in their loss are one.
    detectors = [row for row in published_detectors() if row.box_loss is None]
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
    """What must be equal for values to belong in one table."""
    return {
        "CPU": machine.cpu_name(),
        "threads": len(found.cores),
        "size": options.size,
        "rounds": options.rounds,
        "seconds": options.seconds,
        **found.versions,
    }


def _about(options, rules, found, starts):
    yield (
        f"{machine.cpu_name()}; {_threads(found)} on as many cores for every "
        f"contender. Medians of {options.rounds} rounds of at least "
        f"{options.seconds:g} s, {plan.CLOSE * options.rounds} for savings and "
        f"detectors, or one where a run takes longer than {rules.slow:g} s; "
        "the spread is from the fastest round to the slowest, by the median. "
        f"Images of {options.size}x{options.size}, random weights. "
        "oneDNN is as each package leaves it: keras_csp has it on, the others "
        "have TensorFlow's choice for the CPU. Beside CSPDenseNet-201, the "
        "networks of keras.applications and timm are other networks."
        + (f" Measured in {starts} starts." if starts > 1 else "")
    )
    yield ""
    yield ", ".join(f"{k} {v}" for k, v in found.versions.items()) + "."
    yield ""
    yield "    " + shlex.join(
        ["python", "benchmarks/peers.py", *_shown_arguments()]
    )


def _threads(found):
    number = len(found.cores)
    return "1 thread" if number == 1 else f"{number} threads"


def _shown_arguments():
    """The arguments, without where timm's Python is on this machine."""
    shown, hide = [], False
    for argument in sys.argv[1:]:
        shown.append("PYTHON" if hide else argument)
        hide = argument == "--timm-python"
    return shown


def _plan_lines(groups, found):
    for group in groups:
        yield "alone" if len(group) == 1 else "in turns"
        for job in group:
            _python, reason = found.interpreter(job)
            quantities = ", ".join(job.quantities)
            why = f" ({reason})" if reason else ""
            yield f"  {job.network}: {job.title}: {quantities}{why}"


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    titles = [network.title for network in NETWORKS]
    pairs = [pair.csp for pair in PAIRS]
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=plan.SECTIONS,
        default=plan.SECTIONS,
        metavar="SECTION",
        help="default: all of " + ", ".join(plan.SECTIONS),
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=titles,
        default=titles,
        metavar="NETWORK",
        help="default: all of " + ", ".join(titles),
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        choices=pairs,
        default=pairs,
        metavar="PAIR",
        help="CSP networks of savings; default: all of " + ", ".join(pairs),
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        default=224,
        help="of the images, pixels; default 224",
    )
    parser.add_argument(
        "--saving-sizes",
        type=positive_int,
        nargs="*",
        metavar="SIZE",
        default=plan.SAVING_SIZES,
        help="besides the published one; default 128 320",
    )
    parser.add_argument(
        "--timm-python",
        metavar="PATH",
        help="interpreter with timm; default: this one",
    )
    parser.add_argument(
        "--threads", type=positive_int, help="default: all cores"
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=3, help="default 3"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.4,
        help="of a contender's turn, which has at least one run; default 0.4",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300,
        help="seconds after which a contender that does not answer, because "
        "it still compiles for example, is left out; default 300",
    )
    level = parser.add_mutually_exclusive_group()
    level.add_argument(
        "--quick",
        dest="level",
        action="store_const",
        const=plan.QUICK,
        default=plan.DEFAULT,
        help="leave out what compiles for minutes, and most trainings",
    )
    level.add_argument(
        "--thorough",
        dest="level",
        action="store_const",
        const=plan.THOROUGH,
        help="torch.compile, XLA and JAX trainings of every network",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=results.RESULTS,
        help="folder; default: results beside this script",
    )
    parser.add_argument(
        "--scratch",
        type=pathlib.Path,
        default=pathlib.Path("runs", "peers"),
        help="folder for values, files and logs; default runs/peers",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="discard earlier values"
    )
    parser.add_argument(
        "--plan", action="store_true", help="only print the plan"
    )
    return parser.parse_args(arguments)


def main():
    options = parse()
    with cli_errors("peers"):
        run(options)


if __name__ == "__main__":
    main()
