"""Contenders in processes of their own, one at a time, in rounds.

All contenders of a group are alive together, but only the one whose turn it
is runs: the others are stopped by a signal, so that no thread of theirs can
wait busily. Each round gives each contender one turn, so that whatever else
the machine does meets all of them alike.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import signal
import subprocess

from peers_lib.machine import environment, free_memory
from peers_lib.progress import guessed, starting, turn

HERE = pathlib.Path(__file__).parent
# A warmed-up run that takes longer is measured once: the noise is small then.
SLOW = 10.0
# A training takes about as much; less, and others would be swapped out.
_LEAST_MEMORY = 3e9


class ContenderError(Exception):
    """A contender cannot start, died or took too long; the text says which."""


class RefusedError(ContenderError):
    """One quantity raised an error; the process can be asked for others."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """How to measure.

    Attributes:
        rounds: turns of each contender for each quantity, by its `repeats`.
        seconds: of one turn, in which it runs at least once.
        patience: seconds until an answer is no longer waited for.
    """

    rounds: int
    seconds: float
    patience: float


class Worker:
    """The process of one job, stopped unless it is asked something."""

    def __init__(self, job, interpreter, cores, log):
        self.job, self.log = job, log
        variables = {**environment(len(cores)), **job.environment}
        # The package of this checkout, whatever is installed.
        paths = [str(HERE.parent), str(HERE.parents[1])]
        given = os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join(
            paths + ([given] if given else [])
        )
        described = {**dataclasses.asdict(job), "cores": list(cores)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [interpreter, str(HERE / "worker.py"), json.dumps(described)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=variables,
                start_new_session=True,
            )

    def ask(self, patience, **request):
        """The answer as a dict; `ContenderError` if there is none."""
        self._signal(signal.SIGCONT)
        try:
            self.process.stdin.write((json.dumps(request) + "\n").encode())
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], patience)
            if not ready:
                raise ContenderError(f"no answer in {patience:.0f} s")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise ContenderError(self._last_words())
        self._signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def close(self):
        self._signal(signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()

    def _signal(self, number):
        """To the process and whatever processes it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _last_words(self):
        code = self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else "no message"
        return f"its process ended ({code}): {last}"


class Coordinator:
    """Measures groups of jobs into a store.

    Args:
        machine: a `machine.Machine`.
        store: a `store.Store`.
        rules: `Rules`.
        folder: for the processes' logs.
        progress: called with (title, what comes next, guess of its seconds).

    Attributes:
        skipped: {(key, quantity): why}.
    """

    def __init__(self, machine, store, rules, folder, progress):
        self.machine, self.store, self.rules = machine, store, rules
        self.folder, self.progress = folder, progress
        self.workers, self.skipped = {}, {}

    def guessed(self, jobs):
        """Seconds that what is wanted of them may take."""
        missing = [job.only(self._missing(job)) for job in jobs]
        return sum(guessed(job, self.rules) for job in missing)

    def measure(self, jobs):
        """All quantities of the jobs, one after the other."""
        quantities = dict.fromkeys(q for job in jobs for q in job.quantities)
        try:
            for quantity in quantities:
                self._measure_quantity(
                    [job for job in jobs if quantity in job.quantities],
                    quantity,
                )
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
        """Whether it is neither measured nor left out."""
        return not (
            self.store.complete(job, quantity)
            or (job.key, quantity) in self.skipped
        )

    def _missing(self, job):
        return [q for q in job.quantities if self._wanted(job, q)]

    def _warmed_up(self, job, quantity):
        """Whether it is ready for rounds; those run once never are."""
        step = f"{quantity}, {job.title}"
        training = quantity == "training"
        guess = starting(job, job.key not in self.workers, training)
        self.progress(job.network, step, guess)
        with self._skipping(job, quantity):
            path = pathlib.Path(job.files.get(quantity, HERE))
            if not path.exists():
                raise RefusedError(f"{path.name} was not exported")
            self._open(job)
            first = self._run(job, quantity)
            if job.once:
                self._add(job, quantity, 1, first)
                self._finish(job, quantity)
                return False
            self.store.add(job, quantity, "first", first["times"][0])
            # What is compiled late, and how long a warm run takes.
            second = self._run(job, quantity)
            if second["times"][0] > SLOW:
                self._add(job, quantity, 1, second)
                self._finish(job, quantity)
                return False
            return True
        return False

    def _round(self, jobs, quantity, number):
        """One turn of each that has not had it before a kill."""
        jobs = [
            job
            for job in jobs
            if number not in self.store.rounds(job, quantity)
        ]
        if jobs:
            step = f"round {number}, {len(jobs)} contenders in turn"
            guess = len(jobs) * turn(self.rules, quantity == "training")
            self.progress(f"{jobs[0].network}, {quantity}", step, guess)
        for job in jobs:
            with self._skipping(job, quantity):
                # One run brings it back into the caches, and is not counted.
                answer = self._run(job, quantity, self.rules.seconds, 1)
                self._add(job, quantity, number, answer)

    def _run(self, job, quantity, seconds=0.0, discarded=0):
        return self.workers[job.key].ask(
            self.rules.patience,
            do="run",
            quantity=quantity,
            seconds=seconds,
            discarded=discarded,
        )

    def _add(self, job, quantity, number, answer):
        times = sorted(answer["times"])
        median = (times[len(times) // 2] + times[(len(times) - 1) // 2]) / 2
        self.store.add(job, quantity, "seconds", median, number)

    def _finish(self, job, quantity):
        """What is asked once, after the rounds."""
        with self._skipping(job, quantity):
            worker, patience = self.workers[job.key], self.rules.patience
            answer = worker.ask(patience, do="peak")
            self.store.add(job, quantity, "peak_mb", answer["peak_mb"])
            answer = worker.ask(patience, do="cost", quantity=quantity)
            for what, value in answer["cost"].items():
                self.store.add(job, quantity, what, value)
            self.store.add(job, quantity, "complete", 1)

    def _open(self, job):
        """Starts the job's process, unless it is running."""
        if job.key in self.workers:
            return
        interpreter, reason = self.machine.interpreter(job)
        free = free_memory()
        if free is not None and free < _LEAST_MEMORY:
            reason = f"only {free / 1e9:.1f} GB of memory are free"
        if reason:
            raise ContenderError(reason)
        name = "-".join(job.key).replace(" ", "_").replace("/", "_")
        self.workers[job.key] = Worker(
            job,
            interpreter.path,
            self.machine.cores,
            self.folder / f"{name}.log",
        )
        try:
            self.workers[job.key].ask(self.rules.patience, do="load")
        except RefusedError as error:
            raise ContenderError(str(error)) from error

    def _close(self, job):
        worker = self.workers.pop(job.key, None)
        if worker:
            worker.close()

    @contextlib.contextmanager
    def _skipping(self, job, quantity):
        """A `ContenderError` in the block is noted, and the others go on.

        A process that refused one quantity is asked for the next; one that
        died, could not start or was not waited for is not tried again.
        """
        try:
            yield
        except ContenderError as error:
            lost = [quantity]
            if not isinstance(error, RefusedError):
                lost = self._missing(job)
                self._close(job)
            self.skipped.update({(job.key, q): str(error) for q in lost})
            step = f"{', '.join(lost)}, {job.title}: left out: {error}"
            guess = guessed(job.only(lost), self.rules)
            self.progress(job.network, step, guess)
