"""What a machine without a network needs."""

import io
import os
import pathlib
import shutil
import subprocess
import zipfile

import pytest
from gpu_parts import carry, checks
from gpu_parts.rows import Tables
from support import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
MACHINE_HAS = {"numpy", "ml-dtypes"}  # JAX requires them


def python_3_12():
    """A Python 3.12, wherever it is; None without."""
    own = pathlib.Path.home().glob(".pyenv/versions/3.12*/bin/python3.12")
    for place in [shutil.which("python3.12") or "", *map(str, own)]:
        code = "import sys; print(sys.version_info[:2])"
        try:
            answer = subprocess.run(
                [place, "-c", code], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if answer.stdout.strip() == "(3, 12)":
            return place
    return None


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carried")
    data = os.environ.get("KERAS_CSP_DATA")
    name = "classification/cifar10/cifar10_jpeg.tar.gz"
    carry.carry(folder, pathlib.Path(data) / name if data else None)
    return folder


@pytest.mark.slow
def test_what_is_carried_is_small_and_complete(carried):
    """Each requirement is carried, or of the machine's own packages."""
    from packaging.requirements import Requirement

    files = list(carried.iterdir())
    assert sum(path.stat().st_size for path in files) < 64 * 2**20
    has = {wheel.split("==")[0] for wheel in carry.WHEELS} | MACHINE_HAS
    for path in carried.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            (name,) = [n for n in wheel.namelist() if n.endswith("/METADATA")]
            lines = io.StringIO(wheel.read(name).decode())
        needs = [
            Requirement(line.removeprefix("Requires-Dist: ").strip())
            for line in lines
            if line.startswith("Requires-Dist: ")
        ]
        for need in needs:
            if need.marker and not need.marker.evaluate(
                {"python_version": "3.12", "extra": ""}
            ):
                continue
            normal = need.name.lower().replace("_", "-")
            known = has | {"typing-extensions"}  # PyTorch requires it
            assert normal in known, f"{path.name} requires {need}"


@pytest.mark.slow
def test_what_is_carried_runs_on_a_python_3_12(carried, tmp_path):
    """Beside JAX, Pillow and what timm brings; PyTorch is too large here."""
    python = python_3_12()
    if python is None:
        pytest.skip("there is no Python 3.12")
    there = tmp_path / "venv" / "bin" / "python"

    # As a user starts it: these tests set the backend for other processes.
    clean = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}

    def run(*command, **environment):
        answer = subprocess.run(
            list(map(str, command)),
            env={**clean, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr[-2000:]

    run(python, "-m", "venv", tmp_path / "venv")
    own = ("jax", "pillow", "huggingface_hub", "safetensors")
    run(there, "-m", "pip", "install", "-q", *own, "pytest")
    wheels = sorted(carried.glob("*.whl"))
    site = tmp_path / "site"
    run(
        *(there, "-m", "pip", "install", "-q", "--no-index", "--no-deps"),
        *("--target", site, *wheels),
    )
    run(
        *(there, SCRIPT, "checks", "--smallest", "--backends", "jax"),
        *("--output", tmp_path / "rows", "--work", tmp_path / "work"),
        *("--minutes", 60),
        PYTHONPATH=os.pathsep.join([str(site), str(ROOT)]),
    )
    rows = Tables(tmp_path / "rows").rows("checks")
    assert {row["result"] for row in rows} == {"ok"}
    assert len(rows) == len(checks.plan("jax", smallest=True))
