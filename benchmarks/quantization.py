"""What 8 bits cost trained networks: size, answers, AP and time.

    python examples/quickstart.py
    python benchmarks/quantization.py --data digits \\
        --classifier runs/quickstart/model.keras
    python benchmarks/quantization.py --detector runs/mine/detector.keras \\
        --train annotations/instances_train.json \\
        --test annotations/instances_test.json

The model is written as TFLite in float32 and in int8, whose ranges are set by
training images, and both files answer every test image in LiteRT. Told are
the sizes; how many answers of the int8 file are the Keras model's, and what
share of each one's answers is right, or COCO's AP; and the time of an image,
the two files in turn. Each call adds its rows to quantization.csv or puts
them in the place of those of the same network and calibration, and writes
quantization.md anew.
"""

import argparse
import os
import pathlib
import shlex
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # noqa: F401  # isort: skip  (before keras, as it says)
import keras
import numpy as np
from peers_lib.machine import cpu
from result_files import RESULTS, cells, read_csv, write_csv, write_page

from keras_csp import detection, export
from keras_csp._tables import markdown
from keras_csp.data import load_classification, load_detection
from keras_csp.training.run import cli_errors, positive_int

KINDS = ("float32", "int8")
FIELDS = (
    *("network", "data", "test images", "calibration"),
    *("metric", "Keras", "float32", "int8", "int8 same answer"),
    *("float32 MB", "int8 MB", "share"),
    *("float32 ms", "int8 ms", "speed"),
)
COMMAND = "command"


class Classifier:
    """A `.keras` classifier and images of its classes."""

    metric = "top-1 %"

    def __init__(self, options):
        self.data = options.data
        self.model = keras.saving.load_model(options.classifier, compile=False)
        train, test = load_classification(options.data)
        size = self.model.input_shape[1]
        batches = train.evaluation(options.representative, size)
        self.representative = next(iter(batches))[0].numpy()
        batches = list(test.evaluation(100, size).as_numpy_iterator())
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
        batches = train.evaluation(options.representative, options.size)
        self.representative = next(iter(batches))[0].numpy()
        batches = list(test.evaluation(1, options.size).as_numpy_iterator())
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
        """Of single boxes there is no answer; AP says it."""
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
        times = in_turn(runs, made.images, options.rounds)
    same = made.same(expected, answers["int8"])
    row["int8 same answer"] = "" if same is None else f"{100 * same:.2f} %"
    for kind in KINDS:
        row[kind] = f"{made.score(answers[kind]):.2f}"
        row[f"{kind} MB"] = f"{sizes[kind]:.3f}"
        row[f"{kind} ms"] = f"{statistics.median(times[kind]):.2f}"
    row["share"] = f"{sizes['int8'] / sizes['float32']:.3f}"
    ratios = map(np.divide, times["float32"], times["int8"])
    row["speed"] = f"{statistics.median(ratios):.2f}"
    row[COMMAND] = shlex.join(sys.argv[1:])
    return row


def in_turn(runs, images, rounds):
    """{kind: milliseconds of an image, for each round}."""
    times = {kind: [] for kind in runs}
    for number in range(rounds + 1):
        image = images[number % len(images)][None]
        for kind, run in runs.items():
            start = time.perf_counter()
            for _ in range(5):
                run(image)
            times[kind].append(200 * (time.perf_counter() - start))
    return {kind: values[1:] for kind, values in times.items()}


def write(row, options):
    """The row among those of earlier calls, and the table of all."""
    path = options.output / "quantization.csv"
    key = ("network", "data", "calibration")
    kept = [r for r in read_csv(path) if any(r[k] != row[k] for k in key)]
    fields = (*FIELDS, COMMAND)
    rows = [*kept, {field: str(row[field]) for field in fields}]
    write_csv(path, fields, cells(rows, fields))
    write_page(path.with_suffix(".md"), report(rows, options))


def report(rows, options):
    import ai_edge_litert

    threads = options.threads
    yield "# TFLite in 8 bits: trained networks"
    yield ""
    yield (
        'Both files answer all test images in LiteRT; "int8 same answer" is '
        "the share for which the int8 file has the Keras model's best class, "
        '"share" the size of the int8 file by the other\'s, "speed" the '
        f"median of {options.rounds} rounds' ratios, above 1 where int8 is "
        f"faster. {cpu()}, {threads} threads; Keras {keras.__version__}, "
        f"LiteRT {ai_edge_litert.__version__}."
    )
    yield ""
    right = (2, *range(5, len(FIELDS)))
    yield from markdown([FIELDS, *cells(rows, FIELDS)], right=right)
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
    # fmt: off
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--classifier", help=".keras file")
    model.add_argument("--detector", help=".keras file")
    add("--data", default="digits",
        help="of a classifier: digits (default), FOLDER or tfds:NAME")
    add("--train", help="of a detector: COCO JSON that sets the ranges")
    add("--test", help="of a detector: COCO JSON to be measured on")
    add("--size", type=positive_int, default=320,
        help="of a detector's images; default 320")
    add("--name", help="in the table; default: the model's")
    add("--title", help="of the data in the table; default: --data")
    add("--representative", type=positive_int, default=100,
        help="training images that set the ranges; default 100")
    add("--calibration", choices=("minmax", "mse"), default="minmax",
        help="as of keras_csp.export.to_tflite; default minmax")
    add("--rounds", type=positive_int, default=30, help="timed; default 30")
    add("--threads", type=positive_int, default=os.cpu_count(),
        help="of LiteRT; default: all cores")
    add("--output", type=pathlib.Path, default=RESULTS,
        help="folder; default: results beside this script")
    # fmt: on
    options = parser.parse_args()
    if options.detector and not (options.train and options.test):
        parser.error("--detector needs --train and --test")
    return options


if __name__ == "__main__":
    main()
