"""Random views of an image, its boxes following the pixels.

Keras' own layers are not used: `RandomFlip`, `RandomColorJitter` and their
like draw from a state that the threads of tf.data race for, so no epoch could
be repeated, and `Resizing` rounds its sides but not the boxes'.
"""

import dataclasses

import tensorflow as tf

GREY = 0.5
_LEAST_VISIBLE = 0.2  # of a box's area
_LEAST_SIDE = 2.0  # pixels
_ROUNDING = 1e-3  # pixels, far above float32's and far below what matters


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images vary.

    Args:
        jitter: each side of the view moves by up to this share of the width
            or height, in or out; what is outside the image is grey. Darknet's
            option of that name. Below 0.5. Default 0.3.
        flip: probability of left and right exchanged. Default 0.5.
        vertical_flip: probability of upside down. Default 0.
        hue: the hue turns by up to this share of the circle. Default 0.1.
        saturation: it is multiplied by a factor in [1 / v, v]. Default 1.5.
        exposure: the brightness likewise. Default 1.5.
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
    exposure: float = 1.5
    mosaic: float = 0.0
    rotate90: bool = False

    def __post_init__(self):
        for name in ("flip", "vertical_flip", "mosaic"):
            self._check(name, 0, 1)
        self._check("jitter", 0, 0.49)
        self._check("hue", 0, 0.5)
        self._check("saturation", 1, 100)
        self._check("exposure", 1, 100)
        if not isinstance(self.rotate90, bool):
            raise ValueError(
                "`rotate90` must be True or False. Received: "
                f"rotate90={self.rotate90!r}"
            )

    def _check(self, name, least, most):
        value = getattr(self, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not least <= value <= most
        ):
            raise ValueError(
                f"`{name}` must be from {least} to {most}. Received: "
                f"{name}={value!r}"
            )

    @classmethod
    def none(cls):
        """No variation: the image fitted into the square."""
        return cls(jitter=0, flip=0, hue=0, saturation=1, exposure=1)


@dataclasses.dataclass(frozen=True)
class View:
    """placed = original * scale + offset, of points (y, x) in pixels.

    Attributes:
        scale, offset: float32 tensors `(2,)`, of y and of x.
    """

    scale: tf.Tensor
    offset: tf.Tensor

    def boxes(self, boxes):
        """Boxes `(n, 4)` x1, y1, x2, y2 of the original, placed."""
        scale, offset = self.scale[::-1], self.offset[::-1]
        return boxes * tf.tile(scale, [2]) + tf.tile(offset, [2])

    def pixels(self, image, window):
        """The image placed in the window, and where it is inside.

        Args:
            image: `(h, w, 3)` uint8.
            window: int32 `(2,)`, height and width of the result.

        Returns:
            float32 `(height, width, 3)` in [0, 1], and bool
            `(height, width, 1)`.
        """
        # Triangle with antialias: the mean of what a pixel covers when
        # shrinking, bilinear when enlarging.
        pixels = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=window,
            scale=self.scale,
            translation=self.offset,
            kernel_type="triangle",
            antialias=True,
        )[0]
        size = tf.shape(image)[:2]
        rows, columns = (self._inside(axis, window, size) for axis in (0, 1))
        return pixels / 255.0, (rows[:, None] & columns)[..., None]

    def _inside(self, axis, window, size):
        centres = tf.range(window[axis]) + 0.5 if False else (
            tf.cast(tf.range(window[axis]), "float32") + 0.5
        )
        start = self.offset[axis] + _ROUNDING
        end = (
            self.offset[axis]
            + tf.cast(size[axis], "float32") * self.scale[axis]
            - _ROUNDING
        )
        return (centres > start) & (centres < end)


def fitted(size, window, fit=tf.reduce_min):
    """The `View` of a whole image in the middle of a window.

    Args:
        size: int32 `(2,)`, height and width of the image.
        window: int32 `(2,)`, height and width of the window.
        fit: `tf.reduce_min` (default) shows all of the image, with grey
            bars; `tf.reduce_max` fills the window.
    """
    size, window = tf.cast(size, "float32"), tf.cast(window, "float32")
    scale = fit(window / size)
    # Whole pixels, so that an image of the window's size stays as it is.
    offset = tf.floor((window - size * scale) / 2 + _ROUNDING)
    return View(tf.stack([scale, scale]), offset)


def letterbox(image, size):
    """The image fitted into a square, with grey bars, and how.

    Args:
        image: `(h, w, 3)` uint8.
        size: side of the square.

    Returns:
        float32 `(size, size, 3)` in [0, 1], and the `View`.
    """
    window = tf.stack([size, size])
    view = fitted(tf.shape(image)[:2], window)
    pixels, inside = view.pixels(image, window)
    return tf.where(inside, pixels, GREY), view


def jittered(view, size, window, jitter, seed):
    """The view with each side moved by up to `jitter` of the image's."""
    if not jitter:
        return view
    size, window = tf.cast(size, "float32"), tf.cast(window, "float32")
    start = -view.offset / view.scale
    end = start + window / view.scale
    moves = tf.random.stateless_uniform([2, 2], seed, -jitter, jitter)
    # Of a window that shows less than the image, the share is of the window.
    moves = moves * tf.minimum(size, end - start)
    start, end = start + moves[0], end + moves[1]
    scale = window / (end - start)
    return View(scale, -start * scale)


def augmented(augmentation, image, boxes, labels, size, seed, partners):
    """A random square view of an image and its boxes.

    Args:
        augmentation: an `Augmentation`.
        image: `(h, w, 3)` uint8.
        boxes: `(n, 4)` float32 x1, y1, x2, y2 in pixels.
        labels: `(n,)` int32.
        size: side of the square, an integer or an int32 tensor.
        seed: int64 or int32 `(2,)`; the same one draws the same view.
        partners: called only for a mosaic, returns three more
            `(image, boxes, labels)`.

    Returns:
        float32 `(size, size, 3)` in [0, 1]; `(m, 4)`; `(m,)`. Boxes of which
        less than 20 % is left, or with a side below 2 pixels, are dropped.
    """
    seeds = tf.random.split(seed, 7)
    window = tf.stack([size, size])

    def single():
        view = fitted(tf.shape(image)[:2], window)
        return _tile(
            augmentation, (image, boxes, labels), view, window, seeds[0]
        )

    def mosaic():
        tiles = [(image, boxes, labels), *partners()]
        return _mosaic(augmentation, tiles, size, seeds[0])

    if augmentation.mosaic:
        pixels, inside, boxes, labels = tf.cond(
            _chance(augmentation.mosaic, seeds[1]), mosaic, single
        )
    else:
        pixels, inside, boxes, labels = single()
    pixels = _coloured(augmentation, pixels, seeds[2])
    pixels = tf.where(inside, pixels, GREY)
    side = tf.cast(size, "float32")
    pixels, boxes = _turned(augmentation, pixels, boxes, side, seeds[3:])
    return pixels, boxes, labels


def _tile(augmentation, example, view, window, seed):
    image, boxes, labels = example
    view = jittered(
        view, tf.shape(image)[:2], window, augmentation.jitter, seed
    )
    pixels, inside = view.pixels(image, window)
    boxes, kept = _visible(view.boxes(boxes), window)
    return (
        pixels,
        inside,
        tf.boolean_mask(boxes, kept),
        tf.boolean_mask(labels, kept),
    )


def _visible(boxes, window):
    """The boxes cut at the window's edges, and which of them are of use."""
    limits = tf.tile(tf.cast(window[::-1], "float32"), [2])
    cut = tf.clip_by_value(boxes, 0.0, limits)
    sides = cut[:, 2:] - cut[:, :2]
    area = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    kept = tf.reduce_prod(sides, axis=-1) >= _LEAST_VISIBLE * area
    return cut, kept & (tf.reduce_min(sides, axis=-1) >= _LEAST_SIDE)


def _mosaic(augmentation, examples, size, seed):
    seeds = tf.random.split(seed, 5)
    centre = tf.random.stateless_uniform([2], seeds[4], 0.3, 0.7)
    centre = tf.cast(tf.round(centre * tf.cast(size, "float32")), "int32")
    spans = [(tf.zeros_like(centre), centre), (centre, size - centre)]
    tiles = []
    for number, example in enumerate(examples):
        row, column = divmod(number, 2)
        origin = tf.stack([spans[row][0][0], spans[column][0][1]])
        window = tf.stack([spans[row][1][0], spans[column][1][1]])
        view = fitted(tf.shape(example[0])[:2], window, tf.reduce_max)
        pixels, inside, boxes, labels = _tile(
            augmentation, example, view, window, seeds[number]
        )
        shift = tf.tile(tf.cast(origin[::-1], "float32"), [2])
        tiles.append((pixels, inside, boxes + shift, labels))
    pixels, inside, boxes, labels = zip(*tiles)
    return (
        _joined(pixels),
        _joined(inside),
        tf.concat(boxes, 0),
        tf.concat(labels, 0),
    )


def _joined(quarters):
    top, bottom = quarters[:2], quarters[2:]
    return tf.concat([tf.concat(top, 1), tf.concat(bottom, 1)], 0)


def _coloured(augmentation, pixels, seed):
    seeds = tf.random.split(seed, 3)
    if augmentation.hue:
        turn = augmentation.hue
        turn = tf.random.stateless_uniform([], seeds[0], -turn, turn)
        pixels = tf.image.adjust_hue(pixels, turn)
    if augmentation.saturation > 1:
        factor = _factor(augmentation.saturation, seeds[1])
        pixels = tf.image.adjust_saturation(pixels, factor)
    if augmentation.exposure > 1:
        # V of HSV is the largest of red, green and blue.
        factor = _factor(augmentation.exposure, seeds[2])
        pixels = tf.minimum(pixels * factor, 1.0)
    return pixels


def _factor(most, seed):
    """From [1, most], or its inverse, equally often."""
    draws = tf.random.stateless_uniform([2], seed)
    factor = 1 + draws[0] * (most - 1)
    return tf.where(draws[1] < 0.5, factor, 1 / factor)


def _turned(augmentation, pixels, boxes, side, seeds):
    if augmentation.flip:
        pixels, boxes = tf.cond(
            _chance(augmentation.flip, seeds[0]),
            lambda: (pixels[:, ::-1], _mirrored(boxes, side)),
            lambda: (pixels, boxes),
        )
    if augmentation.vertical_flip:
        pixels, boxes = tf.cond(
            _chance(augmentation.vertical_flip, seeds[1]),
            lambda: (
                pixels[::-1],
                _transposed(_mirrored(_transposed(boxes), side)),
            ),
            lambda: (pixels, boxes),
        )
    if augmentation.rotate90:
        turns = tf.random.stateless_uniform(
            [], seeds[2], 0, 4, dtype=tf.int32
        )
        for turn in range(3):
            pixels, boxes = tf.cond(
                turn < turns,
                lambda pixels=pixels, boxes=boxes: (
                    tf.transpose(pixels, (1, 0, 2))[:, ::-1],
                    _mirrored(_transposed(boxes), side),
                ),
                lambda pixels=pixels, boxes=boxes: (pixels, boxes),
            )
    return pixels, boxes


def _mirrored(boxes, side):
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.stack([side - x2, y1, side - x1, y2], axis=-1)


def _transposed(boxes):
    return tf.gather(boxes, [1, 0, 3, 2], axis=-1)


def _chance(probability, seed):
    return tf.random.stateless_uniform([], seed) < probability
