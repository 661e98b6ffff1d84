"""timm's networks in PyTorch: inference and the training step."""

import torch

LEARNING_RATE, MOMENTUM = 0.01, 0.9


class Runs:
    """One network.

    Args:
        quantities: {name: {"batch", "size", "training"}}.
        model: timm's name.
        mode: "eager", "channels_last" or "compiled".
        threads: of PyTorch.
    """

    def __init__(self, quantities, model, mode, threads):
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        self.quantities = quantities
        self.layout = torch.contiguous_format
        if mode == "channels_last":
            self.layout = torch.channels_last
        self.network = make(model).to(memory_format=self.layout)
        self.call = self.network
        if mode == "compiled":
            self.call = torch.compile(self.network, dynamic=False)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), LEARNING_RATE, MOMENTUM
        )
        self.batches = {}

    def run(self, quantity):
        asked = self.quantities[quantity]
        images, labels = self.batch(asked["batch"], asked["size"])
        if asked.get("training"):
            self.train(images, labels)
        else:
            self.network.eval()
            with torch.inference_mode():
                self.call(images).numpy()

    def train(self, images, labels):
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.call(images), labels)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def cost(self, quantity):
        """BFLOPs as this package counts them: convolutions and classifier."""
        images, _labels = self.batch(1, self.quantities[quantity]["size"])
        return {"bflops": count(self.network, images) / 1e9}

    def batch(self, number, size):
        if (number, size) not in self.batches:
            images = torch.rand(number, 3, size, size)
            images = images.to(memory_format=self.layout)
            labels = torch.randint(0, 1000, (number,))
            self.batches[number, size] = images, labels
        return self.batches[number, size]


def make(name):
    import timm

    return timm.create_model(name, pretrained=False)


def count(network, images):
    """2 x multiply-adds of convolutions and classifier, for one image."""
    total = []

    def add(layer, _inputs, output):
        places = output.numel() // output.shape[1] // len(output)
        total.append(2 * layer.weight.numel() * places)

    hooks = [
        layer.register_forward_hook(add)
        for layer in network.modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    network.eval()
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    return sum(total)
