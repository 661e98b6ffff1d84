"""The way from the hub to a network: a server on 127.0.0.1, a real cache.

The settings of huggingface_hub are read when it is imported, so each setting
has a process of its own, which does all that is to be done with it.
"""

import json
import os
import pathlib
import shutil
import sys

import keras
import numpy as np
import pytest
import timm_weights
from fake_hub import COMMIT, fake_hub
from safetensors.numpy import save_file
from support import run_python, tiny_backbone
from timm_weights import SMALLEST, assert_equal_to_timm, tensors

import keras_csp
from keras_csp.detection import Detector

# Processes that load networks time and again; tests/commands/test_models.py
# takes classifiers from a hub in the default run.
pytestmark = pytest.mark.slow

REPOSITORY = keras_csp.weights.find_record(SMALLEST).hub_id
KERAS_REPOSITORY = "someone/network"
TESTS = pathlib.Path(__file__).parents[1]

# What each scenario's process runs: a name, and how it ended.
PRELUDE = """
import json, sys
import numpy as np
import keras_csp

def names(model):
    spec = keras_csp.image_spec(model)
    return spec.class_names and len(spec.class_names)

def attempt(load):
    try:
        model = load()
    except Exception as error:
        os_error = str(isinstance(error, OSError))
        return [type(error).__name__, str(error), os_error]
    x = np.random.default_rng(0).random((2, 128, 128, 3), dtype="float32")
    return ["model", np.asarray(model(x)).tolist(), names(model)]

def timm(source=None, **options):
    return lambda: keras_csp.weights.load_timm(
        "cs3darknet_focus_s", source, input_shape=(128, 128, 3), **options)

def done(**attempts):
    print(json.dumps(attempts))
"""

ONLINE = """
answers = dict(
    whole=attempt(timm()),
    factory=attempt(lambda: keras_csp.CS3DarkNetFocusS(
        weights="imagenet", input_shape=(128, 128, 3),
        classifier_activation=None)),
    cached=attempt(timm()),
    revision=attempt(timm("timm/other@main")),
    keras=attempt(lambda: keras_csp.CSPDenseNetbReference(
        weights="hf://someone/network", classes=3,
        input_shape=(128, 128, 3))),
    repository=attempt(timm("no/such")),
    file=attempt(timm("someone/network")),
    checksum=attempt(timm("bad/checksum")),
    interrupted=attempt(timm("bad/interrupted")),
)
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))
answers["full"] = attempt(timm("timm/fresh"))
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
answers["room_again"] = attempt(timm("timm/fresh"))
done(**answers)
"""

CUT_OFF = "done(cached=attempt(timm()), absent=attempt(timm('timm/absent')))"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    timm_file = folder / "model.safetensors"
    save_file(timm_weights.state_dict(tensors()[SMALLEST]), timm_file)
    keras_file = folder / "model.weights.h5"
    options = {"classes": 3, "input_shape": (128, 128, 3)}
    model = keras_csp.CSPDenseNetbReference(**options)
    model.save_weights(keras_file)
    return timm_file, keras_file, model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """HF_HOME of all processes of this module."""
    return tmp_path_factory.mktemp("home")


def process(code, home, **environment):
    answer = run_python(
        PRELUDE + code,
        HF_HOME=str(home),
        HF_HUB_DISABLE_TELEMETRY="1",
        TF_CPP_MIN_LOG_LEVEL="3",
        **environment,
    )
    return json.loads(answer.splitlines()[-1])


@pytest.fixture(scope="module")
def online(files, home):
    timm_file, keras_file, _ = files
    repositories = dict.fromkeys(
        (
            REPOSITORY,
            "timm/other",
            "timm/fresh",
            "bad/checksum",
            "bad/interrupted",
        ),
        timm_file,
    )
    repositories[KERAS_REPOSITORY] = keras_file
    with fake_hub(repositories) as server:
        answers = process(ONLINE, home, HF_ENDPOINT=server.url)
    return answers, server


def cached(home, repository):
    """The files of a repository in the cache, without folders and locks."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    return [p for p in folder.rglob("*") if p.is_file() or p.is_symlink()]


def assert_timms(answer):
    kind, y, names = answer
    assert kind == "model", answer
    assert names == 1000
    assert_equal_to_timm(np.asarray(y), SMALLEST, "noise")


def assert_download_error(answer, *parts):
    kind, message, is_os_error = answer
    assert (kind, is_os_error) == ("DownloadError", "True"), answer
    for part in (*parts, "Nothing was loaded."):
        assert part in message


def test_downloads_once_into_the_cache(online, home):
    answers, server = online
    for name in ("whole", "factory", "cached", "revision"):
        assert_timms(answers[name])
    assert server.asked.count(("GET", REPOSITORY)) == 1
    names = {path.name for path in cached(home, REPOSITORY)}
    assert "model.safetensors" in names
    assert any(COMMIT in str(path) for path in cached(home, REPOSITORY))


def test_repository_that_keras_saved(online, files):
    _, y, _ = online[0]["keras"]
    x = timm_weights.noise()
    np.testing.assert_allclose(
        np.asarray(y), np.asarray(files[2](x)), atol=1e-6
    )


def test_unknown_repository_and_file(online):
    answers, server = online
    assert_download_error(
        answers["repository"], "no such repository", "no/such", server.url
    )
    assert_download_error(
        answers["file"], "no such file", "model.safetensors", KERAS_REPOSITORY
    )


def test_wrong_checksum_is_found_and_removed(online, home):
    assert_download_error(
        answers := online[0]["checksum"], "damaged", "SHA-256"
    )
    assert "bad/checksum" in answers[1]
    assert [p.name for p in cached(home, "bad/checksum")] == ["main"]  # the ref


def test_interrupted_download_leaves_no_file(online, home):
    assert_download_error(online[0]["interrupted"], "bad/interrupted")
    assert not [
        path
        for path in cached(home, "bad/interrupted")
        if path.suffix != ".incomplete" and path.name != "main"
    ]


def test_full_disk_is_an_error_and_then_not(online):
    """A limit on the size of files stands for the full disk."""
    assert_download_error(online[0]["full"], "timm/fresh", "File too large")
    assert_timms(online[0]["room_again"])


@pytest.mark.parametrize(
    "environment",
    [
        # It tries again for half a minute.
        pytest.param(
            {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "1"},
            id="no_network",
        ),
        pytest.param({"HF_HUB_OFFLINE": "1"}, id="offline_mode"),
    ],
)
def test_without_network_the_cache_serves(online, home, environment):
    answers = process(CUT_OFF, home, **environment)
    assert_timms(answers["cached"])
    assert_download_error(
        answers["absent"],
        "timm/absent",
        "no connection",
        "HF_ENDPOINT",
        str(home),
    )
    assert not cached(home, "timm/absent")


DETECTORS = """
import keras
from keras_csp.detection import Detector
from support import tiny_backbone

def outputs(load, size=64):
    try:
        model = load()
    except Exception as error:
        return [type(error).__name__, str(error)]
    x = np.random.default_rng(0).random((1, size, size, 3), "float32")
    y = model(x)
    spec = keras_csp.image_spec(model)
    y = y["P4"] if isinstance(y, dict) else y
    return [np.asarray(y).tolist(), spec.class_names, spec.mean]

def detector(weights):
    return outputs(lambda: Detector(
        tiny_backbone(), "fpn", 2, (64, 64, 3), weights=weights))

def on_backbone(weights, backbone="CS3DarkNetFocusS"):
    keras.utils.set_random_seed(0)  # of the heads
    return outputs(lambda: Detector(
        backbone, "fpn", 2, (64, 64, 3), backbone_weights=weights))

def network(weights, **options):
    return outputs(lambda: keras_csp.CSPDenseNetbReference(
        weights=weights, classes=3, input_shape=(64, 64, 3), **options))

folder = sys.argv[1]
print(json.dumps(dict(
    local=detector(folder + "/one/best.keras"),
    folder=detector("hf://me/folder"),
    one=detector("hf://me/one"),
    revision=detector("hf://me/one@main"),
    two=detector("hf://me/two"),
    named=detector("hf://me/two/b.weights.h5"),
    absent=detector("hf://me/two/c.keras"),
    none=detector("hf://me/none"),
    form=detector("hf://me"),
    suffix=detector("hf://me/two/model.safetensors"),
    other=detector("hf://me/network"),
    repository=detector("hf://me/nothing"),
    timm=on_backbone("hf://timm/other@main/model.safetensors"),
    timm_local=on_backbone(folder + "/timm/model.safetensors"),
    paper=on_backbone("hf://timm/other", "CSPPeleeNet"),
    network=network("hf://me/network"),
    features=network("hf://me/network", include_top=False, pooling="avg"),
    bad=network("hf://me/one/best.tflite"),
)))
"""


@pytest.fixture(scope="module")
def models(files, tmp_path_factory):
    """What Detector and a factory make of addresses of the hub, and the
    models that lie there."""
    folder = tmp_path_factory.mktemp("models")
    detector = Detector(tiny_backbone(), "fpn", 2, (64, 64, 3))
    plain = keras_csp.CSPDenseNetbReference(classes=3, input_shape=(64, 64, 3))
    pooled = keras.Model(plain.input, plain.get_layer("avg_pool").output)
    colours = ("red", "green", "blue")
    network = keras_csp.with_image_spec(plain, class_names=colours)
    for name in ("folder", "one", "two", "none", "network", "timm"):
        (folder / name).mkdir()
    keras.saving.save_model(detector, folder / "folder", zipped=False)
    keras.saving.save_model(network, folder / "network", zipped=False)
    detector.save(folder / "one" / "best.keras")
    detector.save(folder / "two" / "a.keras")
    detector.save_weights(folder / "two" / "b.weights.h5")
    (folder / "none" / "README.md").write_text("Nothing here")
    shutil.copy(files[0], folder / "timm")
    repositories = {f"me/{path.name}": path for path in folder.iterdir()}
    with fake_hub({**repositories, "timm/other": folder / "timm"}) as server:
        answer = run_python(
            PRELUDE + DETECTORS,
            folder,
            HF_ENDPOINT=server.url,
            HF_HOME=str(folder / "home"),
            PYTHONPATH=os.pathsep.join([str(TESTS), *sys.path[1:]]),
        )
    answers = json.loads(answer.splitlines()[-1])
    return answers, detector, network, pooled


def test_detectors_take_weights_of_the_hub(models):
    answers, detector, _, _ = models
    x = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    expected = np.asarray(detector(x)["P4"])
    np.testing.assert_allclose(answers["local"][0], expected, atol=1e-6)
    for name in ("folder", "one", "revision", "named"):
        assert answers[name] == answers["local"], name


@pytest.mark.parametrize(
    ("name", "error", "parts"),
    [
        ("two", "ValueError", ["Found: a.keras, b.weights.h5", "hf://me/two"]),
        ("absent", "DownloadError", ["c.keras of me/two", "no such file"]),
        ("none", "ValueError", ["Found: none", "hf://me/none"]),
        ("form", "ValueError", ["must be hf://user/name", "Received: hf://me"]),
        ("suffix", "ValueError", ["FILE.keras or", "model.safetensors"]),
        ("other", "ValueError", ["does not fit", "'cspdensenetbreference'"]),
        ("repository", "DownloadError", ["no such repository", "me/nothing"]),
        ("paper", "ValueError", ["CSPPeleeNet is not one of them"]),
        ("bad", "ValueError", ["FILE.safetensors", "best.tflite"]),
    ],
)
def test_addresses_that_hold_no_such_weights(name, error, parts, models):
    kind, message = models[0][name]
    assert kind == error
    for part in parts:
        assert part in message


def test_backbones_take_timms_repositories(models):
    answers, _, _, _ = models
    assert isinstance(answers["timm_local"][0], list)
    assert answers["timm"] == answers["timm_local"]
    assert answers["timm"][2] == [0.5, 0.5, 0.5]


def test_factories_take_folders_of_keras_with_their_classes(models):
    answers, _, network, pooled = models
    x = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    y, names, _ = answers["network"]
    np.testing.assert_allclose(y, np.asarray(network(x)), atol=1e-6)
    assert names == ["red", "green", "blue"]
    np.testing.assert_allclose(
        answers["features"][0], np.asarray(pooled(x)), atol=1e-5
    )
