import keras
import numpy as np
import pytest
import reference
from support import assert_configuration_round_trip, randomize, unit_weights

from keras_csp.layers import ConvNormAct, DenseBlock, TwoWayDenseLayer
from keras_csp.layers.dense import dense_links, harmonic_links, sparse_links


def test_links_as_in_the_papers():
    assert [dense_links(k) for k in (1, 2, 4)] == [[0], [0, 1], [0, 1, 2, 3]]
    # SparseNet, Fig. 1: layer k reads k-1, k-2, k-4, k-8.
    assert [sparse_links(k) for k in (1, 2, 5, 9)] == [
        [0],
        [1, 0],
        [4, 3, 1],
        [8, 7, 5, 1],
    ]
    # HarDNet, section 3.1: k-2^n where 2^n divides k.
    assert [harmonic_links(k) for k in (1, 2, 3, 4, 6, 8, 12)] == [
        [0],
        [1, 0],
        [2],
        [3, 2, 0],
        [5, 4],
        [7, 6, 4, 0],
        [11, 10, 8],
    ]


@pytest.mark.parametrize(
    ("links", "returned"),
    [
        ("dense", [0, 1, 2, 3, 4]),
        ("sparse", [0, 1, 2, 3, 4]),
        ("harmonic", [0, 1, 3, 4]),
    ],
)
def test_dense_block_is_equation_3(rng, links, returned):
    rule = {
        "dense": lambda k: list(range(k)),
        "sparse": lambda k: [k - s for s in (1, 2, 4, 8) if s <= k],
        "harmonic": lambda k: [
            k - s for s in (1, 2, 4, 8) if k % s == 0 and s <= k
        ],
    }[links]
    x = rng.normal(size=(1, 4, 4, 3))
    units = [ConvNormAct(width, 3) for width in (2, 4, 3, 5)]
    block = DenseBlock(units, links=links)
    block.build(x.shape)
    randomize(block)
    outputs = [x]
    for k, unit in enumerate(units, 1):
        gathered = np.concatenate([outputs[j] for j in rule(k)], axis=-1)
        outputs.append(reference.conv_norm_act(gathered, unit_weights(unit)))
    expected = np.concatenate([outputs[j] for j in returned], axis=-1)
    y = np.asarray(block(x))
    assert y.shape == block.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_two_way_dense_layer(rng):
    x = rng.normal(size=(1, 5, 5, 4))
    layer = TwoWayDenseLayer(6, 8)
    layer.build(x.shape)
    randomize(layer)
    outputs = []
    for way, convolutions in zip(layer.paths, (1, 2)):
        assert len(way.layers) == 1 + convolutions
        y = x
        for unit in way.layers:
            y = reference.conv_norm_act(y, unit_weights(unit))
        outputs.append(y)
    np.testing.assert_allclose(
        np.asarray(layer(x)), np.concatenate(outputs, axis=-1), atol=1e-5
    )
    kernels = [w.shape for w in layer.weights if w.path.endswith("kernel")]
    one, three = (1, 1, 4, 8), (3, 3, 8, 3)
    assert kernels == [one, three, one, three, (3, 3, 3, 3)]


@pytest.mark.parametrize(
    "layer",
    [
        DenseBlock([[ConvNormAct(2), ConvNormAct(4, 3)]], links="sparse"),
        TwoWayDenseLayer(4, 2, activation="relu"),
    ],
)
def test_configuration_round_trip(rng, layer):
    x = rng.normal(size=(1, 6, 6, 4))
    assert_configuration_round_trip(layer, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseBlock(None), "layers=None"),
        (lambda: DenseBlock([ConvNormAct(2)], links="all"), "links='all'"),
        (lambda: DenseBlock(2 * [ConvNormAct(2)]), "more than once"),
        (
            lambda: DenseBlock([ConvNormAct(2, 3, 2)]).build((None, 8, 8, 3)),
            r"D_1.*\(4, 4\) and \(8, 8\)",
        ),
        (lambda: TwoWayDenseLayer(5, 4), "growth=5"),
        (lambda: TwoWayDenseLayer(4, 0), "bottleneck=0"),
    ],
)
def test_bad_arguments_are_quoted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gradient_reaches_every_layer(rng):
    block = DenseBlock([ConvNormAct(2, 3) for _ in range(4)], links="harmonic")
    model = keras.Sequential([block, keras.layers.GlobalAveragePooling2D()])
    x = rng.normal(size=(4, 6, 6, 3))
    model(x)
    before = [w.numpy() for w in block.trainable_weights]
    model.compile("sgd", "mse")
    model.train_on_batch(x, np.ones(model(x).shape))
    after = [w.numpy() for w in block.trainable_weights]
    assert all((a != b).any() for a, b in zip(before, after))
