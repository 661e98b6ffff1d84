"""The parts of benchmarks/gpu.py. gpu.md beside it says how to run them."""
