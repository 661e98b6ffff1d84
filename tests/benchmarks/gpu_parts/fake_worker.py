"""A worker of `gpu_parts.driver` that computes nothing.

The names of its tasks say what it does.
"""

import json
import os
import pathlib
import sys
import time

from harness.worker import Channel

CHANNEL = Channel()


def note(text):
    with pathlib.Path(os.environ["GPU_FAKES_LOG"]).open("a") as file:
        file.write(text + "\n")


def describe(options):
    tasks = json.loads(os.environ["GPU_FAKES_CHECKS"])
    CHANNEL.send({"device": "fake", "gpu": True, "checks": tasks})


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
        CHANNEL.send({"table": "checks", "row": row})


def speed(options):
    row = {"device": "fake", "precision": "bfloat16", "size": 32}
    row |= {"engine": options["engine"], "network": options["title"]}
    note(f"compiles {options['title']}")
    refused = options["title"].startswith("too large")
    if refused:
        failed = {"quantity": "training", "batch": 2, "detail": "out of memory"}
        CHANNEL.send({"table": "speed", "row": {**row, **failed}})
    CHANNEL.send({"ready": True})
    if CHANNEL.receive() is None:
        return
    note(f"times {options['title']}")
    for quantity, batch in options["cells"]:
        if not refused:
            cell = {"quantity": quantity, "batch": batch}
            rated = {**row, **cell, "images_per_second": 7}
            CHANNEL.send({"table": "speed", "row": rated})


def train(options):
    start, step = options["share"]
    cells = [["A", 0], ["B", 0], ["A", 1], ["B", 1]]
    left = [cell for cell in cells if cell not in options["done"]]
    for network, seed in left[start::step]:
        note(f"{start} of {step} trains {network} {seed}")
        row = {"network": network, "seed": seed, "accuracy": 0.5}
        CHANNEL.send({"table": "ablation", "row": row})


if __name__ == "__main__":
    given = CHANNEL.receive()
    globals()[given["part"]](given)
