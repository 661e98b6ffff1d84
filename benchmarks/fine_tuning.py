"""A published detector learns other boxes: from its weights, and from scratch.

    python benchmarks/fine_tuning.py --cfg yolo-fastest-1.1.cfg \\
        --weights yolo-fastest-1.1.weights \\
        --train instances_train.json --validation instances_val.json \\
        --test instances_test.json

Two detectors of the boxes' classes, the cfg's own with new rows in its heads,
and EFM on its backbone, are trained once from the file's weights and once from
random ones, with the same recipe and epochs, for every seed. A row with the
AP50 of the test images of each run goes to fine_tuning.csv, its AP50 after
each validation to fine_tuning_epochs.csv; rows that are there are not measured
again. Then fine_tuning.md, the curves and the detections of the first seed are
written.
"""

import argparse
import os
import pathlib
import shlex
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras, as it says)
import keras
from harness.machine import cpu_name, software
from harness.results import RESULTS, Table, table_lines, write_page

from keras_csp import detection
from keras_csp._files import atomic_write
from keras_csp.data import load_detection
from keras_csp.detection.drawing import draw_comparison
from keras_csp.training import fit_in_phases, get_recipe
from keras_csp.training.run import cli_errors, positive_int

DETECTORS = ("the cfg's", "EFM on its backbone")
STARTS = ("published weights", "scratch")
KEY = ("detector", "start", "seed")
COLUMNS = (*KEY, "epochs", "test AP50 %", "test AP %", "minutes")
EPOCH_COLUMNS = (*KEY, "epoch", "loss", "validation AP50 %")


def build(options, detector, start, train, size):
    """A detector of the classes of `train`."""
    weights = options.weights if start == STARTS[0] else None
    published = keras_csp.Detector.from_darknet(options.cfg, weights)
    if detector == DETECTORS[0]:
        return published.with_classes(train.class_names)
    return keras_csp.Detector(
        published,
        "efm",
        input_shape=(size, size, 3),
        anchors=detection.fit_anchors(train, 9, size),
        class_names=train.class_names,
    )


def train_one(options, data, key, folder):
    """The row of a run, and its rows by epoch."""
    detector, start, seed = key
    keras.utils.set_random_seed(seed)
    recipe = recipe_of(options, detector, start)
    made = build(options, detector, start, data["train"], recipe.size)
    begin = time.perf_counter()
    history = fit_in_phases(
        made,
        recipe,
        data["train"],
        data["validation"],
        options.epochs,
        seed=seed,
        verbose=2,
        validation_freq=options.validation_freq,
    )
    minutes = (time.perf_counter() - begin) / 60
    batches = recipe.evaluation(data["test"], made)
    results = made.evaluate(batches, verbose=0)
    row = {
        **dict(zip(KEY, key)),
        "epochs": options.epochs,
        "test AP50 %": f"{100 * results['AP50']:.1f}",
        "test AP %": f"{100 * results['AP']:.1f}",
        "minutes": f"{minutes:.1f}",
    }
    step = options.validation_freq
    validated = range(step, options.epochs + 1, step)
    epochs = [
        {
            **dict(zip(KEY, key)),
            "epoch": epoch,
            "loss": f"{history['loss'][epoch - 1]:.3f}",
            "validation AP50 %": f"{100 * ap50:.1f}",
        }
        for epoch, ap50 in zip(validated, history["val_AP50"], strict=True)
    ]
    if seed == 0:
        draw_detections(made, batches, data["train"].class_names, key, folder)
    return row, epochs


def recipe_of(options, detector, start):
    """One recipe for all: of `options`, at the cfg's size.

    A network from scratch, and a new neck, have no trained part whose heads
    could learn alone, so that phases would only cost them time.
    """
    own = get_recipe(options.cfg)
    recipe = get_recipe(options.recipe).at_size(own.size)
    if start == STARTS[0] and detector == DETECTORS[0]:
        return recipe
    return recipe.replace(phases=())


def draw_detections(detector, batches, names, key, folder):
    images, targets = next(iter(batches))
    neck = "cfg" if key[0] == DETECTORS[0] else "efm"
    folder.mkdir(parents=True, exist_ok=True)
    draw_comparison(
        folder / f"fine_tuning_{neck}_{key[1].split()[0]}.png",
        images.numpy()[:4],
        {key: value.numpy()[:4] for key, value in targets.items()},
        detector.predict(images.numpy()[:4], verbose=0),
        names,
    )


def summary(rows):
    """A row for each detector and start: mean, least and most of the seeds."""
    found = []
    for detector in DETECTORS:
        for start in STARTS:
            mine = [
                row
                for row in rows
                if (row["detector"], row["start"]) == (detector, start)
            ]
            if not mine:
                continue
            values = [float(row["test AP50 %"]) for row in mine]
            minutes = [float(row["minutes"]) for row in mine]
            found.append(
                {
                    "detector": detector,
                    "start": start,
                    "seeds": len(mine),
                    "epochs": mine[0]["epochs"],
                    "AP50 %": f"{statistics.mean(values):.1f}",
                    "least": f"{min(values):.1f}",
                    "most": f"{max(values):.1f}",
                    "minutes": f"{statistics.mean(minutes):.1f}",
                }
            )
    return found


def draw_epochs(path, rows):
    """AP50 of the validation images by epoch, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, len(DETECTORS), sharey=True)
    for axes, detector in zip(panels, DETECTORS):
        for start, colour in zip(STARTS, ("tab:blue", "tab:orange")):
            mine = [
                row
                for row in rows
                if (row["detector"], row["start"]) == (detector, start)
            ]
            for index, seed in enumerate(sorted({r["seed"] for r in mine})):
                run = [row for row in mine if row["seed"] == seed]
                axes.plot(
                    [int(row["epoch"]) for row in run],
                    [float(row["validation AP50 %"]) for row in run],
                    color=colour,
                    label=start if index == 0 else None,
                )
        axes.set(xlabel="epoch", title=detector, ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend(loc="center right")
    panels[0].set(ylabel="AP50 of the validation images, %")
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110)


def write(folder, table, epochs):
    if not table.rows:
        return
    draw_epochs(folder / "fine_tuning.png", epochs.rows)
    rows = summary(table.rows)
    columns = tuple(rows[0])
    write_page(
        folder / "fine_tuning.md",
        [
            "# From published weights to other boxes",
            "",
            "AP50 of the test images, over seeds.",
            "",
            *table_lines(columns, rows, right=range(2, len(columns))),
            "",
            "![AP50 by epoch](fine_tuning.png)",
            "",
            f"`{shlex.join(['python', *sys.argv])}` on {cpu_name()}; "
            f"{software('Keras', 'TensorFlow')}. Minutes are of the training "
            "with its validations, other work beside it.",
        ],
    )


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("cfg", "weights", "train", "validation", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--recipe", default="fine-tuning-detection")
    parser.add_argument("--epochs", type=positive_int, default=20)
    parser.add_argument(
        "--validation-freq",
        type=positive_int,
        default=1,
        help="epochs from one validation to the next (default: 1)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--detectors", nargs="+", choices=DETECTORS, default=DETECTORS
    )
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    return parser.parse_args()


def main():
    options = parse()
    with cli_errors("fine_tuning"):
        data = {
            name: load_detection(getattr(options, name))
            for name in ("train", "validation", "test")
        }
        folder = options.output
        table = Table(folder / "fine_tuning.csv", COLUMNS, KEY)
        epochs = Table(
            folder / "fine_tuning_epochs.csv",
            EPOCH_COLUMNS,
            (*KEY, "epoch"),
        )
        for seed in options.seeds:
            for detector in options.detectors:
                for start in STARTS:
                    key = detector, start, seed
                    if table.has(**dict(zip(KEY, key))):
                        continue
                    row, by_epoch = train_one(options, data, key, folder)
                    for line in by_epoch:
                        epochs.add(line)
                    table.add(row)
                    print(row, flush=True)
        write(folder, table, epochs)


if __name__ == "__main__":
    main()
