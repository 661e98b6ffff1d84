"""Turns and rounds, with contenders that compute nothing and no processes."""

import dataclasses
import os
import sys

import pytest
from harness import machine, timing
from harness.machine import Interpreter, Machine
from harness.processes import BENCHMARKS, WorkerError
from harness.results import Store
from harness.timing import (
    Coordinator,
    Rules,
    interleaved,
    median_ratio,
    seconds_per_step,
)
from harness.worker import Session
from peers_parts.plan import Job
from peers_parts.summary import summarize

HERE = Interpreter(sys.executable, {"keras": "3", "numpy": "2"})
RULES = Rules(rounds=3, seconds=0.0, patience=600.0, least_memory=0)


class Clock:
    """Moved by the runs alone."""

    now = 0.0

    def __call__(self):
        return self.now

    def run(self, seconds, log=None, name=None):
        def call():
            self.now += seconds
            if log is not None:
                log.append(name)

        return call


def test_functions_take_turns():
    clock, log = Clock(), []
    calls = {
        name: clock.run(seconds, log, name)
        for name, seconds in (("a", 1.0), ("b", 2.0))
    }
    times = interleaved(calls, rounds=2, runs=3, clock=clock)
    assert times == {"a": 2 * [3 * [1.0]], "b": 2 * [3 * [2.0]]}
    assert "".join(log) == 2 * "aaabbb"


def test_warming_up_is_not_timed():
    clock, log = Clock(), []
    calls = {"a": clock.run(1.0, log, "a")}
    times = interleaved(calls, rounds=1, runs=1, warm_up=2.5, clock=clock)
    assert times == {"a": [[1.0]]}
    assert len(log) == 3 + 1


def test_the_ratio_is_taken_round_by_round():
    # The machine is ten times as slow in the second round.
    assert median_ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1.0, 2.0], [1.0])


def test_as_many_steps_as_fit():
    clock, calls = Clock(), []

    def run(steps):
        calls.append(steps)
        clock.now += 0.5 * steps

    taken, steps = seconds_per_step(run, seconds=40, rounds=4, clock=clock)
    assert (taken, steps) == (4 * [0.5], 80)
    assert calls == [2, 2, 20, 20, 20, 20]


class Ended(BaseException):
    """The process of a fake contender dies, or hangs."""


class Fake:
    """What a job's process would do: its arguments say it.

    Args:
        name: how it signs in `log`, a list that all of a test share.
        fate: {quantity: an error}; "load" is not a quantity.
        cost: what counting it gives.
    """

    def __init__(self, quantities, name, fate, cost):
        if "load" in fate:
            raise fate["load"]
        self.left = {q: list(v["times"]) for q, v in quantities.items()}
        self.name, self.fate, self.costs = name, fate, cost

    def run(self, quantity):
        log.append(f"{self.name} {quantity}")
        if quantity in self.fate:
            raise self.fate[quantity]
        times = self.left[quantity]
        return times.pop(0) if len(times) > 1 else times[0]

    def cost(self, quantity):
        return self.costs


log = []


@pytest.fixture(autouse=True)
def _empty_log():
    log.clear()


class InProcess:
    """Takes the place of `timing.Contender`."""

    def __init__(self, job, interpreter, cores, path):
        self.session = Session(
            {}, make=lambda _job: Fake(job.quantities, **job.arguments)
        )

    def ask(self, patience, **request):
        try:
            return self.session.answer(request)
        except Ended as error:
            raise WorkerError(str(error)) from error

    def close(self):
        pass


def fake(name, times, needs=(), files=None, once=False, fate=None, cost=None):
    return Job(
        section="inference",
        network="CSPPeleeNet",
        framework="fake",
        engine=name,
        model="none",
        contender="Fake",
        quantities={q: {"times": values} for q, values in times.items()},
        arguments={"name": name, "fate": fate or {}, "cost": cost or {}},
        needs=needs,
        files=files or {},
        once=once,
    )


def coordinator(tmp_path, rules=RULES, start=InProcess):
    return Coordinator(
        Machine(HERE, HERE, machine.allowed_cores()),
        Store(tmp_path / "values.csv", {"size": 8}),
        rules,
        tmp_path / "logs",
        start,
    )


def measured(tmp_path, *jobs, rules=RULES):
    made = coordinator(tmp_path, rules)
    made.measure(list(jobs))
    return made, summarize(made.store.rows)


def test_contenders_take_turns(tmp_path):
    """Both warm up; a round is one run that is not timed and one that is."""
    measured(tmp_path, *(fake(name, {"batch 1": [1.0]}) for name in "ab"))
    a, b = 2 * ["a batch 1"], 2 * ["b batch 1"]
    assert log == a + b + 3 * (a + b)


def test_quantities_come_one_after_the_other(tmp_path):
    """For all contenders: no training is measured among inferences."""
    both = {"batch 1": [1.0], "training": [1.0]}
    measured(tmp_path, fake("a", both), fake("b", {"training": [1.0]}))
    assert [line.split(" ", 1)[1] for line in log] == (
        8 * ["batch 1"] + 16 * ["training"]
    )


def test_medians_and_spread(tmp_path):
    """Of the rounds 2, 4 and 3, neither warm-up nor discarded runs."""
    times = [9.0, 8.0, 7.0, 2.0, 7.0, 4.0, 7.0, 3.0]
    job = fake("a", {"batch 8": times}, cost={"bflops": 6.0})
    _, summary = measured(tmp_path, job)
    (row,) = summary.rows
    assert (row.seconds, row.low, row.high, row.rounds) == (3.0, 2.0, 4.0, 3)
    assert row.first == 9.0
    assert row.spread == pytest.approx(2 / 3)
    assert row.images_per_second == pytest.approx(8 / 3)
    assert row.gflops == pytest.approx(16.0)
    assert row.peak_mb > 1


def test_a_slow_contender_is_measured_once(tmp_path):
    job = fake("a", {"batch 1": [99.0, RULES.slow + 1, 1.0]})
    _, summary = measured(tmp_path, job)
    (row,) = summary.rows
    assert (row.seconds, row.rounds, row.first) == (RULES.slow + 1, 1, 99.0)


def test_steps_that_happen_once(tmp_path):
    job = fake("a", {"build": [2.0], "export": [5.0]}, once=True)
    _, summary = measured(tmp_path, job)
    assert log == ["a build", "a export"]
    assert [(row.quantity, row.seconds) for row in summary.rows] == [
        ("build", 2.0),
        ("export", 5.0),
    ]


@pytest.mark.parametrize(
    ("error", "reason", "lost"),
    [
        (Ended("no answer in 9 s"), "no answer in 9 s", 2),
        # One that only refused is asked for the next quantity.
        (ValueError("not this one\nor"), "ValueError: not this one", 1),
    ],
)
def test_a_contender_that_fails_is_skipped(tmp_path, error, reason, lost):
    both = {"batch 1": [1.0], "batch 8": [1.0]}
    bad = fake("bad", both, fate={"batch 1": error})
    made, summary = measured(tmp_path, bad, fake("good", both))
    assert made.skipped == {(bad.key, q): reason for q in list(both)[:lost]}
    assert len(summary.find(engine="good")) == 2
    assert len(summary.find(engine="bad")) == 2 - lost


def test_what_cannot_start_is_skipped_with_the_reason(tmp_path):
    times = {"batch 1": [1.0]}
    made, summary = measured(
        tmp_path,
        fake("a", times, fate={"load": ImportError("no such engine")}),
        fake("b", times, needs=("keras", "openvino")),
        fake("c", times, files={"batch 1": str(tmp_path / "net-8.tflite")}),
    )
    assert list(made.skipped.values()) == [
        "ImportError: no such engine",
        "openvino is not installed: pip install openvino",
        "net-8.tflite was not exported",
    ]
    assert summary.rows == []


def test_too_little_memory_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.timing.free_memory", lambda: 1.5e9)
    rules = dataclasses.replace(RULES, least_memory=2e9)
    job = fake("a", {"batch 1": [1.0]})
    made, _ = measured(tmp_path, job, rules=rules)
    assert list(made.skipped.values()) == ["only 1.5 GB of memory are free"]


def test_an_interrupted_run_resumes(tmp_path):
    """Only what was lost is measured again."""
    job = fake("a", {"batch 1": [1.0], "batch 8": [1.0]})
    measured(tmp_path, job)
    path = tmp_path / "values.csv"
    kept = path.read_text().splitlines(keepends=True)
    # Of batch 8, the last round, the memory and "complete" are lost.
    path.write_text("".join(kept[:-3]))
    log.clear()
    _, summary = measured(tmp_path, job)
    assert log == 4 * ["a batch 8"]  # warming up, and one round
    assert [(row.quantity, row.rounds) for row in summary.rows] == [
        ("batch 1", 3),
        ("batch 8", 3),
    ]
    log.clear()
    made, _ = measured(tmp_path, job)
    assert log == []
    assert made.store.starts == 3


def test_a_contender_only_runs_while_it_is_asked(tmp_path, monkeypatch):
    calls = []

    class Recorded:
        def __init__(self, command, environment, path):
            self.environment = environment

        def __getattr__(self, name):
            return lambda *given: calls.append((name, *given))

    monkeypatch.setattr(timing, "Worker", Recorded)
    monkeypatch.setenv("PYTHONPATH", "given")
    job = dataclasses.replace(fake("a", {}), environment={"KERAS_BACKEND": "x"})
    contender = timing.Contender(job, "python", (0, 1), tmp_path / "log")
    contender.ask(9.0, do="load")
    assert calls == [
        ("resume",),
        ("send", {"do": "load"}),
        ("receive", 9.0),
        ("pause",),
    ]
    environment = contender._worker.environment
    assert environment["KERAS_BACKEND"] == "x"
    assert environment["OMP_NUM_THREADS"] == "2"
    paths = [BENCHMARKS, BENCHMARKS.parent, "given"]
    assert environment["PYTHONPATH"] == os.pathsep.join(map(str, paths))


def test_in_a_process_of_its_own(tmp_path):
    """The real one: numpy's product of two small matrices."""
    job = dataclasses.replace(
        fake("numpy", {}),
        contender="MatrixProduct",
        quantities={"batch 1": {"side": 4}},
        arguments={"library": "numpy", "threads": 1},
    )
    made = Coordinator(
        Machine(HERE, HERE, machine.allowed_cores()),
        Store(tmp_path / "values.csv", {}),
        dataclasses.replace(RULES, rounds=2),
        tmp_path / "logs",
    )
    made.measure([job])
    assert made.skipped == {}
    (row,) = summarize(made.store.rows).rows
    assert row.rounds == 2 and row.seconds > 0 and row.peak_mb > 1
