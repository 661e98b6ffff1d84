"""A file under its name is whole, whatever happens while it is written."""

import os
import signal
import subprocess
import sys

import pytest

from keras_csp.writing import replacing


def test_the_file_appears_at_the_end_with_its_ending(tmp_path):
    path = tmp_path / "model.weights.h5"
    with replacing(path) as part:
        part.write_text("new")
        assert part.parent == tmp_path
        assert part.name.endswith(".weights.h5")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["model.weights.h5"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(str(path)) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass


def test_no_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="There is no folder"),
        replacing(tmp_path / "none" / "a.json"),
    ):
        raise AssertionError("not reached")


def test_a_killed_process_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import os, sys\n"
        "from keras_csp.writing import replacing\n"
        "with replacing(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert answer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
