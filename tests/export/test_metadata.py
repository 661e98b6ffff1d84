"""What a file says of itself is the model's `ImageSpec`."""

import json

import keras
import numpy as np
import pytest
from export_networks import little

import keras_csp
from keras_csp.export import Metadata, describe, load, save

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)

SPEC = keras_csp.ImageSpec(
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    resize="stretch",
    crop=0.9,
    interpolation="bicubic",
    class_names=("cat", "dög", "green frog"),
)


@pytest.fixture(scope="module")
def plain():
    """A network that takes normalised pixels."""
    return little()


@pytest.fixture(scope="module")
def model(plain):
    return keras_csp.with_image_spec(plain, SPEC)


@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "folder", "m.keras"])
def test_it_comes_back(name, plain, model, rng, tmp_path):
    path = tmp_path / name
    model.save(path) if name == "m.keras" else save(model, path)
    run = load(path, threads=1)
    assert run.metadata.network == "little"
    assert run.metadata.input_shape == (8, 8, 3)
    assert run.metadata.image == SPEC.replace(size=(8, 8))
    assert run.metadata.class_names == SPEC.class_names
    assert run.metadata.written_by == f"keras_csp {keras_csp.__version__}"
    # The network in the file normalises; it is given pixels in [0, 1].
    pixels = rng.random((5, 8, 8, 3), dtype="float32")
    expected = plain.predict((pixels - SPEC.mean) / SPEC.std, verbose=0)
    np.testing.assert_allclose(run(pixels), expected, rtol=1e-4, atol=1e-6)


def test_a_model_without_a_spec_takes_pixels_up_to_one():
    metadata = describe(little())
    assert metadata.image == keras_csp.ImageSpec(size=(8, 8))
    assert metadata.class_names is None


def test_names_that_are_not_as_many_as_the_classes_are_not_written(model):
    """A classifier of other classes upon the network with names."""
    x = keras.layers.Dense(5, name="classes")(model.output)
    other = keras.Model(model.input, x)
    metadata = describe(other)
    assert metadata.class_names is None
    assert metadata.image.mean == SPEC.mean


def test_a_detectors_names_are_those_of_its_boxes():
    detector = keras_csp.Detector(
        "CSPPeleeNet",
        "prn",
        classes=2,
        input_shape=(64, 32, 3),
        class_names=("a", "b"),
    )
    metadata = describe(detector.inference_model())
    assert metadata.class_names == ("a", "b")
    assert metadata.input_shape == (64, 32, 3)
    assert metadata.image.resize == "letterbox"


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("image"),
        lambda values: values["image"].update(resize="fold"),
        lambda values: values["image"].update(colour="red"),
        lambda values: values.update(input_shape=3),
    ],
)
def test_metadata_of_others(change):
    values = json.loads(Metadata("net", (8, 8, 3), SPEC).to_json())
    assert Metadata.from_json(json.dumps(values)).image == SPEC
    change(values)
    with pytest.raises(ValueError, match="Not the metadata of keras_csp"):
        Metadata.from_json(json.dumps(values))
