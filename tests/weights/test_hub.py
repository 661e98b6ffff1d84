"""The way from the hub to a network: a server on 127.0.0.1, a real cache.

The settings of huggingface_hub are read when it is imported, so each setting
has a process of its own, which does all that is to be done with it.
"""

import json

import numpy as np
import pytest
import timm_weights
from fake_hub import COMMIT, fake_hub
from safetensors.numpy import save_file
from support import run_python
from timm_weights import SMALLEST, assert_equal_to_timm, tensors

import keras_csp

REPOSITORY = keras_csp.weights.find_record(SMALLEST).hub_id
KERAS_REPOSITORY = "someone/network"

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
        pytest.param(
            {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "1"},
            id="no_network",
            marks=pytest.mark.slow,  # it tries again for half a minute
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
