"""Attention: a map multiplied by weights computed from itself."""

import keras

from keras_csp._validation import check_positive
from keras_csp.layers.composite import Composite, as_layer, build, output_shape
from keras_csp.layers.units import (
    ConvNormAct,
    _serialized,
    activation_layer,
)


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


@keras.saving.register_keras_serializable(package="keras_csp")
class SpatialAttention(Composite):
    """y = f(x) * sigmoid(batch_norm(K * x)): YOLOv4's spatial attention (SAM).

    A weight for every position and channel, from a 1x1 convolution K: CBAM's
    spatial attention module without its poolings, Darknet's `[sam]`.

    Args:
        transform: f, a layer or list of layers that keeps the height and
            width; K has as many filters as f gives channels. `None` (default)
            is the identity, Darknet's `[sam]`.

    Shapes: `(batch, h, w, c)` to what f gives, `(batch, h, w, filters)`.
    Source: arXiv 2004.10934, Fig. 5; arXiv 1911.11929, Table 2.
    """

    layer_arguments = ("transform",)

    def __init__(self, transform=None, **kwargs):
        super().__init__(**kwargs)
        if transform is not None:
            transform = as_layer("transform", transform)
        self.transform = transform

    def build(self, input_shape):
        shape = input_shape
        if self.transform is not None:
            shape = build(self.transform, input_shape)
        self.weigh = ConvNormAct(
            shape[-1],
            activation="sigmoid",
            dtype=self.dtype_policy,
            name="weigh",
        )
        self.weigh.build(input_shape)

    def call(self, x):
        transformed = x if self.transform is None else self.transform(x)
        return transformed * self.weigh(x)

    def compute_output_shape(self, input_shape):
        if self.transform is None:
            return input_shape
        return output_shape(self.transform, input_shape)
