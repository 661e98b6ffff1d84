"""timm's checkpoints against what the real timm answered, and its files."""

import gzip
import importlib.util
import json
import logging
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import timm_weights
from safetensors.numpy import load_file, save_file
from support import GOLDEN, slow_unless
from timm_weights import SMALLEST, assert_equal_to_timm, tensors

import keras_csp
from keras_csp.weights import timm


def write(path, name, **changed):
    """The checkpoint of a network; `changed` tensors, None for a missing."""
    state = timm_weights.state_dict(tensors()[name])
    for key, value in changed.items():
        state[key] = value
    state = {k: v for k, v in state.items() if v is not None}
    save_file(state, path)
    return state


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    write(path, SMALLEST)
    return path


# One of each kind: the others differ from them in widths and depths.
KINDS = (
    *("cspresnet50", "cspresnext50", "cspdarknet53", "darknet53"),
    *("cs3darknet_m", "cs3sedarknet_l", SMALLEST),
)


@pytest.mark.parametrize("name", slow_unless(KINDS, tensors()))
def test_logits_equal_timms(name, tmp_path, request):
    """All networks, on noise and on real photographs."""
    path = tmp_path / "model.safetensors"
    write(path, name)
    shape = (timm_weights.SIDE, timm_weights.SIDE, 3)
    model = keras_csp.weights.load_timm(name, path, input_shape=shape)
    path.unlink()
    assert_equal_to_timm(model(timm_weights.noise()), name, "noise")
    shared = request.getfixturevalue("shared_data")
    photographs = timm_weights.photographs(shared / "photos")
    assert_equal_to_timm(model(photographs), name, "photos")
    keras.utils.clear_session()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """What the timm that is installed answers now, in a process of its own:
    PyTorch and TensorFlow do not always bear each other in one."""
    for package in ("timm", "torch"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    folder = tmp_path_factory.mktemp("live")
    script = GOLDEN / "make_timm_outputs.py"
    command = [sys.executable, script, "--folder", folder, "--every-logit"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", tensors())
def test_logits_equal_timms_live(name, live, tmp_path):
    """With timm itself beside, where it is installed: every logit."""
    text = gzip.decompress((live / "timm_tensors.json.gz").read_bytes())
    assert json.loads(text)["tensors"][name] == tensors()[name]
    path = tmp_path / "model.safetensors"
    write(path, name)
    shape = (timm_weights.SIDE, timm_weights.SIDE, 3)
    model = keras_csp.weights.load_timm(name, path, input_shape=shape)
    expected = np.load(live / "timm_outputs.npz")[f"{name}/noise"]
    assert expected.shape == (2, 1000)
    error = np.abs(np.asarray(model(timm_weights.noise())) - expected).max()
    assert error <= 1e-4 * np.abs(expected).max()
    keras.utils.clear_session()


def test_records_are_complete():
    found = {record.name: record for record in keras_csp.weights.records()}
    assert set(found) == set(tensors())
    for name, record in found.items():
        shapes = tensors()[name]
        trainable = [
            int(np.prod(shape))
            for key, shape in shapes.items()
            if "running" not in key and "tracked" not in key
        ]
        assert sum(trainable) == record.parameters
        assert f"{record.first_conv}.weight" in shapes
        assert f"{record.classifier}.weight" in shapes
        assert record.network in keras_csp.list_models()
        assert record.hub_id.startswith(f"timm/{name}.")
        assert 70 < record.top1 <= record.test_top1 < 85
        assert record.input_size <= record.test_input_size
        assert record.interpolation in ("bilinear", "bicubic")
        assert len(record.mean) == len(record.std) == 3


def load(path, **options):
    options = {"input_shape": (64, 64, 3), **options}
    return keras_csp.weights.load_timm(SMALLEST, path, **options)


def test_factory_takes_the_file_and_ends_in_probabilities(smallest, rng):
    x = rng.random((2, 64, 64, 3), dtype="float32")
    model = keras_csp.CS3DarkNetFocusS(
        weights=smallest, input_shape=(64, 64, 3)
    )
    logits = np.asarray(load(smallest)(x))
    np.testing.assert_allclose(
        np.asarray(model(x)), keras.activations.softmax(logits), atol=1e-6
    )


def test_features_without_classifier(smallest, rng):
    x = rng.random((2, 64, 64, 3), dtype="float32")
    whole = load(smallest)
    features = load(smallest, include_top=False, pooling="avg")
    pooled = keras.Model(whole.input, whole.get_layer("avg_pool").output)
    np.testing.assert_array_equal(features(x), pooled(x))


def test_other_classes_leave_the_classifier_new_and_say_so(smallest, caplog):
    with caplog.at_level(logging.WARNING, "keras_csp"):
        model = load(smallest, classes=7)
    assert model.output_shape == (None, 7)
    for name in ("predictions/kernel", "predictions/bias"):
        assert name in caplog.text
    whole = load(smallest)
    for ours, theirs in zip(model.weights[:-2], whole.weights[:-2]):
        np.testing.assert_array_equal(ours, theirs)
    caplog.clear()
    load(smallest)
    assert not caplog.records


def test_classes_of_a_fine_tuned_file(tmp_path):
    """A file of timm's with 5 classes gives 5 without being told."""
    path = tmp_path / "model.safetensors"
    kernel = np.full((5, 512), 0.25, "float32")
    bias = np.arange(5, dtype="float32")
    write(path, SMALLEST, **{"head.fc.weight": kernel, "head.fc.bias": bias})
    model = load(tmp_path)  # the folder will do
    assert model.output_shape == (None, 5)
    np.testing.assert_array_equal(model.weights[-1], bias)


def test_file_without_classifier(tmp_path, caplog):
    path = tmp_path / "model.safetensors"
    write(path, SMALLEST, **{"head.fc.weight": None, "head.fc.bias": None})
    model = load(path)
    assert model.output_shape == (None, 1000)
    assert "predictions/kernel" in caplog.text


@pytest.mark.parametrize("channels", [1, 4])
def test_first_kernel_is_adapted_to_channels(smallest, channels):
    rgb = load(smallest)
    model = load(smallest, input_shape=(64, 64, channels))
    ours, theirs = (np.asarray(m.weights[0]) for m in (model, rgb))
    if channels == 1:
        expected = theirs.sum(axis=2, keepdims=True)
    else:
        expected = np.stack([theirs[:, :, i % 3] for i in range(4)], 2) * 0.75
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    for a, b in zip(model.weights[1:], rgb.weights[1:]):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_are_adapted_as_timm_does_it(smallest, channels):
    side = timm_weights.SIDE
    model = load(smallest, input_shape=(side, side, channels))
    # The network of these golden numbers was fed noise as it is.
    spec = keras_csp.image_spec(model)
    x = timm_weights.noise(channels) * np.float32(spec.std)
    y = model(x + np.float32(spec.mean))
    assert_equal_to_timm(y, SMALLEST, f"{channels} channels")


def assert_refused(message, path, name=SMALLEST, **options):
    with pytest.raises(ValueError, match=message):
        keras_csp.weights.load_timm(
            name, path, **{"input_shape": (64, 64, 3), **options}
        )


def test_other_channels_are_refused(smallest):
    for channels in (2, 5):
        assert_refused(
            rf"stem\.conv1.*{channels} input channels|at {channels} input",
            smallest,
            input_shape=(64, 64, channels),
        )


def test_file_of_another_network_is_refused_naming_both(smallest):
    assert_refused(
        "'cs3darknetfocusm'.*timm's cs3darknet_focus_m.*"
        "holds timm's cs3darknet_focus_s.*CS3DarkNetFocusS.*Nothing",
        smallest,
        name="cs3darknet_focus_m",
    )


def test_papers_network_refuses_timms_file_naming_both(smallest):
    for name in ("CSPResNet50", "CSPResNeXt50", "CSPDarkNet53", "DarkNet53"):
        with pytest.raises(ValueError, match=f"{name} is not.*{name}Timm"):
            keras_csp.get_factory(name)(weights=smallest)
    with pytest.raises(ValueError, match="PeleeNet is not one"):
        keras_csp.PeleeNet(weights=smallest)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stages.0.conv_exp.conv.weight": None}, r"missing.*conv_exp"),
        ({"extra.weight": np.zeros(3, "float32")}, "unexpected.*extra"),
        (
            {"stages.3.conv_down.bn.bias": np.zeros(3, "float32")},
            r"other shapes.*conv_down\.bn\.bias \(3,\) where \(256,\)",
        ),
    ],
)
def test_wrong_tensors_are_named(changed, message, tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, SMALLEST, **changed)
    assert_refused(message, path)


def test_nothing_is_assigned_when_something_is_wrong(tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, SMALLEST, **{"stages.3.conv_transition.bn.bias": None})
    model = keras_csp.CS3DarkNetFocusS(input_shape=(64, 64, 3))
    before = model.get_weights()
    with pytest.raises(ValueError, match="Nothing was loaded"):
        timm.load(model, path, keras_csp.weights.find_record(SMALLEST))
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 100, None])
def test_damaged_files_are_named(content, smallest, tmp_path):
    path = tmp_path / "bad.safetensors"
    whole = smallest.read_bytes()
    path.write_bytes(whole[:-1000] if content is None else content)
    assert_refused(r"bad\.safetensors.*not a complete safetensors", path)


@pytest.fixture(scope="module")
def loaded(smallest):
    """The model of that file, and its weights."""
    model = load(smallest)
    return model, model.get_weights()


def prefixed(path, target, *prefixes, dtype=None, **extra):
    """The tensors of `path` under each of the prefixes, and `extra`."""
    state = load_file(path)
    if dtype is not None:
        state = {key: value.astype(dtype) for key, value in state.items()}
    state = {p + key: value for p in prefixes for key, value in state.items()}
    save_file({**state, **extra}, target)
    return target


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "timm_model.",
        "model.",
        "backbone.",
        "module._orig_mod.",
        "student.net.0.",  # of no wrapper that is known
        "stem_and_stages.head.",
    ],
)
def test_prefixes_are_found(prefix, smallest, loaded, tmp_path):
    """Tensors of the wrapper beside them are left out."""
    model, weights = loaded
    counter = {"n_averaged": np.ones(1, "int64")}
    path = prefixed(smallest, tmp_path / "a.safetensors", prefix, **counter)
    model.set_weights([np.zeros_like(value) for value in weights])
    assert not timm.load(model, path, keras_csp.weights.find_record(SMALLEST))
    for ours, theirs in zip(model.get_weights(), weights):
        np.testing.assert_array_equal(ours, theirs)


def test_classes_and_names_of_a_prefixed_file(smallest, tmp_path):
    path = tmp_path / "a.safetensors"
    prefixed(
        smallest,
        path,
        "model.",
        **{
            "model.head.fc.weight": np.full((5, 512), 0.25, "float32"),
            "model.head.fc.bias": np.arange(5, dtype="float32"),
        },
    )
    model = load(path)
    assert model.output_shape == (None, 5)
    np.testing.assert_array_equal(model.weights[-1], np.arange(5))
    whole = load(prefixed(smallest, path, "model."))
    assert len(keras_csp.image_spec(whole).class_names) == 1000


def test_network_beside_another_one_is_found(smallest, loaded, tmp_path):
    """A student of this kind beside its larger teacher, in either order."""
    path = tmp_path / "a.safetensors"
    state = timm_weights.state_dict(tensors()["cs3darknet_focus_m"])
    teacher = {f"a_teacher.{key}": value for key, value in state.items()}
    prefixed(smallest, path, "student.", **teacher)
    np.testing.assert_array_equal(load(path).weights[0], loaded[1][0])
    larger = keras_csp.weights.load_timm(
        "cs3darknet_focus_m", path, input_shape=(64, 64, 3)
    )
    key = "stages.0.blocks.0.conv1.bn.bias"
    assert any(np.array_equal(w, state[key]) for w in larger.weights)


@pytest.mark.parametrize(
    "prefixes", [("model.", "ema_model."), ("", "ema."), ("m.", "m.ema.")]
)
@pytest.mark.parametrize("headless", [False, True])
def test_two_networks_in_a_file_must_be_told_apart(
    prefixes, headless, smallest, loaded, tmp_path
):
    path = tmp_path / "a.safetensors"
    state = load_file(prefixed(smallest, path, *prefixes))
    for key in state:
        if key.startswith(prefixes[1]):
            state[key] = np.asarray(state[key] + 1)
    if headless:
        state = {k: v for k, v in state.items() if "head.fc" not in k}
    save_file(state, path)
    first, second = prefixes
    names = f"2 prefixes: ('{first}', '{second}'|'{second}', '{first}')"
    assert_refused(rf"{names}.*prefix=", path)
    model, weights = loaded
    record = keras_csp.weights.find_record(SMALLEST)
    for added, prefix in enumerate(prefixes):
        timm.load(model, path, record, prefix)
        np.testing.assert_allclose(
            model.weights[0], weights[0] + added, rtol=1e-6
        )


def test_prefix_of_one_of_two_networks(smallest, tmp_path):
    path = tmp_path / "a.safetensors"
    state = load_file(prefixed(smallest, path, "model.", "ema_model."))
    bias = np.arange(3, dtype="float32")
    state["ema_model.head.fc.bias"] = bias
    state["ema_model.head.fc.weight"] = np.zeros((3, 512), "float32")
    save_file(state, path)
    for prefix in ("ema_model", "ema_model."):
        model = load(path, prefix=prefix)
        np.testing.assert_array_equal(model.weights[-1], bias)


@pytest.mark.parametrize("key", ["stem.conv1.conv.weight", "head.fc.weight"])
def test_partly_prefixed_files_name_what_is_missing(key, smallest, tmp_path):
    path = tmp_path / "a.safetensors"
    state = load_file(prefixed(smallest, path, "module."))
    state["other." + key] = state.pop("module." + key)
    save_file(state, path)
    if key.startswith("stem"):
        assert_refused(rf"after 'module\.': 1 missing, e\.g\. {key}", path)
    else:
        assert load(path).output_shape == (None, 1000)


def test_unknown_tensors_under_the_prefix_are_refused(smallest, tmp_path):
    extra = {"module.stages.9.bn.weight": np.ones(3, "float32")}
    path = prefixed(smallest, tmp_path / "a.safetensors", "module.", **extra)
    assert_refused(r"after 'module\.': 1 unexpected, e\.g\. stages\.9", path)


@pytest.mark.parametrize("prefix", ["ema.", 3])
def test_given_prefix_must_be_there(prefix, smallest):
    with pytest.raises(ValueError, match=r"after 'ema\.'|prefix=3"):
        load(smallest, prefix=prefix)


def test_prefixed_file_of_another_network_is_named(smallest, tmp_path):
    path = prefixed(smallest, tmp_path / "a.safetensors", "model.")
    for keys in ("head.fc", "nothing"):
        state = {k: v for k, v in load_file(path).items() if keys not in k}
        save_file(state, path)
        assert_refused(
            "holds timm's cs3darknet_focus_s", path, name="cs3darknet_focus_l"
        )


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_half_precision_files_are_read(dtype, smallest, loaded, tmp_path):
    path = prefixed(
        smallest, tmp_path / "half.safetensors", "module.", dtype=dtype
    )
    for ours, theirs in zip(load(path).weights, loaded[1]):
        assert ours.dtype == "float32"
        rounded = theirs.astype(dtype).astype("float32")
        np.testing.assert_array_equal(ours, rounded)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("cspresnet5", None, "'cspresnet5'.*'cspresnet50'"),
        (SMALLEST, "model.pth", "execute code.*safetensors"),
        (SMALLEST, "no/such.safetensors", "no file.*no/such.safetensors"),
        (SMALLEST, "nowhere", "no file of that name.*'nowhere'"),
    ],
)
def test_bad_arguments(name, source, message):
    assert_refused(message, source, name=name)


def test_imagenet_of_a_network_without_it_lists_those_that_have():
    with pytest.raises(ValueError, match=r"no pub.*PeleeNet\..*CS3DarkNetM"):
        keras_csp.PeleeNet(weights="imagenet")


@pytest.mark.parametrize(
    "name", ["CSPResNet50", "CSPResNeXt50", "CSPDarkNet53", "DarkNet53"]
)
def test_imagenet_of_the_papers_network_names_timms_and_darknets(name):
    """No factory builds another network than its own."""
    cfg = {"DarkNet53": "darknet53"}.get(
        name, name.lower().replace("csp", "cs")
    )
    message = (
        rf"no published ImageNet weights of {name}\..*"
        rf'keras_csp\.{name}Timm\(weights="imagenet"\).*{cfg}\.weights'
    )
    with pytest.raises(ValueError, match=message):
        keras_csp.get_factory(name)(weights="imagenet")


def test_docstrings_say_what_imagenet_loads():
    assert (
        "none for CSPResNet50, and this raises: they are of CSPResNet50Timm"
        in (" ".join(keras_csp.CSPResNet50.__doc__.split()))
    )
    assert "this very network" in keras_csp.CSPResNet50Timm.__doc__
    assert "none for PeleeNet" in keras_csp.PeleeNet.__doc__


def test_darknet_53_and_its_twin_refuse_each_others_weights(tmp_path):
    """They differ in nothing but the slope of the leaky activations."""
    path = tmp_path / "paper.weights.h5"
    keras_csp.DarkNet53(input_shape=(32, 32, 3)).save_weights(path)
    message = r"'darknet53'.*'darknet53timm'.*'leaky'.*'torch_leaky'"
    with pytest.raises(ValueError, match=message):
        keras_csp.DarkNet53Timm(input_shape=(32, 32, 3), weights=path)
    keras_csp.DarkNet53(input_shape=(32, 32, 3), weights=path)


def test_pixel_statistics_of_other_channels(smallest):
    """Of grey images the average of R, G and B, of four R, G, B, R."""
    record = keras_csp.weights.find_record("cspresnet50")
    for channels, mean in (
        (1, [np.mean(record.mean)]),
        (4, [*record.mean, record.mean[0]]),
        (5, [np.mean(record.mean)]),
    ):
        model = keras_csp.CSPResNet50Timm(
            input_shape=(32, 32, channels), include_top=False
        )
        np.testing.assert_allclose(keras_csp.image_spec(model).mean, mean)
