"""The `weights` argument of the factories: Darknet's files, and mistakes."""

import logging

import darknet_reference
import keras
import numpy as np
import pytest

import keras_csp
from keras_csp.models import darknet, densenet, mobilenet, peleenet, resnet
from keras_csp.models.spec import NetworkSpec

SHAPE = (64, 64, 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network with an author's cfg, and its Darknet file."""
    model = keras_csp.CSPMobileNetV2(input_shape=SHAPE)
    path = tmp_path_factory.mktemp("darknet") / "csmobilenet-v2.weights"
    keras_csp.darknet.save_weights(model, path)
    return model, path


def assert_same_features(model, saved, count):
    for ours, theirs in list(zip(model.weights, saved.weights))[:count]:
        np.testing.assert_array_equal(ours, theirs, ours.path)


def test_factory_loads_a_darknet_file(saved, rng):
    theirs, path = saved
    model = keras_csp.CSPMobileNetV2(weights=path, input_shape=SHAPE)
    x = rng.random((1, *SHAPE), dtype="float32")
    np.testing.assert_array_equal(model(x), theirs(x))


def test_without_classifier(saved):
    theirs, path = saved
    model = keras_csp.CSPMobileNetV2(weights=path, include_top=False)
    assert_same_features(model, theirs, len(model.weights))


def test_other_classes_leave_the_classifier_new_and_say_so(saved, caplog):
    theirs, path = saved
    with caplog.at_level(logging.WARNING, "keras_csp"):
        model = keras_csp.CSPMobileNetV2(
            weights=path, classes=7, input_shape=SHAPE
        )
    assert "predictions/kernel" in caplog.text
    assert model.output_shape == (None, 7)
    assert np.asarray(model.get_layer("predictions").kernel).std() > 0
    assert_same_features(model, theirs, len(model.weights) - 2)


def test_backbone_file_fills_the_features(saved, tmp_path):
    """`darknet partial` cuts a file; NN counts the cfg's layers."""
    theirs, path = saved
    classifier = 4 * 1000 * (1 + theirs.get_layer("avg_pool").output.shape[-1])
    cut = tmp_path / "csmobilenet-v2.conv.81"
    cut.write_bytes(path.read_bytes()[:-classifier])
    model = keras_csp.CSPMobileNetV2(weights=cut, include_top=False)
    assert_same_features(model, theirs, len(model.weights))


@pytest.mark.parametrize("change", [-4, 4])
def test_file_of_another_size_is_refused(saved, tmp_path, change):
    _, path = saved
    content = path.read_bytes()
    wrong = tmp_path / "wrong.weights"
    wrong.write_bytes(content[:change] if change < 0 else content + bytes(4))
    with pytest.raises(ValueError, match=r"wrong\.weights"):
        keras_csp.CSPMobileNetV2(weights=wrong, input_shape=SHAPE)


def test_file_of_another_network_is_refused(saved):
    with pytest.raises(ValueError, match=r"csmobilenet-v2\.weights"):
        keras_csp.MobileNetV2(weights=saved[1], input_shape=SHAPE)


def test_networks_without_a_cfg_refuse_darknet_files(saved):
    with pytest.raises(ValueError, match=r"none for PeleeNet.*darknet\.load"):
        keras_csp.PeleeNet(weights=saved[1])
    with pytest.raises(
        ValueError, match=r"none for .*Timm: theirs is CSPDarkNet53\."
    ):
        keras_csp.CSPDarkNet53Timm(weights=saved[1])


def test_files_trained_with_another_activation_are_refused(tmp_path):
    """They have the same shapes, so that only the name can tell."""
    path = tmp_path / "csresnext50-omega_final.weights"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"another activation.*csresnext50"):
        keras_csp.CSPResNeXt50(weights=path)


def test_every_published_darknet_file_has_its_place():
    """A file of a factory is that of the cfg which defines its network."""
    cfgs = {
        network.name: network.cfg
        for module in (darknet, densenet, mobilenet, peleenet, resnet)
        for network in vars(module).values()
        if isinstance(network, NetworkSpec)
    }
    for file in keras_csp.weights.darknet_files():
        if file.network:
            # "csdarknet53-gamma" is another training of "csdarknet53".
            assert file.name.startswith(cfgs[file.network])
        assert file.url.startswith("https://")
        assert file.licence


DETECTORS = {
    record.name: record for record in keras_csp.weights.detector_records()
}
TEXTS = darknet_reference.author_cfgs()


def cfg_text(name):
    """The cfg of a detector, None where the tests have none."""
    texts = (TEXTS.get(f"{room}cfg/{name}.cfg") for room in ("", "darknet/"))
    return next(filter(None, texts), None)


COUNTED = [name for name in DETECTORS if cfg_text(name)]
SMALL = ("yolov3-tiny-prn", "yolov4-tiny")


def megabytes_differ(count, stated):
    """By more than the last digit, which publishers round or cut."""
    digit = 0.1 if stated % 1 else 1
    return abs(count / 2**20 - stated) >= digit


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow)
        for name in COUNTED
    ],
)
def test_detectors_have_as_many_values_as_their_published_files(name, tmp_path):
    """A header of 20 bytes, then 4 for each variable of the network."""
    record = DETECTORS[name]
    path = tmp_path / f"{name}.cfg"
    path.write_text(cfg_text(name))
    model = keras_csp.darknet.load(path)
    assert isinstance(model, keras_csp.Detector)
    assert keras_csp.count(model, "torch").params == record.parameters
    size = 20 + 4 * model.count_params()
    if record.bytes is not None:
        assert size == record.bytes
        assert record.values_in_file == model.count_params()
    if record.megabytes is not None:
        assert not megabytes_differ(size, record.megabytes)
    keras.utils.clear_session()


def test_published_file_at_hand_is_as_its_record_says(shared_data):
    folder = shared_data / "darknet" / "yolo-fastest-1.1"
    record = DETECTORS[folder.name]
    assert (folder / "yolo-fastest-1.1.weights").stat().st_size == record.bytes
    model = keras_csp.darknet.load(folder / "yolo-fastest-1.1.cfg")
    assert keras_csp.count(model, "torch").params == record.parameters
    assert model.count_params() == record.values_in_file


def test_records_of_detectors_agree_with_themselves():
    for record in DETECTORS.values():
        assert record.cfg.startswith("https://"), record
        assert record.weights.startswith("https://") == bool(record.licence)
        for result in record.results:
            assert result.size % 32 == 0
            assert 0 < (result.ap or 1) < result.ap50 < 75
        assert record.dataset in ("test-dev", "val2017", "")
        if record.bytes and record.megabytes:
            assert not megabytes_differ(record.bytes, record.megabytes)
        if record.parameters and record.values_in_file:
            assert record.parameters < record.values_in_file * 1.005
        if record.published_parameters:
            ours = record.parameters / 1e6
            assert abs(record.published_parameters / ours - 1) < 0.06
