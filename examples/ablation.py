"""Table 1 and Figure 1 of the paper in small: CSP beside what it is made of.

    python examples/ablation.py --data FOLDER    # or tfds:cifar10

PeleeNet; its CSP stages with fusion first, last and both (Fig. 3), each at
gamma 0.75, 0.5, 0.25; and, with widths and groups divided by 2 and by 4, the
pairs ResNet-10, CSPResNet-10 and ResNeXt-50, CSPResNeXt-50. All have the same
recipe and steps, and for a seed the same images in the same order. In --output:

    run.json                 the arguments and the recipe
    cells/NETWORK_SEED.json  one network trained with one seed
    ablation.csv, .md, .png  cost and accuracy beside the paper's

The tables appear after the first seed and are updated after each. If
interrupted, rerun the same command to resume after the last finished cell;
--seeds may be larger then. Other arguments need another --output.
"""

import argparse
import gc
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import ablation_study
import keras
import numpy as np

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.models.builder import build_network
from keras_csp.training import recipes, run

# What --smoke stands for.
SMOKE = {
    "data": "digits",
    "part": "figure1",
    "size": 32,
    "steps": 4,
    "images": 256,
    "tests": 100,
    "seeds": 2,
}
TEST_BATCH = 100


def make_recipe(options):
    """Shifts and flips only: less than the paper's, for so few steps."""
    return recipes.SMALL_CLASSIFICATION.replace(
        size=options.size,
        steps=options.steps,
        augmentation=ClassificationAugmentation.light(options.size),
    )


def load(options, recipe):
    """The training images, and batches of the test images."""
    train, test = load_classification(options.data)
    train, test = train.first(options.images), test.first(options.tests)
    recipe.batches(train.size)  # at least one
    return train, test.evaluation(TEST_BATCH, options.size).cache()


def train_cell(entry, seed, recipe, data):
    """One network trained with one seed: its cost and accuracy."""
    wall, cpu = time.perf_counter(), time.process_time()
    keras.utils.clear_session()
    gc.collect()
    keras.utils.set_random_seed(seed)
    train, test = data
    model = build_network(
        entry.spec,
        input_shape=(recipe.size, recipe.size, train.channels),
        classes=len(train.class_names),
    )
    # Otherwise TensorFlow traces a step twice, since it creates variables.
    optimizer = recipe.make_optimizer()
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        recipe.make_loss(),
        metrics=[keras.metrics.CategoricalAccuracy()],
        jit_compile=False,
    )
    model.fit(
        recipe.training(train, seed=seed).repeat(),
        steps_per_epoch=recipe.steps,
        shuffle=False,
        verbose=0,
    )
    loss, accuracy = model.evaluate(test, verbose=0)
    if not np.isfinite(loss):
        raise ValueError(f"{entry.name} with seed {seed} has a loss of {loss}")
    cost = keras_csp.count(model)
    return {
        "network": entry.name,
        "seed": seed,
        "accuracy": accuracy,
        "params": cost.params,
        "bflops": cost.bflops,
        "loss": loss,
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def train_missing(options, recipe, data):
    """Trains the cells that are missing, seed by seed."""
    entries = ablation_study.entries(options.part)
    folder = options.output / "cells"
    folder.mkdir(exist_ok=True)
    order = [(name, seed) for seed in range(options.seeds) for name in entries]
    paths = {
        (name, seed): folder / f"{name}_{seed}.json" for name, seed in order
    }
    cells = {key: ablation_study.read_cell(paths[key], *key) for key in order}
    title = (
        f"{pathlib.Path(options.data).name}, {data[0].size} images, "
        f"{options.size} pixels; {recipe.summary()}"
    )
    for number, key in enumerate(order, 1):
        if cells[key] is None:
            name, seed = key
            cells[key] = train_cell(entries[name], seed, recipe, data)
            run.write_json(paths[key], cells[key])
            print(
                f"{number} of {len(order)}: {name}, seed {seed}, accuracy "
                f"{cells[key]['accuracy']:.4f}, about "
                f"{ablation_study.minutes_left(cells):.0f} min left",
                flush=True,
            )
        if number % len(entries) == 0:  # a seed is complete
            finished = [cells[done] for done in order[:number]]
            ablation_study.write(options.output, finished, title)
    print((options.output / "ablation.md").read_text("utf-8"))


def main():
    options = parse()
    with run.cli_errors("ablation"):
        recipe = make_recipe(options)
        data = load(options, recipe)
        # --part and --seeds may differ where a run is resumed.
        names = ("data", "images", "tests")
        arguments = {name: getattr(options, name) for name in names}
        run.save_run(options.output, recipe, arguments)
        train_missing(options, recipe, data)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        default="tfds:cifar10",
        help="a FOLDER of class folders, digits, or tfds:NAME (default "
        "tfds:cifar10)",
    )
    parser.add_argument(
        "--part",
        choices=ablation_study.PARTS,
        default="all",
        help="which networks; default all",
    )
    parser.add_argument(
        "--images",
        type=run.positive_int,
        default=25_000,
        help="train on the first so many; default 25000",
    )
    parser.add_argument(
        "--tests",
        type=run.positive_int,
        default=5_000,
        help="test on the first so many; default 5000",
    )
    parser.add_argument(
        "--size",
        type=int,
        choices=(32, 48, 64, 96, 128, 224),
        default=64,
        help="side in pixels, to which images are resized; default 64",
    )
    parser.add_argument(
        "--steps",
        type=run.positive_int,
        default=400,
        help="batches for each network; default 400",
    )
    parser.add_argument(
        "--seeds",
        type=run.positive_int,
        default=3,
        help="number of seeds; default 3",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/ablation"),
        help="folder of the results; default runs/ablation",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="digits, few networks and steps: a minute",
    )
    return run.parse_arguments(parser, SMOKE)


if __name__ == "__main__":
    main()
