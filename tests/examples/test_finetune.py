"""examples/finetune.py: in this process, and killed as a user might."""

import dataclasses
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
from keras_csp.training.recipes import FINE_TUNING, get_recipe

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
    recipe = example.make_recipe(options)
    model = example.build(options, recipe, data, str(folder / file))
    assert model.output_shape == (None, 3)
    spec = keras_csp.image_spec(model)
    assert spec.class_names == ("class0", "class1", "class2")
    assert spec.size == (32, 32)
    assert_same(features(model), expected)
    width = features(model)[-1].shape[0]  # of a normalisation
    end = [v.shape for v in model.variables[len(expected) :]]
    assert end == [(width, 3), (3,)]


def changed(before, after):
    return {p for p in before if not np.array_equal(before[p], after[p])}


@pytest.mark.slow
def test_what_each_phase_trains(example, monkeypatch, images, trained):
    """Classifier; last stage; everything: by the values that change."""
    data, test = load_classification(images)
    options = parse(
        example,
        monkeypatch,
        *("--model", NAME, "--size", 32, "--epochs", 1, "--verbose", 0),
    )
    recipe = example.make_recipe(options)
    weights = str(trained[0] / "model.keras")
    model = example.build(options, recipe, data, weights)
    moving = ("moving_mean", "moving_variance", "gamma", "beta")
    assert [p.part for p in recipe.phases] == ["head", "last_stage", "all"]
    everything = set(values(model))
    head = {"predictions/kernel", "predictions/bias"}
    stage2 = {path for path in everything if path.startswith("stage2")}
    assert len(stage2) > 5
    expected = (
        head,
        head | {path for path in stage2 if not path.endswith(moving)},
        everything,
    )
    for phase, wanted in zip(recipe.phases, expected):
        before = values(model)
        alone = dataclasses.replace(phase, fraction=1.0)
        plan = recipe.replace(phases=(alone,))
        result = example.train(model, plan, data, test, options)
        assert changed(before, values(model)) == wanted, phase.part
        assert len(result["accuracies"]) == 1


class Model:
    """Notes what is asked of it, in the place of a network."""

    def __init__(self):
        self.fits, self.schedules = [], []

    def compile(self, optimizer, *_arguments, **_options):
        self.schedules.append(optimizer._learning_rate)

    def fit(self, _images, epochs, initial_epoch, **_options):
        self.fits.append((initial_epoch, epochs))
        accuracies = [e / 100 for e in range(initial_epoch, epochs)]
        return type("History", (), {"history": {"val_accuracy": accuracies}})


def test_each_phase_has_its_own_epochs_and_schedule(
    example, monkeypatch, images
):
    data, test = load_classification(images)
    options = parse(example, monkeypatch, "--epochs", 20, "--size", 32)
    recipe = example.make_recipe(options)
    monkeypatch.setattr(example.Phase, "apply", lambda *_: None)
    for batches in ("training", "evaluation"):
        monkeypatch.setattr(type(recipe), batches, lambda *_: None)
    model = Model()
    found = example.train(model, recipe, data, test, options)
    assert model.fits == [(0, 2), (2, 4), (4, 20)]
    assert found["ends"] == [2, 4, 20]
    assert found["accuracies"] == [e / 100 for e in range(20)]
    # 24 images are one batch: an epoch is a step.
    for schedule, phase, steps in zip(
        model.schedules, recipe.phases, (2, 2, 16)
    ):
        factor = phase.learning_rate_factor
        first = float(schedule(1 if steps >= 10 else 0))
        assert 0 < first <= factor * recipe.learning_rate * 1.0001
        assert first > 0.5 * factor * recipe.learning_rate
        assert float(schedule(steps)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", FINE_TUNING),
        ("--batch 7", FINE_TUNING.replace(batch_size=7)),
        ("--size 32", FINE_TUNING.at_size(32)),
        (
            "--freeze-norm",
            FINE_TUNING.replace(
                phases=[
                    dataclasses.replace(phase, batch_normalization=False)
                    for phase in FINE_TUNING.phases
                ]
            ),
        ),
    ],
)
def test_the_arguments_change_the_recipe(
    example, monkeypatch, arguments, expected
):
    options = parse(example, monkeypatch, *arguments.split())
    assert example.make_recipe(options) == expected


@pytest.mark.slow
def test_fine_tuning_and_scratch(
    example, monkeypatch, images, trained, tmp_path, capsys
):
    """The files that it promises; what is saved is what is reported."""
    run(
        example,
        monkeypatch,
        *("--data", images, "--model", NAME, "--size", 32, "--epochs", 3),
        *("--weights", trained[0] / "model.keras", "--compare"),
        *("--verbose", 0, "--output", tmp_path),
    )
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
    spec = keras_csp.image_spec(model)
    assert spec.class_names == ("class0", "class1", "class2")
    assert spec.size == (32, 32)
    assert np.asarray(Image.open(tmp_path / "curves.png")).std() > 10
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["model"] == NAME and kept["compare"] is True
    assert get_recipe(tmp_path / "run.json") == FINE_TUNING.at_size(32)
    assert "recipe fine-tuning" in said
    assert len([*tmp_path.iterdir()]) == 4


@pytest.mark.slow
def test_from_scratch_alone(example, monkeypatch, images, tmp_path, capsys):
    """And what it saves is a file to fine-tune from."""
    run(
        example,
        monkeypatch,
        *("--data", images, "--model", NAME, "--size", 32, "--epochs", 3),
        *("--weights", "none", "--verbose", 0, "--output", tmp_path),
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["from scratch"]
    assert "from scratch: test accuracy" in capsys.readouterr().out
    assert [p.part for p in get_recipe(tmp_path / "run.json").phases] == ["all"]
    saved = keras.saving.load_model(tmp_path / "model.keras")
    options = parse(example, monkeypatch, "--model", NAME, "--size", 32)
    recipe = example.make_recipe(options)

    class TenColours:
        channels, class_names = 3, tuple("0123456789")

    path = str(tmp_path / "model.keras")
    model = example.build(options, recipe, TenColours, path)
    assert model.output_shape == (None, 10)
    assert_same(features(model), features(saved))


def test_published_weights_keep_their_pixels(
    example, monkeypatch, rng, tmp_path
):
    """Grey images get three channels; the statistics are saved."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    asked = []

    def factory(weights, **options):
        asked.append((weights, options["input_shape"]))
        model = randomize(FACTORY(**options))
        return keras_csp.with_image_spec(model, mean=mean, std=std, crop=0.9)

    monkeypatch.setattr(keras_csp, "get_factory", lambda _name: factory)
    options = parse(example, monkeypatch, "--size", 32)
    recipe = example.make_recipe(options)
    data, _test = load_classification("digits")
    assert data.channels == 1
    model = example.build(options, recipe, data, "imagenet")
    assert asked == [("imagenet", (32, 32, 3))]
    spec = keras_csp.image_spec(model)
    assert (spec.mean, spec.std, spec.crop) == (mean, std, 0.9)
    assert spec.class_names == data.class_names
    images, _labels = next(iter(recipe.training(data.first(8), model)))
    assert images.shape == (8, 32, 32, 3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert keras_csp.image_spec(again) == spec
    np.testing.assert_allclose(
        again.predict(images, verbose=0),
        model.predict(images, verbose=0),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data nowhere", "does not exist: nowhere"),
        ("--data tfds:nothing_like_it", "nothing_like_it"),
        ("--epochs 2", "at least 3 epochs. Received: epochs=2"),
        ("--recipe small-classification", "has no phases"),
        ("--recipe small-detection", "small-detection"),
        ("--model CSPPeleNet", "Did you mean CSPPeleeNet"),
        ("--model CSPPeleNet --weights none", "Did you mean CSPPeleeNet"),
        ("--weights none.keras", "names no file"),
        ("--weights weights.pth", "refused"),
        ("--weights notes.txt", "`weights` must be"),
        ("--weights text.keras", "text.keras"),
        ("--weights other.weights.h5", "does not fit"),
        ("--model HarDNet138s", "HarDNet138s"),
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
