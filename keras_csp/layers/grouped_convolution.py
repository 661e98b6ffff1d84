"""Grouped convolution that trains on a CPU and exports as one operation.

Keras wraps every grouped convolution of its TensorFlow backend in a nested
XLA function. On a CPU that is hundreds of times slower to differentiate than
TensorFlow's own operation, and it is exported as a function call that ONNX
runtimes refuse. TensorFlow's own operation has two gaps, both without oneDNN
on CPUs: its gradient is missing, so it is supplied here, and what follows it
may be fused with it into a kernel that knows no groups, so that is prevented.
"""

import functools
import warnings

import keras


@keras.saving.register_keras_serializable(package="keras_csp")
class GroupedConv2D(keras.layers.Conv2D):
    """y_g = K_g * x_g for each of `groups` equal slices of the channels.

    The arguments, shapes and errors are those of `keras.layers.Conv2D`: the
    input is `(batch, height, width, channels)`, and `groups` must divide both
    the input channels and `filters`. Only the TensorFlow backend's way of
    computing it differs (see the module's first lines); JAX and PyTorch use
    Keras' operation. Source: ResNeXt, arXiv 1611.05431, section 3.
    """

    def __init__(self, filters, kernel_size, groups=1, **kwargs):
        super().__init__(filters, kernel_size, groups=groups, **kwargs)
        if keras.backend.backend() == "tensorflow" and not _accelerated():
            # XLA's CPU code for the gradient is the slow path avoided here.
            self.supports_jit = False

    def convolution_op(self, inputs, kernel):
        if not self._plain():
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        outputs = _tensorflow_grouped_conv2d(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=self.padding.upper(),
        )
        # Nothing is fused across this. It is always here, as a saved graph
        # may be run without the oneDNN that it was made with.
        return tf.ensure_shape(outputs, outputs.shape)

    def _plain(self):
        """Whether TensorFlow's own operation is used; Keras' knows the rest.

        Without oneDNN, its gradient knows no dilation.
        """
        return (
            keras.backend.backend() == "tensorflow"
            and self.groups > 1
            and self.data_format == "channels_last"
            and self.padding in ("same", "valid")
            and tuple(self.dilation_rate) == (1, 1)
        )


def _tensorflow_grouped_conv2d(x, kernel, **geometry):
    """`tf.nn.conv2d` with a gradient wherever TensorFlow lacks one."""
    import tensorflow as tf

    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    if _differentiable(x.dtype.name):
        return tf.nn.conv2d(x, kernel, **geometry)

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(upstream):
            return _gradient(x, kernel, upstream, geometry)

        return tf.nn.conv2d(x, kernel, **geometry), gradient

    return convolve(x, kernel)


def _gradient(x, kernel, upstream, geometry):
    """d/dx and d/dkernel, in float32, then cast back to the operands' type."""
    import tensorflow as tf

    operands = [tf.cast(t, tf.float32) for t in (x, kernel, upstream)]
    if _differentiable("float32"):
        d_x, d_kernel = _backpropagate(*operands, geometry)
    else:
        groups = x.shape[-1] // kernel.shape[-2]
        x_groups, upstream_groups, kernel_groups = (
            tf.split(operands[0], groups, axis=-1),
            tf.split(operands[2], groups, axis=-1),
            tf.split(operands[1], groups, axis=-1),
        )
        pairs = [
            _backpropagate(*group, geometry)
            for group in zip(x_groups, kernel_groups, upstream_groups)
        ]
        d_x, d_kernel = (tf.concat(parts, axis=-1) for parts in zip(*pairs))
    return tf.cast(d_x, x.dtype), tf.cast(d_kernel, kernel.dtype)


def _backpropagate(x, kernel, upstream, geometry):
    import tensorflow as tf

    options = {
        "strides": [1, *geometry["strides"], 1],
        "padding": geometry["padding"],
    }
    d_x = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, **options
    )
    d_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=tf.shape(kernel),
        out_backprop=upstream,
        **options,
    )
    return d_x, d_kernel


def _accelerated():
    import tensorflow as tf

    return any(
        d.device_type != "CPU" for d in tf.config.list_physical_devices()
    )


@functools.cache
def _differentiable(dtype):
    """Whether TensorFlow differentiates a grouped convolution of this dtype.

    Asked of the operation itself, once for each dtype: the answer depends on
    oneDNN (an environment variable read at TensorFlow's import, with defaults
    that differ between processors) and on the dtype.
    """
    import tensorflow as tf

    if _accelerated():
        return True
    with tf.init_scope():
        if not tf.executing_eagerly():
            return False
        x = tf.ones((1, 3, 3, 4), dtype)
        kernel = tf.ones((3, 3, 2, 4), dtype)
        geometry = {"strides": [1, 1], "padding": "SAME"}
        try:
            _backpropagate(x, kernel, x, geometry)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            if dtype == "float32":
                warnings.warn(
                    "TensorFlow runs without oneDNN, so grouped convolutions "
                    "train group by group on this CPU: correct but slow. "
                    "Import keras_csp before keras and tensorflow, or set "
                    "TF_ENABLE_ONEDNN_OPTS=1 before starting Python.",
                    stacklevel=2,
                )
            return False
    return True
