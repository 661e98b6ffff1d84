"""Blocks and CSP stages that several families of networks have."""

from keras_csp.models.spec import conv, csp, residual


def bottleneck(
    inner, outer, strides=1, groups=1, activation="leaky", shortcut="partial"
):
    """x + 1x1, 3x3, linear 1x1, then the activation: ResNet's, ResNeXt's."""
    layers = (
        conv(inner, activation=activation),
        conv(inner, 3, strides, groups=groups, activation=activation),
        conv(outer, activation=None),
    )
    return residual(layers, activation=activation, shortcut=shortcut)


def dark_block(inner, outer, activation="leaky"):
    """x + 1x1, 3x3: Darknet-53's, without an activation after the sum."""
    layers = (
        conv(inner, activation=activation),
        conv(outer, 3, activation=activation),
    )
    return residual(layers, activation=None)


def csp_stage(blocks, width, out, split=None, split_activation="leaky"):
    """The stage of the authors' cfg files.

    Two 1x1 convolutions split its input into x0' and x0'', both `width` wide
    unless `split` gives their widths; T gives `width` channels, M `out`.
    """
    shortcut, main = split or (width, width)
    return csp(
        blocks=blocks,
        split=(
            conv(shortcut, activation=split_activation),
            conv(main, activation=split_activation),
        ),
        partial_transition=conv(width),
        transition=conv(out),
    )
