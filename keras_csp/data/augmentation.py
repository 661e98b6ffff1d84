"""Random views of an image, its boxes following the pixels.

Keras' own layers are not used. `RandomFlip`, `RandomColorJitter` and their
like draw from a state that the threads of tf.data race for, so no epoch could
be repeated, and take two to fifteen times as long as the operations here;
`Resizing` rounds the image's sides but not the boxes' factors.
"""

import dataclasses

import tensorflow as tf

GREY = 0.5
_LEAST_VISIBLE = 0.2  # of a box's area
_LEAST_SIDE = 2.0  # pixels
_ROUNDING = 1e-3  # pixels, far above float32's and far below what matters
_CENTRE = (0.3, 0.7)  # of a mosaic, in its sides
_CORNERS = ([False, False], [False, True], [True, False], [True, True])


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

    def pixels(self, image, window, change=lambda pixels: pixels):
        """The image placed in the window, grey where it is not.

        Args:
            image: `(h, w, 3)` uint8.
            window: int32 `(2,)`, height and width of the result.
            change: what is done to the image's pixels, not to the grey.

        Returns:
            float32 `(height, width, 3)` in [0, 1].
        """
        start, end = self._covered(tf.shape(image)[:2], window)
        # Antialiasing's triangle is bilinear when enlarging and a weighted
        # mean of what a pixel covers when shrinking. Unlike a crop, or an
        # affine transform, it repeats the image's own edge, not the grey.
        pixels = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=end - start,
            scale=self.scale,
            translation=self.offset - tf.cast(start, "float32"),
            kernel_type="triangle",
            antialias=True,
        )[0]
        # The weights' sum is rounded: 255 can come out a little higher.
        return tf.pad(
            change(tf.minimum(pixels / 255.0, 1.0)),
            tf.concat([tf.stack([start, window - end], 1), [[0, 0]]], 0),
            constant_values=GREY,
        )

    def _covered(self, size, window):
        """First pixel of the window whose centre is in the image, and end."""
        far = self.offset + tf.cast(size, "float32") * self.scale
        start = tf.math.ceil(self.offset - 0.5 + _ROUNDING)
        start = tf.clip_by_value(tf.cast(start, "int32"), 0, window - 1)
        end = tf.cast(tf.floor(far - 0.5 - _ROUNDING), "int32") + 1
        # At least one, for images so narrow that they miss every centre.
        return start, tf.clip_by_value(end, start + 1, window)


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
    offset = (window - size * scale) / 2 + _ROUNDING
    # Whole pixels, so that an image of the window's size stays as it is;
    # towards zero, so that one that fills the window leaves no edge.
    offset = tf.cast(tf.cast(offset, "int32"), "float32")
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
    return view.pixels(image, window), view


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


def augmented(augmentation, example, size, seed, partners=None):
    """A random square view of an image and its boxes.

    Args:
        augmentation: an `Augmentation`.
        example: `(image, boxes, labels)`: `(h, w, 3)` uint8; `(n, 4)` float32
            x1, y1, x2, y2 in pixels; `(n,)` int32.
        size: side of the square, an integer or an int32 tensor.
        seed: int64 `(2,)`; the same one draws the same view.
        partners: called only for a mosaic, returns three more examples.

    Returns:
        float32 `(size, size, 3)` in [0, 1]; `(m, 4)`; `(m,)`. Boxes of which
        less than 20 % is left, or with a side below 2 pixels, are dropped.
    """
    kind, content, turns = tf.unstack(tf.random.split(seed, 3))
    window = tf.stack([size, size])

    def single():
        return _tile(augmentation, example, window, tf.reduce_min, content)

    def mosaic():
        return _mosaic(augmentation, [example, *partners()], size, content)

    if augmentation.mosaic:
        pixels, boxes, labels = tf.cond(
            _chance(augmentation.mosaic, kind), mosaic, single
        )
    else:
        pixels, boxes, labels = single()
    pixels, boxes = _turned(augmentation, pixels, boxes, size, turns)
    return pixels, boxes, labels


def _tile(augmentation, example, window, fit, seed):
    """The example in a window, varied in all but its direction."""
    image, boxes, labels = example
    move, colour = tf.unstack(tf.random.split(seed, 2))
    size = tf.shape(image)[:2]
    view = fitted(size, window, fit)
    view = jittered(view, size, window, augmentation.jitter, move)
    pixels = view.pixels(
        image, window, lambda pixels: _coloured(augmentation, pixels, colour)
    )
    boxes, kept = _visible(view.boxes(boxes), window)
    return (
        pixels,
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
    """Four examples around a random centre, each filling its quarter."""
    centre, *seeds = tf.unstack(tf.random.split(seed, 5))
    low, high = _CENTRE
    centre = tf.random.stateless_uniform([2], centre, low, high)
    centre = tf.cast(tf.round(centre * tf.cast(size, "float32")), "int32")
    tiles = []
    for example, tile_seed, corner in zip(examples, seeds, _CORNERS):
        window = tf.where(corner, size - centre, centre)
        pixels, boxes, labels = _tile(
            augmentation, example, window, tf.reduce_max, tile_seed
        )
        start = tf.cast(tf.where(corner, centre, 0), "float32")
        tiles.append((pixels, boxes + tf.tile(start[::-1], [2]), labels))
    pixels, boxes, labels = zip(*tiles)
    rows = tf.concat(pixels[:2], 1), tf.concat(pixels[2:], 1)
    return tf.concat(rows, 0), tf.concat(boxes, 0), tf.concat(labels, 0)


def _coloured(augmentation, pixels, seed):
    turn, saturation, exposure = tf.unstack(tf.random.split(seed, 3))
    if augmentation.hue:
        most = augmentation.hue
        turn = tf.random.stateless_uniform([], turn, -most, most)
        pixels = tf.image.adjust_hue(pixels, turn)
    if augmentation.saturation > 1:
        factor = _factor(augmentation.saturation, saturation)
        pixels = tf.image.adjust_saturation(pixels, factor)
    if augmentation.exposure > 1:
        # The factor of V, the largest of red, green and blue, is theirs.
        factor = _factor(augmentation.exposure, exposure)
        pixels = tf.minimum(pixels * factor, 1.0)
    return pixels


def _factor(most, seed):
    """From [1, most], or its inverse, equally often."""
    draws = tf.random.stateless_uniform([2], seed)
    factor = 1 + draws[0] * (most - 1)
    return tf.where(draws[1] < 0.5, factor, 1 / factor)


def _turned(augmentation, pixels, boxes, size, seed):
    side = tf.cast(size, "float32")
    flip, vertical, quarters = tf.unstack(tf.random.split(seed, 3))
    view = pixels, boxes
    if augmentation.flip:
        flipped = _chance(augmentation.flip, flip)
        view = _maybe(flipped, _mirrored, *view, side)
    if augmentation.vertical_flip:
        flipped = _chance(augmentation.vertical_flip, vertical)
        view = _maybe(flipped, _upside_down, *view, side)
    if augmentation.rotate90:
        # Clockwise: 1 is transposed and mirrored, 2 mirrored and upside
        # down, 3 transposed and upside down.
        turns = tf.random.stateless_uniform([], quarters, 0, 4, tf.int32)
        view = _maybe(turns % 2 == 1, _transposed, *view, side)
        view = _maybe((turns == 1) | (turns == 2), _mirrored, *view, side)
        view = _maybe(turns >= 2, _upside_down, *view, side)
    return view


def _maybe(condition, change, pixels, boxes, side):
    return tf.cond(
        condition,
        lambda: change(pixels, boxes, side),
        lambda: (pixels, boxes),
    )


def _mirrored(pixels, boxes, side):
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    boxes = tf.stack([side - x2, y1, side - x1, y2], axis=-1)
    return tf.reverse(pixels, [1]), boxes  # `[:, ::-1]` is 15 times slower


def _upside_down(pixels, boxes, side):
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    boxes = tf.stack([x1, side - y2, x2, side - y1], axis=-1)
    return tf.reverse(pixels, [0]), boxes


def _transposed(pixels, boxes, side):
    boxes = tf.gather(boxes, [1, 0, 3, 2], axis=-1)
    return tf.transpose(pixels, (1, 0, 2)), boxes


def _chance(probability, seed):
    return tf.random.stateless_uniform([], seed) < probability
