"""Images per second of one engine and network, and the device's own rate."""

import statistics

import keras
import numpy as np
from harness.machine import has_gpu
from harness.timing import seconds_per_step


def row(engine, quantity, batch, plan):
    """What was measured of one cell, as columns of "speed"."""
    engine.prepare(quantity, batch)
    taken, steps = seconds_per_step(engine.run, plan.seconds)
    memory = engine.memory()
    return {
        "images_per_second": f"{batch / statistics.median(taken):.1f}",
        "fastest": f"{batch / min(taken):.1f}",
        "slowest": f"{batch / max(taken):.1f}",
        "steps": steps,
        "memory_mb": "" if memory is None else f"{memory / 1e6:.0f}",
    }


def matrix_rate(side, precision, seconds=1.0):
    """TFLOP/s of a product of square matrices of random numbers."""
    a, b = np.random.default_rng(0).standard_normal((2, side, side), "float32")
    run = _product(a, b, precision)
    taken, _steps = seconds_per_step(run, seconds)
    return 2 * side**3 / statistics.median(taken) / 1e12


def _product(a, b, precision):
    if keras.backend.backend() == "jax":
        import jax

        a, b = (jax.numpy.asarray(x, precision) for x in (a, b))
        product = jax.jit(jax.numpy.matmul)

        def run(steps):
            for _ in range(steps):
                found = product(a, b)
            found.block_until_ready()

        return run
    import torch

    device = "cuda" if has_gpu() else "cpu"
    dtype = getattr(torch, precision)
    a, b = (torch.from_numpy(x).to(device, dtype) for x in (a, b))

    def run(steps):
        for _ in range(steps):
            torch.matmul(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return run
