"""TensorFlow's converter: its errors, and what is left out of 8 bits."""

import keras
import numpy as np
import pytest
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.export import to_tflite
from keras_csp.export.tflite_conversion import split_head

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


def test_an_operation_that_tflite_lacks_is_named(tmp_path):
    inputs = keras.Input((8,))
    outputs = keras.layers.Lambda(keras.ops.erfinv)(inputs)
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match=r"(?i)erfinv|ndtri") as caught:
        to_tflite(model, tmp_path / "m.tflite", np.zeros((2, 8)) + 0.1)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def detector():
    keras.utils.set_random_seed(0)
    return randomize(
        keras_csp.Detector(tiny_backbone(), classes=3, input_shape=(64, 64, 3))
    )


def test_the_head_behind_the_body_is_the_model(detector, rng):
    model = detector.inference_model(score_threshold=0.3)
    body, head = split_head(model)
    assert not [x for x in body.layers if not getattr(x, "quantizable", True)]
    images = rng.random((2, 64, 64, 3), dtype="float32")
    maps = body.predict_on_batch(images)
    assert list(maps) == [f"map_{i}" for i in range(len(detector.heads))]
    found = head.predict_on_batch(list(maps.values()))
    expected = model.predict_on_batch(images)
    assert expected["count"].min() > 0
    np.testing.assert_array_equal(found["count"], expected["count"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-5)


def test_a_model_without_such_a_head_stays(detector):
    assert split_head(detector) == (detector, None)


def test_a_head_inside_another_model_is_refused(detector):
    inner = detector.inference_model()
    inputs = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="must be the last of its own"):
        split_head(keras.Model(inputs, inner(inputs)))
