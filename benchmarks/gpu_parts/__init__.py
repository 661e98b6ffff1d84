"""The parts of benchmarks/gpu.py; gpu.md beside it says how to run them."""

import pathlib
import sys

# The networks of the ablation are those of examples/ablation_study.py.
sys.path.append(str(pathlib.Path(__file__).parents[2] / "examples"))
