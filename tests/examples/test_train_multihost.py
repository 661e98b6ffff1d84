"""examples/train_multihost.py, as two JAX processes and in this one."""

import csv
import functools
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from support import EXAMPLES, load_example

from keras_csp.data import load_classification
from keras_csp.training.recipes import get_recipe

SCRIPT = EXAMPLES / "train_multihost.py"
ARGUMENTS = ("--model", "SmallCSPPelee", "--batch", 256, "--verbose", 2)
needs_jax = pytest.mark.skipif(
    not importlib.util.find_spec("jax"), reason="jax is not installed"
)

# The example, where a name of tests/support.py is a network too.
EXAMPLE = """
import functools, importlib.util, json, sys
import numpy as np
script, tests, kept = sys.argv[1:4]
sys.path.insert(0, tests)
sys.argv = [script, *sys.argv[4:]]
spec = importlib.util.spec_from_file_location("example", script)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
from keras_csp.models.builder import build_network
from support import SMALL
example.keras_csp.get_factory = lambda name: functools.partial(
    build_network, SMALL[name]
)
made = {}

def keep(name):
    make = getattr(example, name)
    def kept(*arguments):
        return made.setdefault(name, make(*arguments))
    setattr(example, name, kept)

keep("build"), keep("Hosts")
"""

# One host of two: trains, then says what the checks say.
HOST = """
example.main()
model, hosts = made["build"], made["Hosts"]
np.savez(kept + ".npz", *model.get_weights())

def message(work):
    try:
        return work()
    except ValueError as error:
        return str(error)

def fail_on_1():
    return None if hosts.first else int("x")

host = hosts.index
together, same = hosts.run_on_all_hosts, hosts.assert_same
shared = hosts.check_shared_folder
answers = {
    "work": message(lambda: together(lambda: host + 5)),
    "failure": message(lambda: together(fail_on_1)),
    "agreement": message(lambda: same({"seed": 1, "size": [2, 3]})),
    "difference": message(lambda: same({"seed": 1, "size": [2, host]})),
    "shared": message(lambda: shared(kept[:-1] + "all")),
    "own": message(lambda: shared(kept)),
}
json.dump(answers, open(kept + ".json", "w"))
"""

# One process, without any distribution: the batches of both hosts as one.
REFERENCE = """
import keras
import tensorflow as tf
from keras_csp.data import load_classification
from keras_csp.training.recipes import get_recipe
keras.utils.set_random_seed(0)
train, test = load_classification("digits")
recipe = get_recipe("small-classification", batch_size=256).at_size(32)
recipe = recipe.with_augmentation(flip=0.0).for_epochs(2, 1437)
factory = example.keras_csp.get_factory("SmallCSPPelee")
model = recipe.build(factory, train, metrics=["accuracy"])
half = recipe.replace(batch_size=128)
halves = [half.training(train.shard(2, i), seed=i) for i in range(2)]
batches = tf.data.Dataset.zip(*halves).map(
    lambda a, b: (tf.concat([a[0], b[0]], 0), tf.concat([a[1], b[1]], 0))
)
history = model.fit(
    batches, validation_data=test.evaluation(100, 32), epochs=2, verbose=0
).history
np.savez(kept + ".npz", *model.get_weights())
json.dump(history, open(kept + ".json", "w"))
"""


def start(code, kept, *arguments):
    paths = SCRIPT, SCRIPT.parents[1] / "tests", kept
    return subprocess.Popen(
        [sys.executable, "-c", EXAMPLE + code, *map(str, (*paths, *arguments))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONUNBUFFERED": "1",
        },
    )


def start_hosts(code, folder, *arguments):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    common = "--hosts", 2, "--coordinator", address, "--output", folder / "run"
    return [
        start(code, folder / f"host{i}", "--host", i, *common, *arguments)
        for i in range(2)
    ]


def end(processes, timeout=900):
    """Their outputs; none of them lives on."""
    try:
        return [p.communicate(timeout=timeout)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def finished(processes):
    outputs = end(processes)
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]
    return outputs


def log(folder):
    with open(folder / "run" / "log.csv", encoding="utf-8") as file:
        return [
            {k: float(v) for k, v in r.items()} for r in csv.DictReader(file)
        ]


def arrays(path):
    with np.load(f"{path}.npz") as file:
        return [file[name] for name in file.files]


def answers(path):
    return json.loads(pathlib.Path(f"{path}.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run of two hosts, and of one process with both's batches."""
    folder = tmp_path_factory.mktemp("hosts")
    hosts = start_hosts(HOST, folder, *ARGUMENTS, "--epochs", 2)
    return folder, finished([*hosts, start(REFERENCE, folder / "one")])


@pytest.mark.slow  # three processes that compile
@needs_jax
def test_two_hosts_train_as_one(trained):
    """Sums are taken in another order: losses may differ by 1e-5 of them."""
    folder, _outputs = trained
    history = answers(folder / "one")
    rows = log(folder)
    assert [row.pop("epoch") for row in rows] == [1, 2]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        values = [row[name] for row in rows]
        np.testing.assert_allclose(values, history[name], rtol=1e-5)


@pytest.mark.slow  # three processes that compile
@needs_jax
def test_two_hosts_have_one_networks_weights(trained):
    """Statistics of batch normalization included: they are of whole batches.

    The optimizer divides a gradient by its own size, so that the rounding of
    one close to 0 can move that weight by a part of a step: one in a hundred
    may be further off.
    """
    folder, _outputs = trained
    first, second = arrays(folder / "host0"), arrays(folder / "host1")
    expected = arrays(folder / "one")
    assert len(first) == len(expected) > 40
    for mine, other, wanted in zip(first, second, expected):
        np.testing.assert_array_equal(mine, other)
        apart = np.abs(mine - wanted)
        assert np.mean(apart > 1e-4) < 0.01
        assert apart.max() < 5e-4


@pytest.mark.slow  # three processes that compile
@needs_jax
def test_the_saved_network_is_as_good_as_the_log_says(trained):
    """On the backend of this process."""
    folder, _outputs = trained
    model = keras.saving.load_model(folder / "run" / "model.keras")
    _train, test = load_classification("digits")
    loss, accuracy = model.evaluate(test.evaluation(360, 32), verbose=0)
    row = log(folder)[-1]
    assert row["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert row["val_accuracy"] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.slow  # three processes that compile
@needs_jax
def test_host_0_alone_writes(trained):
    folder, outputs = trained
    run = folder / "run"
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert names == {
        "run.json",
        "log.csv",
        "model.keras",
        "state/state.json",
        "state/epoch00002.weights.h5",
    }
    assert "val_accuracy" in outputs[0]
    assert "val_accuracy" not in outputs[1]


@pytest.mark.slow  # three processes that compile
@needs_jax
def test_hosts_check_each_other(trained):
    folder, _outputs = trained
    first, second = answers(folder / "host0"), answers(folder / "host1")
    assert (first["work"], second["work"]) == (5, 6)
    assert first["failure"] == "host 1 failed; its own output says why"
    assert second["failure"].startswith("invalid literal for int()")
    assert first["agreement"] is second["agreement"] is None
    for host, found in enumerate((first, second)):
        assert found["difference"] == (
            "`size` of host 1 differs from that of host 0. Received: size=[2, "
            f"{host}] on host {host}"
        )
    assert first["shared"] is second["shared"] is None
    assert (folder / "hostall").is_dir()
    assert first["own"] == "host 1 failed; its own output says why"
    assert "must be shared by all hosts" in second["own"]
    assert not list(folder.rglob("part-*"))


@pytest.fixture
def example(monkeypatch):
    """The example in this process, whose backend need not be JAX."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in ("NUM_PROCESSES", "PROCESS_ID", "JOB_ADDRESSES"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
    return functools.partial(load_example, "train_multihost")


def mistake(example, monkeypatch, tmp_path, arguments):
    """What `main` ends with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", *arguments.split()])
    with pytest.raises(SystemExit) as caught:
        example().main()
    assert not list(tmp_path.iterdir())
    text = str(caught.value)
    assert text.startswith("train_multihost: ")
    assert "\n" not in text
    return text


@needs_jax
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--host 1", "Received: host 1 of 1"),
        ("--hosts 2 --host 2 --coordinator a:1", "Received: host 2 of 2"),
        ("--hosts 2 --host -1 --coordinator a:1", "Received: host -1 of 2"),
        ("--hosts 2", "2 hosts need a coordinator, the ADDRESS:PORT of host 0"),
        ("--hosts 2 --coordinator a", "Received: 'a'"),
        ("--hosts 2 --coordinator a:b", "Received: 'a:b'"),
        ("--hosts 2 --coordinator :1", "Received: ':1'"),
        ("--hosts 2 --coordinator a:65536", "Received: 'a:65536'"),
        (
            "--hosts 2 --coordinator a:1 --batch 63",
            "The batch size must be a multiple of the 2 hosts. Received: 63",
        ),
        ("--seed -1", "Seed must be between 0"),
    ],
)
def test_mistakes_are_one_line(
    example, monkeypatch, tmp_path, arguments, message
):
    assert message in mistake(example, monkeypatch, tmp_path, arguments)


@needs_jax
def test_kerass_own_variables(example, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "3")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "5")
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "a:1,b:1,c:1")
    text = mistake(example, monkeypatch, tmp_path, "")
    assert "Received: host 5 of 3" in text
    text = mistake(example, monkeypatch, tmp_path, "--host 2 --batch 16")
    assert "multiple of the 3 hosts" in text


@needs_jax
@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("", {}),
        ("--batch 7", {"batch_size": 7}),
        ("--recipe paper-classification", {}),
        ("--flip 0.5", {}),
        ("--size 64", {}),
    ],
)
def test_the_arguments_change_the_recipe(
    example, monkeypatch, arguments, changes
):
    monkeypatch.setattr(sys, "argv", ["x", *arguments.split()])
    module = example()
    name = "paper-classification" if "paper" in arguments else None
    expected = get_recipe(name or "small-classification", **changes)
    expected = expected.at_size(64 if "--size" in arguments else 32)
    flip = 0.5 if "--flip" in arguments else 0.0
    expected = expected.with_augmentation(flip=flip)
    assert module.make_recipe(module.parse()) == expected


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="the backend is JAX"
)
@needs_jax
def test_another_backend_is_refused(example, monkeypatch, tmp_path):
    text = mistake(example, monkeypatch, tmp_path, "--seed 0")
    assert "set KERAS_BACKEND to jax. Received: 'tensorflow'" in text


def test_jax_is_missing(example, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="train_multihost: JAX is missing"):
        example()


@needs_jax
def test_a_taken_port(example, monkeypatch, tmp_path):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        text = mistake(
            example,
            monkeypatch,
            tmp_path,
            f"--hosts 2 --coordinator 127.0.0.1:{port}",
        )
    assert (
        f"Host 0 cannot listen at the port of the coordinator, {port}" in text
    )


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "by"),
    [(0, signal.SIGKILL), (1, signal.SIGTERM)],
)
def test_a_lost_host(tmp_path, lost, by):
    """The other ends, and both go on after the last whole epoch."""
    arguments = (*ARGUMENTS, "--epochs", 400)
    state = tmp_path / "run" / "state" / "state.json"
    hosts = start_hosts("example.main()", tmp_path, *arguments)
    try:
        limit = time.monotonic() + 600
        while not state.is_file():
            assert time.monotonic() < limit
            assert all(process.poll() is None for process in hosts)
            time.sleep(0.02)
        hosts[lost].send_signal(by)
        output, _ = hosts[1 - lost].communicate(timeout=150)
        assert hosts[lost].wait(timeout=20) == -by
    finally:
        end(hosts)
    assert hosts[1 - lost].returncode not in (0, None)
    # JAX ends a host that is without host 0 itself, if it is the quicker one.
    said = "train_multihost: a host was lost" in output
    assert said or (lost == 0 and "another task died" in output)
    assert not said or "Traceback" not in output
    done = json.loads(state.read_text())["epoch"]
    assert 1 <= done < 400
    assert [row["epoch"] for row in log(tmp_path)] == list(range(1, done + 1))

    arguments = (*ARGUMENTS, "--epochs", done + 2)
    outputs = finished(start_hosts("example.main()", tmp_path, *arguments))
    assert f"resuming after epoch {done} of {done + 2}" in outputs[0]
    epochs = [row["epoch"] for row in log(tmp_path)]
    assert epochs == list(range(1, done + 3))
    steps = int(
        keras.saving.load_model(
            tmp_path / "run/model.keras"
        ).optimizer.iterations
    )
    assert steps == 5 * (done + 2)


@needs_jax
@pytest.mark.slow
def test_one_host_as_a_user_starts_it(tmp_path):
    answer = subprocess.run(
        [sys.executable, SCRIPT, "--epochs", "3", "--verbose", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    folder = tmp_path / "runs" / "multihost"
    folder.rename(tmp_path / "run")
    rows = log(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["val_accuracy"] > 0.5
