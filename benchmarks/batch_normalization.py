"""TensorFlow's fused batch normalisation beside Keras', in one run.

    python benchmarks/batch_normalization.py

The same network twice, with keras_csp.layers.BatchNormalization and with
keras.layers.BatchNormalization. A round is one training step and one
prediction of each, the two in turns, so that both meet the same machine.
Batches of real size, random pixels: the time does not depend on them. The
result is printed; the medians are written to
benchmarks/results/batch_normalization.md, the rounds to
batch_normalization.csv.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras
from harness.contenders import random_batch
from harness.machine import allowed_cores, software
from harness.results import RESULTS, table_lines, write_page, write_rows
from harness.timing import median_ratio

from keras_csp.layers import BatchNormalization, units
from keras_csp.training.run import positive_int

NETWORKS = ("CSPResNet50", "CSPResNeXt50", "CSPPeleeNet")
LAYERS = {
    "Keras'": keras.layers.BatchNormalization,
    "fused": BatchNormalization,
}
QUANTITIES = ("train step", "predict")
COLUMNS = ("network", "round", "layer", "of", "seconds")
SUMMARY_COLUMNS = ("network", "of", "Keras', ms", "fused, ms", "Keras' / fused")


def build(name, layer, options):
    """The network with that batch normalisation, compiled."""

    def batch_normalization(name, dtype):
        return layer(momentum=0.9, epsilon=1e-5, name=name, dtype=dtype)

    original = units.batch_normalization
    units.batch_normalization = batch_normalization
    try:
        shape = (options.size, options.size, 3)
        model = getattr(keras_csp, name)(weights=None, input_shape=shape)
    finally:
        units.batch_normalization = original
    # Compiled by XLA, both are Keras'.
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    return model


def measure(name, options):
    """A row for each round, layer and quantity."""
    images, labels = random_batch(options.batch, options.size)
    models = {key: build(name, layer, options) for key, layer in LAYERS.items()}
    rows = []
    for number in range(options.rounds + 1):
        # The second one finds the machine as the first has left it.
        turns = list(models)[:: 1 if number % 2 else -1]
        for quantity in QUANTITIES:
            for key in turns:
                start = time.perf_counter()
                if quantity == "predict":
                    models[key].predict_on_batch(images)
                else:
                    models[key].train_on_batch(images, labels)
                seconds = time.perf_counter() - start
                values = (name, number, key, quantity, seconds)
                rows.append(dict(zip(COLUMNS, values)))
    keras.utils.clear_session()
    return [row for row in rows if row["round"]]  # the first round compiles


def summary(rows):
    """Medians, and the median of the rounds' ratios, by network."""
    for name in dict.fromkeys(row["network"] for row in rows):
        for quantity in QUANTITIES:
            stock, fused = (
                [
                    row["seconds"]
                    for row in rows
                    if (row["network"], row["layer"], row["of"])
                    == (name, key, quantity)
                ]
                for key in LAYERS
            )
            values = (
                name,
                quantity,
                f"{1e3 * statistics.median(stock):.1f}",
                f"{1e3 * statistics.median(fused):.1f}",
                f"{median_ratio(stock, fused):.2f}",
            )
            yield dict(zip(SUMMARY_COLUMNS, values))


def write(rows, options, load):
    command = ["python", "benchmarks/batch_normalization.py", *sys.argv[1:]]
    onednn = "off" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" else "on"
    text = [
        "# TensorFlow's fused batch normalisation beside Keras'",
        "",
        f"Batch {options.batch} at {options.size}x{options.size}, the same "
        "network with either layer, medians of "
        f"{options.rounds} rounds; the ratio is the median of theirs, above 1 "
        f"where the fused one is faster. {platform.machine()}, "
        f"cores: {len(allowed_cores())}, oneDNN {onednn}, load average "
        f"{load:.1f} at the start; {software('Keras', 'TensorFlow')}.",
        "",
        f"    {shlex.join(command)}",
        "",
        *table_lines(SUMMARY_COLUMNS, summary(rows), right=(2, 3, 4)),
    ]
    write_page(RESULTS / "batch_normalization.md", text)
    write_rows(RESULTS / "batch_normalization.csv", COLUMNS, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=positive_int, default=224)
    parser.add_argument("--batch", type=positive_int, default=8)
    parser.add_argument("--rounds", type=positive_int, default=15)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for name in options.networks:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += measure(name, options)
    write(rows, options, load)


if __name__ == "__main__":
    main()
