"""Every network's files: size, time of an image, agreement with the model.

    pip install -e ".[onnx]" && python benchmarks/exports.py

Each network is written as TFLite in float32, float16 and int8 and as ONNX,
and each file runs one image at a time in LiteRT or onnxruntime. Networks have
random weights, which neither size nor time depend on, and statistics of batch
normalisation taken from photographs; their answers are as good as a random
network's, so the agreement of int8 is the least that it can be: that of
trained networks stands in the README. A row that is in the CSV already is not
measured again: a run that is killed goes on, --fresh begins anew.
"""

import argparse
import csv
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras
import tensorflow as tf

from keras_csp import export
from keras_csp.text import markdown
from keras_csp.writing import replacing

RESULTS = pathlib.Path(__file__).with_name("results")
KINDS = {
    "TFLite": ("m.tflite", export.to_tflite, {}),
    "TFLite float16": ("m.tflite", export.to_tflite, {"quantize": "float16"}),
    "TFLite int8": ("m.tflite", export.to_tflite, {"quantize": "int8"}),
    "ONNX": ("m.onnx", export.to_onnx, {}),
}
FIELDS = ("network", "kind", "MB", "ms", "difference", "agreement", "error")


def with_statistics(model, images):
    """Batch normalisation as a trained network has it: fitting its inputs.

    Of random weights alone activations grow from layer to layer, until no
    eight bits hold them.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(8):
        model(images, training=True)
    return model


def milliseconds(path, image, options):
    """The median of one image's time, warmed up."""
    run = export.load(path, options.threads)
    times = []
    for _ in range(options.runs + 3):
        start = time.perf_counter()
        run(image)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def rows(name, options):
    """One network's files, each a dict of `FIELDS`."""
    factory = keras_csp.get_factory(name)
    shape = (options.size, options.size, 3)
    model = factory(weights=None, input_shape=shape)
    metadata = export.describe(model, shape)
    images = export.photographs(metadata, count=16)
    with_statistics(model, images)
    for kind, (file, write, settings) in KINDS.items():
        row = {"network": name, "kind": kind}
        ranges = {"representative": images, "minimum_agreement": 0.0}
        extra = ranges if kind.endswith("int8") else {}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / file
            try:
                check = write(model, path, images, **settings, **extra)
                row |= {
                    "MB": f"{check.size / 1e6:.2f}",
                    "ms": f"{milliseconds(path, images[:1], options):.2f}",
                    "difference": f"{check.largest_difference:.2g}",
                    "agreement": f"{check.agreement:.3f}",
                }
            except (ValueError, RuntimeError) as error:
                row["error"] = str(error).splitlines()[0][:200]
        yield row


def measured(path):
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(path, found):
    with replacing(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="")
        writer.writeheader()
        writer.writerows(found)


def measure_one(options):
    found = measured(options.csv)
    save(options.csv, [*found, *rows(options.one, options)])


def measure_all(options):
    """Each in a process of its own: its memory is given back."""
    names = options.networks or keras_csp.list_models()
    for number, name in enumerate(names, 1):
        if name in {row["network"] for row in measured(options.csv)}:
            continue
        print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
        arguments = [*sys.argv[1:], "--one", name]
        arguments = [a for a in arguments if a != "--fresh"]
        command = [sys.executable, __file__, *arguments]
        if subprocess.run(command, check=False).returncode:
            print(f"{name} failed", file=sys.stderr)


def report(options):
    import ai_edge_litert
    import onnxruntime

    found = measured(options.csv)
    cells = [tuple(row[field] for field in FIELDS) for row in found]
    command = f"python benchmarks/exports.py {shlex.join(options.shown)}"
    lines = [
        "# Every network's files",
        "",
        f"{options.size} pixels, random weights, statistics of photographs; "
        f"medians of {options.runs} runs of one image. {platform.machine()}, "
        f"{options.threads or os.cpu_count()} threads; Keras "
        f"{keras.__version__}, TensorFlow {tf.__version__}, LiteRT "
        f"{ai_edge_litert.__version__}, onnxruntime "
        f"{onnxruntime.__version__}.",
        "",
        f"    {command}".rstrip(),
        "",
        *markdown([FIELDS, *cells], right=range(2, 6)),
    ]
    with replacing(options.csv.with_suffix(".md")) as part:
        part.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--networks", nargs="+", metavar="NETWORK", help="default: all")
    add("--size", type=int, default=224, help="side, pixels; default 224")
    add("--runs", type=int, default=20, help="of each file; default 20")
    add("--threads", type=int, help="default: the runtimes' own choice")
    add("--csv", type=pathlib.Path, default=RESULTS / "exports.csv")
    add("--fresh", action="store_true", help="measure all again")
    add("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.shown = [a for a in sys.argv[1:] if a != "--fresh"]
    if options.one:
        measure_one(options)
        return
    for name in options.networks or ():
        try:
            keras_csp.get_factory(name)
        except ValueError as error:
            sys.exit(f"exports: {error}")
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        options.csv.unlink(missing_ok=True)
    measure_all(options)
    report(options)


if __name__ == "__main__":
    main()
