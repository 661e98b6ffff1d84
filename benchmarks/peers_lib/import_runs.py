"""How long a module takes to import: the median of fresh processes."""

import statistics
import subprocess
import sys

PROCESSES = 3

_CODE = (
    "import time; start = time.perf_counter(); import {}; "
    "print(time.perf_counter() - start)"
)


class Runs:
    """A quantity has the "module"."""

    def __init__(self, quantities):
        self.quantities = quantities

    def run(self, quantity):
        module = self.quantities[quantity]["module"]
        times = []
        for _ in range(PROCESSES):
            answer = subprocess.run(
                [sys.executable, "-c", _CODE.format(module)],
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(float(answer.stdout.split()[-1]))
        return statistics.median(times)
