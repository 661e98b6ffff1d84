"""Where the time of each network goes, by operation.

    python benchmarks/profiles.py

LiteRT runs one image, TensorFlow a batch of eight, for answers and for a
training step; each names its kernels. LiteRT's milliseconds are of a run on
all threads, TensorFlow's the sum over its threads. Nothing else should run
beside. The tables are profiles.csv and profiles.md, of the largest operations
alone.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import shlex
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras
from peers_lib import (
    keras_costs,
    keras_runs,
    litert_profile,
    tensorflow_profile,
)
from peers_lib.machine import cpu
from peers_lib.networks import NETWORKS
from result_files import RESULTS, cells, write_csv, write_page

from keras_csp._tables import markdown
from keras_csp.training.run import cli_errors, positive_int

FIELDS = ("network", "engine", "operation", "ms", "share", "calls")
FACTORIES = [network.factory for network in NETWORKS]
LITERT, ANSWERS, TRAINING = (
    "LiteRT, 1 image",
    "TensorFlow, 8 images",
    "TensorFlow, training step of 8",
)


def profiles(name, options):
    """Rows of one network. TensorFlow's threads are set for the process."""
    size, threads = options.size, options.threads
    quantities = {
        ANSWERS: {"batch": 8, "size": size},
        TRAINING: {"batch": 8, "size": size, "training": True},
    }
    runs = keras_runs.Runs(quantities, "keras_csp", name, False, threads)
    found = {}
    for engine in quantities:
        run = functools.partial(runs.run, engine)
        found[engine] = tensorflow_profile.operations(run)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        files = keras_costs.Runs({}, "keras_csp", name, size, folder, threads)
        files.build()
        files.settle()
        files.export_litert(path)
        found[LITERT] = litert_profile.operations(path, threads)
    return [
        row
        for engine, operations in found.items()
        for row in rows(name, engine, operations, options.least)
    ]


def rows(name, engine, found, least):
    """The largest first, and the rest of them as one."""
    total = sum(ms for ms, _calls in found.values())
    kinds = sorted(found, key=lambda kind: -found[kind][0])
    large = [kind for kind in kinds if found[kind][0] >= least * total]
    small = [found[kind] for kind in kinds if kind not in large]
    listed = [(kind, *found[kind]) for kind in large]
    if small:
        listed.append((f"{len(small)} others", *map(sum, zip(*small))))
    for kind, ms, calls in listed:
        share = f"{ms / total:.1%}"
        values = (name, engine, kind, f"{ms:.2f}", share, str(calls))
        yield dict(zip(FIELDS, values))


def write(found, options):
    import ai_edge_litert
    import tensorflow

    write_csv(options.output / "profiles.csv", FIELDS, cells(found, FIELDS))
    command = f"python benchmarks/profiles.py {shlex.join(sys.argv[1:])}"
    lines = [
        "# Where the time goes",
        "",
        f"Operations of at least {options.least:.0%} of the time, "
        f"{options.size} pixels. LiteRT's milliseconds are of a run on all "
        f"threads, TensorFlow's the sum over its threads. {cpu()}, "
        f"{options.threads} threads; Keras {keras.__version__}, TensorFlow "
        f"{tensorflow.__version__}, LiteRT {ai_edge_litert.__version__}, "
        f"keras_csp {keras_csp.__version__}.",
        "",
        f"    {command}".rstrip(),
    ]
    for network in dict.fromkeys(row["network"] for row in found):
        own = [row for row in found if row["network"] == network]
        header = FIELDS[1:]
        table = markdown([header, *cells(own, header)], right=(2, 3, 4))
        lines += ["", f"## {network}", "", *table]
    write_page(options.output / "profiles.md", lines)


def of_all(options):
    """Each network in a process of its own, one after the other."""
    found = []
    with concurrent.futures.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,
    ) as pool:
        for name in options.networks:
            print(f"profiling {name}", file=sys.stderr, flush=True)
            found += pool.submit(profiles, name, options).result()
    return found


def main():
    options = parse()
    with cli_errors("profiles", resumes=False):
        write(of_all(options), options)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # fmt: off
    add = parser.add_argument
    add("--networks", nargs="+", metavar="NETWORK", default=FACTORIES,
        choices=keras_csp.list_models(),
        help="default: the five of peers.py")
    add("--size", type=positive_int, default=224, help="of images; default 224")
    add("--threads", type=positive_int, default=os.cpu_count(),
        help="default: all cores")
    add("--least", type=float, default=0.02,
        help="share of the time from which on it is listed; default 0.02")
    add("--output", type=pathlib.Path, default=RESULTS,
        help="folder; default: results beside this script")
    # fmt: on
    return parser.parse_args()


if __name__ == "__main__":
    main()
