"""Every network's files: size, time of an image, agreement with the model.

    pip install -e ".[onnx]" && python benchmarks/exports.py

Each network is written as TFLite in float32, float16 and int8 and as ONNX,
and so is each of the paper's detectors with its non-maximum suppression. Then
each file runs one image at a time in LiteRT or onnxruntime, the four of a
network in turn, and nothing else should run beside. Networks have random
weights, which neither size nor time depend on, and statistics of batch
normalisation taken from photographs; their answers are as good as a random
network's, so the agreement of int8 is the least that it can be, and that of
detectors means nothing: quantization.py measures trained ones. What is in the
CSV already is not measured again: a run that is killed goes on, --fresh
begins anew.
"""

import argparse
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras
import numpy as np
import tensorflow as tf
from peers_lib.keras_models import set_statistics
from result_files import RESULTS, cells, read_csv, write_csv, write_page

from keras_csp import export
from keras_csp._tables import markdown
from keras_csp.analysis.detectors import published_detectors

# Of a random network, whose rounding grows with its depth and whose classes
# are as good as equal, a file is not refused; the table says how far it is.
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
# Runs of one file before it is the next one's turn, after seconds of warming.
TURN, SETTLE = 5, 0.1
FIELDS = ("network", "kind", "MB", "ms", "difference", "agreement", "error")
DETECTORS = {
    f"CSPPeleeNet, {row.head}": row.arguments
    for row in published_detectors()
    if row.box_loss is None  # another loss trains the same network
}


def make(name, shape):
    """The network or detector of that name, of 1000 or 80 classes.

    Networks give logits: a random one's probabilities are all about 1/1000,
    less than the 1/256 that an int8 softmax can tell from 0.
    """
    if name not in DETECTORS:
        factory = keras_csp.get_factory(name)
        return factory(
            weights=None, input_shape=shape, classifier_activation=None
        )
    arguments = DETECTORS[name]
    detector = keras_csp.Detector(classes=80, input_shape=shape, **arguments)
    return detector.inference_model()


def file_of(options, name, kind):
    """Where a file waits until it is timed."""
    stem = f"{name} {kind}".replace(",", "").replace(" ", "_")
    return options.scratch / f"{stem}{KINDS[kind][0]}"


def written(name, options):
    """One network's files, each a dict of `FIELDS` without its time."""
    shape = (options.size, options.size, 3)
    model = make(name, shape)
    images = export.photographs(shape, count=8)
    set_statistics(model, images)
    for kind, (_suffix, write, settings) in KINDS.items():
        row = {"network": name, "kind": kind}
        ranges = {"representative": images} if kind.endswith("int8") else {}
        path = file_of(options, name, kind)
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
    """{kind: the median of one image's time}, in turns of `TURN` runs."""
    runs = {kind: export.load(p, options.threads) for kind, p in paths.items()}
    shape = (1, options.size, options.size, 3)
    image = np.random.default_rng(0).random(shape, dtype="float32")
    times = {kind: [] for kind in runs}
    for _ in range(0, options.runs, TURN):
        for kind, run in runs.items():
            settle(run, image)
            times[kind] += [timed(run, image) for _ in range(TURN)]
    return {k: f"{statistics.median(t):.2f}" for k, t in times.items()}


def settle(run, image):
    """Runs until the caches are its own and the machine is, too:
    onnxruntime's threads go on spinning for a while after an answer."""
    start = time.perf_counter()
    while time.perf_counter() - start < SETTLE:
        run(image)


def timed(run, image):
    start = time.perf_counter()
    run(image)
    return 1000 * (time.perf_counter() - start)


def save(path, found):
    rows = (dict.fromkeys(FIELDS, "") | row for row in found)
    write_csv(path, FIELDS, cells(rows, FIELDS))


def write_one(options):
    found = read_csv(options.csv)
    save(options.csv, [*found, *written(options.one, options)])


def write_all(options):
    """Each in a process of its own: its memory is given back."""
    names = options.networks or [*keras_csp.list_models(), *DETECTORS]
    for number, name in enumerate(names, 1):
        if name in {row["network"] for row in read_csv(options.csv)}:
            continue
        print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
        arguments = [*sys.argv[1:], "--one", name]
        arguments = [a for a in arguments if a != "--fresh"]
        command = [sys.executable, __file__, *arguments]
        if subprocess.run(command, check=False).returncode:
            print(f"{name} failed", file=sys.stderr)


def time_all(options):
    """The files of one network after those of another."""
    found = read_csv(options.csv)
    for name in dict.fromkeys(row["network"] for row in found):
        paths = {
            row["kind"]: file_of(options, name, row["kind"])
            for row in found
            if row["network"] == name and not (row["ms"] or row["error"])
        }
        paths = {kind: path for kind, path in paths.items() if path.is_file()}
        if not paths:
            continue
        print(f"timing {name}", file=sys.stderr, flush=True)
        times = milliseconds(paths, options)
        for row in found:
            if row["network"] == name and row["kind"] in times:
                row["ms"] = times[row["kind"]]
        save(options.csv, found)
        for path in paths.values():
            path.unlink()


def report(options):
    import ai_edge_litert
    import onnxruntime

    rows = cells(read_csv(options.csv), FIELDS)
    command = f"python benchmarks/exports.py {shlex.join(options.shown)}"
    lines = [
        "# Every network's files",
        "",
        f"{options.size} pixels, random weights, statistics of photographs; "
        f"medians of {options.runs} runs of one image. {platform.machine()}, "
        f"{options.threads} threads; Keras "
        f"{keras.__version__}, TensorFlow {tf.__version__}, LiteRT "
        f"{ai_edge_litert.__version__}, onnxruntime "
        f"{onnxruntime.__version__}. A random network's classes are as good "
        "as equal, so that its agreement in 8 bits is the least there can be, "
        "and a random detector's boxes mean nothing: quantization.md has "
        "trained ones.",
        "",
        f"    {command}".rstrip(),
        "",
        *markdown([FIELDS, *rows], right=range(2, 6)),
    ]
    write_page(options.csv.with_suffix(".md"), lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--networks", nargs="+", metavar="NETWORK", help="default: all")
    add("--size", type=int, default=224, help="side, pixels; default 224")
    add("--runs", type=int, default=20, help="of each file; default 20")
    add(
        "--threads",
        type=int,
        default=os.cpu_count(),
        help="of both runtimes; default: all cores",
    )
    add("--csv", type=pathlib.Path, default=RESULTS / "exports.csv")
    add("--fresh", action="store_true", help="measure all again")
    add(
        "--scratch",
        type=pathlib.Path,
        default=pathlib.Path("runs", "exports"),
        help="folder of files that wait to be timed; default runs/exports",
    )
    add(
        "--untimed",
        action="store_true",
        help="only write: a second call without this times the files",
    )
    add("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    ours = ("--fresh", "--untimed")
    options.shown = [a for a in sys.argv[1:] if a not in ours]
    if options.one:
        write_one(options)
        return
    for name in options.networks or ():
        try:
            name in DETECTORS or keras_csp.get_factory(name)
        except ValueError as error:
            sys.exit(f"exports: {error}")
    if options.fresh:
        options.csv.unlink(missing_ok=True)
    write_all(options)
    if not options.untimed:
        time_all(options)
    report(options)


if __name__ == "__main__":
    main()
