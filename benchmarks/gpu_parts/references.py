"""Two layers and their gradients in float64, by numpy alone."""

import numpy as np


def grouped_convolution(x, kernel, upstream, groups, stride, padding):
    """y, d/dx and d/dkernel of a grouped convolution.

    Args:
        x: `(batch, height, width, channels)`.
        kernel: `(size, size, channels / groups, filters)`.
        upstream: the gradient of y.
        groups, stride: numbers.
        padding: zeros on each side of x.
    """
    size, _, inner, filters = kernel.shape
    sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(x, sides)
    # One group's filters see one group's channels.
    batch, rows, columns, _ = upstream.shape
    grouped = kernel.reshape(size, size, inner, groups, filters // groups)
    up = upstream.reshape(batch, rows, columns, groups, filters // groups)
    y = np.zeros((batch, rows, columns, groups, filters // groups))
    d_padded, d_kernel = np.zeros(padded.shape), np.zeros(grouped.shape)
    for i in range(size):
        for j in range(size):
            window = (
                slice(None),
                slice(i, i + stride * (rows - 1) + 1, stride),
                slice(j, j + stride * (columns - 1) + 1, stride),
            )
            seen = padded[window].reshape(batch, rows, columns, groups, inner)
            y += np.einsum("bhwgi,igo->bhwgo", seen, grouped[i, j])
            d_kernel[i, j] = np.einsum("bhwgi,bhwgo->igo", seen, up)
            d_seen = np.einsum("bhwgo,igo->bhwgi", up, grouped[i, j])
            d_padded[window] += d_seen.reshape(batch, rows, columns, -1)
    inside = slice(padding, -padding or None)
    return (
        y.reshape(upstream.shape),
        d_padded[:, inside, inside],
        d_kernel.reshape(kernel.shape),
    )


def batch_normalization(x, gamma, beta, upstream, epsilon):
    """y, d/dx, d/dgamma and d/dbeta of a training step, by channel."""
    axes = (0, 1, 2)
    deviation = np.sqrt(x.var(axes) + epsilon)
    normal = (x - x.mean(axes)) / deviation
    d_gamma = (upstream * normal).sum(axes)
    d_beta = upstream.sum(axes)
    count = x.size / x.shape[-1]
    d_x = gamma / deviation * (upstream - (d_beta + normal * d_gamma) / count)
    return gamma * normal + beta, d_x, d_gamma, d_beta
