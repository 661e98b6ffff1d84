"""Where half precision is too coarse."""

import keras


def float32_if_half():
    """The `dtype` of layers of scores, softmaxes, exponentials, coordinates.

    "float32" under a policy that computes in half precision; else None, the
    policy's own.
    """
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    return "float32" if half else None
