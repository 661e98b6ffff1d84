"""Boxes must follow the pixels: drawn rectangles are found again."""

import colorsys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_csp.data import DetectionAugmentation
from keras_csp.data.detection_augmentation import (
    _visible,
    augmented,
    jittered,
)
from keras_csp.data.resizing import letterbox, placed
from keras_csp.layers import ImageSpec

BLUE = (0, 0, 255)
# Each as far from blue as from its mixtures with it.
COLOURS = ((255, 0, 0), (0, 255, 0), (255, 0, 255), (0, 255, 255))


def drawn(height, width, box, label=0):
    """A blue image with a coloured rectangle, and its box and label."""
    image = np.full((height, width, 3), BLUE, "uint8")
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = COLOURS[label]
    return image, np.float32([box]), np.int32([label])


LETTERBOX = ImageSpec(resize="letterbox")


def view_of(augmentation, example, seed=0, size=96, partners=None):
    seed = tf.constant([1, seed], tf.int64)
    sizes = (size, size)
    result = augmented(augmentation, example, LETTERBOX, sizes, seed, partners)
    return [np.asarray(part) for part in result]


def found(mask):
    """x1, y1, x2, y2 of what is True."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize(
    "example",
    [
        drawn(60, 100, (30, 10, 80, 40)),
        drawn(230, 150, (20, 100, 90, 200)),
        drawn(40, 30, (5, 5, 20, 30)),
    ],
    ids=["wide", "tall", "small"],
)
def test_boxes_follow_the_pixels(example):
    augmentation = DetectionAugmentation(vertical_flip=0.5, rotate90=True)
    corners = []
    for seed in range(40):
        pixels, boxes, labels = view_of(augmentation, example, seed)
        assert pixels.shape == (96, 96, 3) and pixels.dtype == "float32"
        assert pixels.min() >= 0 and pixels.max() <= 1
        assert len(boxes) == len(labels)
        if len(boxes):
            # A hue turned by up to 36 degrees leaves red above blue.
            red = pixels[..., 0] > pixels[..., 2]
            np.testing.assert_allclose(boxes[0], found(red), atol=1.5)
            corners.append(boxes[0])
    assert len(corners) >= 35
    assert np.ptp(corners, 0).min() > 20  # they differ


@pytest.mark.parametrize("size", [96, 97])
def test_a_mosaics_boxes_follow_the_pixels(size):
    shapes = ((60, 100), (100, 60), (80, 80), (200, 150))
    examples = [
        drawn(
            height,
            width,
            (width // 4, height // 4, width * 3 // 4, height * 3 // 4),
            label,
        )
        for label, (height, width) in enumerate(shapes)
    ]
    augmentation = DetectionAugmentation(
        mosaic=1.0,
        hue=0,
        saturation=1,
        brightness=1,
        vertical_flip=0.5,
        rotate90=True,
    )
    palette = np.array([*COLOURS, BLUE, (127.5,) * 3]) / 255
    places, count = [[] for _ in COLOURS], 0
    for seed in range(20):
        pixels, boxes, labels = view_of(
            augmentation, examples[0], seed, size, lambda: examples[1:]
        )
        assert pixels.shape == (size, size, 3)
        distance = np.abs(pixels[:, :, None] - palette).sum(-1)
        nearest = distance.argmin(-1)
        for box, label in zip(boxes, labels):
            np.testing.assert_allclose(box, found(nearest == label), atol=1.5)
            places[label].append(box)
            count += 1
        # What has no box shows little.
        for label in set(range(4)) - set(labels.tolist()):
            assert (nearest == label).mean() < 0.03
    assert count > 60
    assert min(map(len, places)) > 10


def test_a_mosaic_meets_in_the_middle_part():
    """Every tile is filled from its corner of the image to the centre."""
    examples = [
        (np.full((50, 70, 3), 60 * i + 20, "uint8"), np.zeros((0, 4)), [])
        for i in range(4)
    ]
    examples = [
        (image, tf.constant(boxes, tf.float32), tf.zeros(0, tf.int32))
        for image, boxes, _labels in examples
    ]
    augmentation = DetectionAugmentation(
        mosaic=1, jitter=0, flip=0, hue=0, saturation=1, brightness=1
    )
    centres = []
    for seed in range(40):
        pixels, _boxes, _labels = view_of(
            augmentation, examples[0], seed, 100, lambda: examples[1:]
        )
        tile = np.round((pixels[..., 0] * 255 - 20) / 60).astype(int)
        x, y = (tile[0] == 0).sum(), (tile[:, 0] == 0).sum()
        rows, columns = np.indices(tile.shape)
        np.testing.assert_array_equal(tile, 2 * (rows >= y) + (columns >= x))
        centres.append((x, y))
    assert np.min(centres) >= 30 and np.max(centres) <= 70
    assert np.min(centres) < 36 and np.max(centres) > 64


def test_flips_and_turns_are_numpys():
    """Without jitter the turned image is the fitted one, turned."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 60, 3), "uint8")
    example = image, np.float32([[5, 10, 20, 36]]), np.int32([0])
    plain, box, _ = view_of(DetectionAugmentation.none(), example, size=64)
    (x1, y1, x2, y2) = box[0]
    quiet = {"jitter": 0, "hue": 0, "saturation": 1, "brightness": 1}
    for options, turned, expected in (
        ({"flip": 1}, plain[:, ::-1], (64 - x2, y1, 64 - x1, y2)),
        (
            {"flip": 0, "vertical_flip": 1},
            plain[::-1],
            (x1, 64 - y2, x2, 64 - y1),
        ),
    ):
        pixels, boxes, _ = view_of(
            DetectionAugmentation(**quiet, **options), example, size=64
        )
        np.testing.assert_array_equal(pixels, turned)
        np.testing.assert_allclose(boxes[0], expected, atol=1e-4)
    # Counterclockwise turns of numpy, each with its box.
    turns = {
        0: (x1, y1, x2, y2),
        1: (y1, 64 - x2, y2, 64 - x1),
        2: (64 - x2, 64 - y2, 64 - x1, 64 - y1),
        3: (64 - y2, x1, 64 - y1, x2),
    }
    counts = dict.fromkeys(turns, 0)
    for seed in range(60):
        pixels, boxes, _ = view_of(
            DetectionAugmentation(**quiet, flip=0, rotate90=True),
            example,
            seed,
            64,
        )
        (turn,) = (k for k in turns if (np.rot90(plain, k) == pixels).all())
        np.testing.assert_allclose(boxes[0], turns[turn], atol=1e-4)
        counts[turn] += 1
    assert min(counts.values()) >= 6


def test_flips_and_mosaics_are_as_frequent_as_asked():
    example = drawn(50, 50, (5, 10, 20, 40))
    quiet = {"jitter": 0, "hue": 0, "saturation": 1, "brightness": 1}
    seeds = tf.data.Dataset.range(400)
    counts = {}
    for name, augmentation in (
        ("flip", DetectionAugmentation(flip=0.25, **quiet)),
        (
            "vertical",
            DetectionAugmentation(flip=0, vertical_flip=0.25, **quiet),
        ),
        ("mosaic", DetectionAugmentation(flip=0, mosaic=0.25, **quiet)),
    ):
        views = seeds.map(
            lambda seed, augmentation=augmentation: augmented(
                augmentation,
                example,
                LETTERBOX,
                (32, 32),
                [0, seed],
                lambda: [example] * 3,
            )[1]
        )
        boxes = list(views.as_numpy_iterator())
        singles = np.array([view[0] for view in boxes if len(view) == 1])
        counts["mosaic", name] = 400 - len(singles)
        counts["flip", name] = (singles[:, 0] > 15).sum()
        counts["vertical", name] = (singles[:, 1] != singles[0, 1]).sum()
    for (seen, asked), count in counts.items():
        if seen != asked:
            assert count == 0
        else:
            assert 70 <= min(count, 400 - count) <= 130


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (480, 640, 416),
        (640, 480, 416),
        (30, 40, 64),
        (64, 64, 64),
        (48, 64, 64),
    ],
)
def test_letterbox_is_pillows(rng, height, width, size):
    image = rng.integers(0, 255, (height, width, 3), "uint8")
    ratio = size / max(height, width)
    inner = round(width * ratio), round(height * ratio)
    resized = PIL.Image.fromarray(image).resize(inner, PIL.Image.BILINEAR)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    expected = np.full((size, size, 3), 0.5)
    expected[top : top + inner[1], left : left + inner[0]] = (
        np.asarray(resized) / 255
    )
    pixels, view = letterbox(image, size)
    np.testing.assert_allclose(pixels, expected, atol=1.6 / 255)
    np.testing.assert_allclose(view.scale, [ratio, ratio], rtol=1e-6)
    np.testing.assert_allclose(view.offset, [top, left], atol=1e-4)
    if max(height, width) == size:  # pixels stay what they are
        np.testing.assert_allclose(pixels, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width"), [(333, 500), (500, 333), (97, 31), (101, 416), (7, 3)]
)
def test_letterbox_has_no_rounded_factor(height, width):
    """Both ramps are at placed = original * scale + offset, everywhere."""
    rows, columns = np.indices((height, width))
    ramps = rows * 250 / height, columns * 250 / width
    image = np.stack([*ramps, ramps[0]], -1).round().astype("uint8")
    pixels, view = letterbox(image, 416)
    scale, offset = np.asarray(view.scale), np.asarray(view.offset)
    assert scale[0] == scale[1]
    assert offset.min() >= 0 and (offset == offset.round()).all()
    for axis, length in ((0, height), (1, width)):
        centres = (np.arange(416) + 0.5 - offset[axis]) / scale[axis]
        inside = (centres > 0) & (centres < length)
        line = np.take(pixels[..., axis], 208, 1 - axis) * 255
        np.testing.assert_allclose(line[~inside], 127.5)
        # The edges' pixels repeat, so a ramp is straight only within.
        margin = max(1, 1 / scale[axis])
        inner = (centres > margin) & (centres < length - margin)
        expected = (centres[inner] - 0.5) * 250 / length
        np.testing.assert_allclose(line[inner], expected, atol=0.9)


def test_the_narrowest_image_is_shown():
    pixels, _view = letterbox(np.zeros((1, 4000, 3), "uint8"), 64)
    assert 1 <= (np.asarray(pixels)[:, 32, 0] < 0.5).sum() <= 2


@pytest.mark.parametrize("jitter", [0.1, 0.3])
def test_jitter_moves_each_side_by_its_fraction(jitter):
    size, window = tf.constant([60, 100]), tf.constant([64, 64])
    view = placed(size, window)
    moves = []
    for seed in range(300):
        changed = jittered(view, size, window, jitter, [0, seed])
        for offset in (0, 64):
            before = (offset - view.offset) / view.scale
            after = (offset - changed.offset) / changed.scale
            moves.append(np.asarray(after - before) / (60, 100))
    moves = np.reshape(moves, (300, 4))
    assert np.abs(moves).max() <= jitter + 1e-4
    assert (moves.max(0) > 0.95 * jitter).all()
    assert (moves.min(0) < -0.95 * jitter).all()
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.25


def test_boxes_that_are_hardly_left_are_dropped():
    boxes = tf.constant(
        [
            [-80.0, 0, 20, 10],  # 20 % is left
            [-81.0, 0, 20, 10],  # less
            [-9.0, -9, 9, 9],  # a quarter
            [50.0, 50, 52, 60],  # 2 pixels wide
            [50.0, 50, 51.9, 60],
            [50.0, 50, 60, 51.9],
            [200.0, 0, 300, 10],
            [90.0, 10, 110, 64],  # beyond the window's width of 96
        ]
    )
    window, ignored = tf.constant([64, 96]), tf.fill(8, False)
    cut, kept = _visible(boxes, window, ignored)
    assert kept.numpy().tolist() == [1, 0, 1, 1, 0, 0, 0, 1]
    # Of a region to be ignored every part counts.
    same, kept = _visible(boxes, window, ~ignored)
    assert kept.numpy().tolist() == [1, 1, 1, 1, 1, 1, 0, 1]
    np.testing.assert_array_equal(same, cut)
    assert cut.numpy()[[0, 2, 7]].tolist() == [
        [0, 0, 20, 10],
        [0, 0, 9, 9],
        [90, 10, 96, 64],
    ]


def test_colours_are_those_of_hsv():
    """Each factor, by Python's own colorsys, in its range and in all of it."""
    colour = (90, 130, 100)
    image = np.full((40, 60, 3), colour, "uint8")
    example = image, np.zeros((0, 4), "float32"), np.zeros(0, "int32")
    augmentation = DetectionAugmentation(
        jitter=0, hue=0.1, saturation=1.6, brightness=1.4
    )
    before = colorsys.rgb_to_hsv(*np.divide(colour, 255))
    views = tf.data.Dataset.range(200).map(
        lambda seed: augmented(
            augmentation, example, LETTERBOX, (32, 32), [0, seed], None
        )[0]
    )
    changes = []
    for pixels in views.as_numpy_iterator():
        # Grey is outside, as before.
        np.testing.assert_array_equal(pixels[[0, -1]], 0.5)
        after = colorsys.rgb_to_hsv(*map(float, pixels[16, 16]))
        changes.append(
            (after[0] - before[0], after[1] / before[1], after[2] / before[2])
        )
    hue, saturation, brightness = np.transpose(changes)
    assert np.abs(hue).max() <= 0.1 + 1e-5
    assert hue.min() < -0.09 and hue.max() > 0.09
    for factor, most in ((saturation, 1.6), (brightness, 1.4)):
        assert 1 / most - 1e-4 <= factor.min() < 1 / most + 0.05
        assert most - 0.05 < factor.max() <= most + 1e-4
        assert 70 <= (factor > 1).sum() <= 130
    assert np.abs(np.corrcoef(changes, rowvar=False) - np.eye(3)).max() < 0.3


def test_none_changes_nothing():
    example = drawn(60, 100, (30, 10, 80, 40))
    expected, view = letterbox(example[0], 96)
    for seed in range(5):
        pixels, boxes, _labels = view_of(
            DetectionAugmentation.none(), example, seed
        )
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(boxes, view.boxes(example[1]))


def test_a_seed_is_a_view():
    example = drawn(60, 100, (30, 10, 80, 40))
    for one, two in zip(
        view_of(DetectionAugmentation(), example, 4),
        view_of(DetectionAugmentation(), example, 4),
    ):
        np.testing.assert_array_equal(one, two)
    one, two = (view_of(DetectionAugmentation(), example, i)[1] for i in (4, 5))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    "arguments",
    [
        {"jitter": 0.5},
        {"jitter": -0.1},
        {"flip": 1.5},
        {"flip": True},
        {"vertical_flip": "yes"},
        {"hue": 0.6},
        {"saturation": 0},
        {"brightness": float("nan")},
        {"mosaic": 2},
        {"rotate90": 1},
    ],
)
def test_bad_arguments_are_quoted(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
        DetectionAugmentation(**arguments)
