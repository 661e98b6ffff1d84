"""benchmarks/peers.py as a command."""

import sys

import peers
import pytest
from harness.timing import Rules
from peers_parts.plan import Job


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs it with one contender: numpy's product of small matrices."""
    job = Job(
        "inference",
        "CSPPeleeNet",
        "fake",
        "a",
        "none",
        contender="MatrixProduct",
        quantities={"batch 1": {"side": 4}},
        arguments={"library": "numpy", "threads": 1},
    )
    monkeypatch.setattr(peers.plan, "groups", lambda request: [[job]])
    monkeypatch.setattr(
        peers, "Rules", lambda *given: Rules(*given, least_memory=0)
    )

    def run(*arguments):
        given = ["--output", tmp_path / "results", "--seconds", "0"]
        given += ["--scratch", tmp_path / "scratch", "--rounds", "1"]
        command = ["peers.py", *map(str, given), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        peers.main()
        return tmp_path / "results"

    return run


def test_it_writes_everything(command, capsys):
    output = command("--timm-python", sys.executable)
    printed = capsys.readouterr()
    assert "[1/1]" in printed.err
    assert "CSPPeleeNet: batch 1, round 1" in printed.err
    assert "| fake a | none |  |" in printed.out
    # Where timm is on this machine does not get into the files.
    assert "--timm-python PYTHON" in printed.out
    assert "Measured in" not in printed.out
    assert (output / "peers.md").read_text() == printed.out[:-1]
    assert len((output / "peers.csv").read_text().splitlines()) == 2
    command()
    assert "Measured in 2 starts." in capsys.readouterr().out


def test_the_plan_is_printed_and_nothing_is_measured(command, capsys):
    output = command("--plan")
    assert capsys.readouterr().out == (
        "alone\n  CSPPeleeNet: fake a, none: batch 1\n"
    )
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "4096"], "peers: --threads must be 1 to"),
        (["--timm-python", "/nowhere/python"], "peers: not a Python: /nowhere"),
    ],
)
def test_bad_arguments_are_one_line(command, arguments, message):
    with pytest.raises(SystemExit) as error:
        command(*arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_default_is_everything():
    request = peers._request(
        peers.parse([]), peers.machine.find_machine(None, 1)
    )
    assert request.networks == peers.NETWORKS
    assert request.pairs == peers.PAIRS
    heads = [row.head for row in request.detectors]
    assert len(heads) == len(set(heads)) > 1
