"""TensorFlow's fused batch normalisation beside Keras', in one run.

    python benchmarks/batch_normalization.py

The same network twice, with keras_csp.layers.BatchNormalization and with
keras.layers.BatchNormalization. A round is one training step and one
prediction of each, the two in turn, so that both meet the same machine.
Batches of real size, random pixels: the time does not depend on them. The
result is printed and written to benchmarks/results/, the medians to
batch_normalization.md and the rounds to batch_normalization.csv.
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
import numpy as np
import tensorflow as tf
from result_files import RESULTS, write_csv, write_page

from keras_csp._tables import markdown
from keras_csp.layers import BatchNormalization, units

NETWORKS = ("CSPResNet50", "CSPResNeXt50", "CSPPeleeNet")
LAYERS = {
    "Keras'": keras.layers.BatchNormalization,
    "fused": BatchNormalization,
}
QUANTITIES = ("train step", "predict")
HEADER = ("network", "of", "Keras', ms", "fused, ms", "Keras' / fused")


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
    """Rows (network, round, layer, quantity, seconds)."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size, 3)
    images = rng.random(shape, dtype="float32")
    labels = rng.integers(0, 1000, options.batch)
    models = {key: build(name, layer, options) for key, layer in LAYERS.items()}
    rows = []
    for number in range(options.rounds + 1):
        # Who comes second finds the machine as the first left it.
        turns = list(models)[:: 1 if number % 2 else -1]
        for quantity in QUANTITIES:
            for key in turns:
                start = time.perf_counter()
                if quantity == "predict":
                    models[key].predict_on_batch(images)
                else:
                    models[key].train_on_batch(images, labels)
                seconds = time.perf_counter() - start
                rows.append((name, number, key, quantity, seconds))
    keras.utils.clear_session()
    return [row for row in rows if row[1]]  # the first compiles


def table(rows):
    """Medians, and the median of the rounds' ratios, by network."""
    result = []
    for name in dict.fromkeys(row[0] for row in rows):
        for quantity in QUANTITIES:
            stock, fused = (
                [
                    r[4]
                    for r in rows
                    if (r[0], r[2], r[3]) == (name, key, quantity)
                ]
                for key in LAYERS
            )
            ratios = [a / b for a, b in zip(stock, fused, strict=True)]
            result.append(
                (
                    name,
                    quantity,
                    f"{1e3 * statistics.median(stock):.1f}",
                    f"{1e3 * statistics.median(fused):.1f}",
                    f"{statistics.median(ratios):.2f}",
                )
            )
    return markdown([HEADER, *result], right=(2, 3, 4))


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
        f"cores: {len(os.sched_getaffinity(0))}, oneDNN {onednn}, load average "
        f"{load:.1f} at the start; Keras {keras.__version__}, TensorFlow "
        f"{tf.__version__}.",
        "",
        f"    {shlex.join(command)}",
        "",
        *table(rows),
    ]
    write_page(RESULTS / "batch_normalization.md", text)
    header = ("network", "round", "layer", "of", "seconds")
    write_csv(RESULTS / "batch_normalization.csv", header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for name in options.networks:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += measure(name, options)
    write(rows, options, load)


if __name__ == "__main__":
    main()
