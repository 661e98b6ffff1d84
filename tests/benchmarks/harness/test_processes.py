"""Processes that answer, fail, or never answer."""

import os
import sys

import pytest
from harness.processes import Deadline, Worker, WorkerError, script_answer

PATIENCE = 600.0  # never reached
ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"got": json.loads(line)}), flush=True)
"""


@pytest.fixture
def start(tmp_path):
    workers = []

    def start(code, deadline=None):
        worker = Worker(
            [sys.executable, "-S", "-c", code],
            dict(os.environ),
            tmp_path / "logs" / "log",
            deadline,
        )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.close()


def test_messages_go_both_ways(start):
    worker = start(ECHO)
    for number in (1, 2):
        worker.send({"number": number})
        assert worker.receive(PATIENCE) == {"got": {"number": number}}


def test_all_messages_until_the_end(start):
    worker = start("print('[1]'); print('[2]')")
    assert list(worker.messages()) == [[1], [2]]
    assert worker.failure() is None


def test_a_paused_worker_answers_when_it_is_resumed(start):
    worker = start(ECHO)
    worker.send(1)
    worker.receive(PATIENCE)
    worker.pause()
    worker.send(2)
    with pytest.raises(WorkerError, match=r"^no answer in 0.05 s$"):
        worker.receive(0.05)
    worker.resume()
    assert worker.receive(PATIENCE) == {"got": 2}


def test_the_failure_is_the_last_line_of_this_process(start):
    start("import sys; sys.exit('of an earlier process')").failure()
    worker = start("import sys; print('a', file=sys.stderr); sys.exit('b\\nc')")
    worker.send({"too": "late"})
    reason = "the process ended with status 1: c"
    with pytest.raises(WorkerError, match=f"^{reason}$"):
        worker.receive(PATIENCE)
    silent = start("import os; os._exit(3)")
    assert silent.failure() == "the process ended with status 3: no message"


def test_a_deadline_kills_all_workers_now_and_later(start):
    with Deadline(PATIENCE) as deadline:
        waiting = start(ECHO, deadline)
        deadline.expire()
        assert deadline.passed
        assert list(waiting.messages()) == []
        late = start(ECHO, deadline)
        assert list(late.messages()) == []


def test_a_deadline_expires_by_itself(start):
    with Deadline(0.05) as deadline:
        assert list(start(ECHO, deadline).messages()) == []
        assert deadline.passed


def test_no_worker_outlives_the_block_of_its_deadline(start):
    with Deadline(PATIENCE) as deadline:
        worker = start(ECHO, deadline)
    assert not deadline.passed
    assert list(worker.messages()) == []


def test_the_answer_of_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "print('something else')\n"
        "print(json.dumps([sys.argv[1:], os.environ.get('GIVEN')]))\n"
        "sys.exit('no luck' if 'fail' in sys.argv else 0)\n"
    )
    given = {**os.environ, "GIVEN": "yes"}
    assert script_answer(script, "--size", 8) == [["--size", "8"], None]
    assert script_answer(script, environment=given) == [[], "yes"]
    with pytest.raises(WorkerError, match=r"fail failed:\nno luck"):
        script_answer(script, "fail")
