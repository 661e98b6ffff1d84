"""CSPResNeXt-50 on a CPU: this package beside keras-hub, in one run.

    pip install -e ".[bench]" && python benchmarks/grouped_convolution.py

Each contender runs in a process of its own, in turns, several rounds, so that
both meet the same machine. Batches of real size, random pixels: the time does
not depend on them. The result is printed and written to
benchmarks/results/grouped_convolution.{csv,md}.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time

from harness.processes import WorkerError, script_answer

CONTENDERS = {
    "keras_csp": {},
    "keras_csp, oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "keras-hub": {},
    "keras-hub, oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"},
}
QUANTITIES = ("predict", "first train step", "train step")


def build(contender, size):
    import keras

    if contender.startswith("keras_csp"):
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


def measure(contender, size, batch, steps):
    """Images/s of each quantity, printed as JSON on the last line."""
    if contender.startswith("keras_csp"):
        import keras_csp  # noqa: F401  (before TensorFlow, as users do)
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), dtype="float32")
    labels = rng.integers(0, 1000, batch)
    model = build(contender, size)
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


def run(contender, options):
    print(f"{contender} ...", file=sys.stderr, flush=True)
    environment = {
        key: value
        for key, value in os.environ.items()
        if key != "TF_ENABLE_ONEDNN_OPTS"
    }
    return script_answer(
        __file__,
        *("--contender", contender),
        *("--size", options.size),
        *("--batch", options.batch),
        # keras-hub takes about a minute for a step.
        *("--steps", options.steps if "keras_csp" in contender else 1),
        environment={**environment, **CONTENDERS[contender]},
    )


def report(results, options):
    from harness.machine import software
    from harness.results import RESULTS, table_lines, write_page, write_rows

    medians = {
        contender: {
            quantity: statistics.median(r[quantity] for r in rounds)
            for quantity in QUANTITIES
        }
        for contender, rounds in results.items()
    }
    base = medians["keras-hub"]
    rows = [
        {
            "images/s": contender,
            **{
                q: f"{value[q]:.3f} ({value[q] / base[q]:.1f}x)"
                for q in QUANTITIES
            },
        }
        for contender, value in medians.items()
    ]
    lines = [
        "# CSPResNeXt-50 on a CPU, this package beside keras-hub",
        "",
        f"Batch {options.batch} at {options.size}x{options.size}, medians of "
        f"{options.rounds} rounds, ratios to keras-hub as it comes. "
        f"{platform.machine()}, {os.cpu_count()} cores; "
        f"{software('Keras', 'TensorFlow', 'keras-hub')}.",
        "",
        "    python benchmarks/grouped_convolution.py "
        + " ".join(sys.argv[1:]),
        "",
        *table_lines(("images/s", *QUANTITIES), rows),
    ]
    write_page(RESULTS / "grouped_convolution.md", lines)
    write_rows(
        RESULTS / "grouped_convolution.csv",
        ("contestant", "round", *QUANTITIES),
        [
            {"contestant": contender, "round": number, **values}
            for contender, rounds in results.items()
            for number, values in enumerate(rounds, 1)
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        measure(options.contender, options.size, options.batch, options.steps)
        return
    results = {contender: [] for contender in CONTENDERS}
    try:
        for _ in range(options.rounds):
            for contender, rounds in results.items():
                rounds.append(run(contender, options))
    except WorkerError as error:
        sys.exit(f"grouped_convolution: {error}")
    report(results, options)


if __name__ == "__main__":
    main()
