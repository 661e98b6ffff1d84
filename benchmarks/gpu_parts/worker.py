"""One process of one part: reads its task from standard input, emits rows.

    KERAS_BACKEND=jax python -m gpu_parts.worker < JSON

The first line of the input is {"part": ..., ...}, with an argument for each
parameter of the part's function below. Messages are the lines of the output
that begin with `MARK`; whatever else libraries print is ignored.
"""

import json
import os
import sys
import time

MARK = "@gpu "


def emit(message):
    print(MARK + json.dumps(message), flush=True)


def receive():
    line = sys.stdin.readline()
    return json.loads(line) if line.strip() else None


def describe(smallest):
    """Emits the backend's device, and the checks to run on it."""
    import dataclasses

    import keras

    from gpu_parts import checks, device

    listed = checks.plan(keras.backend.backend(), smallest)
    checks_ = [dataclasses.asdict(check) for check in listed]
    name, gpu = device.name(), device.has_gpu()
    emit({"device": name, "gpu": gpu, "checks": checks_})


def check(tasks):
    """Runs each task, and emits it as a row of "checks".

    Args:
        tasks: the fields of `checks.Check`s.
    """
    import keras

    from gpu_parts import checks, device

    checks.exact()
    for task in tasks:
        question, start = checks.Check(**task), time.perf_counter()
        row = {
            "device": device.name(),
            "backend": keras.backend.backend(),
            "check": question.name,
            "precision": question.precision,
            "jit": question.jit,
        }
        try:
            row.update(checks.run(question))
        except Exception as error:  # whatever it is, it is the finding
            row.update(result="error", detail=_in_short(error))
        finally:
            keras.config.set_dtype_policy("float32")
            keras.utils.clear_session()
        row["seconds"] = f"{time.perf_counter() - start:.1f}"
        emit({"table": "checks", "row": row})


def speed(engine, title, cells, smallest, rate):
    """Compiles, waits for a line, then emits each cell as a row of "speed".

    Args:
        engine, title: of the plan.
        cells: [(quantity, batch)].
        smallest: whether the plan is `jobs.SMALLEST`.
        rate: whether to time the matrix product too, as a row of "rates".
    """
    from gpu_parts import device, engines, jobs
    from gpu_parts import speed as speeds

    plan = jobs.SMALLEST if smallest else jobs.GPU
    row = {
        "device": device.name(),
        "engine": engine,
        "network": title,
        "precision": plan.precision,
        "size": plan.size,
    }

    def failed(cell, error):
        cell = dict(zip(("quantity", "batch"), cell))
        row_ = {**row, **cell, "detail": _in_short(error)}
        emit({"table": "speed", "row": row_})

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
    emit({"ready": True})
    if receive() is None:
        return
    if rate:
        found = speeds.matrix_rate(plan.matrix, plan.precision)
        what = f"product of {plan.matrix} x {plan.matrix} matrices"
        known = {k: row[k] for k in ("device", "engine", "precision")}
        rate_row = {**known, "what": what, "rate": f"{found:.4g}"}
        emit({"table": "rates", "row": {**rate_row, "unit": "TFLOP/s"}})
    for cell, seconds in compiled.items():
        try:
            found = speeds.row(made, *cell, plan)
        except Exception as error:
            failed(cell, error)
            continue
        found["compile_seconds"] = f"{seconds:.1f}"
        cell_row = {**row, **dict(zip(("quantity", "batch"), cell)), **found}
        emit({"table": "speed", "row": cell_row})


def train(
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
    """Trains cells of the ablation, and emits rows of its two tables.

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
        emit({"table": "ablation_epochs", "row": row})

    start, step = share
    for name, seed in left[:most][start::step]:
        if time.monotonic() > until:
            return
        cell = ablation.Cell(name, seed, images, plan, folder, jit_compile)
        row = cell.run(until, report)
        if row is not None:
            emit({"table": "ablation", "row": row})


def _in_short(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


PARTS = {"describe": describe, "check": check, "speed": speed, "train": train}


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras_csp  # noqa: F401  (before Keras, as users do)

    options = receive()
    PARTS[options.pop("part")](**options)


if __name__ == "__main__":
    main()
