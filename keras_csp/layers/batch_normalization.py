"""Batch normalisation that trains by TensorFlow's fused operation.

Keras' own is made of means, products and sums, each of which goes through the
whole map. `FusedBatchNormV3` is one operation and its gradient another.

Inference is left to Keras, one product and one sum. The operation would be no
better: fused with the convolution before it, TensorFlow 2.21 computes a batch
of one image ten times slower than that; kept apart from it, it is no faster.
"""

import keras
from keras import ops

from keras_csp._keras_internals import compiled_by_xla, deterministic


# Named as Keras' class: in weights files a group is named by its class.
@keras.saving.register_keras_serializable(package="keras_csp")
class BatchNormalization(keras.layers.BatchNormalization):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, by channel.

    In training, mean and variance are those of the n = batch * height * width
    values that a channel has, sum(x) / n and sum((x - mean)^2) / n, and each
    moving statistic m becomes momentum * m + (1 - momentum) * (the batch's).
    In inference, and where `trainable` is False, the moving ones are used.

    The arguments, defaults, shapes, errors, weights and results are those of
    `keras.layers.BatchNormalization`, and the weights of one load into the
    other. Only training on the TensorFlow backend computes otherwise (see the
    module's first lines), and only where its operation applies: `(batch,
    height, width, channels)` of single or half precision, normalised by
    channel, with `scale` and `center`, without a mask, `renorm` or
    `synchronized`. Everything else is Keras'. Source: arXiv 1502.03167,
    algorithms 1 and 2.
    """

    def call(self, inputs, training=None, mask=None):
        moves = training and self.trainable
        if not moves or mask is not None or not self._fused(inputs):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = self._normalize(inputs)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, _biased(variance, inputs))
        return outputs

    def _fused(self, inputs):
        """Whether TensorFlow's operation is used; Keras' knows the rest."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and not self.renorm
            and not self.synchronized
            and dtype == self.compute_dtype
            and dtype in ("float32", "float16", "bfloat16")
            and _exact()
        )

    def _normalize(self, x):
        """[y, mean, variance], by the batch's statistics."""
        import tensorflow as tf

        scale, offset = (
            ops.cast(vector, "float32") for vector in (self.gamma, self.beta)
        )
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )[:3]

    def _move(self, moving, batch):
        moving.assign(
            ops.cast(moving, batch.dtype) * self.momentum
            + batch * (1.0 - self.momentum)
        )


def _biased(variance, x):
    """sum((x - mean)^2) / n; TensorFlow's operation divides by n - 1.

    Keras divides by n on every backend, for the moving variance as for y;
    PyTorch and Darknet keep the other. Of n = 1 an operation may have made
    0 / 0, hence "no nan".
    """
    import tensorflow as tf

    n = tf.size(x, out_type=tf.int64) / tf.size(variance, out_type=tf.int64)
    share = tf.cast((n - 1) / n, variance.dtype)
    return tf.math.multiply_no_nan(variance, share)


def _exact():
    """Whether TensorFlow will compute the operation as it is asked to.

    XLA takes sum(x^2) / n - mean^2 for the variance, which is negative for
    some maps whose mean is large. A TensorFlow that is told to be
    deterministic has no gradient of it by given statistics on GPUs.
    """
    return not compiled_by_xla() and not deterministic()
