"""Units: one convolution with its normalisation and activation, in any order.

All are channels-last: `(batch, height, width, channels)`.
"""

import keras
import numpy as np

from keras_csp._validation import check_choice, check_positive, is_integer
from keras_csp.layers.batch_normalization import BatchNormalization
from keras_csp.layers.composite import SequentialLayer, with_channels
from keras_csp.layers.grouped_convolution import GroupedConv2D
from keras_csp.layers.initialization import KernelInitializer

# Slopes below zero: Darknet's `leaky` and PyTorch's nn.LeakyReLU. The slope of
# keras.activations.leaky_relu is neither, 0.2.
LEAKY_SLOPES = {"leaky": 0.1, "torch_leaky": 0.01}


def activation_layer(activation, name, dtype):
    """`activation` as a layer: the two leaky ones here, the rest Keras'."""
    check_activation(activation)
    if _is_leaky(activation):
        slope = LEAKY_SLOPES[activation]
        return keras.layers.LeakyReLU(slope, name=name, dtype=dtype)
    return keras.layers.Activation(activation, name=name, dtype=dtype)


def check_activation(activation):
    """Raises ValueError unless `activation_layer` takes it."""
    if _is_leaky(activation):
        return
    try:
        keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(
            '`activation` must be "leaky" (slope 0.1), "torch_leaky" (0.01), '
            "None, or what keras.activations.get accepts. Received: "
            f"activation={activation!r}"
        ) from error


def _is_leaky(activation):
    return isinstance(activation, str) and activation in LEAKY_SLOPES


def batch_normalization(name, dtype):
    """Batch normalisation with the constants of Darknet and of PyTorch."""
    return BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=name, dtype=dtype
    )


@keras.saving.register_keras_serializable(package="keras_csp")
class NormAct(SequentialLayer):
    """y = activation(batch_norm(x)), the shape of x.

    Args:
        activation: "leaky" (slope 0.1, the default), "torch_leaky" (0.01),
            `None`, or anything `keras.activations.get` accepts.
    """

    def __init__(self, activation="leaky", **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.layers = [
            batch_normalization("norm", self.dtype_policy),
            activation_layer(activation, "act", self.dtype_policy),
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "activation": _serialized(self.activation),
        }


@keras.saving.register_keras_serializable(package="keras_csp")
class ConvNormAct(SequentialLayer):
    """y = activation(batch_norm(K * x)), or K * activation(batch_norm(x)).

    Args:
        filters: output channels.
        kernel_size: side k of the square kernel. Default 1.
        strides: s, 1 (default) or more; or a pair, vertical and horizontal.
        groups: groups of the convolution; it must divide the input channels
            and `filters`. As many groups as input channels make it depthwise.
        activation: "leaky" (Darknet's, slope 0.1, the default), "torch_leaky"
            (PyTorch's, slope 0.01), `None` for linear, or anything
            `keras.activations.get` accepts.
        preactivation: normalise and activate before the convolution
            (DenseNet's order) instead of after it. Default False.
        padding: p, zeros on each of the four sides, as in Darknet and
            PyTorch. Default `kernel_size // 2`, for which a map of side n
            gives one of side ceil(n / s); a kernel of even size has no such
            default.
        normalize: False leaves out the batch normalisation; the convolution
            then has a bias. Default True.

    Shapes: `(batch, h, w, c)` to `(batch, h', w', filters)` with
    h' = (h + 2p - k) // s + 1.
    Raises ValueError for arguments out of range, and at build for channels
    that `groups` does not divide.
    """

    def __init__(
        self,
        filters,
        kernel_size=1,
        strides=1,
        groups=1,
        activation="leaky",
        preactivation=False,
        padding=None,
        normalize=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = check_positive("filters", filters)
        self.kernel_size = check_positive("kernel_size", kernel_size)
        self.strides = _check_strides(strides)
        self.groups = check_positive("groups", groups)
        self.activation = activation
        self.preactivation = preactivation
        self.padding = _check_padding(padding, self.kernel_size)
        self.normalize = normalize
        if filters % groups:
            raise ValueError(
                "`groups` must divide `filters`. Received: "
                f"groups={groups}, filters={filters}"
            )
        check_activation(activation)

    def build(self, input_shape):
        convolution = self._convolution(input_shape[-1])
        norm_act = [activation_layer(self.activation, "act", self.dtype_policy)]
        if self.normalize:
            norm_act.insert(0, batch_normalization("norm", self.dtype_policy))
        if self.preactivation:
            self.layers = [*norm_act, *convolution]
        else:
            self.layers = [*convolution, *norm_act]
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        sides = (
            None
            if side is None
            else (side + 2 * self.padding - self.kernel_size) // stride + 1
            for side, stride in zip(sides, _pair(self.strides))
        )
        return (batch, *sides, self.filters)

    def _convolution(self, channels):
        """[padding, convolution]; "same" would pad otherwise at stride 2."""
        if channels % self.groups:
            raise ValueError(
                f"`groups` of layer {self.name!r} must divide the input "
                f"channels. Received: groups={self.groups}, {channels} channels"
            )
        same = self.strides == 1 and 2 * self.padding + 1 == self.kernel_size
        options = {
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": "same" if same else "valid",
            "use_bias": not self.normalize,
            "dtype": self.dtype_policy,
            "name": "conv",
        }
        if self.groups > 1 and self.groups == channels:
            convolution = keras.layers.DepthwiseConv2D(
                depth_multiplier=self.filters // channels, **options
            )
        elif self.groups > 1:
            convolution = GroupedConv2D(
                self.filters,
                groups=self.groups,
                kernel_initializer=KernelInitializer(),
                **options,
            )
        else:
            convolution = keras.layers.Conv2D(
                self.filters, kernel_initializer=KernelInitializer(), **options
            )
        if same or self.padding == 0:
            return [convolution]
        padding = keras.layers.ZeroPadding2D(
            self.padding, dtype=self.dtype_policy, name="pad"
        )
        return [padding, convolution]

    def save_own_variables(self, store):
        """Notes the activation: other networks differ in nothing else."""
        note = repr(_serialized(self.activation)).encode()
        store["activation"] = np.frombuffer(note, "uint8")

    def load_own_variables(self, store):
        if "activation" not in store.keys():  # noqa: SIM118
            return
        theirs = np.asarray(store["activation"]).tobytes().decode()
        ours = repr(_serialized(self.activation))
        if theirs != ours:
            raise ValueError(
                f"These weights were trained with activation {theirs}; layer "
                f"{self.path or self.name!r} has {ours}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
            "activation": _serialized(self.activation),
            "preactivation": self.preactivation,
            "padding": self.padding,
            "normalize": self.normalize,
        }


def _pair(strides):
    return (strides, strides) if isinstance(strides, int) else strides


def _check_strides(strides):
    if not isinstance(strides, (list, tuple)):
        return check_positive("strides", strides)
    if len(strides) != 2:
        raise ValueError(
            "`strides` must be one positive integer or two, vertical and "
            f"horizontal. Received: strides={strides!r}"
        )
    return tuple(check_positive("strides", stride) for stride in strides)


def _check_padding(padding, kernel_size):
    if padding is None and kernel_size % 2:
        return kernel_size // 2
    if padding is None:
        raise ValueError(
            "`kernel_size` must be odd, for the padding to be symmetric, or "
            f"`padding` be given. Received: kernel_size={kernel_size}"
        )
    if not is_integer(padding) or padding < 0:
        raise ValueError(
            "`padding` must be None or an integer of at least 0. Received: "
            f"padding={padding!r}"
        )
    return int(padding)


@keras.saving.register_keras_serializable(package="keras_csp")
class Transition(SequentialLayer):
    """The paper's transition layer: a 1x1 convolution, optionally a pooling.

    Section 3.2: a transition mixes channels with a "bottleneck" (1x1)
    convolution and may pool. Left alone it keeps the number of channels,
    which is what the two transitions T and M of eq. 4 do by default.

    Args:
        filters: output channels; `None` (default) keeps the input's.
        pool: `None` (default), "max" or "average": a 2x2 pooling, stride 2.
        pool_first: pool before the convolution, which then costs a quarter.
        activation, preactivation: as in `ConvNormAct`.

    Shapes: `(batch, h, w, c)` to `(batch, h, w, filters)`, the sides halved
    (rounded up) with a `pool`.
    """

    def __init__(
        self,
        filters=None,
        pool=None,
        pool_first=False,
        activation="leaky",
        preactivation=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if filters is not None:
            filters = check_positive("filters", filters)
        self.filters = filters
        self.pool = check_choice("pool", pool, (None, "max", "average"))
        self.pool_first = pool_first
        self.activation = activation
        self.preactivation = preactivation
        check_activation(activation)

    def build(self, input_shape):
        self.layers = [
            ConvNormAct(
                self.filters or input_shape[-1],
                activation=self.activation,
                preactivation=self.preactivation,
                dtype=self.dtype_policy,
                name="unit",
            )
        ]
        if self.pool:
            pooling = pooling_layer(self.pool, "pool", self.dtype_policy)
            self.layers.insert(0 if self.pool_first else 1, pooling)
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        if self.pool:
            pooling = pooling_layer(self.pool, "pool", None)
            input_shape = pooling.compute_output_shape(input_shape)
        return with_channels(input_shape, self.filters or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "pool": self.pool,
            "pool_first": self.pool_first,
            "activation": _serialized(self.activation),
            "preactivation": self.preactivation,
        }


def pooling_layer(pool, name, dtype):
    """2x2 at stride 2; "same" halves a map of odd side rounding up."""
    layer = {
        "max": keras.layers.MaxPooling2D,
        "average": keras.layers.AveragePooling2D,
    }[pool]
    return layer(2, padding="same", name=name, dtype=dtype)


def _serialized(activation):
    if activation is None or isinstance(activation, str):
        return activation
    return keras.saving.serialize_keras_object(activation)
