"""Files that a benchmark writes, and resumes from."""

import types

import numpy as np
import pytest
from harness.results import (
    Store,
    Table,
    draw_curves,
    read_rows,
    table_lines,
    write_rows,
)
from PIL import Image


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    def broken():
        yield {"a": 3}
        raise OSError("killed")

    path = tmp_path / "new" / "r.csv"
    assert read_rows(path) == []
    write_rows(path, ("a", "ü"), [{"a": 1, "ü": "2, 3"}, {"a": 4}])
    with pytest.raises(OSError, match="killed"):
        write_rows(path, ("a", "ü"), broken())
    assert read_rows(path) == [{"a": "1", "ü": "2, 3"}, {"a": "4", "ü": ""}]
    assert [file.name for file in path.parent.iterdir()] == ["r.csv"]


def test_a_column_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="b"):
        write_rows(tmp_path / "r.csv", ("a",), [{"a": 1, "b": 2}])


def test_lines_of_a_table():
    rows = [{"b": 1, "a": "x"}, {"a": "y", "other": 2}]
    assert table_lines(("a", "b"), rows, right=(1,)) == [
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
        "| y |  |",
    ]


def test_a_row_is_in_its_file_at_once_and_replaces_its_like(tmp_path):
    columns = ("network", "seed", "accuracy")
    path = tmp_path / "t.csv"
    table = Table(path, columns, key=("network", "seed"))
    table.add({"network": "A", "seed": 1, "accuracy": 0.5})
    table.add({"network": "A", "seed": 2, "accuracy": 0.5})
    table.add({"network": "A", "seed": 1, "accuracy": 0.75, "other": 9})
    assert path.read_text() == "network,seed,accuracy\nA,1,0.75\nA,2,0.5\n"
    again = Table(path, columns, key=("network", "seed"))
    assert again.has(network="A", seed=2)
    assert not again.has(network="A", seed=3)


def test_rows_of_another_file_are_taken_over(tmp_path):
    known, path = tmp_path / "known.csv", tmp_path / "t.csv"
    Table(known, ("a",), ("a",)).add({"a": 1})
    Table(path, ("a",), ("a",), known).add({"a": 2})
    assert path.read_text() == "a\n1\n2\n"
    assert known.read_text() == "a\n1\n"
    path.write_text("a\n3\n")
    assert not Table(path, ("a",), ("a",), known).has(a=1)


JOB = types.SimpleNamespace(key=("s", "n", "f", "e", "m"))


def test_a_store_is_read_back(tmp_path):
    path = tmp_path / "new" / "values.csv"
    store = Store(path, {"size": 8})
    for number in (1, 3):
        store.add(JOB, "batch 1", "seconds", 0.25, number)
    other = types.SimpleNamespace(key=("s", "n", "f", "e", "other"))
    store.add(other, "batch 1", "complete", 1)
    again = Store(path, {"size": 8})
    assert again.rounds(JOB, "batch 1") == {1, 3}
    assert again.rounds(JOB, "batch 8") == again.rounds(other, "batch 1")
    assert not again.complete(JOB, "batch 1")
    assert again.complete(other, "batch 1")
    assert (store.starts, again.starts) == (1, 2)


def test_values_of_other_settings_are_refused(tmp_path):
    path = tmp_path / "values.csv"
    Store(path, {"size": 8, "timm": "1"}).add(JOB, "q", "complete", 1)
    Store(path, {"size": 8})
    with pytest.raises(ValueError, match="whose timm was '1'; now it is '2'"):
        Store(path, {"timm": "2"})


def test_values_without_settings_are_discarded(tmp_path):
    path = tmp_path / "values.csv"
    Store(path, {}).add(JOB, "q", "complete", 1)
    path.with_suffix(".json").unlink()
    assert not Store(path, {}).complete(JOB, "q")


def test_curves_are_drawn(tmp_path):
    draw_curves(tmp_path / "c.png", {"a": {1: 0.5, 2: 0.75}}, (2, 1), 50)
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (100, 50)
        assert np.asarray(image.convert("L")).std() > 1
