"""The tables of results."""

import pytest
from gpu_parts.rows import COLUMNS, FOLDER, KEYS, Tables
from harness.results import read_rows


@pytest.mark.parametrize("name", COLUMNS)
def test_a_row_replaces_that_of_its_key(tmp_path, name):
    """And one that differs in any column of the key stands beside it."""
    tables = Tables(tmp_path)
    row = {column: f"{column} 1" for column in COLUMNS[name]}
    tables.add(name, row)
    for column in COLUMNS[name]:
        tables.add(name, {**row, column: f"{column} 2"})
    assert len(tables.rows(name)) == 1 + KEYS[name]


def test_rows_of_another_folder_are_taken_over(tmp_path):
    known, output = tmp_path / "known", tmp_path / "output"
    Tables(known).add("ablation", {"network": "PeleeNet", "seed": 0})
    tables = Tables(output, known)
    assert tables.has("ablation", network="PeleeNet", seed=0)
    tables.add("ablation", {"network": "CSPPeleeNet", "seed": 0})
    assert len(Tables(output).rows("ablation")) == 2
    assert len(Tables(known).rows("ablation")) == 1


def test_committed_rows_have_the_columns():
    files = list(FOLDER.glob("*.csv"))
    assert files
    for path in files:
        assert tuple(read_rows(path)[0]) == COLUMNS[path.stem]
