"""One process of one part: receives its task, sends rows.

    KERAS_BACKEND=jax python -m gpu_parts.worker < JSON

The first message is {"part": ..., ...}, with an argument for each parameter
of the part's function below, whose first one is the `worker.Channel`.
"""

import os
import time

from harness.worker import Channel


def describe(channel, smallest):
    """Sends the backend's device, and the checks to run on it."""
    import dataclasses

    import keras
    from harness.machine import device_name, has_gpu

    from gpu_parts import checks

    listed = checks.plan(keras.backend.backend(), smallest)
    checks_ = [dataclasses.asdict(check) for check in listed]
    name, gpu = device_name(), has_gpu()
    channel.send({"device": name, "gpu": gpu, "checks": checks_})


def check(channel, tasks):
    """Runs each task, and sends it as a row of "checks".

    Args:
        tasks: the fields of `checks.Check`s.
    """
    import keras
    from harness.machine import device_name

    from gpu_parts import checks

    checks.exact()
    for task in tasks:
        question, start = checks.Check(**task), time.perf_counter()
        row = {
            "device": device_name(),
            "backend": keras.backend.backend(),
            "check": question.name,
            "precision": question.precision,
            "jit": question.jit,
        }
        try:
            row.update(checks.run(question))
        except Exception as error:  # any error is a result of the check
            row.update(result="error", detail=_in_short(error))
        finally:
            keras.config.set_dtype_policy("float32")
            keras.utils.clear_session()
        row["seconds"] = f"{time.perf_counter() - start:.1f}"
        channel.send({"table": "checks", "row": row})


def speed(channel, engine, title, cells, smallest, rate):
    """Compiles, waits for a line, then sends each cell as a row of "speed".

    Args:
        engine, title: of the plan.
        cells: [(quantity, batch)].
        smallest: whether the plan is `jobs.SMALLEST`.
        rate: whether to time the matrix product too, as a row of "rates".
    """
    from harness.machine import device_name

    from gpu_parts import engines, jobs
    from gpu_parts import speed as speeds

    plan = jobs.SMALLEST if smallest else jobs.GPU
    row = {
        "device": device_name(),
        "engine": engine,
        "network": title,
        "precision": plan.precision,
        "size": plan.size,
    }

    def failed(cell, error):
        cell = dict(zip(("quantity", "batch"), cell))
        row_ = {**row, **cell, "detail": _in_short(error)}
        channel.send({"table": "speed", "row": row_})

    made = engines.make(engine, plan.network(title), plan.size, plan.precision)
    compiled = {}
    for cell in map(tuple, cells):
        start = time.perf_counter()
        try:
            made.compile(*cell)
        except Exception as error:  # too little memory, most likely
            failed(cell, error)
        else:
            compiled[cell] = time.perf_counter() - start
    channel.send({"ready": True})
    if channel.receive() is None:
        return
    if rate:
        found = speeds.matrix_rate(plan.matrix, plan.precision)
        what = f"product of {plan.matrix} x {plan.matrix} matrices"
        known = {k: row[k] for k in ("device", "engine", "precision")}
        rate_row = {**known, "what": what, "rate": f"{found:.4g}"}
        channel.send({"table": "rates", "row": {**rate_row, "unit": "TFLOP/s"}})
    for cell, seconds in compiled.items():
        try:
            found = speeds.row(made, *cell, plan)
        except Exception as error:
            failed(cell, error)
            continue
        found["compile_seconds"] = f"{seconds:.1f}"
        cell_row = {**row, **dict(zip(("quantity", "batch"), cell)), **found}
        channel.send({"table": "speed", "row": cell_row})


def train(
    channel,
    done,
    networks,
    seeds,
    most,
    share,
    data,
    folder,
    seconds,
    plan,
    jit_compile,
):
    """Trains cells of the ablation, and sends rows of its two tables.

    Args:
        done: [(network, seed)] to leave out.
        networks, seeds: of `ablation.order`.
        most: how many cells to train at most, None for all.
        share: (i, n): this process trains cells i, i + n, i + 2n, ....
        data: of `cifar.read`.
        folder: where trainings are saved, to go on from.
        seconds: no cell or epoch starts after this time.
        plan: the fields of an `ablation.Plan`.
        jit_compile: of `Model.compile`.
    """
    import pathlib

    from gpu_parts import ablation, cifar

    until = time.monotonic() + seconds
    cells = ablation.order(seeds, networks)
    left = [cell for cell in cells if list(cell) not in done]
    images, plan = cifar.read(data), ablation.Plan(**plan)
    folder = pathlib.Path(folder)

    def report(row):
        channel.send({"table": "ablation_epochs", "row": row})

    start, step = share
    for name, seed in left[:most][start::step]:
        if time.monotonic() > until:
            return
        cell = ablation.Cell(name, seed, images, plan, folder, jit_compile)
        row = cell.run(until, report)
        if row is not None:
            channel.send({"table": "ablation", "row": row})


def _in_short(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


PARTS = {"describe": describe, "check": check, "speed": speed, "train": train}


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    channel = Channel()
    import keras_csp  # noqa: F401  (before Keras, as users do)

    options = channel.receive()
    PARTS[options.pop("part")](channel, **options)


if __name__ == "__main__":
    main()
