"""Contenders in turns: whatever else the machine does meets all alike.

`interleaved` times functions of this process. The `Coordinator` times
contenders in processes of their own: those of a group are alive together, but
all except the one whose turn it is are paused by a signal, so that no thread
of theirs keeps a core busy.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time

from harness.machine import environment, free_memory
from harness.processes import BENCHMARKS, Worker, WorkerError


def interleaved(calls, rounds, runs, warm_up=0.0, clock=time.perf_counter):
    """Times functions in turns.

    Args:
        calls: {name: function}.
        rounds: turns of each function.
        runs: timed runs of a turn.
        warm_up: seconds for which a function runs before its turn, until the
            caches and the cores are its own: the threads of some runtimes
            spin for a while after an answer. Default 0.
        clock: in seconds. Default: `time.perf_counter`.

    Returns:
        {name: seconds of one run, a list for each round}.
    """
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            until = clock() + warm_up
            while clock() < until:
                call()
            turn = []
            for _ in range(runs):
                start = clock()
                call()
                turn.append(clock() - start)
            seconds[name].append(turn)
    return seconds


def median_ratio(ours, theirs):
    """The median of the ratios of two lists, round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def seconds_per_step(run, seconds, rounds=10, clock=time.perf_counter):
    """Seconds of one step in each of `rounds`, and the number of all steps.

    Args:
        run: runs so many steps.
        seconds: that all rounds take together, about.
        rounds: their number. Default 10.
        clock: in seconds. Default: `time.perf_counter`.
    """

    def timed(steps):
        start = clock()
        run(steps)
        return (clock() - start) / steps

    run(2)
    steps = max(1, round(seconds / rounds / timed(2)))
    return [timed(steps) for _ in range(rounds)], steps * rounds


class RefusedError(WorkerError):
    """One quantity raised an error; the others can still be measured."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """How to measure.

    Attributes:
        rounds: turns of each contender for each quantity, times its job's
            `repeats`.
        seconds: length of a turn, which has at least one run.
        patience: seconds after which an answer is no longer waited for.
        slow: a warm run that takes longer, in seconds, is measured once: the
            noise is small then.
        least_memory: bytes that must be free for a contender to start. A
            training takes about that much; with less, others are swapped out.
    """

    rounds: int
    seconds: float
    patience: float
    slow: float = 10.0
    least_memory: float = 3e9


class Contender:
    """The process of a job, paused unless it is asked something."""

    def __init__(self, job, interpreter, cores, log):
        variables = {**environment(len(cores)), **job.environment}
        # The package of this checkout, whatever is installed.
        paths = [str(BENCHMARKS), str(BENCHMARKS.parent)]
        if given := os.environ.get("PYTHONPATH"):
            paths.append(given)
        variables["PYTHONPATH"] = os.pathsep.join(paths)
        described = json.dumps({**dataclasses.asdict(job), "cores": cores})
        command = [interpreter, "-m", "harness.worker", described]
        self._worker = Worker(command, variables, log)

    def ask(self, patience, **request):
        """The answer of `worker.Session`.

        Raises:
            RefusedError: the contender raised an error.
            WorkerError: its process ended or did not answer in time.
        """
        self._worker.resume()
        self._worker.send(request)
        answer = self._worker.receive(patience)
        self._worker.pause()
        return answer

    def close(self):
        self._worker.close()


class Coordinator:
    """Measures groups of jobs into a store.

    Args:
        machine: a `machine.Machine`.
        store: a `results.Store`.
        rules: `Rules`.
        folder: for the logs of the processes.
        start: makes the `Contender` of (job, interpreter, cores, log).

    Attributes:
        skipped: {(key of a job, quantity): why}.
    """

    def __init__(self, machine, store, rules, folder, start=Contender):
        self.machine, self.store, self.rules = machine, store, rules
        self.folder, self.start = folder, start
        self.contenders, self.skipped = {}, {}

    def measure(self, jobs):
        """Measures all quantities of a group, one after the other."""
        quantities = dict.fromkeys(q for job in jobs for q in job.quantities)
        try:
            for quantity in quantities:
                involved = [job for job in jobs if quantity in job.quantities]
                self._measure_quantity(involved, quantity)
                for job in jobs:
                    if not self._missing(job):
                        self._close(job)
        finally:
            for job in jobs:
                self._close(job)

    def _measure_quantity(self, jobs, quantity):
        ready = [
            job
            for job in jobs
            if self._wanted(job, quantity) and self._warmed_up(job, quantity)
        ]
        rounds = self.rules.rounds * max((j.repeats for j in ready), default=0)
        for number in range(1, rounds + 1):
            ready = [job for job in ready if self._wanted(job, quantity)]
            self._round(ready, quantity, number)
        for job in ready:
            if self._wanted(job, quantity):
                self._finish(job, quantity)

    def _wanted(self, job, quantity):
        """Whether it is neither measured nor skipped."""
        return not (
            self.store.complete(job, quantity)
            or (job.key, quantity) in self.skipped
        )

    def _missing(self, job):
        return [q for q in job.quantities if self._wanted(job, q)]

    def _warmed_up(self, job, quantity):
        """Whether rounds follow: what is measured once is finished here."""
        _say(f"{job.network}: {quantity}, {job.title}")
        with self._skipping(job, quantity):
            path = pathlib.Path(job.files.get(quantity, BENCHMARKS))
            if not path.exists():
                raise RefusedError(f"{path.name} was not exported")
            self._open(job)
            first = self._run(job, quantity)
            if job.once:
                self._add_round(job, quantity, 1, first)
                self._finish(job, quantity)
                return False
            self.store.add(job, quantity, "first", first["times"][0])
            # For what is compiled late, and to see how long a warm run takes.
            second = self._run(job, quantity)
            if second["times"][0] > self.rules.slow:
                self._add_round(job, quantity, 1, second)
                self._finish(job, quantity)
                return False
            return True
        return False

    def _round(self, jobs, quantity, number):
        """One turn of each, except those that had it in an earlier start."""
        jobs = [
            job
            for job in jobs
            if number not in self.store.rounds(job, quantity)
        ]
        if jobs:
            _say(f"{jobs[0].network}: {quantity}, round {number}")
        for job in jobs:
            with self._skipping(job, quantity):
                # One run, not timed, brings it back into the caches.
                answer = self._run(job, quantity, self.rules.seconds, 1)
                self._add_round(job, quantity, number, answer)

    def _run(self, job, quantity, seconds=0.0, discarded=0):
        return self._ask(
            job,
            do="run",
            quantity=quantity,
            seconds=seconds,
            discarded=discarded,
        )

    def _ask(self, job, **request):
        answer = self.contenders[job.key].ask(self.rules.patience, **request)
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def _add_round(self, job, quantity, number, answer):
        seconds = statistics.median(answer["times"])
        self.store.add(job, quantity, "seconds", seconds, number)

    def _finish(self, job, quantity):
        """What is asked once, after the rounds."""
        with self._skipping(job, quantity):
            peak = self._ask(job, do="peak")["peak_mb"]
            self.store.add(job, quantity, "peak_mb", peak)
            answer = self._ask(job, do="cost", quantity=quantity)
            for measure, value in answer["cost"].items():
                self.store.add(job, quantity, measure, value)
            self.store.add(job, quantity, "complete", 1)

    def _open(self, job):
        """Starts the job's process, unless it is running."""
        if job.key in self.contenders:
            return
        interpreter, reason = self.machine.interpreter(job)
        free = free_memory()
        if free is not None and free < self.rules.least_memory:
            reason = f"only {free / 1e9:.1f} GB of memory are free"
        if reason:
            raise WorkerError(reason)
        name = "-".join(job.key).replace(" ", "_").replace("/", "_")
        log = self.folder / f"{name}.log"
        self.contenders[job.key] = self.start(
            job, interpreter.path, self.machine.cores, log
        )
        try:
            self._ask(job, do="load")
        except RefusedError as error:
            raise WorkerError(str(error)) from error

    def _close(self, job):
        contender = self.contenders.pop(job.key, None)
        if contender:
            contender.close()

    @contextlib.contextmanager
    def _skipping(self, job, quantity):
        """A `WorkerError` of the block is noted; the others are measured.

        A process that refused one quantity is asked for the next; one that
        ended, could not start or did not answer is not tried again.
        """
        try:
            yield
        except WorkerError as error:
            lost = [quantity]
            if not isinstance(error, RefusedError):
                lost = self._missing(job)
                self._close(job)
            self.skipped.update({(job.key, q): str(error) for q in lost})
            _say(
                f"{job.network}: skipped {', '.join(lost)}, {job.title}: "
                f"{error}"
            )


def _say(line):
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)
