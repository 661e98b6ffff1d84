"""Weights of channels-first frameworks in Keras' layout, and back.

PyTorch and Darknet keep a kernel as (output, input per group, height, width).
"""

import keras
import numpy as np


def kernel_to_keras(layer, kernel):
    """A kernel of PyTorch's layout in the layout of `layer.kernel`; a view.

    Args:
        layer: a built Conv2D (grouped or not), DepthwiseConv2D or Dense.
        kernel: `(output, input per group, height, width)`; for Dense
            `(output, input)`, or the same with two sides of 1.

    Raises:
        ValueError: another shape than the layer's; both are quoted.
    """
    expected = torch_shape(layer)
    if isinstance(layer, keras.layers.Dense) and kernel.shape[2:] == (1, 1):
        kernel = kernel[..., 0, 0]
    if kernel.shape != expected:
        raise ValueError(
            f"Layer {layer.path!r} has a kernel of shape {expected} "
            f"(output, input, ...). Received: {kernel.shape}"
        )
    if isinstance(layer, keras.layers.Dense):
        return kernel.T
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        height, width, channels, multiplier = layer.kernel.shape
        kernel = kernel.reshape(channels, multiplier, height, width)
        return kernel.transpose(2, 3, 0, 1)
    return kernel.transpose(2, 3, 1, 0)


def kernel_from_keras(layer):
    """The kernel of `layer` in PyTorch's layout, float32, contiguous."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, keras.layers.Dense):
        kernel = kernel.T
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel.transpose(2, 3, 0, 1).reshape(torch_shape(layer))
    else:
        kernel = kernel.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(kernel, "float32")


def torch_shape(layer):
    """The shape that the kernel of `layer` has in PyTorch."""
    shape = tuple(layer.kernel.shape)
    if isinstance(layer, keras.layers.Dense):
        return shape[::-1]
    height, width, channels, filters = shape
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (channels * filters, 1, height, width)
    return (filters, channels, height, width)


def assign_all(pairs):
    """Assigns every (variable, array), or, if one does not fit, none.

    Raises:
        ValueError: a shape that is not the variable's; the path is named.
    """
    pairs = list(pairs)
    for variable, array in pairs:
        if tuple(variable.shape) != tuple(array.shape):
            raise ValueError(
                f"{variable.path!r} has shape {tuple(variable.shape)}. "
                f"Received: {tuple(array.shape)}"
            )
    for variable, array in pairs:
        variable.assign(np.asarray(array, "float32"))
