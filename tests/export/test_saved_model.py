"""SavedModels, as TensorFlow serves them."""

import keras
import numpy as np
import pytest
from export_networks import small

from keras_csp.export import load, saved_model, to_saved_model

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


@pytest.fixture
def samples(rng):
    return rng.random((4, 64, 64, 3), dtype="float32")


def test_a_saved_model_is_replaced_by_a_right_one(
    samples, tmp_path, monkeypatch
):
    path = tmp_path / "served"
    old, new = small("SmallMobile"), small("SmallMobile", classes=7)
    to_saved_model(old, path, samples)
    with monkeypatch.context() as patch:
        run = saved_model._run
        patch.setattr(saved_model, "_run", lambda *a: run(*a) + 0.01)
        with pytest.raises(ValueError, match="differs from the model by"):
            to_saved_model(new, path, samples)
        with pytest.raises(ValueError, match=r"and 1. Received: .*=1\.5"):
            to_saved_model(new, path, samples, maximum_difference=1.5)
        check = to_saved_model(old, path, samples, maximum_difference=0.5)
        assert check.largest_difference > 1e-3
    assert list(tmp_path.iterdir()) == [path]
    assert load(path)(samples).shape == (4, 5)
    to_saved_model(new, path, samples)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_allclose(
        load(path)(samples), new.predict_on_batch(samples), atol=1e-5
    )


def test_a_saved_model_is_not_written_over_something_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.png").touch()
    with pytest.raises(ValueError, match="new or a SavedModel"):
        to_saved_model(small("SmallMobile"), tmp_path / "photos")
    assert (tmp_path / "photos" / "mine.png").exists()
