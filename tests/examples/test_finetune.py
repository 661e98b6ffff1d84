"""The example that takes a trained network to other images."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image
from support import EXAMPLES, load_example, randomize

import keras_csp
from keras_csp.data import load_classification
from keras_csp.models.builder import build_network
from keras_csp.models.spec import NetworkSpec, Stage, conv, csp, max_pool

SCRIPT = EXAMPLES / "finetune.py"
# As CSPPeleeNet, it has a layer between the pooling and the classifier.
NAME = "Small"
FACTORY = functools.partial(
    build_network,
    NetworkSpec(
        name=NAME,
        provenance="A small network for tests.",
        stem=(conv(8, 3, 2), max_pool(2)),
        stages=(
            Stage(blocks=(conv(8, 3),)),
            Stage(down=(conv(16, 3, 2),), blocks=(csp((conv(8, 3),)),)),
        ),
        pre_logits=(conv(40),),
    ),
)


@pytest.fixture
def example(monkeypatch):
    """The example, with a small network in the place of every other."""
    module = load_example("finetune")
    get_factory = keras_csp.get_factory
    monkeypatch.setattr(
        keras_csp,
        "get_factory",
        lambda name: FACTORY if name == NAME else get_factory(name),
    )
    return module


def run(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    example.main()


def parse(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    return example.parse()


def paint(folder, classes, number):
    """Images of one colour a class, and noise."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        colour = np.array([(40, 220, 130)[(label + i) % 3] for i in range(3)])
        for split, count in (("train", number), ("test", 6)):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(-35, 35, (40, 48, 3))
                pixels = (colour + noise).astype("uint8")
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 training and 18 test images of three classes."""
    return paint(tmp_path_factory.mktemp("images"), 3, 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Files of the same network with five classes, and its features."""
    folder = tmp_path_factory.mktemp("trained")
    model = randomize(FACTORY(input_shape=(32, 32, 3), classes=5))
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    return folder, features(model)


def features(model):
    """Values of what comes before the pooling, in their order."""
    end = [layer.name for layer in model.layers].index("avg_pool")
    return [
        variable.numpy()
        for layer in model.layers[:end]
        for variable in layer.variables
    ]


def assert_same(found, expected):
    assert len(found) == len(expected) > 20
    for value, wanted in zip(found, expected):
        np.testing.assert_array_equal(value, wanted)


def values(model):
    return {v.path: v.numpy() for v in model.variables if "seed" not in v.path}


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
def test_the_classifier_is_replaced_and_nothing_else(
    example, monkeypatch, images, trained, file
):
    folder, expected = trained
    data, _test = load_classification(images)
    options = parse(example, monkeypatch, "--model", NAME, "--size", 32)
    model = example.build(options, data, str(folder / file))
    assert model.output_shape == (None, 3)
    assert_same(features(model), expected)
    width = features(model)[-1].shape[0]  # of a normalisation
    end = [v.shape for v in model.variables[len(expected) :]]
    assert end == [(width, 3), (3,)]


def changed(before, after):
    return {p for p in before if not np.array_equal(before[p], after[p])}


def test_what_each_phase_trains(example, monkeypatch, images, trained):
    """Classifier; last stage; everything: by the values that change."""
    data = load_classification(images)
    options = parse(
        example, monkeypatch,
        *("--model", NAME, "--size", 32, "--epochs", 2, "--verbose", 0),
    )  # fmt: skip
    model = example.build(options, data[0], str(trained[0] / "model.keras"))
    moving = ("moving_mean", "moving_variance", "gamma", "beta")
    phases = example.RECIPE.phases
    assert [phase.part for phase in phases] == ["head", "last_stage", "all"]
    everything = set(values(model))
    head = {"predictions/kernel", "predictions/bias"}
    stage2 = {path for path in everything if path.startswith("stage2")}
    assert len(stage2) > 5
    expected = (
        head,
        head | {path for path in stage2 if not path.endswith(moving)},
        everything,
    )
    for phase, wanted in zip(phases, expected):
        before = values(model)
        alone = example.recipes.dataclasses.replace(phase, share=1.0)
        result = example.train(model, data, options, (alone,))
        assert changed(before, values(model)) == wanted, phase.part
        assert len(result["accuracies"]) == 2


class Model:
    """Notes what is asked of it, in the place of a network."""

    def __init__(self):
        self.fits, self.rates, self.layers = [], [], []

    def compile(self, optimizer, *_arguments, **_options):
        self.rates.append(optimizer._learning_rate)

    def fit(self, _images, epochs, initial_epoch, **_options):
        self.fits.append((initial_epoch, epochs))
        accuracies = [e / 100 for e in range(initial_epoch, epochs)]
        return type("History", (), {"history": {"val_accuracy": accuracies}})


@pytest.mark.parametrize(
    ("epochs", "ends"),
    [(3, [1, 2, 3]), (5, [1, 2, 5]), (20, [2, 4, 20]), (40, [4, 8, 40])],
)
def test_the_phases_share_the_epochs(
    example, monkeypatch, images, epochs, ends
):
    """A tenth, a tenth, the rest; each an epoch, and its own schedule."""
    data = load_classification(images)
    options = parse(example, monkeypatch, "--epochs", epochs, "--size", 32)
    monkeypatch.setattr(example.recipes.Phase, "apply", lambda *_: None)
    model = Model()
    found = example.train(model, data, options, example.RECIPE.phases)
    starts = [0, *ends[:-1]]
    assert model.fits == [*zip(starts, ends)]
    assert found["ends"] == ends
    assert found["accuracies"] == [e / 100 for e in range(epochs)]
    # 24 images are one batch: an epoch is a step. Each rate is zero at its end.
    for schedule, start, end in zip(model.rates, starts, ends):
        assert float(schedule(end - start)) == pytest.approx(0, abs=1e-9)
    scratch = Model()
    example.train(scratch, data, options, (example.SCRATCH,))
    assert scratch.fits == [(0, epochs)]


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_normalization_frozen_or_not(
    example, monkeypatch, images, tmp_path, frozen
):
    asked = {}

    def train(_model, _data, _options, phases):
        asked[len(phases)] = [p.batch_normalization for p in phases]
        raise ValueError("enough")

    monkeypatch.setattr(example, "train", train)
    monkeypatch.setattr(example, "build", lambda *_: None)
    flag = ["--freeze-norm"] if frozen else []
    with pytest.raises(SystemExit, match="enough"):
        run(
            example,
            monkeypatch,
            *("--data", images, "--output", tmp_path, *flag),
        )
    assert asked == {3: [False, False, not frozen]}
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["freeze_norm"] is frozen


def test_fine_tuning_and_scratch(
    example, monkeypatch, images, trained, tmp_path, capsys
):
    """The files that it promises; what is saved is what is reported."""
    run(
        example, monkeypatch,
        *("--data", images, "--model", NAME, "--size", 32, "--epochs", 3),
        *("--weights", trained[0] / "model.keras", "--compare"),
        *("--verbose", 0, "--output", tmp_path),
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["fine-tuned", "from scratch"]
    assert results["fine-tuned"]["ends"] == [1, 2, 3]
    assert results["from scratch"]["ends"] == [3]
    said = capsys.readouterr().out
    for name, result in results.items():
        assert len(result["accuracies"]) == 3
        accuracy = result["accuracies"][-1]
        assert f"{name}: test accuracy {accuracy:.4f}" in said
    # The fine-tuned network, by numpy.
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert not getattr(model, "optimizer", None)
    test = load_classification(images)[1].evaluation(7, 32)
    right = [
        np.argmax(model.predict_on_batch(x), -1) == np.argmax(y, -1)
        for x, y in test
    ]
    expected = np.concatenate(right)
    assert len(expected) == 18
    accuracy = results["fine-tuned"]["accuracies"][-1]
    assert accuracy == pytest.approx(expected.mean(), abs=1e-6)
    # Its features started from the file, and have gone little way from it.
    distance = [
        np.abs(value - wanted).mean()
        for value, wanted in zip(features(model), trained[1])
        if value.ndim == 4
    ]
    assert 0 < np.mean(distance) < 0.02
    classes = json.loads((tmp_path / "classes.json").read_text())
    assert classes == {"names": ["class0", "class1", "class2"], "size": 32}
    assert np.asarray(Image.open(tmp_path / "curves.png")).std() > 10
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["model"] == NAME and kept["compare"] is True
    assert kept["recipe"]["name"] == "fine-tuning" in said
    assert len([*tmp_path.iterdir()]) == 5


@pytest.mark.slow
def test_from_scratch_alone(example, monkeypatch, images, tmp_path, capsys):
    """And what it saves is a file to fine-tune from."""
    run(
        example, monkeypatch,
        *("--data", images, "--model", NAME, "--size", 32, "--epochs", 3),
        *("--weights", "none", "--verbose", 0, "--output", tmp_path),
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["from scratch"]
    assert "from scratch: test accuracy" in capsys.readouterr().out
    saved = keras.saving.load_model(tmp_path / "model.keras")
    options = parse(example, monkeypatch, "--model", NAME, "--size", 32)
    data = load_classification("digits")[0]

    class TenColours:
        channels, class_names = 3, data.class_names

    model = example.build(options, TenColours, str(tmp_path / "model.keras"))
    assert model.output_shape == (None, 10)
    assert_same(features(model), features(saved))


@pytest.mark.parametrize("channels", [3, 1])
def test_imagenet_weights_get_normalised_images(
    example, monkeypatch, rng, channels
):
    """(x - mean) / std of timm's record of CSPResNet50; grey three times."""
    asked = []

    def factory(weights, **options):
        asked.append(weights)
        return FACTORY(**options)

    monkeypatch.setattr(keras_csp, "get_factory", lambda _name: factory)
    options = parse(
        example, monkeypatch, "--model", "CSPResNet50", "--size", 32
    )

    class Data:
        class_names = ("a", "b")

    Data.channels = channels
    model = example.build(options, Data, "imagenet")
    assert asked == ["imagenet"]
    assert model.input_shape == (None, 32, 32, channels)
    x = rng.random((2, 32, 32, channels)).astype("float32")
    first = next(x for x in model.layers if x.name.startswith("stem"))
    given = keras.Model(model.input, first.input).predict(x, verbose=0)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    colour = np.repeat(x, 3, -1) if channels == 1 else x
    expected = (colour - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    # Weights of one's own were trained with pixels in [0, 1].
    plain = example.build(options, Data, None)
    assert plain.layers[1].name.startswith("stem")


def test_a_saved_imagenet_network_keeps_its_normalisation(
    example, monkeypatch, rng, tmp_path
):
    monkeypatch.setattr(
        keras_csp, "get_factory",
        lambda _name: lambda weights, **options: FACTORY(**options),
    )  # fmt: skip
    options = parse(
        example, monkeypatch, "--model", "CSPResNet50", "--size", 32
    )

    class Data:
        channels, class_names = 3, ("a", "b")

    model = randomize(example.build(options, Data, "imagenet"))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.random((2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data nowhere", "does not exist: nowhere"),
        ("--data tfds:nothing_like_it", "cannot be had"),
        ("--epochs 2", "--epochs: 3 or more, not 2"),
        ("--model CSPPeleNet", "Did you mean CSPPeleeNet"),
        ("--model CSPPeleNet --weights none", "Did you mean CSPPeleeNet"),
        ("--weights none.keras", "names no file"),
        ("--weights weights.pth", "refused"),
        ("--weights notes.txt", "`weights` must be"),
        ("--weights text.keras", "text.keras"),
        ("--weights other.weights.h5", "does not fit"),
        ("--model HarDNet138s", "no published checkpoint 'HarDNet138s'"),
        ("--size 16 --weights none", "at least 32x32"),
    ],
)
def test_mistakes_are_one_line(
    example, monkeypatch, images, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "weights.pth").write_text("no model")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    other.save_weights(tmp_path / "other.weights.h5")
    good = ("--data", images, "--model", NAME, "--size", 32, "--epochs", 3)
    with pytest.raises(SystemExit) as caught:
        run(example, monkeypatch, *good, *arguments.split())
    assert message in str(caught.value)
    assert str(caught.value).startswith("finetune: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--size", "--epochs"])
def test_numbers_must_be_positive(example, monkeypatch, capsys, option):
    with pytest.raises(SystemExit):
        run(example, monkeypatch, option, "0")
    assert "not a positive number: '0'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_leaves_no_half_files(images, tmp_path):
    """kill -9 once the model is there, while it trains from scratch."""
    model = FACTORY(input_shape=(32, 32, 3), classes=5)
    del model
    network = keras_csp.CSPResNet10(input_shape=(32, 32, 3), classes=5)
    network.save_weights(tmp_path / "five.weights.h5")
    output = tmp_path / "out"
    command = [
        *("--data", images, "--model", "CSPResNet10", "--size", "32"),
        *("--epochs", "3", "--weights", tmp_path / "five.weights.h5"),
        *("--compare", "--verbose", "0", "--output", output),
    ]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *command], env=dict(os.environ)
    )
    try:
        limit = time.monotonic() + 600
        while not (output / "model.keras").is_file():
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    # Whole: it was renamed into its place.
    assert keras.saving.load_model(output / "model.keras").built
    subprocess.run([sys.executable, SCRIPT, *command], check=True)
    results = json.loads((output / "results.json").read_text())
    assert [len(r["accuracies"]) for r in results.values()] == [3, 3]
    assert re.fullmatch(r"[^p].*", min(p.name for p in output.iterdir()))
