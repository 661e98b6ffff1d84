"""The networks that are compared, and the pairs of base and CSP network."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Network:
    """One heading of a table.

    Attributes:
        title: its name.
        factory: ours; where timm has the network, the one that computes what
            timm's does.
        timm: timm's name of the same network, which keras-hub uses too.
        paper: the paper's own variant, where that is another one.
        grouped: whether it has grouped convolutions, for each of which XLA
            compiles a training step for a minute.
        applications, others: similar networks of keras.applications and of
            timm, listed beside it.
    """

    title: str
    factory: str
    timm: str | None = None
    paper: str | None = None
    grouped: bool = False
    applications: tuple = ()
    others: tuple = ()


NETWORKS = (
    Network("CSPResNet-50", "CSPResNet50Timm", "cspresnet50", "CSPResNet50"),
    Network(
        "CSPResNeXt-50",
        "CSPResNeXt50Timm",
        "cspresnext50",
        "CSPResNeXt50",
        grouped=True,
    ),
    Network(
        "CSPDarkNet-53", "CSPDarkNet53Timm", "cspdarknet53", "CSPDarkNet53"
    ),
    Network("CSPPeleeNet", "CSPPeleeNet"),
    Network(
        "CSPDenseNet-201",
        "CSPDenseNet201",
        applications=("DenseNet201", "ResNet50"),
        others=("densenet201", "resnet50"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A base network and its CSP network.

    Attributes:
        base, csp: factories.
        saving: BFLOPs that CSP saves, percent, as the paper prints it.
        fixed_size: whether an exported file only takes images of the size
            that it was exported for: elastic blocks resize to the shapes that
            were traced.
    """

    base: str
    csp: str
    saving: int
    fixed_size: bool = False

    @property
    def title(self):
        return f"{self.csp} / {self.base}"


PAIRS = (
    Pair("PeleeNet", "CSPPeleeNet", 13),
    Pair("ResNet10", "CSPResNet10", 16),
    Pair("ResNeXt50", "CSPResNeXt50", 22),
    Pair("DenseNet201Elastic", "CSPDenseNet201Elastic", 19, fixed_size=True),
)
