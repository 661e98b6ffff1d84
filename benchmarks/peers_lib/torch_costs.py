"""What comes before a timm network's first answer, each step once."""

import pathlib

import safetensors.torch
import torch

from peers_lib.torch_runs import make


class Runs:
    """A quantity has the "step", a method, and "with", its arguments."""

    def __init__(self, quantities, model, size, folder, threads):
        import timm  # noqa: F401

        torch.set_num_threads(threads)
        self.quantities = quantities
        self.name, self.size = model, size
        path = f"timm-{model}.safetensors"
        self.weights = str(pathlib.Path(folder) / path)
        self.network = None

    def prepare(self, quantity):
        """As of `keras_costs.Runs`."""
        step = self.quantities[quantity]["step"]
        if step != "build" and self.network is None:
            self.build()
        if step.startswith("export"):
            self.settle()

    def run(self, quantity):
        asked = self.quantities[quantity]
        return getattr(self, asked["step"])(**asked.get("with", {}))

    def build(self):
        self.network = make(self.name).eval()

    def save_weights(self):
        safetensors.torch.save_model(self.network, self.weights)

    def load_weights(self):
        safetensors.torch.load_model(self.network, self.weights)

    def settle(self):
        norms = [
            layer
            for layer in self.network.modules()
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
        ]
        momenta = [layer.momentum for layer in norms]
        for layer in norms:
            layer.momentum = 1.0
        with torch.no_grad():
            self.network.train()(torch.rand(4, 3, self.size, self.size))
        for layer, momentum in zip(norms, momenta):
            layer.momentum = momentum
        self.network.eval()

    def export_onnx(self, path):
        part = f"{path}.part"
        torch.onnx.export(
            self.network,
            (torch.rand(2, 3, self.size, self.size),),
            part,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
        )
        pathlib.Path(part).rename(path)
