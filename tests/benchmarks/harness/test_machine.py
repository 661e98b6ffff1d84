"""What the machine is, and the interpreters that it has."""

import types

import keras
import pytest
from harness import machine
from harness.machine import Interpreter, Machine


def job(*needs, python="this"):
    return types.SimpleNamespace(needs=needs, python=python)


def test_the_machine_is_named():
    assert machine.cpu_name()
    found = machine.find_machine(None, 1)
    assert found.versions["keras"] == keras.__version__
    assert found.cores == machine.allowed_cores()[:1]
    assert machine.software("Keras", "numpy") == (
        f"Keras {keras.__version__}, numpy {found.versions['numpy']}"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 4096), "--threads must be 1 to .* Received: 4096"),
        (("/nowhere/python", None), "not a Python: /nowhere/python"),
    ],
)
def test_what_the_machine_does_not_have(arguments, message):
    with pytest.raises(ValueError, match=message):
        machine.find_machine(*arguments)


def test_a_job_gets_an_interpreter_that_has_what_it_needs():
    this = Interpreter("this", {"keras": "3", "torch": "1"})
    timm = Interpreter("timm", {"torch": "2", "timm": "1"})
    found = Machine(this, timm, (0,))
    assert found.interpreter(job("keras")) == (this, None)
    assert found.interpreter(job("torch")) == (this, None)
    assert found.interpreter(job("torch", python="timm")) == (timm, None)
    assert found.interpreter(job("keras", python="timm")) == (this, None)
    nothing, reason = found.interpreter(job("openvino"))
    assert nothing is None
    assert reason == "openvino is not installed: pip install openvino"
    assert found.versions["torch"] == "1 and 2"


def test_each_package_decides_about_onednn(monkeypatch):
    """keras_csp, which this process has imported, switches it on for itself."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setenv("HERE", "yes")
    for chosen in (None, "0"):
        monkeypatch.setattr(machine, "_USERS_CHOICE", chosen)
        made = machine.environment(2)
        assert made.get("TF_ENABLE_ONEDNN_OPTS") == chosen
        assert made["OMP_NUM_THREADS"] == "2" and made["HERE"] == "yes"


def test_a_cpu_is_no_gpu(monkeypatch):
    monkeypatch.setattr(machine, "_gpu", lambda: None)
    assert not machine.has_gpu()
    assert machine.device_name().startswith(machine.cpu_name())
    monkeypatch.setattr(machine, "_gpu", lambda: "A GPU")
    assert machine.has_gpu() and machine.device_name() == "A GPU"
