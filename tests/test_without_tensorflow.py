"""On JAX and PyTorch nothing but TensorFlow's own jobs needs TensorFlow."""

import importlib.util
import os
import pathlib

import pytest
from support import run_python

TESTS = pathlib.Path(__file__).parent

# Before the scenario: TensorFlow is not installed, cannot be imported, or is
# there and must be left alone.
BLOCKED = {
    "not installed": "",
    "not importable": "sys.modules['tensorflow'] = None",
    "installed": "",
}

SCENARIO = """
import numpy as np
import keras_csp
import keras
from keras_csp import darknet, weights
from keras_csp.training import recipes
from keras_csp.training.checkpoint import TrainingState
from support import SMALL, tiny_backbone
from keras_csp.models.builder import build_network

folder = sys.argv[1]
rng = np.random.default_rng(0)

# Factories, counting, weights: the ones of Keras and Darknet's.
model = keras_csp.DarkNetReference(input_shape=(32, 32, 3), classes=3)
assert keras_csp.count(model).params > 0
pyramid = keras_csp.feature_extractor(model, levels=("P3", "P4"))
assert set(pyramid.output) == {"P3", "P4"}
model.save_weights(f"{folder}/model.weights.h5")
same = keras_csp.DarkNetReference(
    weights=f"{folder}/model.weights.h5", input_shape=(32, 32, 3), classes=3
)
np.testing.assert_array_equal(same.get_weights()[0], model.get_weights()[0])
darknet.save_weights(model, f"{folder}/model.weights")
keras_csp.DarkNetReference(
    weights=f"{folder}/model.weights", input_shape=(32, 32, 3), classes=3
)

# A recipe, phases, and a training that is saved and restored.
small = build_network(SMALL["SmallMobile"], input_shape=(32, 32, 3), classes=3)
recipe = recipes.SMALL_CLASSIFICATION.replace(steps=10)
recipes.FINE_TUNING.phases[-1].apply(small)
small.compile(recipe.make_optimizer(), recipe.make_loss(), metrics=["accuracy"])
x = rng.random((8, 32, 32, 3), dtype="float32")
y = np.eye(3, dtype="float32")[rng.integers(0, 3, 8)]
state = TrainingState(f"{folder}/state", monitor="val_accuracy")
assert state.restore(small) == 0
small.fit(x, y, validation_data=(x, y), callbacks=[state], epochs=2, verbose=0)
state.restore_best(small)
assert keras_csp.preprocess_input(255 * x).shape == x.shape

# A detector: fit with validation, evaluate, predict, save, load.
detector = keras_csp.Detector(
    tiny_backbone(), "fpn", classes=2, input_shape=(64, 64, 3)
)
x = rng.random((4, 64, 64, 3), dtype="float32")
y = {
    "boxes": np.array([[[4, 4, 40, 40], [0, 0, 0, 0]]] * 4, "float32"),
    "labels": np.array([[1, -1]] * 4, "int32"),
}
detector.compile("adam")
history = detector.fit(
    x, y, batch_size=2, epochs=2, validation_data=(x, y), verbose=0
).history
assert np.isfinite(history["loss"]).all() and len(history["val_AP50"]) == 2
assert np.isfinite(detector.evaluate(x, y, verbose=0)["loss"])
found = detector.predict(x, verbose=0, score_threshold=0.001)
# Keras' own serialisation looks for TensorFlow on every backend.
assert sys.modules.get("tensorflow") is None
detector.save(f"{folder}/detector.keras")
loaded = keras.saving.load_model(f"{folder}/detector.keras")
again = loaded.predict(x, verbose=0, score_threshold=0.001)
np.testing.assert_allclose(again["boxes"], found["boxes"], atol=1e-3)
assert found["count"].sum() > 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", BLOCKED)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_from_factory_to_detector(backend, how, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    paths = [str(TESTS)]
    if how == "not installed":
        paths.insert(0, str(TESTS / "no_tensorflow"))
    run_python(
        f"import sys\n{BLOCKED[how]}\n{SCENARIO}",
        tmp_path,
        KERAS_BACKEND=backend,
        PYTHONPATH=os.pathsep.join(paths),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )


def test_what_hides_tensorflow_hides_it():
    """Or the test above would prove nothing."""
    code = "import importlib.util as u; print(u.find_spec('tensorflow'))"
    hidden = run_python(code, PYTHONPATH=str(TESTS / "no_tensorflow"))
    assert hidden.strip() == "None"
    if importlib.util.find_spec("tensorflow"):
        assert run_python(code).strip() != "None"
