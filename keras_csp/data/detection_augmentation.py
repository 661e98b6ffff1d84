"""Random views of an image, its boxes following the pixels.

Keras' own layers are not used. `RandomFlip`, `RandomColorJitter` and their
like draw from a state that the threads of tf.data race for, so no epoch could
be repeated, and take two to fifteen times as long as the operations here;
`Resizing` rounds the image's sides but not the boxes' factors.
"""

import dataclasses

import tensorflow as tf

from keras_csp.data.random_ops import (
    chance,
    check_range,
    coloured,
    meeting_point,
)
from keras_csp.data.resizing import View, placed

_LEAST_VISIBLE = 0.2  # of a box's area
_LEAST_SIDE = 2.0  # pixels
_CORNERS = ([False, False], [False, True], [True, False], [True, True])


@dataclasses.dataclass(frozen=True)
class DetectionAugmentation:
    """How training images vary.

    Args:
        jitter: each side of the view moves by up to this fraction of the width
            or height, in or out; what is outside the image is grey. Darknet's
            option of that name. Below 0.5. Default 0.3.
        flip: probability of left and right exchanged. Default 0.5.
        vertical_flip: probability of upside down. Default 0.
        hue: the hue turns by up to this fraction of the circle. Default 0.1.
        saturation, brightness: multiplied by a factor between 1 and this
            number, or by its inverse, equally often. Default 1.5. Of images
            read in grey the brightness alone changes; of those of four
            channels the first three.
        mosaic: probability that an image is a 2x2 mosaic of four, the point
            where they meet between 0.3 and 0.7 of the sides. Default 0.
        rotate90: random quarter turns, for images without an up direction.
            Default False.

    Raises:
        ValueError: an argument out of range.
    """

    jitter: float = 0.3
    flip: float = 0.5
    vertical_flip: float = 0.0
    hue: float = 0.1
    saturation: float = 1.5
    brightness: float = 1.5
    mosaic: float = 0.0
    rotate90: bool = False

    def __post_init__(self):
        for name in ("flip", "vertical_flip", "mosaic"):
            check_range(self, name, 0, 1)
        check_range(self, "jitter", 0, 0.49)
        check_range(self, "hue", 0, 0.5)
        check_range(self, "saturation", 0.01, 100)
        check_range(self, "brightness", 0.01, 100)
        if not isinstance(self.rotate90, bool):
            raise ValueError(
                "`rotate90` must be True or False. Received: "
                f"rotate90={self.rotate90!r}"
            )

    @classmethod
    def none(cls):
        """No variation: the image fitted into the square."""
        return cls(jitter=0, flip=0, hue=0, saturation=1, brightness=1)


def jittered(view, size, window, jitter, seed):
    """The view with each side moved by up to `jitter` of the image's."""
    if not jitter:
        return view
    size, window = tf.cast(size, "float32"), tf.cast(window, "float32")
    start = -view.offset / view.scale
    end = start + window / view.scale
    moves = tf.random.stateless_uniform([2, 2], seed, -jitter, jitter)
    # In a window that shows less than the image: a fraction of the window.
    moves = moves * tf.minimum(size, end - start)
    start, end = start + moves[0], end + moves[1]
    scale = window / (end - start)
    return View(scale, -start * scale)


def augmented(augmentation, example, spec, size, seed, partners):
    """A random view of an image and its boxes.

    Args:
        augmentation: a `DetectionAugmentation`.
        example: `(image, boxes, labels)`: `(h, w, channels)` uint8; `(n, 4)`
            float32 x1, y1, x2, y2 in pixels; `(n,)` int32, below 0 for
            regions to be ignored.
        spec: an `ImageSpec`: what the view is before it varies.
        size: (height, width) of the view.
        seed: int64 `(2,)`; the same one draws the same view.
        partners: called only for a mosaic, returns three more examples.

    Returns:
        float32 `(height, width, channels)` in [0, 1]; `(m, 4)`; `(m,)`. Boxes
        of which less than 20 % is left, or with a side below 2 pixels, are
        dropped; of a region to be ignored every part that is left stays.
    """
    kind, content, turns = tf.unstack(tf.random.split(seed, 3))
    size = tf.convert_to_tensor(size, tf.int32)

    def single():
        return _tile(augmentation, example, size, spec, content)

    def mosaic():
        examples = [example, *partners()]
        return _mosaic(augmentation, examples, size, spec, content)

    if augmentation.mosaic:
        pixels, boxes, labels = tf.cond(
            chance(augmentation.mosaic, kind), mosaic, single
        )
    else:
        pixels, boxes, labels = single()
    pixels, boxes = _turned(augmentation, pixels, boxes, size, turns)
    return pixels, boxes, labels


def _tile(augmentation, example, window, spec, seed):
    """The example in a window, varied in all but its direction."""
    image, boxes, labels = example
    move, colour = tf.unstack(tf.random.split(seed, 2))
    size = tf.shape(image)[:2]
    view = placed(size, window, spec.resize)
    view = jittered(view, size, window, augmentation.jitter, move)
    pixels = view.pixels(
        image,
        window,
        lambda pixels: coloured(augmentation, pixels, colour),
        spec.interpolation,
        spec.antialias,
    )
    boxes, kept = _visible(view.boxes(boxes), window, labels < 0)
    return (
        pixels,
        tf.boolean_mask(boxes, kept),
        tf.boolean_mask(labels, kept),
    )


def _visible(boxes, window, ignored):
    """The boxes cut at the window's edges, and which of them are of use.

    A part of an object may be too small to be recognised. A part of a region
    with unnamed objects must not become background, however small.
    """
    limits = tf.tile(tf.cast(window[::-1], "float32"), [2])
    cut = tf.clip_by_value(boxes, 0.0, limits)
    sides = cut[:, 2:] - cut[:, :2]
    area = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    kept = tf.reduce_prod(sides, axis=-1) >= _LEAST_VISIBLE * area
    least = tf.reduce_min(sides, axis=-1)
    return cut, tf.where(ignored, least > 0, kept & (least >= _LEAST_SIDE))


def _mosaic(augmentation, examples, size, spec, seed):
    """Four examples around a random centre, each filling its quarter."""
    centre, *seeds = tf.unstack(tf.random.split(seed, 5))
    centre = meeting_point(size, centre)
    filling = spec.replace(resize="crop")
    tiles = []
    for example, tile_seed, corner in zip(examples, seeds, _CORNERS):
        window = tf.where(corner, size - centre, centre)
        pixels, boxes, labels = _tile(
            augmentation, example, window, filling, tile_seed
        )
        start = tf.cast(tf.where(corner, centre, 0), "float32")
        tiles.append((pixels, boxes + tf.tile(start[::-1], [2]), labels))
    pixels, boxes, labels = zip(*tiles)
    rows = tf.concat(pixels[:2], 1), tf.concat(pixels[2:], 1)
    return tf.concat(rows, 0), tf.concat(boxes, 0), tf.concat(labels, 0)


def _turned(augmentation, pixels, boxes, size, seed):
    height, width = tf.unstack(tf.cast(size, "float32"))
    flip, vertical, quarters = tf.unstack(tf.random.split(seed, 3))
    view = pixels, boxes
    if augmentation.flip:
        flipped = chance(augmentation.flip, flip)
        view = _maybe(flipped, _mirrored, *view, width)
    if augmentation.vertical_flip:
        flipped = chance(augmentation.vertical_flip, vertical)
        view = _maybe(flipped, _upside_down, *view, height)
    if augmentation.rotate90:
        # Clockwise: 1 is transposed and mirrored, 2 mirrored and upside
        # down, 3 transposed and upside down. The view is a square.
        turns = tf.random.stateless_uniform([], quarters, 0, 4, tf.int32)
        view = _maybe(turns % 2 == 1, _transposed, *view, width)
        view = _maybe((turns == 1) | (turns == 2), _mirrored, *view, width)
        view = _maybe(turns >= 2, _upside_down, *view, height)
    return view


def _maybe(condition, change, pixels, boxes, side):
    return tf.cond(
        condition,
        lambda: change(pixels, boxes, side),
        lambda: (pixels, boxes),
    )


def _mirrored(pixels, boxes, width):
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=-1)
    return tf.reverse(pixels, [1]), boxes  # `[:, ::-1]` is 15 times slower


def _upside_down(pixels, boxes, height):
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    boxes = tf.stack([x1, height - y2, x2, height - y1], axis=-1)
    return tf.reverse(pixels, [0]), boxes


def _transposed(pixels, boxes, _side):
    boxes = tf.gather(boxes, [1, 0, 3, 2], axis=-1)
    return tf.transpose(pixels, (1, 0, 2)), boxes
