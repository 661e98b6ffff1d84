"""examples/quickstart.py, as a newcomer runs it."""

import functools
import re
import sys

import keras
import pytest
from support import SMALL, check_quickstart_outputs, load_example

import keras_csp
from keras_csp.models.builder import build_network


@pytest.fixture(scope="module")
def quickstart():
    return load_example("quickstart")


def run(quickstart, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *map(str, arguments)])
    quickstart.main()


def test_short_run(quickstart, monkeypatch, tmp_path, capsys):
    factory = functools.partial(build_network, SMALL["SmallMobile"])
    monkeypatch.setattr(keras_csp, "get_factory", lambda _name: factory)
    out = tmp_path / "out"
    run(quickstart, monkeypatch, "--epochs", "1", "--output", out)
    check_quickstart_outputs(tmp_path / "out")
    model = keras.saving.load_model(tmp_path / "out" / "model.keras")
    spec = keras_csp.image_spec(model)
    assert spec.class_names == tuple("0123456789")
    assert spec.size == (32, 32)
    out = capsys.readouterr().out
    assert "1437 training and 360 test images of 10 classes" in out
    assert "reloaded in a new process" in out
    assert "match rate 100%" in out
    assert re.search(r"test accuracy: [\d.]+ %", out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10/mini", "flowers5"])
def test_real_folders(name, quickstart, monkeypatch, tmp_path, shared_data):
    run(
        quickstart,
        monkeypatch,
        *("--data", shared_data / "classification" / name),
        *("--size", 32, "--epochs", 1, "--output", tmp_path),
        *("--model", "CSPDenseNetbReference"),
    )
    check_quickstart_outputs(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "does not exist: nowhere"),
        (["--data", "."], "is not a folder with one folder"),
        (["--model", "CSPDensNet201"], "Did you mean CSPDenseNet201"),
        (["--seed", "-1"], "Seed must be between 0 and"),
        (["--size", "16"], "at least 32x32"),
        (["--data", "tfds:nothing_like_it"], "nothing_like_it"),
    ],
)
def test_mistakes_are_one_clear_line(
    quickstart, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=re.escape(message)) as caught:
        run(quickstart, monkeypatch, *arguments)
    assert str(caught.value).startswith("quickstart: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--size", "--epochs", "--batch"])
def test_numbers_must_be_positive(quickstart, monkeypatch, capsys, option):
    with pytest.raises(SystemExit):
        run(quickstart, monkeypatch, option, "0")
    assert "not a positive number: '0'" in capsys.readouterr().err


def test_unreadable_image_is_named(quickstart, monkeypatch, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(5):
            broken = tmp_path / name / f"{index}.jpg"
            broken.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(SystemExit, match=r"Unreadable image .*/\d\.jpg"):
        run(quickstart, monkeypatch, "--data", tmp_path)
