"""Recipes: what each field changes, and that nothing of a recipe is lost."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import SMALL, reload_config

import keras_csp
from keras_csp.data import (
    ClassificationAugmentation,
    ClassificationData,
    DetectionAugmentation,
    load_detection,
)
from keras_csp.models.builder import build_network
from keras_csp.training.phases import Phase
from keras_csp.training.recipes import (
    FINE_TUNING,
    FINE_TUNING_DETECTION,
    PAPER_CLASSIFICATION,
    PAPER_CLASSIFICATION_DENSE,
    PAPER_DETECTION,
    RECIPES,
    SMALL_CLASSIFICATION,
    SMALL_DETECTION,
    from_config,
    get_recipe,
)

CROSS_ENTROPY = "categorical_crossentropy"


# What runs ----------------------------------------------------------------

CLASSIFICATION = SMALL_CLASSIFICATION.replace(
    steps=40, batch_size=4, momentum=0.5
).at_size(32)
DETECTION = PAPER_DETECTION.replace(
    steps=40,
    batch_size=2,
    box_loss="ciou",
    sizes=(64,),
    size=64,
    clip_norm=5.0,
    learning_rate=0.01,
)


def other_augmentation(recipe):
    """Each field of the augmentation with another value."""
    for name, value in recipe.augmentation.items():
        if isinstance(value, bool):
            changed = not value
        elif name in ("mixup", "cutmix", "mosaic", "vertical_flip"):
            changed = 1.0
        elif name == "flip":
            changed = 0.0
        elif name == "rand_augment":
            changed = 0.9
        else:
            changed = type(value)(value / 2 if name == "jitter" else 2 * value)
        yield name, recipe.with_augmentation(**{name: changed})


SGD = CLASSIFICATION.replace(optimizer="sgd")
DROPS = CLASSIFICATION.replace(decay="steps", drops=(0.1,))
# What each field changes: the updates of a weight, the losses or the batches.
BOTH = {
    "learning_rate": ("updates", 0.3),
    "weight_decay": ("updates", 0.2),
    "steps": ("updates", 20),
    "warmup": ("updates", 1),
    "warmup_power": ("updates", 2),
    "decay": ("updates", "polynomial"),
    "clip_norm": ("updates", 1e-4),
    "ema": ("updates", 0.5),
    "accumulation": ("updates", 2),
    "label_smoothing": ("losses", 0.4),
    "batch_size": ("batches", 3),
}
CHANGES = [
    *((CLASSIFICATION, *change) for change in BOTH.items()),
    *((DETECTION, *change) for change in BOTH.items()),
    (CLASSIFICATION, "optimizer", ("updates", "sgd")),
    (DETECTION, "optimizer", ("updates", "adamw")),
    (SGD, "momentum", ("updates", 0.1)),
    (DETECTION, "momentum", ("updates", 0.1)),
    (DROPS, "drops", ("updates", (0.2,))),
    (DETECTION, "drops", ("updates", (0.1, 0.2))),
    (DROPS, "drop_factors", ("updates", (0.7,))),
    (
        DETECTION.replace(drops=(0.1, 0.2)),
        "drop_factors",
        ("updates", (0.5, 0.7)),
    ),
    (CLASSIFICATION, "size", ("batches", 48)),
    (CLASSIFICATION, "drop_remainder", ("batches", False)),
    (DETECTION, "size", ("batches", 96)),
    (DETECTION, "sizes", ("batches", (96,))),
    (DETECTION, "evaluation_batch_size", ("batches", 1)),
    (DETECTION, "box_loss", ("losses", "mse")),
    (DETECTION, "ignore_threshold", ("losses", 0.0)),
    (DETECTION, "anchor_threshold", ("losses", 0.0)),
    (DETECTION, "box_weight", ("losses", 5.0)),
    (DETECTION, "objectness_weight", ("losses", 5.0)),
    (DETECTION, "class_weight", ("losses", 5.0)),
]
# Fields that do not enter a training, and those that have tests of their own.
ELSEWHERE = {
    "name",
    "source",
    "augmentation",
    "layer_decay",
    "phases",
    "ten_crop_shift",
}


@pytest.fixture(scope="module")
def classified():
    """Ten noisy images of two classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 40, 40, 3), "uint8")
    pairs = tf.data.Dataset.from_tensor_slices((images, [0, 1] * 5))
    return ClassificationData.from_dataset(pairs, ("a", "b"))


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """Five noisy images with two boxes each, of two classes."""
    folder = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(1, 6):
        pixels = rng.integers(0, 256, (60, 80, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
        image = {"id": number, "file_name": f"{number}.png"}
        images.append({**image, "width": 80, "height": 60})
        for category, box in ((1, [5, 5, 30, 20]), (2, [40, 20, 35, 35])):
            found = {"id": len(boxes) + 1, "image_id": number, "bbox": box}
            boxes.append({**found, "category_id": category})
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": names}
    (folder / "boxes.json").write_text(json.dumps(content))
    return load_detection(folder / "boxes.json", images=folder)


def batches(recipe, data):
    """The arrays of a training's and of a validation's batches."""
    epoch = [*recipe.training(data, seed=1), *recipe.evaluation(data)]
    return [np.asarray(part) for part in tf.nest.flatten(epoch)]


def updates(recipe, _data):
    """A weight after each of 24 batches, with gradients made up."""
    rng = np.random.default_rng(0)
    variable = keras.Variable([1.0, -2.0], dtype="float32", name="kernel")
    optimizer = recipe.make_optimizer()
    optimizer.build([variable])
    found = []
    for _batch in range(24):
        gradient = rng.normal(0.2, 1, 2).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        found.append(variable.numpy().copy())
    optimizer.finalize_variable_values([variable])
    return [*found, variable.numpy()]


def losses(recipe, _data):
    """Of made-up predictions."""
    rng = np.random.default_rng(0)
    if recipe.kind == "classification":
        labels = np.eye(3, dtype="float32")[[0, 2]]
        found = rng.dirichlet(np.ones(3), 2).astype("float32")
        return [np.array(float(recipe.make_loss()(labels, found)))]
    head = keras_csp.layers.YoloHead(
        [(20.0, 30.0), (24.0, 26.0), (60.0, 40.0)], classes=2, stride=32
    )
    maps = rng.normal(0, 1, (1, 2, 2, 21)).astype("float32")
    targets = {
        "boxes": np.array([[[3, 4, 27, 32], [10, 20, 62, 60]]], "float32"),
        "labels": np.array([[0, 1]], "int32"),
    }
    parts = recipe.make_loss()(targets, [head(maps)], [head])
    return [np.array(float(part)) for part in parts.values()]


def is_same(one, two):
    return len(one) == len(two) and all(
        a.shape == b.shape and np.array_equal(a, b) for a, b in zip(one, two)
    )


WHAT = {"updates": updates, "losses": losses, "batches": batches}


def slow_if_batches(recipe, name, change):
    """A pipeline takes seconds to be traced."""
    marks = [pytest.mark.slow] if change[0] == "batches" else []
    return pytest.param(
        recipe, name, change, id=f"{recipe.kind}-{name}", marks=marks
    )


@pytest.mark.parametrize(
    ("recipe", "name", "change"),
    [slow_if_batches(*change) for change in CHANGES],
)
def test_every_field_changes_what_runs(classified, boxed, recipe, name, change):
    data = classified if recipe.kind == "classification" else boxed
    what, value = change
    changed = dataclasses.replace(recipe, **{name: value})
    assert not is_same(WHAT[what](recipe, data), WHAT[what](changed, data))


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("recipe", [CLASSIFICATION, DETECTION], ids="CD")
def test_the_same_recipe_runs_the_same(classified, boxed, recipe, what):
    """Or the tests around this one would prove nothing."""
    data = classified if recipe.kind == "classification" else boxed
    assert is_same(WHAT[what](recipe, data), WHAT[what](recipe, data))


@pytest.mark.parametrize("recipe", [CLASSIFICATION, DETECTION], ids="CD")
def test_every_field_is_tried(recipe):
    tried = {name for one, name, _ in CHANGES if one.kind == recipe.kind}
    fields = {field.name for field in dataclasses.fields(recipe)}
    assert fields - ELSEWHERE <= tried


AUGMENTATIONS = [
    (recipe, name, changed)
    for recipe in (CLASSIFICATION, DETECTION)
    for name, changed in other_augmentation(recipe)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "name", "changed"),
    AUGMENTATIONS,
    ids=[f"{recipe.kind}-{name}" for recipe, name, _ in AUGMENTATIONS],
)
def test_every_augmentation_changes_what_runs(
    classified, boxed, recipe, name, changed
):
    data = classified if recipe.kind == "classification" else boxed

    def images(recipe):
        batches = recipe.training(data, seed=1)
        return [np.asarray(images) for images, _ in batches]

    assert recipe.augmentation[name] != changed.augmentation[name]
    assert not is_same(images(recipe), images(changed))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_all_of_its_augmentation(name):
    """So that what is saved does not depend on defaults."""
    recipe = get_recipe(name)
    made = recipe.make_augmentation()
    assert dataclasses.asdict(made) == recipe.augmentation
    kinds = {
        "classification": ClassificationAugmentation,
        "detection": DetectionAugmentation,
    }
    assert isinstance(made, kinds[recipe.kind])


def test_the_sizes_are_those_of_the_batches(boxed):
    recipe = DETECTION.replace(batch_size=1, sizes=(64, 96))
    sides = set()
    for _epoch in range(3):
        for images, _ in recipe.training(boxed):
            assert images.shape[1] == images.shape[2]
            sides.add(images.shape[1])
    assert sides == {64, 96}
    assert {x.shape[1:] for x, _ in recipe.evaluation(boxed)} == {(64, 64, 3)}


def test_a_built_network_knows_its_size_and_classes(classified):
    def factory(**options):
        return build_network(SMALL["SmallMobile"], **options)

    model = CLASSIFICATION.build(factory, classified, metrics=["accuracy"])
    spec = keras_csp.image_spec(model)
    assert spec.size == (32, 32)
    assert spec.class_names == ("a", "b")
    assert (spec.resize, spec.crop) == ("crop", 1.0)
    history = model.fit(
        CLASSIFICATION.training(classified, model),
        validation_data=CLASSIFICATION.evaluation(classified, model),
        verbose=0,
    ).history
    assert "val_accuracy" in history
    assert isinstance(model.optimizer, keras.optimizers.AdamW)


# Facts and changes --------------------------------------------------------


def test_the_papers_facts():
    """As its section 4 and the authors' cfg files print them."""
    assert PAPER_CLASSIFICATION.steps == 800_000
    assert PAPER_CLASSIFICATION_DENSE.steps == 1_600_000
    assert PAPER_DETECTION.steps == 500_000
    for recipe in (PAPER_CLASSIFICATION, PAPER_CLASSIFICATION_DENSE):
        assert recipe.learning_rate == 0.1
        assert recipe.batch_size == 128
        assert recipe.augmentation["min_crop"] == 128
        assert recipe.augmentation["max_crop"] == 448
    assert (PAPER_CLASSIFICATION.size, PAPER_CLASSIFICATION_DENSE.size) == (
        256,
        224,
    )
    # random=1: from 416 / 1.4 to 416 x 1.4.
    assert min(PAPER_DETECTION.sizes) == round(416 / 1.4 / 32) * 32
    assert max(PAPER_DETECTION.sizes) == round(416 * 1.4 / 32 + 1) * 32


def test_another_size_scales_crops_and_sizes():
    small = SMALL_CLASSIFICATION.at_size(32)
    crops = [small.augmentation[k] for k in ("min_crop", "max_crop")]
    assert (small.size, crops, small.ten_crop_shift) == (32, [16, 56], 4)
    large = SMALL_CLASSIFICATION.at_size(224)
    crops = [large.augmentation[k] for k in ("min_crop", "max_crop")]
    assert (large.size, crops, large.ten_crop_shift) == (224, [112, 392], 28)
    assert SMALL_CLASSIFICATION.at_size(None) is SMALL_CLASSIFICATION
    # 288 x 224 / 416 is 155, 608 x 224 / 416 is 327.
    half = PAPER_DETECTION.at_size(224)
    assert half.sizes == (160, 192, 224, 256, 288, 320)
    assert SMALL_DETECTION.at_size(320).sizes == (320,)


def test_a_recipe_with_other_values():
    changed = get_recipe(
        "paper-classification", batch_size=7, label_smoothing=None
    )
    assert changed == dataclasses.replace(PAPER_CLASSIFICATION, batch_size=7)
    flipped = changed.with_augmentation(flip=0.0, mixup=None)
    assert flipped.augmentation == {**changed.augmentation, "flip": 0.0}
    assert changed.augmentation["flip"] == 0.5
    made = changed.replace(augmentation=ClassificationAugmentation.light(9))
    assert made.make_augmentation() == ClassificationAugmentation.light(9)


def test_recipes_do_not_share_what_can_be_changed():
    PAPER_CLASSIFICATION.replace(name="x").augmentation["flip"] = 0.125
    assert PAPER_CLASSIFICATION.augmentation["flip"] == 0.5
    assert PAPER_CLASSIFICATION_DENSE.augmentation["flip"] == 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_lost_in_json(name):
    recipe = get_recipe(name)
    copy = from_config(json.loads(json.dumps(recipe.get_config())))
    assert copy == recipe and type(copy) is type(recipe)


def test_a_recipe_from_the_file_of_a_run(tmp_path):
    path = tmp_path / "run.json"
    recipe = SMALL_DETECTION.with_augmentation(mosaic=0.5)
    path.write_text(json.dumps({"seed": 1, "recipe": recipe.get_config()}))
    assert get_recipe(path) == recipe
    found = get_recipe(str(path), kind="detection", batch_size=3)
    assert found == recipe.replace(batch_size=3)
    with pytest.raises(ValueError, match="a recipe for detection, and one for"):
        get_recipe(path, kind="classification")
    for content in ("{half", "{}", "[]", '{"recipe": {"kind": "x"}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"run\.json has no recipe"):
            get_recipe(path)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"paper-detection.*'paper'"):
        get_recipe("paper")
    with pytest.raises(ValueError, match="recipe='paper-detection'"):
        get_recipe("paper-detection", kind="classification")


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [
        (SMALL_CLASSIFICATION, "optimizer", "adam"),
        (SMALL_CLASSIFICATION, "decay", "linear"),
        (SMALL_CLASSIFICATION, "batch_size", 0),
        (SMALL_CLASSIFICATION, "steps", 0),
        (SMALL_CLASSIFICATION, "accumulation", 0),
        (SMALL_CLASSIFICATION, "size", -1),
        (SMALL_CLASSIFICATION, "ten_crop_shift", 0),
        (SMALL_CLASSIFICATION, "ema", 1.0),
        *(
            (SMALL_CLASSIFICATION, "learning_rate", value)
            for value in (0, -1.0, float("inf"), float("nan"))
        ),
        *(
            (SMALL_CLASSIFICATION, "label_smoothing", value)
            for value in (-0.1, 1, float("nan"))
        ),
        (SMALL_DETECTION, "size", 100),
        (SMALL_DETECTION, "sizes", (96, 97)),
        (SMALL_DETECTION, "sizes", ()),
        (SMALL_DETECTION, "evaluation_batch_size", 0),
    ],
)
def test_values_out_of_range(recipe, name, value):
    with pytest.raises(ValueError, match=f"`{name}.*Received: "):
        recipe.replace(**{name: value})


def test_what_only_augmentation_and_loss_know_is_checked():
    for recipe in RECIPES.values():
        recipe.check()
    with pytest.raises(ValueError, match="`mixup` must be"):
        SMALL_CLASSIFICATION.with_augmentation(mixup=2.0).check()
    with pytest.raises(ValueError, match="unexpected keyword argument 'zoom'"):
        SMALL_CLASSIFICATION.with_augmentation(zoom=2.0).check()
    with pytest.raises(ValueError, match="`box` must be"):
        SMALL_DETECTION.replace(box_loss="l1").check()


def test_epochs_take_the_recipes_steps():
    # 1,281,167 images are 10,009 whole batches of 128; 800,000 / 10,009.
    assert PAPER_CLASSIFICATION.batches(1_281_167) == 10_009
    assert PAPER_CLASSIFICATION.epochs(1_281_167) == 80
    assert PAPER_CLASSIFICATION_DENSE.epochs(1_281_167) == 160
    assert PAPER_CLASSIFICATION.epochs(10**9) == 1
    small = PAPER_CLASSIFICATION.replace(batch_size=32)
    assert small.epochs(1_281_167) == 20
    four = small.replace(accumulation=4)
    assert four.epochs(1_281_167) == 80
    assert four.for_epochs(2, 1000).steps == 2 * 31 // 4
    with pytest.raises(ValueError, match="fewer images, 127, than a batch"):
        PAPER_CLASSIFICATION.batches(127)
    # Of detections the last batch may be smaller.
    assert PAPER_DETECTION.batches(65) == 2
    assert PAPER_DETECTION.for_epochs(3, 65).steps == 6
    assert FINE_TUNING.batches(3) == 1
    phase = Phase("head", 0.1, learning_rate_factor=0.5)
    found = FINE_TUNING.for_phase(phase, 2, 65)
    assert found.learning_rate == FINE_TUNING.learning_rate / 2
    assert found.steps == 4


@pytest.mark.parametrize("phase", [None, FINE_TUNING_DETECTION.phases[0]])
def test_the_average_of_a_short_training_forgets_where_it_began(phase):
    recipe = FINE_TUNING_DETECTION.replace(batch_size=1, ema=0.999)
    short, long = (recipe.for_phase(phase, n, 100) for n in (2, 1000))
    assert short.ema**200 == pytest.approx(np.exp(-10))
    assert long.ema == 0.999
    assert FINE_TUNING.for_phase(phase, 2, 100).ema is None
    # What a run keeps does not: it may go on for more epochs.
    assert recipe.for_epochs(2, 100) == recipe.replace(steps=200)


@pytest.mark.parametrize(
    ("recipe", "phases", "message"),
    [
        (FINE_TUNING_DETECTION, [("last_stage", 1.0)], "'head', 'neck', 'all'"),
        (FINE_TUNING, [("neck", 1.0)], "'head', 'last_stage', 'all'"),
        (FINE_TUNING, [("head", 0.5), ("all", 0.4)], "add up to 1.*0.5, 0.4"),
        (FINE_TUNING, [("head", 0.0), ("all", 1.0)], "`fraction`.*=0.0"),
        (FINE_TUNING, [("head", 0.1, -1.0)], "`learning_rate_factor`.*=-1.0"),
    ],
)
def test_phases_out_of_range(recipe, phases, message):
    names = ("part", "fraction", "learning_rate_factor")
    phases = [dict(zip(names, phase)) for phase in phases]
    with pytest.raises(ValueError, match=message):
        recipe.replace(phases=phases)


def test_a_schedule_of_another_length_keeps_the_fractions():
    schedule = PAPER_DETECTION.replace(steps=1000).make_schedule()
    for step, expected in [
        (50, 0.001 / 16),  # warmup: a tenth of it, 100 steps
        (100, 0.001),
        (799, 0.001),
        (801, 0.0001),
        (901, 0.00001),
    ]:
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)
    # With so few steps none has a learning rate of 0.
    short = PAPER_DETECTION.replace(steps=3).make_schedule()
    for step in (0, 1):
        assert float(short(step)) == pytest.approx(0.001)


@pytest.mark.parametrize("name", RECIPES)
def test_the_summary_names_what_is_in_the_recipe(name):
    recipe = get_recipe(name)
    line = recipe.summary()
    assert "\n" not in line
    expected = [
        recipe.name,
        recipe.optimizer,
        recipe.decay,
        f"{recipe.learning_rate:g}",
        f"batch {recipe.batch_size}",
        f"warmup {recipe.warmup} steps",
        f"decay {recipe.weight_decay:g}",
        f"smoothing {recipe.label_smoothing:g}",
    ]
    if recipe.kind == "detection":
        expected += [recipe.box_loss or "heads' own loss"]
        expected += map(str, recipe.sizes)
    if recipe.ema is not None:
        expected.append(f"moving average {recipe.ema:g}")
    for phase in recipe.phases:
        expected.append(f"{phase.part} for {100 * phase.fraction:g}%")
        expected.append(f"learning rate x{phase.learning_rate_factor:g}")
    for value in expected:
        assert value in line
    short = recipe.replace(steps=400, accumulation=2)
    assert "warmup 40 steps" in short.summary()
    assert f"batch 2 x {recipe.batch_size}" in short.summary()
    assert short.make_schedule().warmup == 40


@pytest.mark.parametrize("name", RECIPES)
def test_optimizer_round_trip(name):
    optimizer = get_recipe(name).make_optimizer()
    copy = reload_config(optimizer)
    assert copy.get_config() == optimizer.get_config()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_a_fraction_of_all_classes(rng, smoothing):
    labels = np.eye(5, dtype="float32")[[0, 3, 4]]
    labels[2] = [0.3, 0, 0.7, 0, 0]  # as MixUp makes them
    found = rng.random((3, 5)).astype("float32") + 0.1
    found /= found.sum(axis=1, keepdims=True)
    recipe = FINE_TUNING.replace(label_smoothing=smoothing)
    wanted = labels * (1 - smoothing) + smoothing / 5
    expected = -(wanted * np.log(found)).sum(axis=1).mean()
    loss = recipe.make_loss()(labels, found)
    assert float(loss) == pytest.approx(expected, 1e-5)


# The optimizer against Darknet's ------------------------------------------


def darknet_updates(w, rates, gradient, momentum=0.9, decay=0.0005):
    """w after update_convolutional_layer of Darknet for each rate.

    The buffer is -(sum of gradients) with the decay added to it, and keeps
    `momentum` of itself; the rate multiplies it when it is applied.
    """
    buffer = np.zeros_like(w)
    for rate in rates:
        buffer = momentum * buffer - gradient(w) - decay * w
        w = w + rate * buffer
    return w


def keras_updates(w, recipe, steps, gradient, name="kernel", until=None):
    """The same steps of the recipe's optimizer, or the first of them."""
    variable = keras.Variable(w, dtype="float32", name=name)
    optimizer = recipe.replace(steps=steps).make_optimizer()
    optimizer.build([variable])
    for _ in range(until or steps):
        slope = gradient(variable.numpy()).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(slope)])
    return variable.numpy()


# Larger values: 300 steps show what 500,000 of the paper's would.
FAST = PAPER_DETECTION.replace(learning_rate=0.05, weight_decay=0.005)


def fast_learning_rates(steps):
    schedule = FAST.replace(steps=steps).make_schedule()
    return [float(schedule(step)) for step in range(steps)]


def test_weight_decay_is_darknets_without_gradients():
    start, steps = np.array([1.0, -2.0, 0.5]), 300
    rates = fast_learning_rates(steps)
    found = keras_updates(start, FAST, steps, np.zeros_like)
    wanted = darknet_updates(start, rates, np.zeros_like, decay=0.005)
    lost = 1 - wanted / start
    assert lost.min() > 0.4  # the decay shows
    np.testing.assert_allclose(1 - found / start, lost, rtol=0.02)
    # A decay not divided by 1 - momentum is ten times too weak.
    assert 1 - np.prod(1 - 0.005 * np.array(rates)) < 0.2 * lost.min()


def test_weight_decay_is_darknets_against_gradients():
    """Both forces: the least of a / 2 (w - 1)^2 + decay / 2 w^2."""
    start, steps, drop = np.array([3.0, -1.0, 0.0]), 300, 240
    steepness = np.array([0.02, 0.1, 0.5])

    def gradient(w):
        return steepness * (w - 1)

    def wanted(until, decay=0.005):
        rates = fast_learning_rates(steps)[:until]
        return darknet_updates(start, rates, gradient, decay=decay)

    before = keras_updates(start, FAST, steps, gradient, until=drop)
    # The slowest is still on its way, and 1 % of that ahead.
    np.testing.assert_allclose(before, wanted(drop), atol=0.025)
    assert np.abs(wanted(drop, decay=0) - wanted(drop)).max() > 0.1
    # The steeper two have arrived where both forces are equal.
    equal = steepness / (steepness + 0.005)
    np.testing.assert_allclose(before[1:], equal[1:], atol=0.005)
    # Where the rate drops, Keras' momentum, which has the old rate in it, goes
    # on against a decay that has the new one, by this much at most.
    push = 0.05 * 0.005 * 0.9 / (1 - 0.9) ** 2
    after = keras_updates(start, FAST, steps, gradient)
    np.testing.assert_allclose(after[1:], wanted(steps)[1:], atol=push)


@pytest.mark.parametrize("name", ["bias", "gamma", "beta"])
@pytest.mark.parametrize("recipe", [FAST, SMALL_DETECTION])
def test_only_kernels_decay(recipe, name):
    start = np.array([1.0, -2.0])
    kept = keras_updates(start, recipe, 50, np.zeros_like, name=name)
    np.testing.assert_array_equal(kept, start)
    decayed = keras_updates(start, recipe, 50, np.zeros_like)
    assert (np.abs(decayed) < np.abs(start)).all()


# Accumulation and averages ------------------------------------------------


def small_convolution():
    """Without batch normalisation, whose statistics are of a batch."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def trained_on(recipe, x, y, batch, accumulation=1):
    """Weights after an epoch of the images in their order."""
    model = small_convolution()
    recipe = recipe.replace(batch_size=batch, accumulation=accumulation)
    recipe = recipe.for_epochs(1, len(x))
    model.compile(recipe.make_optimizer(), CROSS_ENTROPY, jit_compile=False)
    model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
    return model.get_weights()


# Strong enough that decay and clipping show in twelve steps.
ACCUMULATED = [
    FAST.replace(decay="polynomial", clip_norm=0.01),
    SMALL_CLASSIFICATION.replace(clip_norm=0.01),
]


@pytest.mark.parametrize("recipe", ACCUMULATED, ids=lambda r: r.name)
def test_four_accumulated_batches_of_three_are_one_of_twelve(rng, recipe):
    """Rates, momentum, decay and clipping are those of the steps."""
    x = rng.normal(size=(144, 6, 6, 2)).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 144)]
    whole = trained_on(recipe, x, y, 12)
    parts = trained_on(recipe, x, y, 3, accumulation=4)
    others = trained_on(recipe, x, y, 3)
    start = small_convolution().get_weights()
    for a, b, other, before in zip(whole, parts, others, start):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
        # What is equal has moved, and not as batches of three move it.
        assert np.abs(a - before).max() > 1e-4
        assert np.abs(a - other).max() > 1e-4


def averaged(weights, momentum, accumulation):
    """Keras' average after each batch: the weights' own in the first step."""
    mu, average = momentum ** (1 / accumulation), weights[0]
    for number, w in enumerate(weights):
        first = number < accumulation
        average = w if first else mu * average + (1 - mu) * w
    return average


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_moving_average_is_the_recurrence(rng, accumulation):
    momentum, batches = 0.8, 12
    variable = keras.Variable([1.0, -2.0, 0.5], name="kernel")
    optimizer = FAST.replace(
        steps=batches // accumulation, accumulation=accumulation, ema=momentum
    ).make_optimizer()
    optimizer.build([variable])
    weights = []
    for _ in range(batches):
        gradient = rng.normal(size=3).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        weights.append(variable.numpy())
    optimizer.finalize_variable_values([variable])
    wanted = averaged(weights, momentum, accumulation)
    np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5)
    assert np.abs(wanted - weights[-1]).max() > 1e-3


def test_the_momentum_of_the_average_is_that_of_a_step():
    """A step's batches together keep as much of the average as is said."""
    variable = keras.Variable([0.0], name="kernel")
    optimizer = FAST.replace(steps=10, accumulation=4, ema=0.7).make_optimizer()
    optimizer.build([variable])
    zero = [keras.ops.zeros((1,))]
    for _ in range(4):
        optimizer.apply(zero)
    variable.assign([1.0])
    for _ in range(4):  # a step of weights that stay as they are
        optimizer.apply(zero)
    kept = variable.numpy()[0]
    optimizer.finalize_variable_values([variable])
    assert 1 - variable.numpy()[0] / kept == pytest.approx(0.7, abs=0.01)
