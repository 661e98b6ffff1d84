"""Attention: a map multiplied by weights computed from itself."""

import keras

from keras_csp.layers.composite import check_positive
from keras_csp.layers.units import _serialized, activation_layer


@keras.saving.register_keras_serializable(package="keras_csp")
class SqueezeExcitation(keras.layers.Layer):
    """y = x * sigmoid(W2 activation(W1 mean(x) + b1) + b2), channel by channel.

    Args:
        filters: outputs of W1, fewer than the channels as a rule.
        activation: between W1 and W2, as in `ConvNormAct`. Default "relu".

    Shapes: the mean is over height and width, and the output has the shape
    of x. Source: arXiv 1709.01507, section 3.
    """

    def __init__(self, filters, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.filters = check_positive("filters", filters)
        self.activation = activation
        self._act = activation_layer(activation, "act", self.dtype_policy)
        self._mean = keras.layers.GlobalAveragePooling2D(
            keepdims=True, dtype=self.dtype_policy, name="mean"
        )

    def build(self, input_shape):
        batch, _, _, channels = input_shape
        self.reduce = self._conv(self.filters, "reduce")
        self.reduce.build((batch, 1, 1, channels))
        self.expand = self._conv(channels, "expand", "sigmoid")
        self.expand.build((batch, 1, 1, self.filters))

    def _conv(self, filters, name, activation=None):
        return keras.layers.Conv2D(
            filters,
            1,
            activation=activation,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, x):
        return x * self.expand(self._act(self.reduce(self._mean(x))))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "activation": _serialized(self.activation),
        }
