"""The networks, their counts and their checkpoints, as printed."""

import keras_csp
from keras_csp.commands import main


def test_list(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == keras_csp.list_models()


def test_weights(capsys):
    assert main(["weights"]) == 0
    printed = capsys.readouterr().out
    assert "timm/cspresnext50.ra_in1k" in printed
    assert "yolov4-csp" in printed
    assert main(["weights", "--task", "detection"]) == 0
    printed = capsys.readouterr().out
    assert "timm/cspresnext50.ra_in1k" not in printed
    assert "yolov4-csp" in printed


def test_count(capsys):
    assert main(["count", "ResNet10", "--total"]) == 0
    out = capsys.readouterr().out
    assert "5.2400 M parameters, 2.2733 BFLOPs" in out
    assert main(["count", "ResNet10", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert "GlobalAveragePooling2D" in out
    assert "64x64x3" in out
