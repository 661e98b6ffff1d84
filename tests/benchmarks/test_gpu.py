"""benchmarks/gpu.py as a command."""

import importlib.util
import os
import subprocess
import sys

import gpu
import pytest
from gpu_parts import checks, jobs
from gpu_parts.rows import Tables
from support import ROOT, TESTS

SCRIPT = ROOT / "benchmarks" / "gpu.py"

# As a user starts it: these tests set the backend for other processes.
CLEAN = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments)])
    gpu.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablation", "--output", "rows"], "gpu: the ablation needs CIFAR-10"),
        (["page", "--smallest"], "gpu: --smallest is a rehearsal"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(monkeypatch, *arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_minutes_are_positive_numbers(monkeypatch, capsys):
    assert gpu.minutes("0.5") == 0.5
    for text in ("0", "-1", "inf", "nan", "some"):
        with pytest.raises(SystemExit):
            main(monkeypatch, "checks", "--minutes", text)
        assert f"not a positive number: '{text}'" in capsys.readouterr().err


def test_the_page_of_no_rows(tmp_path, monkeypatch, capsys):
    main(monkeypatch, "page", "--smallest", "--output", tmp_path)
    assert "No device has been timed yet." in capsys.readouterr().out
    assert (tmp_path / "README.md").is_file()


def test_the_networks_of_the_ablation_are_found():
    """Where only benchmarks/ is on the path, as for the script."""
    code = (
        "import gpu_parts, importlib.util\n"
        "print(importlib.util.find_spec('ablation_study').origin)"
    )
    found = subprocess.check_output(
        [sys.executable, "-S", "-c", code],
        cwd=SCRIPT.parent,
        env={k: v for k, v in CLEAN.items() if k != "PYTHONPATH"},
        text=True,
    )
    assert found.strip() == str(ROOT / "examples" / "ablation_study.py")


@pytest.mark.slow
def test_the_whole_script_without_tensorflow(tmp_path, pictures):
    """Killed among the checks, and gone on with, on every backend there is."""
    backends = [
        name
        for name in ("jax", "torch")
        if importlib.util.find_spec(name) is not None
    ]
    arguments = [
        *("--smallest", "--output", tmp_path / "rows"),
        *("--work", tmp_path / "work", "--data", pictures),
        *("--processes", 1, "--minutes", 60, "--backends", *backends),
    ]
    path = os.pathsep.join([str(TESTS / "no_tensorflow"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "checks", *map(str, arguments)],
        env={**CLEAN, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    first = [process.stdout.readline() for _ in range(3)]
    process.kill()
    process.wait()
    assert "Keras on jax uses" in first[0]
    assert all(" ok " in line for line in first[1:]), first
    before = (tmp_path / "rows" / "checks.csv").read_text().splitlines()
    answer = subprocess.run(
        [
            *(sys.executable, SCRIPT, "checks", "speed", "ablation", "page"),
            *map(str, arguments),
            *("--cells", "2"),
        ],
        env={**CLEAN, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    tables = Tables(tmp_path / "rows")
    with (tmp_path / "rows" / "checks.csv").open() as file:
        assert file.read().splitlines()[: len(before)] == before
    for backend in backends:
        rows = [r for r in tables.rows("checks") if r["backend"] == backend]
        assert len(rows) == len(checks.plan(backend, smallest=True))
        assert {row["result"] for row in rows} == {"ok"}, rows
    ours = [e.name for e in jobs.ENGINES if e.backend in backends]
    ours = [name for name in ours if name.startswith("keras_csp")]
    rated = {r["engine"] for r in tables.rows("speed") if not r["detail"]}
    assert rated >= set(ours)
    assert {row["engine"] for row in tables.rows("rates")} >= set(ours)
    trained = [(r["network"], r["seed"]) for r in tables.rows("ablation")]
    assert trained == [("PeleeNet", "0"), ("CSPPeleeNet", "0")]
    assert len(tables.rows("ablation_epochs")) == 4
    assert "2 of 28 cells" in (tmp_path / "rows" / "README.md").read_text()
