"""CSPResNeXt-50 on a CPU: this package beside keras-hub, in one run.

    pip install -e ".[bench]" && python benchmarks/grouped_convolution.py

Each contestant runs in a process of its own, in turn, several rounds, so that
both meet the same machine. Batches of real size, random pixels: the time does
not depend on them. The result is printed and written to
benchmarks/results/grouped_convolution.{csv,md}.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

CONTESTANTS = {
    "keras_csp": {},
    "keras_csp, oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "keras-hub": {},
    "keras-hub, oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"},
}
QUANTITIES = ("predict", "first train step", "train step")


def build(contestant, size):
    import keras

    if contestant.startswith("keras_csp"):
        import keras_csp

        return keras_csp.CSPResNeXt50(weights=None, input_shape=(size, size, 3))
    import keras_hub

    backbone = keras_hub.models.CSPNetBackbone(
        stem_filters=64,
        stem_kernel_size=7,
        stem_strides=4,
        stem_padding="valid",
        stem_pooling="max",
        stackwise_depth=[3, 3, 5, 2],
        stackwise_strides=[1, 2, 2, 2],
        stackwise_num_filters=[256, 512, 1024, 2048],
        block_type="bottleneck_block",
        stage_type="csp",
        groups=32,
        bottle_ratio=[1.0],
        block_ratio=[0.5],
        expand_ratio=[1.0],
        cross_linear=True,
        image_shape=(size, size, 3),
    )
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)
    x = keras.layers.Dense(1000, activation="softmax")(x)
    return keras.Model(backbone.input, x)


def measure(contestant, size, batch, steps):
    """Images/s of each quantity, printed as JSON on the last line."""
    if contestant.startswith("keras_csp"):
        import keras_csp  # noqa: F401  (before TensorFlow, as users do)
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), dtype="float32")
    labels = rng.integers(0, 1000, batch)
    model = build(contestant, size)
    model.compile("sgd", "sparse_categorical_crossentropy")

    def timed(function, repeats):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return batch / statistics.median(times)

    def predict():
        model.predict_on_batch(images)

    def train():
        model.train_on_batch(images, labels)

    predict()
    result = {"predict": timed(predict, max(3, steps))}
    result["first train step"] = timed(train, 1)
    result["train step"] = timed(train, steps)
    print(json.dumps(result))


def run(contestant, options):
    command = [sys.executable, __file__, "--contestant", contestant]
    steps = options.steps if contestant.startswith("keras_csp") else 1
    for name, value in (
        ("size", options.size),
        ("batch", options.batch),
        ("steps", steps),
    ):
        command += [f"--{name}", str(value)]
    environment = {
        key: value
        for key, value in os.environ.items()
        if key != "TF_ENABLE_ONEDNN_OPTS"
    }
    environment.update(CONTESTANTS[contestant], TF_CPP_MIN_LOG_LEVEL="3")
    print(f"{contestant} ...", file=sys.stderr, flush=True)
    answer = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        sys.exit(f"{contestant} failed:\n{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def report(results, options):
    import keras
    import keras_hub
    import tensorflow as tf
    from result_files import RESULTS, write_csv, write_page

    from keras_csp._tables import markdown

    medians = {
        contestant: {
            quantity: statistics.median(r[quantity] for r in rounds)
            for quantity in QUANTITIES
        }
        for contestant, rounds in results.items()
    }
    base = medians["keras-hub"]
    header = ["images/s", *QUANTITIES]
    rows = [
        [
            contestant,
            *(
                f"{value[q]:.3f} ({value[q] / base[q]:.1f}x)"
                for q in QUANTITIES
            ),
        ]
        for contestant, value in medians.items()
    ]
    lines = [
        "# CSPResNeXt-50 on a CPU, this package beside keras-hub",
        "",
        f"Batch {options.batch} at {options.size}x{options.size}, medians of "
        f"{options.rounds} rounds, ratios to keras-hub as it comes. "
        f"{platform.machine()}, {os.cpu_count()} cores; Keras "
        f"{keras.__version__}, TensorFlow {tf.__version__}, keras-hub "
        f"{keras_hub.__version__}.",
        "",
        "    python benchmarks/grouped_convolution.py "
        + " ".join(sys.argv[1:]),
        "",
        *markdown([header, *rows]),
    ]
    write_page(RESULTS / "grouped_convolution.md", lines)
    write_csv(
        RESULTS / "grouped_convolution.csv",
        ["contestant", "round", *QUANTITIES],
        [
            [contestant, index, *(values[q] for q in QUANTITIES)]
            for contestant, rounds in results.items()
            for index, values in enumerate(rounds, 1)
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        measure(options.contestant, options.size, options.batch, options.steps)
        return
    results = {contestant: [] for contestant in CONTESTANTS}
    for _ in range(options.rounds):
        for contestant, rounds in results.items():
            rounds.append(run(contestant, options))
    report(results, options)


if __name__ == "__main__":
    main()
