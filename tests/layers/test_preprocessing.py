"""The first layer of every network, and the value that it carries."""

import keras
import numpy as np
import pytest
from support import assert_configuration_round_trip, reload_config, run_python

import keras_csp
from keras_csp.layers.preprocessing import (
    ImageSpec,
    Preprocessing,
    as_spec,
    image_spec,
    origin_of,
    put_origin,
    with_image_spec,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = ImageSpec(
    size=(32, 48),
    mean=MEAN,
    std=STD,
    resize="letterbox",
    interpolation="bicubic",
    antialias=False,
    class_names=("cat", "dog", "ünïcode"),
)


def classifier(spec=SPEC, classes=3):
    image = keras.Input((32, 48, 3))
    x = Preprocessing(spec, name="preprocessing")(image)
    x = keras.layers.Conv2D(4, 3, strides=4, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="top")(x))


def test_normalises_pixels(rng):
    x = rng.random((2, 5, 4, 3), dtype="float32")
    expected = (x.astype("float64") - MEAN) / STD
    y = np.asarray(Preprocessing(SPEC)(x))
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_the_origin_stays_with_the_network(tmp_path):
    model = classifier()
    assert origin_of(model) == {}
    put_origin(model, cfg="[net]\r\n", header="00")
    put_origin(model, header=None)
    model.save(tmp_path / "m.keras")
    for copy in (
        keras.saving.load_model(tmp_path / "m.keras"),
        keras.models.clone_model(model),
        with_image_spec(model, resize="stretch"),
    ):
        assert origin_of(copy) == {"cfg": "[net]\r\n"}
        put_origin(copy, cfg=None)
    assert origin_of(model) == {"cfg": "[net]\r\n"}
    outer = keras.Model(model.input, model(model.input))
    assert origin_of(outer) == {}
    put_origin(outer, cfg="other")
    assert origin_of(outer) == {}


def test_mean_0_and_std_1_leave_the_pixels_as_they_are(rng):
    x = rng.random((2, 5, 4, 3), dtype="float32")
    np.testing.assert_array_equal(Preprocessing(ImageSpec())(x), x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_rounds_once_after_the_division(policy, rng):
    """Not the pixels before the mean is subtracted: dark ones are near it."""
    spec = ImageSpec(mean=0.5, std=0.001)
    x = (0.5 + rng.random((1, 64, 64, 1), dtype="float32") / 1000).astype(
        "float32"
    )
    y = Preprocessing(spec, dtype=policy)(x)
    half = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(y.dtype) == half
    exact = (x.astype("float64") - 0.5) / 0.001
    step = {"float16": 2**-11, "bfloat16": 2**-8}[half]
    assert np.abs(np.asarray(y, "float64") - exact).max() <= step


def test_int8_conversion_keeps_it_in_integers(rng):
    """A division, or a cast, would be computed in floating point."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("converts by TensorFlow")
    import tensorflow as tf

    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    model = classifier()
    x = rng.random((16, 32, 48, 3), dtype="float32")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    interpreter = interpreters.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    kinds = {detail["dtype"] for detail in interpreter.get_tensor_details()}
    assert kinds <= {np.int8, np.int32}


def test_configuration_round_trip(rng):
    layer = Preprocessing(SPEC, name="preprocessing")
    x = rng.random((1, 5, 4, 3), dtype="float32")
    assert_configuration_round_trip(layer, x)
    assert reload_config(layer).spec == SPEC


RELOAD = """
import sys
import keras_csp, keras, numpy as np
model = keras.saving.load_model(sys.argv[1] + "/m.keras")
print(keras_csp.image_spec(model).get_config())
np.save(sys.argv[2], keras.ops.convert_to_numpy(
    model(np.load(sys.argv[1] + "/x.npy"))))
"""


@pytest.mark.parametrize(
    "backend",
    [
        "jax",
        # tests/models/test_builder.py has a new process of TensorFlow's.
        pytest.param("tensorflow", marks=pytest.mark.slow),
        pytest.param("torch", marks=pytest.mark.slow),
    ],
)
def test_spec_comes_back_in_a_new_process(backend, tmp_path, rng):
    pytest.importorskip(backend)
    model = classifier()
    x = rng.random((2, 32, 48, 3), dtype="float32")
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "m.keras")
    printed = run_python(
        RELOAD, tmp_path, tmp_path / "y.npy", KERAS_BACKEND=backend
    )
    assert printed.strip() == str(SPEC.get_config())
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), np.asarray(model(x)), atol=1e-5
    )


def test_spec_survives_a_clone():
    assert image_spec(keras.models.clone_model(classifier())) == SPEC


def with_a_new_head(classes):
    pooled = keras.Model(
        (old := classifier()).input, old.get_layer("pool").output
    )
    nested = keras.Input((32, 48, 3))
    head = keras.layers.Dense(classes)
    return {
        "graph": keras.Model(pooled.input, head(pooled.output)),
        "nested": keras.Model(nested, head(pooled(nested))),
        "sequential": keras.Sequential([pooled, head]),
    }


@pytest.mark.parametrize("kind", ["graph", "nested", "sequential"])
def test_new_head_keeps_the_pixels_and_drops_the_names(kind):
    assert image_spec(with_a_new_head(3)[kind]) == SPEC
    spec = image_spec(with_a_new_head(5)[kind])
    assert spec == SPEC.replace(class_names=None)


@pytest.mark.parametrize("kind", ["graph", "nested", "sequential"])
def test_another_spec_replaces_the_one_wherever_it_is(kind, rng):
    """In a model inside too: pixels are never normalised twice."""
    model = with_a_new_head(2)[kind]
    other = with_image_spec(model, class_names=("no", "yes"))
    assert image_spec(other) == SPEC.replace(class_names=("no", "yes"))
    x = rng.random((2, 32, 48, 3), dtype="float32")
    np.testing.assert_allclose(
        np.asarray(other(x)), np.asarray(model(x)), atol=1e-6
    )
    plain = with_image_spec(model, ImageSpec())
    np.testing.assert_allclose(
        np.asarray(plain((x - np.float32(MEAN)) / np.float32(STD))),
        np.asarray(model(x)),
        atol=1e-5,
    )
    for ours, theirs in zip(other.weights, model.weights, strict=True):
        assert ours is theirs


def test_model_of_other_makers_gets_a_first_layer(rng):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    assert image_spec(model) is None
    new = with_image_spec(model, mean=MEAN, std=STD)
    x = rng.random((1, 8, 8, 3), dtype="float32")
    np.testing.assert_allclose(
        np.asarray(new(x)),
        np.asarray(model((x - np.float32(MEAN)) / np.float32(STD))),
        atol=1e-5,
    )
    assert image_spec(new).size == (8, 8)


def test_size_is_that_of_the_models_input():
    assert image_spec(classifier(SPEC.replace(size=None))).size == (32, 48)
    image = keras.Input((None, None, 3))
    opened = keras.Model(image, Preprocessing(SPEC)(image))
    assert image_spec(opened).size == SPEC.size


def test_numpy_values_are_stored_as_plain_ones():
    """A configuration is written as JSON."""
    spec = ImageSpec(
        size=np.int64([32, 48]).tolist(),
        mean=np.float32(0.5),
        std=np.ones(3, "float32"),
        crop=np.float32(0.5),
        antialias=np.bool_(False),
        class_names=np.array(["a", "b"]),
    )
    assert reload_config(Preprocessing(spec)).spec == spec
    assert ImageSpec(size=(np.int64(3), np.int32(4))).size == (3, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (1, 2, 3)}, r"size=\(1, 2, 3\)"),
        ({"size": 0}, "size=0"),
        ({"size": (4, 2.5)}, "size=2.5"),
        ({"mean": "a"}, "mean='a'"),
        ({"mean": ()}, r"mean=\(\)"),
        ({"std": (1, float("nan"))}, "std=.*nan"),
        ({"std": (1, 0)}, r"\(1.0, 0.0\)"),
        ({"resize": "pad"}, "resize='pad'"),
        ({"interpolation": "nearest"}, "interpolation='nearest'"),
        ({"antialias": "no"}, "antialias='no'"),
        ({"crop": 0}, "crop=0"),
        ({"crop": "half"}, "crop='half'"),
        ({"class_names": "cat"}, "class_names='cat'"),
        ({"class_names": 3}, "class_names=3"),
        ({"class_names": ["cat", ""]}, r"class_names=\['cat', ''\]"),
        ({"class_names": []}, r"class_names=\[\]"),
    ],
)
def test_wrong_fields_are_named_with_the_value_received(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageSpec(**fields)


def test_statistics_must_fit_the_channels():
    with pytest.raises(ValueError, match=r"each of the 1 channels.*0\.485"):
        Preprocessing(SPEC)(np.zeros((1, 4, 4, 1), "float32"))


@pytest.mark.parametrize("model", ["model", keras.layers.Dense(3)])
def test_only_functional_models_get_a_spec(model):
    with pytest.raises(ValueError, match="`model` must be a functional"):
        keras_csp.with_image_spec(model, ImageSpec())


def test_what_says_the_size():
    image = keras.Input((32, 48, 1))
    x = Preprocessing(ImageSpec(resize="stretch"))(image)
    model = keras.Model(image, x)
    spec, channels = as_spec(model, "crop")
    assert (spec.size, spec.resize, channels) == ((32, 48), "stretch", 1)
    assert as_spec(64, "crop")[0] == ImageSpec((64, 64), resize="crop")
    assert as_spec((64,), "crop")[0].size == (64, 64)
    assert as_spec((32, 64), "letterbox")[0].size == (32, 64)
    assert as_spec(ImageSpec(8), "crop", size=(4, 2))[0].size == (4, 2)
    with pytest.raises(ValueError, match="does not say what its images are"):
        as_spec(keras.Model(image, keras.layers.Flatten()(image)), "crop")
    opened = keras.Input((None, None, 3))
    x = Preprocessing(ImageSpec())(opened)
    with pytest.raises(ValueError, match="need a size: the network takes any"):
        as_spec(keras.Model(opened, x), "crop")
