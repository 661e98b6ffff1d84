"""CSPDarkNet-53's weights: how long they take to load, and how much memory.

    pip install -e ".[bench]" && python benchmarks/loading.py

The same network and the same random weights from timm's safetensors file and
from a Darknet file with this package, and from the safetensors file with
keras-hub's conversion of timm's state dict. Each load runs in a process of
its own, in turns, several rounds, so that all meet the same machine. The time
is what a user waits for after the imports: building and filling the network.
The memory is the highest resident set from there on above that before (Linux
only); the file is in the page cache, as it is after a download. The result is
printed and written to benchmarks/results/loading.{csv,md}.
"""

import argparse
import gzip
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time

from harness.processes import WorkerError, script_answer

ROOT = pathlib.Path(__file__).parents[1]
NETWORK = "cspdarknet53"
SAFETENSORS, DARKNET = "model.safetensors", "csdarknet53.weights"
CONTENDERS = {
    "keras_csp, safetensors": SAFETENSORS,
    "keras_csp, Darknet": DARKNET,
    "keras-hub, safetensors": SAFETENSORS,
}
MEGABYTE = 1e6


def write_files(folder):
    """Random weights in both formats, and the configuration keras-hub reads."""
    import numpy as np
    from safetensors.numpy import save_file

    import keras_csp

    golden = ROOT / "tests" / "golden" / "timm_tensors.json.gz"
    shapes = json.loads(gzip.decompress(golden.read_bytes()))["tensors"]
    rng = np.random.default_rng(0)
    state = {
        key: (
            np.zeros((), "int64")
            if key.endswith("tracked")
            else rng.uniform(0, 0.1, shape).astype("float32")
        )
        for key, shape in shapes[NETWORK].items()
    }
    save_file(state, folder / SAFETENSORS, metadata={"format": "pt"})
    config = {"architecture": NETWORK, "num_classes": 1000}
    (folder / "config.json").write_text(json.dumps(config))
    model = keras_csp.CSPDarkNet53()
    keras_csp.darknet.save_weights(model, folder / DARKNET)


def load(contender, folder):
    if contender.startswith("keras-hub"):
        import keras_hub

        return keras_hub.models.ImageClassifier.from_preset(
            str(folder), preprocessor=None
        )
    import keras_csp

    if contender.endswith("Darknet"):
        return keras_csp.CSPDarkNet53(weights=folder / DARKNET)
    return keras_csp.weights.load_timm(NETWORK, folder)


def memory(name):
    """A line of /proc/self/status, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"This system has no {name}")


def measure(contender, folder):
    """Seconds and bytes, printed as JSON on the last line."""
    if contender.startswith("keras_csp"):
        import keras_csp  # noqa: F401  (before TensorFlow, as users do)
    else:
        import keras_hub  # noqa: F401
    import keras

    # TensorFlow's own first steps are not the loading's.
    keras.layers.Dense(1).build((None, 1))
    before = memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    start = time.perf_counter()
    model = load(contender, folder)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    print(
        json.dumps(
            {
                "seconds": seconds,
                "bytes": peak,
                "parameters": model.count_params(),
            }
        )
    )


def run(contender, folder):
    try:
        return script_answer(
            __file__, "--contender", contender, "--folder", folder
        )
    except WorkerError as error:
        sys.exit(f"loading: {error}")


def table_rows(rounds, folder):
    """One row for each contender: medians, and ratios."""
    reference = statistics.median(
        answer["seconds"] for answer in rounds["keras-hub, safetensors"]
    )
    for contender, answers in rounds.items():
        size = (folder / CONTENDERS[contender]).stat().st_size
        seconds = statistics.median(a["seconds"] for a in answers)
        peak = max(a["bytes"] for a in answers)
        yield {
            "contestant": contender,
            "file, MB": f"{size / MEGABYTE:.1f}",
            "seconds": f"{seconds:.2f}",
            "speed": f"{reference / seconds:.1f}x",
            "peak memory, MB": f"{peak / MEGABYTE:.0f}",
            "of the file": f"{peak / size:.2f}x",
        }


def write(rows, options):
    from harness.machine import software
    from harness.results import RESULTS, table_lines, write_page, write_rows

    columns = list(rows[0])
    lines = [
        "# Loading CSPDarkNet-53's weights",
        "",
        f"Medians of the time and maxima of the memory of {options.rounds} "
        "rounds; speed relative to keras-hub. Building the network is "
        f"included, importing is not. {platform.machine()}, "
        f"{os.cpu_count()} cores; "
        f"{software('Keras', 'TensorFlow', 'keras-hub')}.",
        "",
        f"    python benchmarks/loading.py --rounds {options.rounds}",
        "",
        *table_lines(columns, rows, right=range(1, len(columns))),
    ]
    write_rows(RESULTS / "loading.csv", columns, rows)
    write_page(RESULTS / "loading.md", lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        measure(options.contender, options.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_files(folder)
        rounds = {contender: [] for contender in CONTENDERS}
        for number in range(options.rounds):
            for contender, answers in rounds.items():
                print(f"round {number + 1}: {contender}", file=sys.stderr)
                answers.append(run(contender, folder))
        write(list(table_rows(rounds, folder)), options)


if __name__ == "__main__":
    main()
