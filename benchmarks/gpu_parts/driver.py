"""Runs workers, and adds the rows that they send to the tables."""

import concurrent.futures
import os
import sys
import threading

from harness.processes import Deadline, Worker

COMMAND = (sys.executable, "-m", "gpu_parts.worker")
# Seconds in which a training ends its epoch and saves it.
GRACE = 60.0


def environment(backend, folder):
    """Environment of a worker: its backend, and a common program cache."""
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "KERAS_BACKEND": backend,
        # Several processes share a device: none may reserve most of its memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }


class Runner:
    """The parts, with what they share.

    Args:
        tables: `rows.Tables`.
        work: a folder for logs, caches and unfinished trainings.
        smallest: whether everything has its smallest size.
        say: called with a line of text for the user.
    """

    def __init__(self, tables, work, smallest=False, say=print):
        self.tables, self.work = tables, work
        self.smallest, self.say = smallest, say
        self._lock = threading.Lock()
        self._described = {}

    def checks(self, backend, seconds, processes):
        """Runs every check that this device has not passed yet.

        Args:
            backend: "jax" or "torch".
            seconds: time limit.
            processes: how many share the device.
        """
        with Deadline(seconds) as deadline:
            described = self._describe(backend, deadline)
            self._check_gpu(backend, described)
            known = {"device": described["device"], "backend": backend}
            tasks = [
                task
                for task in described["checks"]
                if not self.tables.has(
                    "checks",
                    check=task["name"],
                    precision=task["precision"],
                    jit=task["jit"],
                    result="ok",
                    **known,
                )
            ]

            def check(number):
                share = tasks[number::processes]
                self._check(known, share, number, deadline)

            _at_once(check, processes, deadline)

    def _check(self, known, tasks, number, deadline):
        """Runs tasks in one process, and in a new one after each crash."""
        while tasks and not deadline.passed:
            options = {"part": "check", "tasks": tasks}
            name = f"checks{number}"
            worker = self._worker(known["backend"], options, name, deadline)
            done = [self._add(message) for message in worker.messages()]
            tasks = tasks[len(done) :]
            if tasks and not deadline.passed:
                task = tasks.pop(0)
                row = {
                    **known,
                    "check": task["name"],
                    "precision": task["precision"],
                    "jit": task["jit"],
                    "result": "error",
                    "detail": worker.failure(),
                }
                self._add({"table": "checks", "row": row})

    def speed(self, seconds, processes, plan):
        """Times every cell that has no rate yet on this device.

        Several processes build and compile at once, then time one by one.

        Args:
            seconds: time limit.
            processes: how many compile at once. Engines that have to run
                a program to compile it use a third of that.
            plan: a `jobs.Plan`.
        """
        with Deadline(seconds) as deadline:
            for engine in plan.engines:
                if deadline.passed:
                    return
                described = self._describe(engine.backend, deadline)
                self._check_gpu(engine.backend, described)
                device = described["device"]
                jobs = [
                    (network.title, left)
                    for network in plan.of(engine)
                    if (left := self._left(device, engine, network, plan))
                ]
                at_once = processes if engine.ahead else max(1, processes // 3)
                for start in range(0, len(jobs), at_once):
                    wave = jobs[start : start + at_once]
                    self._wave(device, engine, wave, deadline)

    def _left(self, device, engine, network, plan):
        return [
            (quantity, batch)
            for quantity, batch in plan.cells()
            if not any(
                row["images_per_second"]
                for row in self.tables.rows("speed")
                if (row["device"], row["engine"], row["network"])
                == (device, engine.name, network.title)
                and (row["quantity"], row["batch"]) == (quantity, str(batch))
            )
        ]

    def _wave(self, device, engine, jobs, deadline):
        workers = []
        for title, cells in jobs:
            rated = self.tables.has("rates", device=device, engine=engine.name)
            options = {
                "part": "speed",
                "engine": engine.name,
                "title": title,
                "cells": cells,
                "smallest": self.smallest,
                "rate": not workers and not rated,
            }
            name = f"speed{len(workers)}"
            worker = self._worker(engine.backend, options, name, deadline)
            workers.append((title, worker, worker.messages()))
        ready = [self._until_ready(messages) for _, _, messages in workers]
        for (title, worker, messages), is_ready in zip(workers, ready):
            if is_ready:
                worker.send({"go": True})
                for message in messages:
                    self._add(message)
            ended = worker.failure()
            if ended and not deadline.passed:
                self.say(f"{engine.name}, {title}: {ended}; see {worker.log}")

    def _until_ready(self, messages):
        """Whether it became ready; adds rows of what it could not compile."""
        for message in messages:
            if message.get("ready"):
                return True
            self._add(message)
        return False

    def ablation(self, backend, seconds, data, chosen, plan, processes):
        """Trains the cells that no device has trained, in `ablation.order`.

        Args:
            backend: of Keras.
            seconds: time limit.
            data: path of the images.
            chosen: {"networks", "seeds"} of `ablation.order`, and "most",
                how many cells to train; None for all.
            plan: fields of `ablation.Plan` that differ from its defaults.
            processes: how many train at once. For a GPU, compiling a
                network takes longer than training it, and uses CPU cores.
        """
        done = [
            (row["network"], int(row["seed"]))
            for row in self.tables.rows("ablation")
        ]
        with Deadline(seconds + GRACE) as deadline:
            self._describe(backend, deadline)

            def train(number):
                options = {
                    "part": "train",
                    "done": done,
                    **chosen,
                    "share": [number, processes],
                    "data": str(data),
                    "folder": str(self.work / "cells"),
                    "seconds": seconds,
                    "plan": plan,
                    # On TensorFlow a CPU gains nothing by XLA.
                    "jit_compile": backend == "jax",
                }
                name = f"ablation{number}"
                worker = self._worker(backend, options, name, deadline)
                for message in worker.messages():
                    self._add(message)
                ended = worker.failure()
                if ended and not deadline.passed:
                    raise OSError(f"the ablation stopped: {ended}")

            _at_once(train, processes, deadline)

    def _describe(self, backend, deadline):
        """{"device", "gpu", "checks"} of a backend.

        Raises:
            OSError: it does not start.
        """
        if backend in self._described:
            return self._described[backend]
        options = {"part": "describe", "smallest": self.smallest}
        worker = self._worker(backend, options, "describe", deadline)
        found = list(worker.messages())
        if not found and deadline.passed:
            return {"device": None, "gpu": True, "checks": []}
        if not found:
            raise OSError(
                f"Keras on {backend} does not start: {worker.failure()}; see "
                f"{worker.log}"
            )
        self._described[backend] = found[0]
        self.say(f"Keras on {backend} uses {found[0]['device']}")
        return found[0]

    def _check_gpu(self, backend, described):
        if not (described["gpu"] or self.smallest):
            raise ValueError(
                f"this part needs a GPU; Keras on {backend} found "
                f"{described['device']}. On a CPU use --smallest"
            )

    def _worker(self, backend, options, name, deadline):
        log = self.work / f"{name}_{backend}.log"
        variables = environment(backend, log.parent)
        worker = Worker(COMMAND, variables, log, deadline)
        worker.send(options)
        return worker

    def _add(self, message):
        row = message["row"]
        with self._lock:
            self.tables.add(message["table"], row)
            self.say(" ".join(str(v) for v in row.values() if v != ""))


def _at_once(function, processes, deadline):
    """Calls `function` with 0, 1, ... in as many threads; the first error."""
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        started = [pool.submit(function, n) for n in range(processes)]
        try:
            for one in concurrent.futures.as_completed(started):
                one.result()
        except BaseException:  # or the pool would wait for the others
            deadline.expire()
            raise
