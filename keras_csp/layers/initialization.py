"""The first values of kernels, and how to do without them."""

import contextlib
import contextvars

import keras

_replaced = contextvars.ContextVar("keras_csp_kernels_replaced", default=False)


@keras.saving.register_keras_serializable(package="keras_csp")
class KernelInitializer(keras.initializers.HeNormal):
    """He's normal initialisation, arXiv 1502.01852; zeros where replaced."""

    def __call__(self, shape, dtype=None):
        if _replaced.get():
            return keras.ops.zeros(shape, dtype=dtype)
        return super().__call__(shape, dtype=dtype)


@contextlib.contextmanager
def kernels_replaced(replaced=True):
    """Layers built inside get all their kernels from a file afterwards.

    Drawing 28 million random numbers takes longer than reading them.
    """
    token = _replaced.set(replaced)
    try:
        yield
    finally:
        _replaced.reset(token)
