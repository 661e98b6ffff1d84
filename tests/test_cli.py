import pytest

import keras_csp
from keras_csp.__main__ import main


def test_list(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == keras_csp.list_models()


def test_weights(capsys):
    assert main(["weights"]) == 0
    assert "timm/cspresnext50.ra_in1k" in capsys.readouterr().out


def test_count(capsys):
    assert main(["count", "ResNet10", "--total"]) == 0
    out = capsys.readouterr().out
    assert "5.2400 M parameters, 2.2733 BFLOPs" in out
    assert main(["count", "ResNet10", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert "GlobalAveragePooling2D" in out
    assert "64x64x3" in out


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
    assert error.count("\n") == 1


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "table" in capsys.readouterr().out
