"""Ranges of 8-bit tensors, against errors computed one value at a time."""

import keras
import numpy as np
import pytest

from keras_csp.export import load, to_tflite
from keras_csp.export.ranges import Histogram

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)


def histogram_of(values, low=None, high=None):
    made = Histogram(
        values.min() if low is None else low,
        values.max() if high is None else high,
    )
    made.add(values)
    return made


def int8_error(values, low, high):
    """After there and back through int8 with TFLite's scale and zero point."""
    scale = (high - low) / 255
    zero = np.round(-128 - low / scale)
    integers = np.clip(np.round(values / scale) + zero, -128, 127)
    return np.mean((scale * (integers - zero) - values) ** 2)


def best_of_all_pairs(values):
    shares = np.linspace(0.3, 1, 8)
    low, high = values.min(), values.max()
    pairs = [(a * low, b * high) for a in shares for b in shares]
    return min(int8_error(values, *pair) for pair in pairs)


@pytest.fixture(scope="module")
def images():
    """Normal values but for four, which double their range."""
    values = np.random.default_rng(0).normal(size=(100, 16, 16, 16))
    values[[0, 30, 50, 70], 3, 4, 5] = [8, -8, -8, 8]
    return values.astype("float32")


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (-0.3, 2.0), (-1.0, 0.0), (0.0, 0.7)]
)
def test_error_is_that_of_the_nearest_number(rng, low, high):
    values = rng.normal(size=3000)
    error = histogram_of(values).error(low, high)
    assert error == pytest.approx(int8_error(values, low, high), rel=0.02)


def test_a_range_without_rare_values_stays(rng):
    values = rng.uniform(-2, 5, 50000)
    made = histogram_of(values, -2.0, 5.0)
    assert made.best_range() == (-2.0, 5.0)


def test_rare_values_are_cut_as_the_best_of_all_pairs(images):
    values = np.where(images > 0, images, 0.1 * images).ravel()  # leaky
    low, high = histogram_of(values).best_range()
    assert high < 0.85 * values.max()
    assert low > 0.85 * values.min()
    least = best_of_all_pairs(values)
    assert int8_error(values, low, high) < 1.02 * least
    assert least < 0.8 * int8_error(values, values.min(), values.max())


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [
        (0.0, 4.0, (0.0, 4.0)),
        (-4.0, 0.0, (-4.0, 0.0)),
        (0.0, 0.0, (0.0, 0.0)),
        # Zero is in every range.
        (1.0, 2.0, (0.0, 2.0)),
        (-2.0, -1.0, (-2.0, 0.0)),
    ],
)
def test_ranges_on_one_side_of_zero(low, high, kept):
    values = np.linspace(low, high, 10001)
    assert histogram_of(values).best_range() == kept


def test_of_equal_errors_the_widest_range_stays():
    made = histogram_of(np.zeros(10), -1.0, 2.0)
    assert made.best_range() == (-1.0, 2.0)


def test_values_past_the_range_by_rounding():
    made = histogram_of(np.full(10, 0.5000001), 0.5, 0.5)
    assert made.best_range()[1] > 0.49


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 16))
    x = keras.layers.Conv2D(8, 1)(inputs)
    outputs = keras.layers.Conv2D(8, 1)(x)
    return keras.Model(inputs, outputs, name="plain")


def written(model, path, images, **options):
    to_tflite(
        model,
        path,
        images,
        quantize="int8",
        representative=images,
        minimum_match_rate=0.0,
        **options,
    )
    return path


def test_a_file_in_narrower_ranges_is_more_exact(model, images, tmp_path):
    expected = model.predict(images, verbose=0)
    errors = {}
    for calibration in ("minmax", "mse"):
        path = tmp_path / f"{calibration}.tflite"
        written(model, path, images, calibration=calibration)
        errors[calibration] = np.mean((load(path)(images) - expected) ** 2)
    assert errors["mse"] < 0.8 * errors["minmax"], errors


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_the_files_ranges_are_those_chosen(model, images, tmp_path, kind):
    """Read from the file, against the best pair by brute force."""
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "m.tflite"
    types = {"input_type": kind, "output_type": kind}
    written(model, path, images, calibration="mse", **types)
    (given,) = Interpreter(str(path)).get_input_details()
    assert given["dtype"] == np.dtype(kind)
    scale, zero = given["quantization"]
    ends = np.iinfo(kind)
    low, high = scale * (ends.min - zero), scale * (ends.max - zero)
    assert high < 0.7 * images.max()
    assert low > 0.7 * images.min()
    least = best_of_all_pairs(images)
    assert int8_error(images, low, high) < 1.05 * least


def test_a_hundred_inputs_are_looked_at(model, images, tmp_path):
    """More set the ranges seen, here no wider, and nothing else."""
    paths = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    more = np.concatenate([images, 0.5 * images])
    for path, given in zip(paths, (images, more)):
        written(model, path, given, calibration="mse")
    assert paths[0].read_bytes() == paths[1].read_bytes()
