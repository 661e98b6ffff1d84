"""How long a module takes to import, in a fresh process each time."""

import subprocess
import sys

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
        answer = subprocess.run(
            [sys.executable, "-c", _CODE.format(module)],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(answer.stdout.split()[-1])
