"""What is timed: networks, engines and sizes, as data."""

import dataclasses

from harness.networks import Network

# Most important first.
NETWORKS = (
    Network("CSPResNet-50", "CSPResNet50Timm", "cspresnet50"),
    Network("CSPDarkNet-53", "CSPDarkNet53Timm", "cspdarknet53"),
    Network("CSPResNeXt-50", "CSPResNeXt50Timm", "cspresnext50"),
    Network("ResNet-50", "ResNet50"),
    Network("DarkNet-53", "DarkNet53Timm", "darknet53"),
    Network("ResNeXt-50", "ResNeXt50"),
    Network("CSPPeleeNet", "CSPPeleeNet"),
    Network("PeleeNet", "PeleeNet"),
    Network("cs3darknet_l", "CS3DarkNetL", "cs3darknet_l"),
    Network("CSPDenseNet-201", "CSPDenseNet201"),
    Network("DenseNet-201", "DenseNet201", "densenet201"),
)

# Base and CSP network, by title. Where timm has a network, timm's form of it is
# timed, so that both can be compared.
PAIRS = (
    ("PeleeNet", "CSPPeleeNet"),
    ("ResNet-50", "CSPResNet-50"),
    ("ResNeXt-50", "CSPResNeXt-50"),
    ("DarkNet-53", "CSPDarkNet-53"),
    ("DenseNet-201", "CSPDenseNet-201"),
)


@dataclasses.dataclass(frozen=True)
class Engine:
    """Its name in the tables, Keras' backend in its processes.

    Attributes:
        ahead: whether it compiles without running what it compiles.
        timms: whether it runs timm's networks.
    """

    name: str
    backend: str
    ahead: bool = False
    timms: bool = False


# Most important first.
ENGINES = (
    Engine("keras_csp, JAX", "jax", ahead=True),
    Engine("timm, eager", "torch", timms=True),
    Engine("timm, compiled", "torch", timms=True),
    Engine("keras_csp, PyTorch compiled", "torch"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes and times.

    Attributes:
        networks: as `NETWORKS`.
        size: side of the images.
        batches: images of a step.
        precision: of inference, and of the convolutions in training.
        seconds: that a measurement takes, once it is compiled.
        matrix: side of the matrices whose product is timed.
    """

    networks: tuple = NETWORKS
    engines: tuple = ENGINES
    size: int = 224
    batches: tuple = (256, 64)
    precision: str = "bfloat16"
    seconds: float = 1.5
    matrix: int = 8192

    def of(self, engine):
        """The networks that an engine runs."""
        return [n for n in self.networks if n.timm or not engine.timms]

    def network(self, title):
        (found,) = [n for n in self.networks if n.title == title]
        return found

    def cells(self):
        """[(quantity, batch)] of each network and engine."""
        return [
            (quantity, batch)
            for batch in self.batches
            for quantity in ("training", "inference")
        ]


GPU = Plan()
# For a rehearsal on a CPU: what compiles in seconds. (timm's network is another
# one here.)
SMALLEST = Plan(
    networks=(Network("ResNet-10", "ResNet10", "resnet10t"),),
    size=32,
    batches=(2,),
    seconds=0.1,
    matrix=256,
)
