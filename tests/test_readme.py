"""What the README shows is run."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_two_commands():
    assert "pip install -e . && python examples/quickstart.py" in README
    assert '\npip install -e ".[test]" && pytest\n' in README


def test_files_that_the_readme_names_exist():
    root = pathlib.Path(__file__).parents[1]
    for path in re.findall(r"\]\(([^):]+)\)", README):
        assert (root / path).exists(), path


def test_the_benchmark_table_is_the_file_s():
    root = pathlib.Path(__file__).parents[1]
    result = root / "benchmarks" / "results" / "grouped_convolution.md"
    table = [
        line for line in result.read_text().splitlines() if line[:1] == "|"
    ]
    start, end = "<!-- benchmark -->\n", "<!-- /benchmark -->"
    shown = README[README.index(start) + len(start) : README.index(end)]
    assert shown.strip().splitlines() == table
