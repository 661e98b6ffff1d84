"""Direct numpy definitions, written from the papers and not from the code."""

import numpy as np

EPSILON = 1e-5  # of batch normalisation, in Darknet and in PyTorch
SLOPE = 0.1  # of Darknet's leaky activation


def convolve(x, kernel, strides=1, groups=1, pad=None):
    """Cross-correlation, zeros around: (n, h, w, c) by (k, k, c/g, f)."""
    size = kernel.shape[0]
    pad = size // 2 if pad is None else pad
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    height = (x.shape[1] - size) // strides + 1
    width = (x.shape[2] - size) // strides + 1
    filters, inputs = kernel.shape[-1] // groups, x.shape[-1] // groups
    y = np.zeros((x.shape[0], height, width, kernel.shape[-1]))
    for group in range(groups):
        into = slice(group * filters, (group + 1) * filters)
        piece = x[..., group * inputs : (group + 1) * inputs]
        for i in range(height):
            for j in range(width):
                top, left = i * strides, j * strides
                patch = piece[:, top : top + size, left : left + size]
                y[:, i, j, into] = np.tensordot(
                    patch, kernel[..., into], axes=3
                )
    return y


def normalize(x, gamma, beta, mean, variance):
    return gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta


def leaky(x):
    return np.where(x > 0, x, SLOPE * x)


def conv_norm_act(x, weights, strides=1, groups=1, activation=leaky):
    """`weights`: kernel, gamma, beta, mean, variance, as Keras orders them."""
    kernel, *statistics = weights
    y = normalize(convolve(x, kernel, strides, groups), *statistics)
    return activation(y) if activation else y


def max_pool(x, size=2):
    """2x2, stride 2, an odd side rounded up."""
    return _pool(x, size, np.max)


def average_pool(x, size=2):
    return _pool(x, size, np.mean)


def _pool(x, size, reduce):
    height, width = (-(-side // size) for side in x.shape[1:3])
    y = np.empty((x.shape[0], height, width, x.shape[-1]))
    for i in range(height):
        for j in range(width):
            patch = x[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            y[:, i, j] = reduce(patch, axis=(1, 2))
    return y


def double(x):
    """Nearest-neighbour up-sampling by two."""
    return x.repeat(2, axis=1).repeat(2, axis=2)
