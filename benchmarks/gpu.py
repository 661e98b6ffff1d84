"""Checks, speed and the paper's ablation on a GPU, in parts of some minutes.

    python benchmarks/gpu.py checks speed ablation --data cifar10_jpeg.tar.gz

Each part writes its rows as it goes and skips those that --output or
benchmarks/results/gpu already has: if interrupted, rerun the same command to
resume. `page` makes the page of results from the rows, `carry` fills a folder
with what a machine without a network needs; benchmarks/gpu.md says how. It
needs no TensorFlow. --smallest is a rehearsal, which also runs on a CPU.
"""

import argparse
import os
import pathlib
import sys
import time

# This process computes nothing. Keras' own default is TensorFlow, which need
# not be installed.
os.environ.setdefault("KERAS_BACKEND", "jax")

from gpu_parts import carry, jobs, rows
from gpu_parts.driver import Runner

from keras_csp.training.run import positive_int

PARTS = ("checks", "speed", "ablation", "page", "carry")
# Seconds of each part, without --minutes.
LIMITS = {"checks": 120, "speed": 240, "ablation": 540}
# The most cells that are trained at once: unfinished ones may be lost.
TRAININGS = 4
# A plan of the ablation that takes seconds on a CPU.
SMALLEST = {"epochs": 2, "size": 32, "batch_size": 16, "images": 32}


def main():
    options = parse()
    start = time.monotonic()
    try:
        if options.smallest and options.output == rows.FOLDER:
            raise ValueError("--smallest is a rehearsal: give another --output")
        # Rows of a rehearsal and of real measurements must not mix.
        known = None if options.smallest else rows.FOLDER
        tables = rows.Tables(options.output, known)
        for part in options.parts:
            run(part, options, tables)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"gpu: {error}")
    except KeyboardInterrupt:
        sys.exit("gpu: stopped; rerun the same command to resume")
    print(f"{time.monotonic() - start:.0f} s, rows in {options.output}")


def run(part, options, tables):
    seconds = 60 * options.minutes if options.minutes else LIMITS.get(part)
    runner = Runner(tables, options.work, options.smallest, say)
    if part == "checks":
        for backend in options.backends:
            share = seconds / len(options.backends)
            runner.checks(backend, share, options.processes)
    elif part == "speed":
        plan = jobs.SMALLEST if options.smallest else jobs.GPU
        runner.speed(seconds, options.processes, plan)
    elif part == "ablation":
        train(options, runner, seconds)
    elif part == "carry":
        files = carry.carry(options.carried, options.data)
        print(f"{sum(files.values()) / 2**20:.1f} MiB in {options.carried}")
    else:
        from gpu_parts import page

        page.write(options.output, tables)


def train(options, runner, seconds):
    if options.data is None:
        raise ValueError(
            "the ablation needs CIFAR-10 as JPEG files: --data FOLDER, or a "
            ".tar.gz file"
        )
    runner.ablation(
        options.backends[0],
        seconds,
        options.data.resolve(),
        {
            "networks": options.networks,
            "seeds": options.seeds,
            "most": options.cells,
        },
        SMALLEST if options.smallest else {},
        min(options.processes, TRAININGS),
    )


def say(line):
    print(time.strftime("%H:%M:%S"), line, flush=True)


def minutes(text):
    """A positive number, as `type` of an argument of `argparse`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return value


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="+", choices=PARTS, help="what to run, in this order"
    )
    parser.add_argument(
        "--minutes", type=minutes, help="of each part; default 2, 4 and 9"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=rows.FOLDER,
        help="folder of the rows; default benchmarks/results/gpu",
    )
    parser.add_argument(
        "--work",
        type=pathlib.Path,
        default=pathlib.Path("runs/gpu"),
        help="folder of logs, caches and unfinished trainings; default "
        "runs/gpu",
    )
    parser.add_argument(
        "--carried",
        type=pathlib.Path,
        default=pathlib.Path("runs/carry"),
        help="folder that `carry` fills; default runs/carry",
    )
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        help="CIFAR-10 as JPEG files, a folder or a .tar.gz file",
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        default=("jax", "torch"),
        choices=("jax", "torch", "tensorflow"),
        help="of Keras, for the checks; the first one trains the ablation",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        help="to train, e.g. PeleeNet CSPPeleeNet; default all",
    )
    parser.add_argument(
        "--seeds",
        type=positive_int,
        default=2,
        help="of each network; default 2",
    )
    parser.add_argument(
        "--cells", type=positive_int, help="to train at most; default all"
    )
    parser.add_argument(
        "--processes",
        type=positive_int,
        default=max(1, (os.cpu_count() or 2) // 2),
        help="that share the device; default half the cores",
    )
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="everything at its smallest: shows that it runs",
    )
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.output = options.output.resolve()
    return options


if __name__ == "__main__":
    main()
