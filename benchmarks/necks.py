"""PRN, CEM, GFM and EFM, trained with the same settings on the same boxes.

    pip install -e ".[detection]"
    python benchmarks/necks.py --train train.json --validation val.json \\
        --test test.json --epochs 40 --size 320

Runs examples/train_detector.py once for each neck, one after the other, with
the same arguments (those that this script does not know are passed on), and
writes benchmarks/results/necks.{csv,md,png}: AP on the test images of each
one's best epoch, what it costs, and AP50 of the validation images by epoch.
If interrupted, rerun the same command to resume.
"""

import argparse
import json
import pathlib
import platform
import shlex
import subprocess
import sys

from harness.results import (
    RESULTS,
    draw_curves,
    read_rows,
    table_lines,
    write_page,
    write_rows,
)

from keras_csp.training.run import positive_int

ROOT = pathlib.Path(__file__).parents[1]


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
    """The row of a finished training, AP in percent."""
    import keras_csp

    test = result(folder)
    state = json.loads((folder / "state" / "state.json").read_text())
    detector = keras_csp.Detector(
        neck=neck, classes=len(test["per_class"]), input_shape=(size, size, 3)
    )
    counted = keras_csp.count(detector)
    return {
        "neck": neck,
        "M params": f"{counted.params / 1e6:.2f}",
        "BFLOPs": f"{counted.bflops:.2f}",
        **{name: f"{100 * test[name]:.1f}" for name in ("AP", "AP50", "AP75")},
        "best epoch": str(state["best"]["epoch"]),
        **{
            f"AP50 {name}": f"{100 * values['AP50']:.1f}"
            for name, values in test["per_class"].items()
        },
    }


def draw(folders, path):
    """AP50 of the validation images by epoch."""
    curves = {
        neck: {
            int(row["epoch"]): 100 * float(row["val_AP50"])
            for row in read_rows(folder / "log.csv")
            if row["val_AP50"]
        }
        for neck, folder in folders.items()
    }
    draw_curves(
        path,
        curves,
        (6.4, 4),
        110,
        ylabel="validation AP50, %",
        ylim=(0, 100),
    )


def write(rows, command, images):
    from harness.machine import software

    columns = list(rows[0])
    write_rows(RESULTS / "necks.csv", columns, rows)
    text = [
        "# Fusion necks side by side",
        "",
        "CSPPeleeNet with each neck, trained from scratch with the same "
        f"arguments and seed; AP in percent on {images}, best epoch by the "
        "validation images. One seed each: differences of a point or two say "
        f"nothing. {platform.machine()}, 2 cores; "
        f"{software('Keras', 'TensorFlow')}. The picture is necks.png.",
        "",
        f"    {command}",
        "",
        *table_lines(columns, rows, right=range(1, len(columns))),
    ]
    write_page(RESULTS / "necks.md", text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--test", required=True, help="COCO JSON that all are tested on"
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        default=320,
        help="of the images, pixels; default 320",
    )
    parser.add_argument(
        "--necks",
        nargs="+",
        default=["prn", "cem", "gfm", "efm"],
        help="default: prn cem gfm efm",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs", "necks"),
        help="folder of the trainings; default runs/necks",
    )
    options, others = parser.parse_known_args()
    arguments = [*others, "--test", options.test, "--size", str(options.size)]
    folders = {neck: options.output / neck for neck in options.necks}
    for neck, folder in folders.items():
        train(neck, folder, arguments)
    rows = [measured(n, folder, options.size) for n, folder in folders.items()]
    draw(folders, RESULTS / "necks.png")
    command = shlex.join(["python", "benchmarks/necks.py", *sys.argv[1:]])
    write(rows, command, f"the images of {pathlib.Path(options.test).name}")


if __name__ == "__main__":
    main()
