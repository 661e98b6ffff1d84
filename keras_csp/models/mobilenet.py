"""MobileNetV2 and CSPMobileNetV2: inverted residuals, ReLU.

A block is 1x1 to a wide map, a depthwise 3x3, and a linear 1x1 back.
"""

from keras_csp.models.builder import factory
from keras_csp.models.spec import (
    NetworkSpec,
    Stage,
    conv,
    csp,
    residual,
    sequential,
)


def _depthwise(channels, strides=1, filters=None):
    return conv(
        filters or channels, 3, strides, groups=channels, activation="relu"
    )


def _inverted(wide, out, strides=1, multiplier=1):
    return (
        conv(wide, activation="relu"),
        _depthwise(wide, strides, multiplier * wide),
        conv(out, activation=None),
    )


def _residual(wide, out, multiplier=1):
    layers = _inverted(wide, out, multiplier=multiplier)
    return residual(layers, activation=None)


MOBILENET_V2 = NetworkSpec(
    name="MobileNetV2",
    provenance="Exact: the authors' cfg/mobilenet-v2.cfg.",
    cfg="mobilenet-v2",
    stem=(conv(32, 3, 2, activation="relu"), sequential(_inverted(32, 16))),
    stages=(
        Stage(blocks=(sequential(_inverted(96, 24, 2)), _residual(144, 24))),
        Stage(
            blocks=(
                sequential(_inverted(144, 32, 2)),
                *2 * (_residual(192, 32),),
                # The cfg halves the map after, not before, the 64 channels.
                sequential(_inverted(192, 64)),
                *3 * (_residual(384, 64),),
            )
        ),
        Stage(
            blocks=(
                sequential(_inverted(384, 96, 2)),
                *2 * (_residual(576, 96),),
            )
        ),
        Stage(
            blocks=(
                sequential(_inverted(576, 160, 2)),
                *2 * (_residual(960, 160),),
                sequential(_inverted(960, 320)),
            )
        ),
    ),
    head=(conv(1280, activation="relu"),),
)


def _csp_stage(channels, blocks, out, strides=2):
    """x0' is one depthwise convolution, x0'' one of twice the channels."""
    return csp(
        blocks=blocks,
        split=(
            _depthwise(channels, strides),
            _depthwise(channels, strides, 2 * channels),
        ),
        fusion="first",
        transition=conv(out, activation="relu"),
    )


CSP_MOBILENET_V2 = NetworkSpec(
    name="CSPMobileNetV2",
    provenance="Exact: the authors' cfg/csmobilenet-v2.cfg.",
    cfg="csmobilenet-v2",
    stem=(conv(32, 3, 2, activation="relu"),),
    stages=(
        Stage(
            blocks=(
                csp(
                    blocks=(_depthwise(32),),
                    split=(
                        conv(16, 3, groups=16, activation="relu"),
                        conv(32, activation="relu"),
                    ),
                    partial_transition=conv(16, activation=None),
                    transition=conv(48, activation="relu"),
                ),
            )
        ),
        Stage(
            blocks=(
                _csp_stage(
                    48,
                    (conv(24, activation=None), _residual(72, 24, 2)),
                    72,
                ),
            )
        ),
        Stage(
            blocks=(
                _csp_stage(
                    72,
                    (
                        conv(32, activation=None),
                        *2 * (_residual(96, 32, 2),),
                        sequential(_inverted(96, 64, multiplier=2)),
                        *3 * (_residual(192, 64, 2),),
                    ),
                    192,
                ),
            )
        ),
        Stage(
            blocks=(
                _csp_stage(
                    192,
                    (
                        conv(96, activation=None),
                        *2 * (_residual(288, 96, 2),),
                    ),
                    288,
                ),
            )
        ),
        Stage(
            blocks=(
                _csp_stage(
                    288,
                    (
                        conv(160, activation=None),
                        *2 * (_residual(480, 160, 2),),
                        sequential(_inverted(480, 320, multiplier=2)),
                    ),
                    640,
                ),
            )
        ),
    ),
)

MobileNetV2 = factory(MOBILENET_V2)
CSPMobileNetV2 = factory(CSP_MOBILENET_V2)
