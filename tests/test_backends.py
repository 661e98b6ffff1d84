"""The same weights give the same outputs on every installed backend."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).with_name("golden")
OUTPUTS = json.loads((GOLDEN / "outputs.json").read_text())
QUICK = [name for name in OUTPUTS if name.startswith("Small")]
QUICK.append("CSPMobileNetV2")
# JAX compiles each operation; none is run often enough to be optimised.
QUICK_JAX = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
INSTALLED = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

backends = pytest.mark.parametrize("backend", INSTALLED)


def compare(backend, names, tmp_path, **environment):
    if not importlib.util.find_spec(INSTALLED[backend]):
        pytest.skip(f"{backend} is not installed")
    answers = run(backend, names, tmp_path / "outputs.json", environment)
    for name in names:
        golden = np.array(OUTPUTS[name])
        difference = np.abs(np.array(answers[name]) - golden).max()
        assert difference <= 1e-4 * np.abs(golden).max(), (name, difference)


def run(backend, names, path, environment, script="make_outputs.py"):
    answer = subprocess.run(
        [sys.executable, GOLDEN / script, path, *names],
        env={
            **os.environ,
            **QUICK_JAX,
            "KERAS_BACKEND": backend,
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "backend",
    ["tensorflow", pytest.param("torch", marks=pytest.mark.slow)],
)
def test_some_networks(backend, tmp_path):
    """JAX compiles for longer than all else here: it is in the slow test."""
    compare(backend, QUICK, tmp_path)


# One of each kind for JAX and PyTorch: JAX compiles a network's variables and
# operations one by one, which of all networks takes longer than the rest of the
# slow tests.
KINDS = [name for name in OUTPUTS if name.startswith("Small")] + [
    *("CSPPeleeNet", "CSPResNet50Elastic", "CSPDarkNet53", "CSPMobileNetV2"),
    *("Res2NeXt50", "CS3SEDarkNetL", "CS3DarkNetFocusS", "CSPResNeXt50Timm"),
    *("CSPDenseNetReference", "CSPPeleeNet-0.5-first"),
]


@pytest.mark.slow
@backends
def test_every_network(backend, tmp_path):
    names = list(OUTPUTS) if backend == "tensorflow" else KINDS
    compare(backend, names, tmp_path)


# A training step of one network of each kind; JAX compiles all of it.
STEPS = json.loads((GOLDEN / "steps.json").read_text())
QUICK_STEPS = ("SmallCSPPelee", "SmallCS3")


def compare_steps(backend, names, tmp_path):
    """Rounding errors grow on their way through a deep random network."""
    if not importlib.util.find_spec(INSTALLED[backend]):
        pytest.skip(f"{backend} is not installed")
    path = tmp_path / "steps.json"
    answers = run(backend, names, path, {}, "make_steps.py")
    for name in names:
        allowed = 1e-3 if name.startswith("Small") else 0.03
        found, golden = answers[name]["float32"], STEPS[name]["float32"]
        assert found.keys() == golden.keys()
        for key, value in golden.items():
            assert found[key] == pytest.approx(value, rel=allowed), (name, key)


@pytest.mark.slow
def test_a_training_step(tmp_path):
    compare_steps("tensorflow", QUICK_STEPS, tmp_path)


@pytest.mark.slow
@backends
def test_a_training_step_of_each_kind(backend, tmp_path):
    names = list(STEPS)
    if backend != "torch":  # the others compile each for long
        names = [name for name in names if name.startswith("Small")]
    compare_steps(backend, names, tmp_path)


@pytest.mark.slow
def test_without_onednn(tmp_path):
    compare("tensorflow", QUICK, tmp_path, TF_ENABLE_ONEDNN_OPTS="0")


def test_golden_file_tells_networks_apart():
    """A comparison that any output would pass proves nothing."""
    values = [np.array(value) for value in OUTPUTS.values()]
    for index, value in enumerate(values):
        assert value.shape == (2, 10)
        scale = np.abs(value).max()
        assert np.abs(value[0] - value[1]).max() > 1e-3 * scale
        for other in values[:index]:
            assert np.abs(value - other).max() > 1e-2 * scale
