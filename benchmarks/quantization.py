"""What 8 bits cost trained networks: size, answers, AP and time.

    python examples/quickstart.py
    python benchmarks/quantization.py --data digits \\
        --classifier runs/quickstart/model.keras
    python benchmarks/quantization.py --detector runs/mine/detector.keras \\
        --train annotations/instances_train.json \\
        --test annotations/instances_test.json

The model is written as TFLite in float32 and in int8, whose ranges are set by
training images, and both files answer every test image in LiteRT. The table
has the sizes; how many answers of the int8 file are the Keras model's, and
which part of each one's answers is right, or COCO's AP; and the time of an
image, the two files in turns. Each call adds its row to quantization.csv, or
replaces that of the same network and calibration, and writes quantization.md.
"""

import argparse
import functools
import itertools
import os
import pathlib
import shlex
import statistics
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # noqa: F401  # isort: skip  (before keras, as it says)
import keras
import numpy as np
from harness.machine import cpu_name, software
from harness.results import RESULTS, Table, table_lines, write_page
from harness.timing import interleaved, median_ratio

from keras_csp import detection, export
from keras_csp.data import load_classification, load_detection
from keras_csp.training.run import cli_errors, positive_int

KINDS = ("float32", "int8")
# Timed runs of a file's turn.
RUNS = 5
COLUMNS = (
    "network",
    "data",
    "test images",
    "calibration",
    "metric",
    "Keras",
    "float32",
    "int8",
    "int8 same answer",
    "float32 MB",
    "int8 MB",
    "share",
    "float32 ms",
    "int8 ms",
    "speed",
)
COMMAND = "command"


class Classifier:
    """A `.keras` classifier and images of its classes."""

    metric = "top-1 %"

    def __init__(self, options):
        self.data = options.data
        self.model = keras.saving.load_model(options.classifier, compile=False)
        train, test = load_classification(options.data)
        batches = train.evaluation(options.representative, self.model)
        self.representative = next(iter(batches))[0].numpy()
        batches = list(test.evaluation(100, self.model).as_numpy_iterator())
        self.images = np.concatenate([images for images, _ in batches])
        self.labels = np.concatenate([labels for _, labels in batches])

    def answers(self, run):
        return np.concatenate(
            [run(self.images[i : i + 50]) for i in range(0, len(self), 50)]
        )

    def score(self, answers):
        return 100 * np.mean(answers.argmax(-1) == self.labels.argmax(-1))

    def same(self, ours, theirs):
        return np.mean(ours.argmax(-1) == theirs.argmax(-1))

    def __len__(self):
        return len(self.images)


class Detector:
    """A `.keras` detector and images with boxes."""

    metric = "AP50 %"

    def __init__(self, options):
        self.data = options.test
        detector = keras.saving.load_model(options.detector, compile=False)
        # COCO's AP counts every box, however unlikely.
        self.model = detector.inference_model(
            score_threshold=0.001, iou_threshold=0.6
        )
        train, test = (
            load_detection(path) for path in (options.train, options.test)
        )
        self.precision = (detector.classes, test.class_names)
        batches = train.evaluation(options.representative, detector)
        self.representative = next(iter(batches))[0].numpy()
        batches = list(test.evaluation(1, detector).as_numpy_iterator())
        self.images = np.concatenate([images for images, _ in batches])
        self.targets = [targets for _, targets in batches]

    def answers(self, run):
        return [run(image[None]) for image in self.images]

    def score(self, answers):
        precision = detection.AveragePrecision(*self.precision)
        for targets, found in zip(self.targets, answers):
            precision.update(targets, found)
        return 100 * precision.result()["AP50"]

    def same(self, ours, theirs):
        """None: boxes have no single answer; AP compares them."""
        return None

    def __len__(self):
        return len(self.images)


def measure(made, options):
    """The row of one network."""
    row = {
        "network": options.name or made.model.name,
        "data": options.title or made.data,
        "test images": len(made),
        "calibration": options.calibration,
        "metric": made.metric,
    }
    expected = made.answers(made.model.predict_on_batch)
    row["Keras"] = f"{made.score(expected):.2f}"
    with tempfile.TemporaryDirectory() as folder:
        paths = {k: pathlib.Path(folder) / f"{k}.tflite" for k in KINDS}
        samples, ranges = made.images[:50], made.representative
        export.to_tflite(made.model, paths["float32"], samples)
        print(
            export.to_tflite(
                made.model,
                paths["int8"],
                samples,
                quantize="int8",
                representative=ranges,
                calibration=options.calibration,
                minimum_match_rate=0.0,  # it is measured below
            )
        )
        runs = {k: export.load(p, options.threads) for k, p in paths.items()}
        answers = {kind: made.answers(run) for kind, run in runs.items()}
        sizes = {k: path.stat().st_size / 1e6 for k, path in paths.items()}
        seconds = timed(runs, made.images, options.rounds)
    same = made.same(expected, answers["int8"])
    row["int8 same answer"] = "" if same is None else f"{100 * same:.2f} %"
    for kind in KINDS:
        row[kind] = f"{made.score(answers[kind]):.2f}"
        row[f"{kind} MB"] = f"{sizes[kind]:.3f}"
        row[f"{kind} ms"] = f"{1000 * statistics.median(seconds[kind]):.2f}"
    row["share"] = f"{sizes['int8'] / sizes['float32']:.3f}"
    speed = median_ratio(seconds["float32"], seconds["int8"])
    row["speed"] = f"{speed:.2f}"
    row[COMMAND] = shlex.join(sys.argv[1:])
    return row


def timed(runs, images, rounds):
    """{kind: seconds of an image in each round}; all kinds see the same."""

    def run_next(run, turns):
        run(next(turns)[None])

    calls = {
        kind: functools.partial(run_next, run, itertools.cycle(images))
        for kind, run in runs.items()
    }
    times = interleaved(calls, rounds + 1, RUNS)
    # The first round warms up.
    return {
        kind: [statistics.mean(turn) for turn in turns[1:]]
        for kind, turns in times.items()
    }


def write(row, options):
    """Adds the row to those of earlier calls, and writes the page of all."""
    table = Table(
        options.output / "quantization.csv",
        (*COLUMNS, COMMAND),
        key=("network", "data", "calibration"),
    )
    table.add(row)
    write_page(table.path.with_suffix(".md"), report(table.rows, options))


def report(rows, options):
    yield "# TFLite in 8 bits: trained networks"
    yield ""
    yield (
        'Both files answer all test images in LiteRT; "int8 same answer" is '
        "the share for which the int8 file has the Keras model's best class, "
        '"share" the size of the int8 file by the other\'s, "speed" the '
        f"median of {options.rounds} rounds' ratios, above 1 where int8 is "
        f"faster. {cpu_name()}, {options.threads} threads; "
        f"{software('Keras', 'LiteRT')}."
    )
    yield ""
    yield from table_lines(COLUMNS, rows, right=(2, *range(5, len(COLUMNS))))
    yield ""
    for row in rows:
        yield f"    python benchmarks/quantization.py {row[COMMAND]}"


def main():
    options = parse()
    with cli_errors("quantization", resumes=False):
        kind = Classifier if options.classifier else Detector
        write(measure(kind(options), options), options)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--classifier", help=".keras file")
    model.add_argument("--detector", help=".keras file")
    parser.add_argument(
        "--data",
        default="digits",
        help="of a classifier: digits (default), FOLDER or tfds:NAME",
    )
    parser.add_argument(
        "--train", help="of a detector: COCO JSON that sets the ranges"
    )
    parser.add_argument(
        "--test", help="of a detector: COCO JSON that it is tested on"
    )
    parser.add_argument("--name", help="in the table; default: the model's")
    parser.add_argument(
        "--title", help="of the data in the table; default: --data"
    )
    parser.add_argument(
        "--representative",
        type=positive_int,
        default=100,
        help="training images that set the ranges; default 100",
    )
    parser.add_argument(
        "--calibration",
        choices=("minmax", "mse"),
        default="minmax",
        help="of keras_csp.export.to_tflite; default minmax",
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=30, help="timed; default 30"
    )
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=os.cpu_count(),
        help="of LiteRT; default: all cores",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=RESULTS,
        help="folder; default: results beside this script",
    )
    options = parser.parse_args()
    if options.detector and not (options.train and options.test):
        parser.error("--detector needs --train and --test")
    return options


if __name__ == "__main__":
    main()
