import keras
import numpy as np
from support import SMALL

from keras_csp.layers import ConvNormAct
from keras_csp.layers.initialization import KernelInitializer, kernels_replaced
from keras_csp.models.builder import build_network


def kernel(unit):
    unit.build((None, 8, 8, 64))
    return np.asarray(unit.weights[0])


def test_kernels_are_he_normal():
    values = kernel(ConvNormAct(64, 3))
    assert abs(values.std() - np.sqrt(2 / (9 * 64))) < 0.002
    assert abs(values.mean()) < 0.002


def test_kernels_to_be_replaced_are_not_drawn():
    with kernels_replaced():
        assert not kernel(ConvNormAct(64, 3)).any()
        with kernels_replaced(False):
            assert kernel(ConvNormAct(64, 3)).any()
    assert kernel(ConvNormAct(64, 3)).any()


def test_networks_without_weights_are_random():
    model = build_network(SMALL["SmallCSPResNeXt"], classes=3)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            assert np.asarray(weight).std() > 0, weight.path


def test_initializer_is_serializable():
    saved = keras.saving.serialize_keras_object(KernelInitializer(seed=1))
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is KernelInitializer
    assert again.seed == 1
