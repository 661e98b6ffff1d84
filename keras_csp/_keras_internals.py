"""Names of Keras and TensorFlow that are not public, each with its reason."""


def producer(tensor):
    """The operation that gave a symbolic tensor.

    Keras has no public way from an output of a model to its layer.
    """
    return tensor._keras_history.operation
