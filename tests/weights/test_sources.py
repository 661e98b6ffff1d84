"""What a `weights` argument means: the file, its pixels and its classes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import timm_weights
from safetensors.numpy import save_file
from timm_weights import SMALLEST, tensors

import keras_csp
from keras_csp.weights import sources
from keras_csp.weights.imagenet import imagenet_classes

SHAPE = (64, 64, 3)
# As `timm.models.save_for_hf` writes it; WordNet's names are left out.
CONFIG = {
    "architecture": SMALLEST,
    "num_classes": 1000,
    "num_features": 512,
    "global_pool": "avg",
    "pretrained_cfg": {
        "tag": "c2ns_in1k",
        "custom_load": False,
        "input_size": [3, 224, 256],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "num_classes": 1000,
        "first_conv": "stem.conv.conv",
        "classifier": "head.fc",
    },
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """model.safetensors without a config.json."""
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(timm_weights.state_dict(tensors()[SMALLEST]), path)
    return path


@pytest.fixture
def with_config(published, tmp_path):
    """A function that writes a config.json beside the weights."""

    def write(**changed):
        shutil.copy(published, tmp_path)
        settings = {**CONFIG["pretrained_cfg"], **changed.pop("settings", {})}
        config = {**CONFIG, "pretrained_cfg": settings, **changed}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path / "model.safetensors"

    return write


def load(path, **options):
    options = {"include_top": True, "input_shape": SHAPE, **options}
    return keras_csp.weights.load_timm(SMALLEST, path, **options)


def test_every_network_has_the_statistics_of_its_record():
    """Random weights included, so that training and use agree."""
    for record in keras_csp.weights.records():
        spec = sources.published_image_spec(Named(record.network, 1))
        assert (spec.mean, spec.std) == (record.mean, record.std)
        assert (spec.crop, spec.interpolation) == (
            record.crop,
            record.interpolation,
        )
        assert spec.size == (record.input_size,) * 2
    spec = sources.published_image_spec(Named("CSPResNeXt50", 256))
    assert (spec.mean, spec.std, spec.size) == ((0,), (1,), (256, 256))


@dataclasses.dataclass
class Named:
    name: str
    input_size: int


def test_local_file_without_config(published):
    """1000 classes are ImageNet's, if its classifier is loaded."""
    spec = keras_csp.image_spec(load(published))
    record = keras_csp.weights.find_record(SMALLEST)
    assert (spec.mean, spec.std) == (record.mean, record.std)
    assert spec.class_names[:2] == ("tench", "goldfish")
    for options in ({"include_top": False}, {"classes": 7}):
        spec = keras_csp.image_spec(load(published, **options))
        assert spec.class_names is None


def test_names_go_with_the_classifier_that_is_loaded(with_config):
    """A new one of as many outputs tells nothing apart yet."""
    path = with_config()
    state = timm_weights.state_dict(tensors()[SMALLEST])
    save_file({k: v for k, v in state.items() if "head.fc" not in k}, path)
    assert keras_csp.image_spec(load(path)).class_names is None


def test_config_beside_the_file_is_what_it_was_trained_with(with_config, rng):
    path = with_config()
    model = load(path, input_shape=None, include_top=False)
    spec = keras_csp.image_spec(model)
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (spec.size, spec.crop) == ((224, 256), 0.9)
    assert (spec.resize, spec.interpolation) == ("crop", "bicubic")
    assert spec.class_names is None  # there is no classifier
    x = rng.random((1, *SHAPE), dtype="float32")
    path.with_name("config.json").unlink()
    other = keras_csp.with_image_spec(load(path, include_top=False), spec)
    np.testing.assert_allclose(
        np.asarray(model(x)), np.asarray(other(x)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({}, tuple(imagenet_classes().values())),
        ({"settings": {"tag": "plants"}}, None),
        ({"settings": {"num_classes": 21841}}, None),
        (
            {"label_names": [f"class {i}" for i in range(1000)]},
            tuple(f"class {i}" for i in range(1000)),
        ),
        ({"label_names": ["one", "two"]}, None),
    ],
    ids=["in1k", "other_tag", "other_number", "names", "too_few_names"],
)
def test_class_names_of_a_config(changed, names, with_config):
    model = load(with_config(**changed))
    assert keras_csp.image_spec(model).class_names == names


def test_old_configs_have_the_settings_at_the_top(with_config):
    path = with_config()
    path.with_name("config.json").write_text(
        json.dumps({**CONFIG["pretrained_cfg"], "crop_mode": "squash"})
    )
    spec = keras_csp.image_spec(load(path))
    assert spec.mean == (0.1, 0.2, 0.3)
    assert spec.resize == "stretch"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"pretrained_cfg": {"mean": 1, "std": 2}}']
)
def test_damaged_config_is_named(text, with_config):
    path = with_config()
    path.with_name("config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json.*mean, std"):
        load(path)


def test_darknets_files_have_darknets_order(tmp_path):
    small = {"include_top": True, "input_shape": SHAPE}
    model = keras_csp.CSPMobileNetV2(**small)
    assert keras_csp.image_spec(model).class_names is None
    path = tmp_path / "csmobilenet-v2.weights"
    keras_csp.darknet.save_weights(model, path)
    spec = keras_csp.image_spec(keras_csp.CSPMobileNetV2(weights=path, **small))
    assert spec.class_names[:2] == ("kit fox", "English setter")
    assert not spec.antialias
    other = keras_csp.CSPMobileNetV2(weights=path, classes=7, **small)
    assert keras_csp.image_spec(other).class_names is None


def test_a_keras_file_has_its_own_spec(tmp_path):
    options = {"input_shape": SHAPE, "classes": 2}
    model = keras_csp.with_image_spec(
        keras_csp.CSPDenseNetbReference(**options),
        mean=0.25,
        resize="letterbox",
        class_names=("no", "yes"),
    )
    model.save(tmp_path / "m.keras")
    again = keras_csp.CSPDenseNetbReference(
        weights=tmp_path / "m.keras", **options
    )
    assert keras_csp.image_spec(again) == keras_csp.image_spec(model)
    features = keras_csp.CSPDenseNetbReference(
        weights=tmp_path / "m.keras", include_top=False
    )
    spec = keras_csp.image_spec(features)
    assert (spec.mean, spec.class_names) == ((0.25,), None)
