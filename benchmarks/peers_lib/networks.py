"""Which networks are compared with which, as data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Network:
    """One heading of the table.

    Attributes:
        title: its name.
        factory: ours; the one that computes what timm's does, if timm has it.
        paper: the paper's own variant, where that is another.
        timm: timm's name of the same network, by which keras-hub knows it.
        grouped: whether it has grouped convolutions, for each of whose
            training steps XLA takes a minute.
        applications, others: of keras.applications and timm, networks that
            are not the same, listed beside it.
    """

    title: str
    factory: str
    paper: str | None = None
    timm: str | None = None
    grouped: bool = False
    applications: tuple = ()
    others: tuple = ()


NETWORKS = (
    Network("CSPResNet-50", "CSPResNet50Timm", "CSPResNet50", "cspresnet50"),
    Network(
        "CSPResNeXt-50",
        "CSPResNeXt50Timm",
        "CSPResNeXt50",
        "cspresnext50",
        grouped=True,
    ),
    Network(
        "CSPDarkNet-53", "CSPDarkNet53Timm", "CSPDarkNet53", "cspdarknet53"
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
        fixed: whether an exported file takes images of its size alone:
            elastic blocks resize to the shapes that they were traced with.
    """

    base: str
    csp: str
    saving: int
    fixed: bool = False


PAIRS = (
    Pair("PeleeNet", "CSPPeleeNet", 13),
    Pair("ResNet10", "CSPResNet10", 16),
    Pair("ResNeXt50", "CSPResNeXt50", 22),
    Pair("DenseNet201Elastic", "CSPDenseNet201Elastic", 19, fixed=True),
)
