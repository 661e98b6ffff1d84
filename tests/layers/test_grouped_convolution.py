import keras
import numpy as np
import pytest
import reference
from support import run_python

from keras_csp.layers import GroupedConv2D
from keras_csp.layers import grouped_convolution as module

# Prints the largest differences of output and gradients between a grouped
# convolution and the dense one with a block-diagonal kernel.
GRADIENTS = """
import keras_csp, keras, numpy as np, tensorflow as tf
from keras_csp.layers import GroupedConv2D
rng = np.random.default_rng(0)
x = tf.constant(rng.normal(size=(2, 9, 9, 8)), "float32")
layer = GroupedConv2D(16, 3, groups=4, strides={strides}, padding="same",
                      use_bias=False, dtype="{dtype}")
layer.build(x.shape)
k = layer.kernel.numpy()
dense = np.zeros((3, 3, 8, 16), "float32")
for g in range(4):
    dense[:, :, 2*g:2*g+2, 4*g:4*g+4] = k[..., 4*g:4*g+4]
dense = tf.constant(dense)

@tf.function
def run(x, kernel, grouped):
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        if grouped:
            y = tf.cast(layer(x), "float32")
            kernel = layer.kernel.value
        else:
            y = tf.nn.conv2d(x, kernel, {strides}, "SAME")
        loss = tf.reduce_sum(y * y)
    return y, tape.gradient(loss, [x, kernel])

y, (dx, dk) = run(x, dense, True)
y2, (dx2, dk2) = run(x, dense, False)
dk2 = np.concatenate(
    [dk2[:, :, 2*g:2*g+2, 4*g:4*g+4] for g in range(4)], -1)
# Bias and activation, which TensorFlow fuses with other convolutions.
biased = GroupedConv2D(16, 3, groups=4, strides={strides}, padding="same",
                       bias_initializer="ones", activation="relu",
                       dtype="{dtype}")
biased.build(x.shape)
biased.kernel.assign(k)
b = tf.cast(tf.function(biased)(x), "float32")
b2 = tf.nn.relu(tf.nn.conv2d(x, dense, {strides}, "SAME") + 1)
for a, b in ((y, y2), (dx, dx2), (dk, dk2), (b, b2)):
    print(float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()))
print(module_differentiable := keras_csp.layers.grouped_convolution
      ._differentiable("float32"))
"""


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's own gap"
)
@pytest.mark.parametrize(
    "onednn", ["1", pytest.param("0", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("strides", "dtype", "tolerance"),
    [
        (1, "float32", 1e-5),
        pytest.param(2, "mixed_float16", 1e-2, marks=pytest.mark.slow),
    ],
)
def test_gradient_with_and_without_onednn(onednn, strides, dtype, tolerance):
    answer = run_python(
        GRADIENTS.format(strides=strides, dtype=dtype),
        TF_ENABLE_ONEDNN_OPTS=onednn,
    )
    *differences, _ = answer.split()
    assert max(map(float, differences)) < tolerance


def test_output_equals_numpy(rng):
    x = rng.normal(size=(2, 6, 6, 8))
    layer = GroupedConv2D(4, 3, groups=2, padding="same", use_bias=False)
    expected = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel.numpy(), float)
    np.testing.assert_allclose(
        expected, reference.convolve(x, kernel, groups=2), atol=1e-5
    )


@pytest.mark.parametrize(
    "options", [{"use_bias": True}, {"dilation_rate": 2}, {"strides": 2}]
)
def test_every_option_of_conv2d_still_works(rng, options):
    """What the plain operation lacks is left to Keras."""
    x = rng.normal(size=(2, 8, 8, 4)).astype("float32")
    layer = GroupedConv2D(4, 3, groups=2, padding="same", **options)
    stock = keras.layers.Conv2D(4, 3, groups=2, padding="same", **options)
    y = keras.Sequential([layer]).predict(x, verbose=0)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(y, np.asarray(stock(x)), atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's operation"
)
def test_plain_operation_in_the_graph():
    """One Conv2D and no nested XLA function, which is 700 times slower."""
    import tensorflow as tf

    layer = GroupedConv2D(8, 3, groups=4, use_bias=False)
    layer.build((None, 8, 8, 8))
    graph = (
        tf.function(layer)
        .get_concrete_function(tf.TensorSpec((2, 8, 8, 8)))
        .graph.as_graph_def()
    )
    kinds = [node.op for node in graph.node]
    kinds += [n.op for f in graph.library.function for n in f.node_def]
    assert kinds.count("Conv2D") == 1
    assert "StatefulPartitionedCall" not in kinds
    assert "PartitionedCall" not in kinds


def test_bad_groups():
    with pytest.raises(ValueError, match="groups"):
        GroupedConv2D(6, 3, groups=4)
    with pytest.raises(ValueError, match="groups"):
        GroupedConv2D(8, 3, groups=4).build((None, 8, 8, 6))


def test_probe_is_asked_once():
    module._differentiable.cache_clear()
    for _ in range(3):
        module._differentiable("float32")
    assert module._differentiable.cache_info().misses == 1
