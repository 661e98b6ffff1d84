"""The machine's own speed: a product of two square float32 matrices."""

import numpy as np


class Runs:
    """`library` is "numpy" or "torch"; a quantity has the "side"."""

    def __init__(self, quantities, library, threads):
        self.quantities, self.made = quantities, {}
        self.library = library
        if library == "torch":
            import torch

            torch.set_num_threads(threads)

    def run(self, quantity):
        side = self.quantities[quantity]["side"]
        if side not in self.made:
            square = np.random.default_rng(0).random((side, side), "float32")
            if self.library == "torch":
                import torch

                square = torch.from_numpy(square)
            self.made[side] = square
        self.made[side] @ self.made[side]
