"""The console script, and mistakes in one line."""

import configparser
import importlib.metadata

import pytest
from support import ROOT

from keras_csp import commands
from keras_csp.commands import main


def test_the_console_script_is_main():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    name, value = config["options.entry_points"]["console_scripts"].split(" = ")
    entry = importlib.metadata.EntryPoint(
        name.strip(), value, "console_scripts"
    )
    assert entry.name == "keras-csp"
    assert entry.load() is main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["count", "ResNet11"], "'ResNet11'. Did you mean ResNet10"),
        (["count", "ResNet10", "--size", "8"], "(8, 8, 3)"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("keras-csp: ")
    assert error.count("\n") == 1


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: keras-csp ")
    assert {"table", "predict", "export"} <= set(said.split())


def test_an_interruption_is_no_traceback(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.tables.keras_csp, "list_models", interrupted)
    assert main(["list"]) == 130
