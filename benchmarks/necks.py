"""PRN, CEM, GFM and EFM trained equally on the same boxes, side by side.

    pip install -e ".[detection]"
    python benchmarks/necks.py --train train.json --validation val.json \\
        --test test.json --epochs 40 --size 320

Runs examples/train_detector.py once for each neck, one after the other, with
the same arguments (those that this script does not know are passed on), and
writes benchmarks/results/necks.{csv,md,png}: AP on the test images of each
one's best epoch, what it costs, and AP50 of the validation images by epoch.
A killed run goes on where it was, when the same command is started again.
"""

import argparse
import json
import pathlib
import platform
import shlex
import subprocess
import sys

from result_files import RESULTS, read_csv, write_csv, write_page

ROOT = pathlib.Path(__file__).parents[1]
HEADER = (
    "neck",
    "M params",
    "BFLOPs",
    "AP",
    "AP50",
    "AP75",
    "best epoch",
)


def train(neck, folder, arguments):
    """One training, unless it is finished."""
    if (folder / "test.json").is_file():
        return
    command = [
        sys.executable,
        str(ROOT / "examples" / "train_detector.py"),
        *arguments,
        *("--neck", neck, "--output", str(folder)),
    ]
    print(shlex.join(command), flush=True)
    if done := subprocess.run(command, check=False).returncode:
        sys.exit(f"{neck} ended with status {done}")


def result(folder):
    return json.loads((folder / "test.json").read_text())


def measured(neck, folder, size):
    """The row of a finished training."""
    import keras_csp

    test = result(folder)
    state = json.loads((folder / "state" / "state.json").read_text())
    classes = len(test["per_class"])
    detector = keras_csp.Detector(
        neck=neck, classes=classes, input_shape=(size, size, 3)
    )
    counted = keras_csp.count(detector)
    return (
        neck,
        f"{counted.params / 1e6:.2f}",
        f"{counted.bflops:.2f}",
        *(f"{100 * test[key]:.1f}" for key in ("AP", "AP50", "AP75")),
        str(state["best"]["epoch"]),
        *(f"{100 * of['AP50']:.1f}" for of in test["per_class"].values()),
    )


def draw(folders, path):
    """AP50 of the validation images by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for neck, folder in folders.items():
        log = read_csv(folder / "log.csv")
        rows = [row for row in log if row["val_AP50"]]
        axes.plot(
            [int(row["epoch"]) for row in rows],
            [100 * float(row["val_AP50"]) for row in rows],
            label=neck,
            marker=".",
        )
    axes.set(xlabel="epoch", ylabel="validation AP50, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def write(header, rows, command, images):
    import keras
    import tensorflow as tf

    from keras_csp._tables import markdown

    write_csv(RESULTS / "necks.csv", header, rows)
    table = markdown([header, *rows], right=range(1, len(header)))
    text = [
        "# Fusion necks side by side",
        "",
        "CSPPeleeNet with each neck, trained from scratch with the same "
        f"arguments and seed; AP in percent on {images}, best epoch by the "
        "validation images. One seed each: differences of a point or two say "
        f"nothing. {platform.machine()}, 2 cores; Keras {keras.__version__}, "
        f"TensorFlow {tf.__version__}. The picture is necks.png.",
        "",
        f"    {command}",
        "",
        *table,
    ]
    write_page(RESULTS / "necks.md", text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--test", required=True)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument(
        "--necks", nargs="+", default=["prn", "cem", "gfm", "efm"]
    )
    parser.add_argument("--output", type=pathlib.Path, default="runs/necks")
    options, others = parser.parse_known_args()
    arguments = [*others, "--test", options.test, "--size", str(options.size)]
    folders = {neck: options.output / neck for neck in options.necks}
    for neck, folder in folders.items():
        train(neck, folder, arguments)
    rows = [measured(n, folder, options.size) for n, folder in folders.items()]
    draw(folders, RESULTS / "necks.png")
    classes = result(folders[options.necks[0]])["per_class"]
    header = (*HEADER, *(f"AP50 {name}" for name in classes))
    command = shlex.join(["python", "benchmarks/necks.py", *sys.argv[1:]])
    write(
        header,
        rows,
        command,
        f"the images of {pathlib.Path(options.test).name}",
    )


if __name__ == "__main__":
    main()
