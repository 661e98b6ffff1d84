"""A file under its name is whole, whatever happens while it is written."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from keras_csp._files import (
    atomic_write,
    atomic_write_folder,
    atomic_write_together,
)


def test_the_file_appears_at_the_end_with_its_ending(tmp_path):
    path = tmp_path / "model.weights.h5"
    with atomic_write(path) as part:
        part.write_text("new")
        assert part.parent == tmp_path
        assert part.name.endswith(".weights.h5")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["model.weights.h5"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(str(path)) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        pass


def test_no_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="There is no folder"),
        atomic_write(tmp_path / "none" / "a.json"),
    ):
        raise AssertionError("not reached")


def test_a_killed_process_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import os, sys\n"
        "from keras_csp._files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert answer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "model"
    for content in ("old", "new"):
        with atomic_write_folder(path) as part:
            assert part.parent == tmp_path and not list(part.iterdir())
            (part / "inner").mkdir()
            (part / "inner" / content).write_text(content)
            assert not (path / "inner" / content).exists()
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(path / "inner") == ["new"]


def test_an_error_leaves_the_folder_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(KeyboardInterrupt), atomic_write_folder(path) as part:
        (part / "half").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(path) == ["old"]
    rename = type(path).rename

    def fails(self, target):
        if self.name.startswith("part-"):
            raise OSError("no space")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", fails)
    with pytest.raises(OSError, match="no space"), atomic_write_folder(path):
        pass
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(path) == ["old"]


def test_no_folder_for_the_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="no folder"),
        atomic_write_folder(tmp_path / "none" / "model"),
    ):
        pass


def write_both(folder, fail=False):
    with atomic_write_together(folder / "a", folder / "b") as parts:
        for part in parts:
            part.write_text("new")
        if fail:
            raise KeyboardInterrupt


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_that_belong_together(tmp_path):
    (tmp_path / "b").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_both(tmp_path, fail=True)
    assert contents(tmp_path) == {"b": "old"}
    write_both(tmp_path)
    assert contents(tmp_path) == {"a": "new", "b": "new"}


@pytest.mark.parametrize("there", [(), ("a",), ("b",), ("a", "b")])
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_one_that_cannot_be_renamed(failing, there, tmp_path, monkeypatch):
    """Whichever rename fails, all is as before."""
    for name in there:
        (tmp_path / name).write_text("old")
    rename, count = pathlib.Path.rename, [0]

    def rename_or_fail(self, target):
        count[0] += 1
        if count[0] == failing:
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename_or_fail)
    if failing <= 2 + len(there):
        with pytest.raises(PermissionError):
            write_both(tmp_path)
        assert contents(tmp_path) == dict.fromkeys(there, "old")
    else:
        write_both(tmp_path)
        assert contents(tmp_path) == {"a": "new", "b": "new"}


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="place of a folder"):
        write_both(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
