"""A contender's answers, by a clock that the test moves."""

import json
import os
import subprocess
import sys

from harness.processes import BENCHMARKS
from harness.worker import Session, peak_memory


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Contender:
    """Its runs take 0.25 s each."""

    def __init__(self, clock):
        self.clock, self.calls = clock, []

    def prepare(self, quantity):
        self.calls.append("prepare")

    def run(self, quantity):
        self.calls.append("run")
        self.clock.now += 0.25
        if quantity == "refused":
            raise ValueError("not this one\nand more that is of no interest")
        return {"measured itself": 7.0}.get(quantity)

    def cost(self, quantity):
        return {"bflops": 2.0}


def loaded(contender=Contender):
    clock = Clock()
    session = Session({}, make=lambda job: contender(clock), clock=clock)
    session.answer({"do": "load"})
    return session


def run(session, quantity="some", seconds=0.0, discarded=0):
    request = {"quantity": quantity, "seconds": seconds, "discarded": discarded}
    return session.answer({"do": "run", **request})


def test_a_turn_has_at_least_one_run_and_lasts_as_long_as_asked_for():
    assert run(loaded())["times"] == [0.25]
    assert run(loaded(), seconds=1.0)["times"] == 4 * [0.25]
    assert len(run(loaded(), seconds=1e9)["times"]) == 200


def test_discarded_runs_come_first_and_are_not_timed():
    session = loaded()
    assert run(session, discarded=2)["times"] == [0.25]
    assert session.contender.calls == ["prepare", "run", "run", "run"]


def test_a_contender_may_measure_itself():
    assert run(loaded(), "measured itself")["times"] == [7.0]


def test_an_error_is_one_line_and_the_next_quantity_is_answered():
    session = loaded()
    assert run(session, "refused")["error"] == "ValueError: not this one"
    assert run(session)["times"] == [0.25]


def test_a_contender_that_cannot_be_made():
    def make(job):
        raise ImportError("no such engine")

    session = Session({}, make=make)
    answer = session.answer({"do": "load"})
    assert answer["error"] == "ImportError: no such engine"


def test_costs_where_they_are_known():
    cost = {"do": "cost", "quantity": "some"}
    assert loaded().answer(dict(cost))["cost"] == {"bflops": 2.0}
    without = loaded(lambda clock: object())
    assert without.answer(dict(cost))["cost"] == {}


def test_every_answer_has_the_peak_of_the_memory():
    before = peak_memory() / 1e6
    ballast = bytearray(64 * 2**20)
    answer = loaded().answer({"do": "peak"})
    assert answer["peak_mb"] >= max(before, len(ballast) / 1e6)


def test_the_process_only_needs_the_standard_library():
    """And what is printed does not get among its answers."""
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from harness import worker\n"
        "class Contender:\n"
        "    def run(self, quantity):\n"
        "        print('noise')\n"
        "        return 2.5\n"
        "worker._make = lambda job: Contender()\n"
        "worker.main()\n"
    )
    cores = sorted(os.sched_getaffinity(0))
    requests = [
        {"do": "load"},
        {"do": "run", "quantity": "some", "seconds": 0, "discarded": 1},
    ]
    answer = subprocess.run(
        [sys.executable, "-S", "-c", code, json.dumps({"cores": cores})],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        cwd=BENCHMARKS,
        check=True,
    )
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line.get("times") for line in lines] == [None, [2.5]]
    assert answer.stderr == "noise\nnoise\n"
