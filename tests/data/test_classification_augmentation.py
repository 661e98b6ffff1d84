"""Views against Darknet's formulas; labels against the pixels."""

import functools
import math

import darknet_images
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_csp.data import ClassificationAugmentation, centre_crop
from keras_csp.data import classification_augmentation as module

PLAIN = ClassificationAugmentation(
    min_crop=16,
    max_crop=16,
    angle=0,
    aspect=1,
    flip=0,
    hue=0,
    saturation=1,
    brightness=1,
)


def seeds(count):
    return tf.data.Dataset.range(count).map(
        lambda number: tf.stack([5, number])
    )


def views(augmentation, image, size, count):
    view = module.viewer(augmentation, size)
    dataset = seeds(count).map(functools.partial(view, image))
    return np.stack(list(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("shape", [(30, 44, 3), (37, 20, 1)])
def test_rotated_crop_is_darknets(rng, shape):
    image = rng.integers(0, 256, shape, "uint8")
    for scale, aspect, degrees, down, right in (
        (1.0, 1.0, 0.0, 0.0, 0.0),
        (0.5, 1.2, 0.0, 3.0, -2.5),
        (2.3, 0.8, 7.0, 11.0, 4.0),
        (0.9, 0.75, -40.0, -6.25, 9.5),
    ):
        angle = math.radians(degrees)
        found = module.rotated_crop(
            image, 16, scale, aspect, angle, tf.constant([down, right])
        )
        expected = darknet_images.rotated_crop(
            image / 255, angle, scale, 16, right, down, aspect, centre=0.5
        )
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, expected, atol=2e-4)


def drawn_crops(augmentation, height, width, size, count=4000):
    """Columns of scale, aspect, angle, down and right."""

    def crop(seed):
        scale, aspect, angle, shift = module.drawn_crop(
            augmentation, tf.constant([height, width]), size, seed
        )
        return tf.stack([scale, aspect, angle, *tf.unstack(shift)])

    rows = list(seeds(count).map(crop).as_numpy_iterator())
    return np.array(rows, float).T


@pytest.mark.parametrize(("height", "width"), [(480, 640), (500, 333)])
def test_the_papers_crops_are_darknets(height, width):
    """random_augment_image: each draw in its range, and in all of it."""
    size = 256
    scale, aspect, angle, *shifts = drawn_crops(
        ClassificationAugmentation(), height, width, size
    )
    assert 0.75 <= aspect.min() < 0.755 and 1.325 < aspect.max() <= 4 / 3 + 1e-6
    assert (aspect < 1).mean() == pytest.approx(0.5, abs=0.05)
    shorter = np.floor(np.minimum(height, width * aspect))
    sides = scale * shorter
    np.testing.assert_allclose(sides, sides.round(), atol=1e-3)
    assert 128 <= sides.round().min() < 131
    assert 445 < sides.round().max() <= 448
    counts, _ = np.histogram(sides, np.linspace(127.5, 448.5, 5))
    np.testing.assert_allclose(counts / 4000, 0.25, atol=0.03)
    assert np.abs(angle).max() <= math.radians(7)
    counts, _ = np.histogram(np.degrees(angle), np.linspace(-7, 7, 5))
    np.testing.assert_allclose(counts / 4000, 0.25, atol=0.03)
    rooms = (height * scale - size) / 2, (width * scale / aspect - size) / 2
    for shift, room in zip(shifts, rooms):
        assert not shift[room <= 0].any()
        wide = room > 5
        assert wide.sum() > 1000
        fraction = shift[wide] / room[wide]
        assert np.abs(fraction).max() <= 1 + 1e-4
        counts, _ = np.histogram(fraction, np.linspace(-1, 1, 5))
        np.testing.assert_allclose(counts / wide.sum(), 0.25, atol=0.04)
    draws = np.stack([aspect < 1, sides, angle, *shifts])
    assert np.abs(np.corrcoef(draws) - np.eye(5)).max() < 0.1


def test_both_ends_of_the_scale_are_drawn():
    augmentation = ClassificationAugmentation(min_crop=10, max_crop=13)
    scale, aspect, *_ = drawn_crops(augmentation, 100, 120, 8)
    sides = np.round(scale * np.floor(np.minimum(100, 120 * aspect)))
    counts = [(sides == side).mean() for side in (10, 11, 12, 13)]
    np.testing.assert_allclose(counts, 0.25, atol=0.03)


def test_the_narrowest_image_has_a_view():
    for shape in ((1, 1, 3), (1, 300, 3), (300, 1, 3)):
        image = np.full(shape, 255, "uint8")
        found = views(ClassificationAugmentation.for_size(16), image, 16, 20)
        assert np.isfinite(found).all() and found.max() <= 1


def test_a_view_is_the_image_when_all_is_off(rng):
    image = rng.integers(0, 256, (16, 16, 3), "uint8")
    found = views(PLAIN, image, 16, 2)
    np.testing.assert_allclose(found, [image / 255] * 2, atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((8, 8), 32), ((48, 48), 16)])
def test_training_sees_what_the_evaluation_sees(shape, size):
    """Where nothing varies, at the same place: a grid half a pixel off would
    have the centre of gravity elsewhere."""
    image = np.zeros((*shape, 1), "uint8")
    top, left = shape[0] // 2 - shape[0] // 8, shape[1] // 2 - shape[0] // 8
    image[top : top + shape[0] // 4, left : left + shape[0] // 4] = 255
    options = {**vars(PLAIN), "min_crop": size, "max_crop": size}
    view = views(ClassificationAugmentation(**options), image, size, 1)[0]
    middles = []
    for pixels in (view, np.asarray(centre_crop(image, size))):
        weights = pixels[..., 0] / pixels.sum()
        middles.append(np.argwhere(weights >= 0).T @ weights.ravel())
    np.testing.assert_allclose(*middles, atol=0.2)
    np.testing.assert_allclose(middles[0], (size - 1) / 2, atol=0.2)


@pytest.mark.parametrize("channels", [3, 1, 4])
def test_views(rng, channels):
    """In [0, 1], all different, and the same again."""
    image = rng.integers(0, 256, (50, 40, channels), "uint8")
    augmentation = ClassificationAugmentation.for_size(24)
    found = views(augmentation, image, 24, 60)
    assert found.shape == (60, 24, 24, channels) and found.dtype == "float32"
    assert found.min() >= 0 and 0.9 < found.max() <= 1
    assert len({view.tobytes() for view in found}) == 60
    np.testing.assert_array_equal(found, views(augmentation, image, 24, 60))


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_flips(rng, fraction):
    image = rng.integers(0, 256, (16, 16, 3), "uint8")
    options = {**vars(PLAIN), "flip": fraction}
    found = views(ClassificationAugmentation(**options), image, 16, 300)
    plain = views(PLAIN, image, 16, 1)[0]
    flipped = np.array([(view == plain[:, ::-1]).all() for view in found])
    straight = np.array([(view == plain).all() for view in found])
    assert (flipped ^ straight).all()
    assert flipped.mean() == pytest.approx(fraction, abs=0.08)


def test_light_views_show_most_of_the_image_as_it_is(rng):
    """Of its colours, left to right and top to bottom, from 0.8 of it on."""
    image = np.zeros((32, 32, 3), "uint8")
    image[..., 0] = 7 * np.arange(32)
    image[..., 1] = 7 * np.arange(32)[:, None]
    image[..., 2] = 200
    light = ClassificationAugmentation.light(32, flip=0.0)
    fractions = set()
    for view in views(light, image, 32, 20):
        np.testing.assert_allclose(view[..., 2], 200 / 255, atol=1e-6)
        step = np.diff(view[..., 0], axis=1)
        assert step.min() >= 0
        np.testing.assert_allclose(view[0, :, 0], view[-1, :, 0], atol=1e-6)
        np.testing.assert_allclose(view[:, 0, 1], view[:, -1, 1], atol=1e-6)
        fraction = 255 / 7 / 31 * np.ptp(view[..., 0])
        assert 0.75 < fraction <= 1 + 1e-6
        fractions.add(round(float(fraction), 3))
    assert len(fractions) > 3
    mirrored = ClassificationAugmentation.light(32, flip=1.0)
    (view,) = views(mirrored, image, 32, 1)
    assert np.diff(view[..., 0], axis=1).max() <= 0


def test_for_size_keeps_the_papers_proportion():
    assert ClassificationAugmentation.for_size(256) == (
        ClassificationAugmentation()
    )
    small = ClassificationAugmentation.for_size(32, flip=0)
    assert (small.min_crop, small.max_crop, small.flip) == (16, 56, 0)


# Mixtures. Image i of a batch has one value everywhere, its own.
COUNT, SIDE = 8, 64
VALUES = (np.arange(COUNT) + 1) / 10


def mixtures(count, seed=0, **fractions):
    images = np.zeros((COUNT, SIDE, SIDE, 1), "float32")
    images += VALUES[:, None, None, None].astype("float32")
    batches = tf.data.Dataset.from_tensors(
        (images, np.eye(COUNT, dtype="float32"))
    ).repeat(count)
    augmentation = ClassificationAugmentation(**fractions)
    return module.mixed(augmentation, batches, seed)


def mixed_batches(count, seed=0, **fractions):
    return list(mixtures(count, seed, **fractions).as_numpy_iterator())


def pixel_fractions(images):
    """What fraction of an image's pixels comes from each of the batch."""
    near = np.abs(images - VALUES) < 1e-4
    assert near.any(-1).all()
    return near.mean((1, 2))


def changed(labels):
    return not np.array_equal(labels, np.eye(COUNT))


def test_mixup_labels_are_the_weights():
    batches = mixed_batches(40, mixup=1.0)
    weights = []
    for images, labels in batches:
        assert images.dtype == labels.dtype == "float32"
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-5)
        assert ((labels > 0).sum(1) <= 2).all()
        # One value in all of an image: the mean of two, weighted.
        np.testing.assert_allclose(
            images[..., 0],
            np.broadcast_to((labels @ VALUES)[:, None, None], images.shape[:3]),
            atol=1e-5,
        )
        own = np.diag(labels)
        weights += own[own < 1].tolist()
    # Beta(0.2, 0.2): mostly near 0 or 1, but not only.
    assert 0.2 < np.mean(np.abs(np.subtract(weights, 0.5)) < 0.4) < 0.6


def test_cutmix_labels_are_the_areas():
    own, places = [], []
    for images, labels in mixed_batches(40, cutmix=1.0):
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-5)
        fractions = pixel_fractions(images)
        # The box's sides are not whole pixels.
        np.testing.assert_allclose(labels, fractions, atol=2 / SIDE)
        own += np.diag(labels).tolist()
        for image, label in zip(images[..., 0], labels.argmax(1)):
            rows, columns = np.nonzero(np.abs(image - VALUES[label]) > 1e-4)
            if len(rows):  # a rectangle, or what is around one
                area = np.ptp(rows) + 1, np.ptp(columns) + 1
                assert len(rows) in (math.prod(area), *_frames(image))
                places.append((rows.min(), columns.min()))
    assert np.min(own) < 0.1 and np.max(own) > 0.9
    inside = np.array(places)[np.min(places, axis=1) > 0]
    assert len(inside) > 50
    assert np.abs(np.corrcoef(inside.T)[0, 1]) < 0.4


def _frames(image):
    """Pixels around a rectangle of another value in the middle."""
    inside = np.abs(image - image[0, 0]) > 1e-4
    return (int((~inside).sum()), int(inside.sum()))


def test_mosaic_labels_are_the_areas():
    meetings = []
    for images, labels in mixed_batches(40, mosaic=1.0):
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(labels, pixel_fractions(images), atol=1e-5)
        corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], 0]
        # The first is the image's own, the others are permutations.
        np.testing.assert_allclose(corners[:, 0], VALUES, atol=1e-6)
        np.testing.assert_allclose(np.sort(corners, 0).T, [VALUES] * 4)
        row, column = (
            np.argmax(
                [image[:, 0, 0] != image[0, 0, 0] for image in images], 1
            ),
            np.argmax(
                [image[0, :, 0] != image[0, 0, 0] for image in images], 1
            ),
        )
        top, left = row.max(), column.max()
        meetings.append((top, left))
        for image, (a, b, c, d) in zip(images[..., 0], corners):
            expected = np.empty((SIDE, SIDE))
            expected[:top, :left], expected[:top, left:] = a, b
            expected[top:, :left], expected[top:, left:] = c, d
            np.testing.assert_allclose(image, expected, atol=1e-6)
    assert np.min(meetings) >= round(0.3 * SIDE)
    assert np.max(meetings) <= round(0.7 * SIDE)
    assert np.ptp(meetings, 0).min() > 0.3 * SIDE


def kind(images, labels):
    if not changed(labels):
        return "none"
    if not (np.abs(images - VALUES) < 1e-4).any(-1).all():
        return "mixup"
    return "mosaic" if ((labels > 0).sum(1) > 2).any() else "cutmix"


def test_fractions_of_the_batches():
    fractions = {"mixup": 0.15, "cutmix": 0.2, "mosaic": 0.35}
    kinds = [kind(*batch) for batch in mixed_batches(400, **fractions)]
    for name, fraction in {**fractions, "none": 0.3}.items():
        assert kinds.count(name) / 400 == pytest.approx(fraction, abs=0.06), (
            name
        )


def test_mixtures_are_reproducible_and_differ():
    fractions = {"mixup": 0.3, "cutmix": 0.3, "mosaic": 0.4}
    one, again, other = (
        mixed_batches(12, seed, **fractions) for seed in (3, 3, 4)
    )
    for (images, labels), batch in zip(one, again):
        np.testing.assert_array_equal(images, batch[0])
        np.testing.assert_array_equal(labels, batch[1])
    assert any((a[0] != b[0]).any() for a, b in zip(one, other))
    assert len({labels.tobytes() for _images, labels in one}) == 12


def test_mixtures_are_new_in_every_epoch():
    dataset = mixtures(6, mixup=0.3, cutmix=0.3, mosaic=0.4)
    epochs = [np.concatenate([y for _x, y in dataset]) for _ in range(3)]
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_nothing_is_mixed_by_default():
    batches = tf.data.Dataset.range(1)
    assert module.mixed(ClassificationAugmentation(), batches, 0) is batches


def test_a_batch_of_one():
    batches = tf.data.Dataset.from_tensors(
        (np.full((1, 8, 8, 3), 0.5, "float32"), np.float32([[0, 1]]))
    ).repeat(6)
    augmentation = ClassificationAugmentation(mixup=0.4, cutmix=0.3, mosaic=0.3)
    for images, labels in module.mixed(augmentation, batches, 0):
        np.testing.assert_allclose(images, 0.5, rtol=1e-5)
        np.testing.assert_allclose(labels, [[0, 1]], atol=1e-6)


@pytest.mark.parametrize("channels", [3, 1])
def test_rand_augment(rng, channels):
    """Of each image by itself, and in [0, 1]."""
    image = rng.integers(60, 200, (16, 16, channels), "uint8")
    options = {**vars(PLAIN), "rand_augment": 0.5}
    augmentation = ClassificationAugmentation(**options)
    found = views(augmentation, image, 16, 80)
    assert found.shape == (80, 16, 16, channels)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
    difference = np.abs(found - views(PLAIN, image, 16, 1)).mean((1, 2, 3))
    assert (difference > 0.01).mean() > 0.85
    assert len({view.tobytes() for view in found}) > 70


def test_rand_augment_moves_all_channels_and_changes_three(monkeypatch):
    """Which channels an operation is given: a fourth moves with the others."""
    seen = []

    def changed(layer, images, _):
        seen.append((layer.name, images.shape[-1]))
        return images

    monkeypatch.setattr(module, "_changed", changed)
    made = keras.layers.RandAugment()
    monkeypatch.setattr(keras.layers, "RandAugment", lambda *_, **__: made)
    augmented = module._rand_augment(0.5)
    pixels = augmented(tf.random.uniform((4, 4, 4)), tf.constant([1, 2]))
    assert pixels.shape == (4, 4, 4)
    moves = {getattr(made, name).name for name in module._MOVEMENTS}
    assert {name for name, channels in seen if channels == 4} == moves
    assert {channels for _, channels in seen} == {3, 4}


def test_rand_augment_chooses_from_all_that_keras_has(monkeypatch):
    assert list(module._OPERATIONS) == keras.layers.RandAugment._AUGMENT_LAYERS
    numbers = {name: i for i, name in enumerate(module._OPERATIONS)}
    made = keras.layers.RandAugment()
    names = {id(getattr(made, name)): name for name in numbers}
    monkeypatch.setattr(keras.layers, "RandAugment", lambda *_, **__: made)
    # Each operation adds its own power of two, and is not in the way.
    monkeypatch.setattr(
        module,
        "_changed",
        lambda layer, images, _: images + 16.0 ** -numbers[names[id(layer)]],
    )
    monkeypatch.setattr(module.tf, "clip_by_value", lambda x, *_: x)
    augmented = module._rand_augment(0.5)
    image = tf.zeros((1, 1, 3), tf.float64)
    dataset = seeds(1500).map(functools.partial(augmented, image))
    found = np.array(list(dataset.as_numpy_iterator()))[:, 0, 0, 0]
    powers = 16.0 ** -np.arange(11)
    counts = np.zeros((11, 11))
    for value in found:
        first = int(
            np.argmin(np.abs(np.log(powers / value)) + (powers > value))
        )
        rest = value - powers[first]
        second = int(np.argmin(np.abs(powers - rest)))
        counts[first, second] += 1
        np.testing.assert_allclose(powers[first] + powers[second], value)
    fractions = (counts.sum(0) + counts.sum(1)) / 3000
    np.testing.assert_allclose(fractions, 1 / 11, atol=0.025)


def test_the_policy_of_the_network_does_not_matter(rng):
    image = rng.integers(0, 256, (16, 16, 3), "uint8")
    options = {**vars(PLAIN), "rand_augment": 0.5}
    augmentation = ClassificationAugmentation(**options)
    fractions = {"mixup": 0.5, "cutmix": 0.5}
    expected = views(augmentation, image, 16, 20), mixed_batches(6, **fractions)
    keras.config.set_dtype_policy("mixed_bfloat16")
    found = views(augmentation, image, 16, 20), mixed_batches(6, **fractions)
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_crop": 0},
        {"min_crop": 128.5},
        {"max_crop": 127},
        {"max_crop": float("nan")},
        {"angle": -1},
        {"angle": 181},
        {"aspect": 0},
        {"flip": 1.5},
        {"flip": True},
        {"hue": 0.6},
        {"saturation": "much"},
        {"brightness": -1},
        {"rand_augment": 2},
        {"mixup": -0.1},
        {"cutmix": None},
        {"mosaic": float("inf")},
    ],
)
def test_bad_arguments_are_quoted(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(
        ValueError, match=f"Received: {name}={value!r}"
    ) as found:
        ClassificationAugmentation(**arguments)
    assert "\n" not in str(found.value)


def test_fractions_above_one_are_refused():
    with pytest.raises(
        ValueError, match=r"mixup=0\.5, cutmix=0\.4, mosaic=0\.2"
    ):
        ClassificationAugmentation(mixup=0.5, cutmix=0.4, mosaic=0.2)
