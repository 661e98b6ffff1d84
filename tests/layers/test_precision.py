"""The rule for layers that half precision is too coarse for."""

import keras
import pytest

from keras_csp.layers.precision import float32_if_half


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("bfloat16", "float32"),
    ],
)
def test_scores_are_computed_in_float32_or_better(policy, dtype):
    keras.config.set_dtype_policy(policy)
    assert keras.layers.Dense(2, dtype=float32_if_half()).compute_dtype == dtype
