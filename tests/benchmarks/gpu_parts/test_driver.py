"""The driver, with workers that compute nothing."""

import concurrent.futures
import dataclasses
import json
import pathlib
import sys
import time
import types

import pytest
from gpu_parts import driver, jobs
from gpu_parts.rows import Tables
from harness.processes import BENCHMARKS

FAKE_WORKER = pathlib.Path(__file__).with_name("fake_worker.py")
LIMIT = 3600  # seconds, never reached


def question(name):
    return {"name": name, "precision": "float32", "jit": True}


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Runs the driver with workers that compute nothing; their log."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setattr(
        driver, "COMMAND", (sys.executable, "-S", str(FAKE_WORKER))
    )
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))
    monkeypatch.setenv("GPU_FAKES_LOG", str(log))

    def asked(*names):
        tasks = json.dumps([question(name) for name in names])
        monkeypatch.setenv("GPU_FAKES_CHECKS", tasks)

    asked()
    runner = driver.Runner(
        Tables(tmp_path / "rows"), tmp_path / "work", say=lambda line: None
    )
    return types.SimpleNamespace(
        asked=asked,
        lines=lambda: log.read_text().splitlines(),
        runner=runner,
    )


def results(fakes):
    rows = fakes.runner.tables.rows("checks")
    return {row["check"]: row["result"] for row in rows}


def test_a_crash_is_a_row_and_the_rest_is_checked(fakes):
    fakes.asked("ok 1", "crashes 2", "ok 3", "failed 4")
    fakes.runner.checks("jax", LIMIT, 1)
    assert results(fakes) == {
        "ok 1": "ok",
        "crashes 2": "error",
        "ok 3": "ok",
        "failed 4": "failed",
    }
    (row,) = [
        row
        for row in fakes.runner.tables.rows("checks")
        if row["result"] == "error"
    ]
    assert row["detail"] == "the process ended with status 3: out of ideas"


def test_only_what_was_not_passed_is_checked_again(fakes):
    fakes.asked("ok 1", "failed 2")
    fakes.runner.checks("jax", LIMIT, 2)
    fakes.runner.checks("jax", LIMIT, 2)
    assert sorted(fakes.lines()) == ["failed 2", "failed 2", "ok 1"]
    fakes.runner.checks("torch", LIMIT, 1)  # another backend, another row
    assert fakes.lines().count("ok 1") == 2


def test_a_part_ends_at_its_limit_and_keeps_its_rows(fakes, monkeypatch):
    """The limit comes when the second check hangs, however long that takes."""
    made = []

    class Watched(driver.Deadline):
        def __enter__(self):
            made.append(self)
            return super().__enter__()

    monkeypatch.setattr(driver, "Deadline", Watched)
    fakes.asked("ok 1", "hangs 2", "ok 3")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(fakes.runner.checks, "jax", LIMIT, 1)
        while "hangs 2" not in fakes.lines():
            time.sleep(0.05)
        made[0].expire()
        running.result()
    assert results(fakes) == {"ok 1": "ok"}
    assert "ok 3" not in fakes.lines()


def test_all_compile_before_the_first_is_timed(fakes):
    plan = dataclasses.replace(
        jobs.SMALLEST,
        engines=jobs.ENGINES[:1],
        networks=tuple(
            jobs.Network(title, "ResNet10")
            for title in ("a", "too large b", "c")
        ),
    )
    fakes.runner.speed(LIMIT, 3, plan)
    lines = fakes.lines()
    assert sorted(lines[:3]) == [
        "compiles a",
        "compiles c",
        "compiles too large b",
    ]
    assert lines[3:] == ["times a", "times too large b", "times c"]
    rows = fakes.runner.tables.rows("speed")
    assert len([r for r in rows if r["images_per_second"] == "7"]) == 4
    (failed,) = [row for row in rows if row["detail"]]
    assert failed["detail"] == "out of memory"
    fakes.runner.speed(LIMIT, 3, plan)  # what has no rate yet is tried again
    assert fakes.lines()[6:] == ["compiles too large b", "times too large b"]


def test_a_cell_that_was_trained_is_not_trained_again(fakes):
    """And the seeds of one network are one process's: it compiles once."""
    fakes.runner.tables.add("ablation", {"network": "A", "seed": 0})
    for _ in range(2):
        fakes.runner.ablation("jax", LIMIT, "data", {}, {}, 2)
    assert sorted(fakes.lines()) == [
        "0 of 2 trains B 0",
        "0 of 2 trains B 1",
        "1 of 2 trains A 1",
    ]


def test_a_cpu_is_refused_where_it_is_not_meant(tmp_path):
    """Rather than spend the minutes of a GPU on it."""
    runner = driver.Runner(Tables(tmp_path), tmp_path, say=lambda line: None)
    runner._described["jax"] = {"device": "a CPU", "gpu": False, "checks": []}
    with pytest.raises(ValueError, match=r"needs a GPU.*jax found a CPU"):
        runner.checks("jax", 60, 1)
    with pytest.raises(ValueError, match=r"needs a GPU.*jax found a CPU"):
        runner.speed(60, 1, jobs.GPU)


def test_a_backend_that_does_not_start_is_named(fakes, monkeypatch):
    monkeypatch.setenv("GPU_FAKES_CHECKS", "nothing like JSON")
    with pytest.raises(OSError, match=r"jax does not start.*JSON"):
        fakes.runner.checks("jax", LIMIT, 1)
