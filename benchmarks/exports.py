"""Every network's files: size, time of an image, match with the model.

    pip install -e ".[onnx]" && python benchmarks/exports.py

Each network is written as TFLite in float32, float16 and int8 and as ONNX,
and so is each of the paper's detectors with its non-maximum suppression. Then
each file runs one image at a time in LiteRT or onnxruntime, the four of a
network in turns; nothing else should run at the same time. Networks have
random weights, on which neither size nor time depends, and statistics of
batch normalisation taken from photographs. The classes of a random network
are nearly equal: the agreement of int8 is the least that it can be, and that
of detectors means nothing. quantization.py measures trained networks.

If interrupted, rerun the same command to resume; --fresh starts again.
"""

import argparse
import itertools
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import numpy as np
from harness.contenders import set_statistics
from harness.machine import software
from harness.results import RESULTS, Table, table_lines, write_page
from harness.timing import interleaved

from keras_csp import export
from keras_csp.analysis.detectors import published_detectors
from keras_csp.training.run import cli_errors, positive_int

# The rounding of a random network grows with its depth, and its classes are
# nearly equal: no file is refused for them; the table says how far it is off.
NEAR, ANY = {"maximum_difference": 1e-3}, {"minimum_match_rate": 0.0}
KINDS = {
    "TFLite": (".tflite", export.to_tflite, NEAR),
    "TFLite float16": (
        ".tflite",
        export.to_tflite,
        {"quantize": "float16", **ANY},
    ),
    "TFLite int8": (".tflite", export.to_tflite, {"quantize": "int8", **ANY}),
    "ONNX": (".onnx", export.to_onnx, NEAR),
}
# Runs of a file's turn, after so many seconds of warming up.
RUNS, WARM_UP = 5, 0.1
COLUMNS = ("network", "kind", "MB", "ms", "difference", "agreement", "error")
DETECTORS = {
    f"CSPPeleeNet, {row.head}": row.arguments
    for row in published_detectors()
    if row.box_loss is None  # another loss trains the same network
}


def make(name, shape):
    """The network or detector of that name, of 1000 or 80 classes.

    Networks return logits: all probabilities of a random one are about
    1/1000, less than the 1/256 that an int8 softmax can tell from 0.
    """
    if name not in DETECTORS:
        factory = keras_csp.get_factory(name)
        return factory(
            weights=None, input_shape=shape, classifier_activation=None
        )
    arguments = DETECTORS[name]
    detector = keras_csp.Detector(classes=80, input_shape=shape, **arguments)
    return detector.inference_model()


def export_path(options, name, kind):
    """Where a file waits until it is timed."""
    stem = f"{name} {kind}".replace(",", "").replace(" ", "_")
    return options.scratch / f"{stem}{KINDS[kind][0]}"


def export_rows(name, options):
    """Writes one network's files; yields each one's row without its time."""
    shape = (options.size, options.size, 3)
    model = make(name, shape)
    images = export.photographs(shape, count=8)
    set_statistics(model, images)
    for kind, (_suffix, write, settings) in KINDS.items():
        row = {"network": name, "kind": kind}
        ranges = {"representative": images} if kind.endswith("int8") else {}
        path = export_path(options, name, kind)
        try:
            check = write(model, path, images, **settings, **ranges)
            row |= {
                "MB": f"{check.size / 1e6:.2f}",
                "difference": f"{check.largest_difference:.2g}",
                "agreement": f"{check.match_rate:.3f}",
            }
        except (ValueError, RuntimeError) as error:
            row["error"] = str(error).splitlines()[0][:200]
        yield row


def milliseconds(paths, options):
    """{kind: the median time of one image}."""
    image = np.random.default_rng(0).random(
        (1, options.size, options.size, 3), dtype="float32"
    )

    def call_of(path):
        run = export.load(path, options.threads)
        return lambda: run(image)

    calls = {kind: call_of(path) for kind, path in paths.items()}
    rounds = -(-options.runs // RUNS)
    times = interleaved(calls, rounds, RUNS, WARM_UP)
    return {
        kind: f"{1000 * statistics.median(itertools.chain(*turns)):.2f}"
        for kind, turns in times.items()
    }


def open_table(options):
    return Table(options.csv, COLUMNS, key=("network", "kind"))


def export_all(options):
    """Each network in a process of its own, which returns its memory."""
    names = options.networks or [*keras_csp.list_models(), *DETECTORS]
    for number, name in enumerate(names, 1):
        if open_table(options).has(network=name):
            continue
        print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
        arguments = [a for a in sys.argv[1:] if a != "--fresh"]
        command = [sys.executable, __file__, *arguments, "--one", name]
        if subprocess.run(command, check=False).returncode:
            print(f"{name} failed", file=sys.stderr)


def export_one(options):
    rows = list(export_rows(options.one, options))
    table = open_table(options)
    for row in rows:
        table.add(row)


def time_all(options):
    """Times the files of one network after those of another."""
    table = open_table(options)
    for name in dict.fromkeys(row["network"] for row in table.rows):
        paths = {
            row["kind"]: export_path(options, name, row["kind"])
            for row in table.rows
            if row["network"] == name and not (row["ms"] or row["error"])
        }
        paths = {kind: path for kind, path in paths.items() if path.is_file()}
        if not paths:
            continue
        print(f"timing {name}", file=sys.stderr, flush=True)
        times = milliseconds(paths, options)
        for row in list(table.rows):
            if row["network"] == name and row["kind"] in times:
                table.add({**row, "ms": times[row["kind"]]})
        for path in paths.values():
            path.unlink()


def report(options):
    command = f"python benchmarks/exports.py {shlex.join(options.shown)}"
    rows = open_table(options).rows
    lines = [
        "# Every network's files",
        "",
        f"{options.size} pixels, random weights, statistics of photographs; "
        f"medians of {options.runs} runs of one image. {platform.machine()}, "
        f"{options.threads} threads; "
        f"{software('Keras', 'TensorFlow', 'LiteRT', 'onnxruntime')}. The "
        "classes of a random network are nearly equal: its agreement in 8 "
        "bits is the least that it can be, and the boxes of a random detector "
        "mean nothing. quantization.md has trained ones.",
        "",
        f"    {command}".rstrip(),
        "",
        *table_lines(COLUMNS, rows, right=range(2, 6)),
    ]
    write_page(options.csv.with_suffix(".md"), lines)


def run(options):
    if options.one:
        export_one(options)
        return
    for name in options.networks or ():
        if name not in DETECTORS:
            keras_csp.get_factory(name)  # or an error before the first export
    if options.fresh:
        options.csv.unlink(missing_ok=True)
    options.scratch.mkdir(parents=True, exist_ok=True)
    export_all(options)
    if not options.untimed:
        time_all(options)
    report(options)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--networks", nargs="+", metavar="NETWORK", help="default: all"
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        default=224,
        help="of the images, pixels; default 224",
    )
    parser.add_argument(
        "--runs",
        type=positive_int,
        default=20,
        help="of each file; default 20",
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=os.cpu_count(),
        help="of both runtimes; default: all cores",
    )
    parser.add_argument(
        "--csv", type=pathlib.Path, default=RESULTS / "exports.csv"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="measure all again"
    )
    parser.add_argument(
        "--scratch",
        type=pathlib.Path,
        default=pathlib.Path("runs", "exports"),
        help="folder of files that wait to be timed; default runs/exports",
    )
    parser.add_argument(
        "--untimed",
        action="store_true",
        help="only write the files: a second call without this times them",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    own = ("--fresh", "--untimed")
    options.shown = [a for a in sys.argv[1:] if a not in own]
    return options


def main():
    options = parse()
    with cli_errors("exports"):
        run(options)


if __name__ == "__main__":
    main()
