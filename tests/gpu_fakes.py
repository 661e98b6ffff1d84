"""A worker of benchmarks/gpu.py that computes nothing.

The names of its tasks say what it does.
"""

import json
import os
import pathlib
import sys
import time

MARK = "@gpu "


def emit(message):
    print(MARK + json.dumps(message), flush=True)


def note(text):
    with pathlib.Path(os.environ["GPU_FAKES_LOG"]).open("a") as file:
        file.write(text + "\n")


def describe(options):
    tasks = json.loads(os.environ["GPU_FAKES_CHECKS"])
    emit({"device": "fake", "gpu": True, "checks": tasks})


def check(options):
    for task in options["tasks"]:
        note(task["name"])
        if task["name"].startswith("crashes"):
            print("out of ideas", file=sys.stderr, flush=True)
            os._exit(3)
        if task["name"].startswith("hangs"):
            time.sleep(3600)
        row = {
            "device": "fake",
            "backend": os.environ["KERAS_BACKEND"],
            "check": task["name"],
            "precision": task["precision"],
            "jit": task["jit"],
            "result": task["name"].split()[0],
        }
        emit({"table": "checks", "row": row})


def speed(options):
    row = {"device": "fake", "precision": "bfloat16", "size": 32}
    row |= {"engine": options["engine"], "network": options["title"]}
    note(f"compiles {options['title']}")
    refused = options["title"].startswith("too large")
    if refused:
        emit({"table": "speed", "row": {**row, "quantity": "training",
              "batch": 2, "detail": "out of memory"}})  # fmt: skip
    emit({"ready": True})
    if not sys.stdin.readline().strip():
        return
    note(f"times {options['title']}")
    for quantity, batch in options["cells"]:
        if not refused:
            emit({"table": "speed", "row": {**row, "quantity": quantity,
                  "batch": batch, "images_per_second": 7}})  # fmt: skip


def train(options):
    start, step = options["share"]
    cells = [["A", 0], ["B", 0], ["A", 1], ["B", 1]]
    left = [cell for cell in cells if cell not in options["done"]]
    for network, seed in left[start::step]:
        note(f"{start} of {step} trains {network} {seed}")
        row = {"network": network, "seed": seed, "accuracy": 0.5}
        emit({"table": "ablation", "row": row})


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    globals()[given["part"]](given)
