"""Where half precision is too coarse."""

import keras


def float32_if_half():
    """The `dtype` of a layer that must not compute in half precision.

    Scores of many classes, and exponentials of them, need float32.

    Returns:
        "float32" under a policy that computes in float16 or bfloat16, None
        (Keras' default: the policy itself) under any other.
    """
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    return "float32" if half else None
