"""Table 1 and Figure 1 of the paper in small: CSP beside what it is made of.

    python examples/ablation.py --data FOLDER    # or tfds:cifar10

PeleeNet; its CSP stages with fusion first, last and both (Fig. 3), each at
gamma 0.75, 0.5, 0.25; and, with widths and groups divided by 2 and by 4, the
pairs ResNet-10, CSPResNet-10 and ResNeXt-50, CSPResNeXt-50. All have the same
recipe and steps, and for a seed the same images in the same order. In --output:

    run.json                 the arguments and the recipe
    cells/NETWORK_SEED.json  one network trained with one seed
    ablation.csv, .md, .png  cost and accuracy beside the paper's

They appear after the first seed and are renewed after each. The same command
goes on after the last finished cell, however it was ended, with more --seeds
if you like; other arguments need another --output.
"""

import argparse
import gc
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import ablation_study as ablation
import keras
import numpy as np

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.models.builder import build_network
from keras_csp.training import recipes
from keras_csp.training import run as runs

RECIPE = recipes.SMALL_CLASSIFICATION
# What may differ where a run goes on, and what --smoke stands for.
FREE = ("output", "part", "seeds", "smoke")
SMOKE = {"data": "digits", "part": "figure1", "size": 32, "steps": 4,
         "images": 256, "tests": 100, "seeds": 2}  # fmt: skip


def load(options):
    """The training images, and batches of the test images."""
    train, test = load_classification(options.data)
    train, test = train.first(options.images), test.first(options.tests)
    if train.size < RECIPE.batch_size:
        raise ValueError(f"{train.size} images are less than a batch")
    return train, test.evaluation(100, options.size).cache()


def batches(train, seed, options):
    """Shifted and mirrored: less than the paper varies, for so few steps."""
    size, batch = options.size, RECIPE.batch_size
    views = ClassificationAugmentation(
        min_crop=size, max_crop=size * 5 // 4,
        angle=0, aspect=1, hue=0, saturation=1, exposure=1,
    )  # fmt: skip
    return train.training(batch, size, views, seed, drop_remainder=True)


def cell(entry, seed, data, options):
    """One network trained with one seed: its cost and accuracy."""
    wall, cpu = time.perf_counter(), time.process_time()
    keras.utils.clear_session()
    gc.collect()
    keras.utils.set_random_seed(seed)
    train, test = data
    shape = (options.size, options.size, train.channels)
    model = build_network(
        entry.row, input_shape=shape, classes=len(train.class_names)
    )
    # TensorFlow traces a step twice where it makes variables; not so here.
    optimizer = RECIPE.optimizer(options.steps)
    optimizer.build(model.trainable_variables)
    metrics = [keras.metrics.CategoricalAccuracy()]
    model.compile(optimizer, RECIPE.loss(), metrics=metrics, jit_compile=False)
    images = batches(train, seed, options).repeat()
    model.fit(images, steps_per_epoch=options.steps, shuffle=False, verbose=0)
    loss, accuracy = model.evaluate(test, verbose=0)
    if not np.isfinite(loss):
        raise ValueError(f"{entry.name} with seed {seed} has a loss of {loss}")
    counted = keras_csp.count(model)
    return {
        **{"network": entry.name, "seed": seed, "accuracy": accuracy},
        **{"params": counted.params, "bflops": counted.bflops, "loss": loss},
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def fill(options, data):
    """Trains the cells that are missing, seed by seed."""
    entries, folder = ablation.entries(options.part), options.output / "cells"
    folder.mkdir(exist_ok=True)
    order = [(n, seed) for seed in range(options.seeds) for n in entries]
    paths = {key: folder / "{}_{}.json".format(*key) for key in order}
    cells = {key: ablation.read_cell(paths[key], *key) for key in order}
    title = f"{pathlib.Path(options.data).name}, {data[0].size} images, "
    title += f"{options.size} pixels, {options.steps} steps; "
    title += RECIPE.summary(options.steps)
    for number, (name, seed) in enumerate(order, 1):
        if cells[name, seed] is None:
            found = cell(entries[name], seed, data, options)
            runs.write_json(paths[name, seed], found)
            cells[name, seed] = found
            print(f"{number} of {len(order)}: {name}, seed {seed}, accuracy "
                  f"{found['accuracy']:.4f}, about "
                  f"{ablation.minutes_left(cells):.0f} min left",
                  flush=True)  # fmt: skip
        if number % len(entries) == 0:  # a seed is complete
            done = [cells[key] for key in order[:number]]
            ablation.write(options.output, done, title)
    print((options.output / "ablation.md").read_text("utf-8"))


def main():
    options = parse()
    with runs.cli_errors("ablation"):
        data = load(options)
        runs.save_run_args(options.output, vars(options), RECIPE, FREE)
        fill(options, data)


def parse():
    # fmt: off
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add, positive = parser.add_argument, runs.positive_int
    add("--data", default="tfds:cifar10", help="FOLDER, digits or tfds:NAME")
    add("--part", choices=ablation.PARTS, default="all", help="default all")
    add("--images", type=positive, default=25_000,
        help="to train on, the first; default 25000")
    add("--tests", type=positive, default=5_000, help="likewise; default 5000")
    add("--size", type=int, choices=(32, 48, 64, 96, 128, 224), default=64,
        help="side in pixels, to which images are enlarged; default 64")
    add("--steps", type=positive, default=400,
        help="batches for each network; default 400")
    add("--seeds", type=positive, default=3, help="how many; default 3")
    add("--output", type=pathlib.Path, default="runs/ablation", help="folder")
    add("--smoke", action="store_true", help="digits, a few steps: a minute")
    # fmt: on
    if parser.parse_args().smoke:
        parser.set_defaults(**SMOKE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
