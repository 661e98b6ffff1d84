"""The profiles of benchmarks/profiles.py name what was run."""

import keras
import numpy as np
import pytest
from harness.results import RESULTS, read_rows
from profiles import litert_operations, rows, tables, tensorflow_operations

from keras_csp.export import to_tflite

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


def test_litert_names_the_kernels(tmp_path, rng):
    """Two convolutions of 3x3 that are not of the same cost, and a sum."""
    inputs = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(32, 3, padding="same")(inputs)
    y = keras.layers.Conv2D(32, 3, padding="same")(x)
    model = keras.Model(inputs, keras.layers.Add()([x, y]))
    to_tflite(model, tmp_path / "m.tflite", rng.random((1, 64, 64, 3)))
    found = litert_operations(tmp_path / "m.tflite", threads=1, runs=5)
    calls = {kernel: calls for kernel, (_ms, calls) in found.items()}
    (convolution,) = [kernel for kernel in calls if "Convolution" in kernel]
    assert calls[convolution] == 2
    assert sum(calls.values()) >= 3  # and the sum
    assert all(ms >= 0 for ms, _calls in found.values())
    assert max(found, key=lambda kernel: found[kernel][0]) == convolution


def test_a_call_that_litert_refuses_is_named(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match="LiteRtCreateModelFromFile gave"):
        litert_operations(tmp_path / "m.tflite", threads=1)


def test_tensorflow_names_the_operations():
    import tensorflow as tf

    @tf.function
    def run(x):
        for _ in range(3):
            x = tf.linalg.matmul(x, x) / 256.0
        return tf.sin(x)

    x = tf.ones((256, 256))
    found = tensorflow_operations(lambda: run(x), runs=4)
    (product,) = [kind for kind in found if kind.endswith("MatMul")]
    assert found[product][1] == 3
    assert found["Sin"][1] == 1
    assert found[product][0] > found["Sin"][0] > 0


def test_the_rest_is_one_row():
    found = {"a": (6.0, 1), "b": (0.1, 2), "c": (3.6, 3), "d": (0.3, 4)}
    made = rows("net", "engine", found, 0.05)
    listed = [(r["operation"], r["ms"], r["share"], r["calls"]) for r in made]
    assert listed == [
        ("a", "6.00", "60.0%", "1"),
        ("c", "3.60", "36.0%", "3"),
        ("2 others", "0.40", "4.0%", "6"),
    ]
    assert np.isclose(sum(float(share[:-1]) for _, _, share, _ in listed), 100)


def test_the_committed_tables_are_made_from_the_committed_rows():
    text = (RESULTS / "profiles.md").read_text()
    lines = list(tables(read_rows(RESULTS / "profiles.csv")))
    assert text.endswith("\n".join(lines) + "\n")
    assert len(lines) > 10
