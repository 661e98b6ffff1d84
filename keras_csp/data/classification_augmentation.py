"""Random views of an image, and mixtures of the images of a batch."""

import dataclasses
import functools
import math

import keras
import tensorflow as tf

from keras_csp.data.random_ops import (
    chance,
    check_range,
    coloured,
    factor,
    meeting_point,
)

# Whatever Keras is set to for the network.
_LAYER_OPTIONS = {"dtype": "float32", "data_format": "channels_last"}
# Of keras.layers.RandAugment.
_MOVEMENTS = ("random_shear", "random_translation", "random_rotation")
_OPERATIONS = (
    *_MOVEMENTS,
    "random_brightness",
    "random_color_degeneration",
    "random_contrast",
    "random_sharpness",
    "random_posterization",
    "solarization",
    "auto_contrast",
    "equalization",
)


@dataclasses.dataclass(frozen=True)
class ClassificationAugmentation:
    """How training images vary; the defaults are the paper's.

    Source: the authors' cfg files, and Darknet, src/image.c,
    random_augment_image. MixUp, CutMix and RandAugment are Keras' own layers;
    Keras has neither Darknet's crop nor a mosaic.

    Args:
        min_crop, max_crop: the image's shorter side becomes a number of
            pixels between them, before a square of the network's size is cut
            at random; what is outside the image is black. Defaults 128 and
            448, for networks of 224 or 256 pixels.
        angle: degrees, turned by up to it. Default 7.
        aspect: width / height is multiplied by a factor between 1 and this
            number, or by its inverse, equally often. Default 0.75.
        flip: probability of left and right exchanged. Default 0.5.
        hue: the hue turns by up to this fraction of the circle. Default 0.1.
        saturation, brightness: multiplied by a factor between 1 and this
            number, or by its inverse, equally often. Default 0.75. Of images
            in grey the brightness alone changes; of those of four channels
            the first three, also by rand_augment.
        rand_augment: strength of two random operations of
            `keras.layers.RandAugment`, 0 to 1. Default 0: none.
        mixup: fraction of the batches that `keras.layers.MixUp` mixes.
            Default 0.
        cutmix: fraction of those that `keras.layers.CutMix` mixes. Default 0.
        mosaic: fraction of those where every image becomes a 2x2 mosaic of
            four, labelled by area, the point where they meet between 0.3 and
            0.7 of the sides. Default 0. The three add up to 1 at most.

    Raises:
        ValueError: an argument out of range.
    """

    min_crop: int = 128
    max_crop: int = 448
    angle: float = 7.0
    aspect: float = 0.75
    flip: float = 0.5
    hue: float = 0.1
    saturation: float = 0.75
    brightness: float = 0.75
    rand_augment: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mosaic: float = 0.0

    def __post_init__(self):
        for name in ("flip", "rand_augment", "mixup", "cutmix", "mosaic"):
            check_range(self, name, 0, 1)
        check_range(self, "angle", 0, 180)
        check_range(self, "hue", 0, 0.5)
        for name in ("aspect", "saturation", "brightness"):
            check_range(self, name, 0.01, 100)
        check_range(self, "min_crop", 1, 1 << 14, int)
        check_range(self, "max_crop", self.min_crop, 1 << 14, int)
        if self.mixup + self.cutmix + self.mosaic > 1:
            raise ValueError(
                "`mixup`, `cutmix` and `mosaic` must add up to 1 at most. "
                f"Received: mixup={self.mixup}, cutmix={self.cutmix}, "
                f"mosaic={self.mosaic}"
            )

    @classmethod
    def for_size(cls, size, **options):
        """The paper's crops, in proportion, for a network of `size` pixels."""
        return cls(
            min_crop=max(1, round(size * 128 / 256)),
            max_crop=round(size * 448 / 256),
            **options,
        )

    @classmethod
    def light(cls, size, **options):
        """Crops of at least 0.8 of the shorter side, and mirrors, no more.

        As usual for small pictures of one thing, CIFAR-10's, of which the
        paper's crops often show a part that nobody would recognise.
        """
        same = dict.fromkeys(("aspect", "saturation", "brightness"), 1.0)
        crops = {"min_crop": size, "max_crop": round(1.25 * size)}
        return cls(**{**same, **crops, "angle": 0.0, "hue": 0.0, **options})


def viewer(augmentation, size):
    """The function that gives a random view of one image.

    Args:
        augmentation: a `ClassificationAugmentation`.
        size: side of the view.

    Returns:
        A function of `(h, w, channels)` uint8 and of a seed, int64 `(2,)`, to
        float32 `(size, size, channels)` in [0, 1]. The same seed draws the
        same view.
    """
    strength = augmentation.rand_augment
    rand_augmented = _rand_augment(strength) if strength else None

    def view(image, seed):
        crop, flip, colour, operations = tf.unstack(tf.random.split(seed, 4))
        crop = drawn_crop(augmentation, tf.shape(image)[:2], size, crop)
        pixels = rotated_crop(image, size, *crop)
        pixels = tf.cond(
            chance(augmentation.flip, flip),
            lambda: tf.reverse(pixels, [1]),
            lambda: pixels,
        )
        pixels = coloured(augmentation, pixels, colour)
        if strength:
            pixels = rand_augmented(pixels, operations)
        return pixels

    return view


def drawn_crop(augmentation, image_size, size, seed):
    """Scale, aspect, angle and shift of a random `rotated_crop`.

    Source: Darknet, src/image.c, random_augment_image.

    Args:
        augmentation: a `ClassificationAugmentation`.
        image_size: int32 `(2,)`, height and width.
        size: side of the square.
        seed: int64 `(2,)`.
    """
    stretch, short, turn, place = tf.unstack(tf.random.split(seed, 4))
    aspect = factor(augmentation.aspect, stretch)
    side = tf.random.stateless_uniform(
        [],
        short,
        augmentation.min_crop,
        augmentation.max_crop + 1,
        tf.int32,
    )
    height, width = tf.unstack(tf.cast(image_size, "float32"))
    shorter = tf.maximum(tf.floor(tf.minimum(height, width * aspect)), 1.0)
    scale = tf.cast(side, "float32") / shorter
    angle = math.radians(augmentation.angle)
    angle = tf.random.stateless_uniform([], turn, -angle, angle)
    room = tf.stack([height * scale, width * scale / aspect]) - float(size)
    shift = tf.maximum(room / 2, 0.0)
    shift *= tf.random.stateless_uniform([2], place, -1.0, 1.0)
    return scale, aspect, angle, shift


def rotated_crop(image, size, scale, aspect, angle, shift):
    """A square cut from an image, turned about its centre.

    Source: Darknet, src/image.c, rotate_crop_image; but between the centres
    of pixels, as `centre_crop` has them. Darknet's grid begins at their upper
    left corners, which moves an enlarged image, by 1.5 pixels from 8 to 32.

    Args:
        image: `(h, w, channels)` uint8.
        size: side of the square.
        scale: of the image's height; that of its width is scale / aspect.
        aspect: see scale.
        angle: radians.
        shift: `(2,)`, down and right, pixels of the result.

    Returns:
        float32 `(size, size, channels)` in [0, 1], black outside the image.
    """
    cosine, sine = tf.cos(angle), tf.sin(angle)
    down, right = tf.unstack(shift - size / 2 + 0.5)
    middle = tf.cast(tf.shape(image)[:2], "float32") / 2 - 0.5
    height, width = tf.unstack(middle)
    across, along = aspect / scale, 1 / scale
    # From a point (x, y) of the result to the image: matrix and offset.
    transform = tf.stack(
        [
            cosine * across,
            -sine * along,
            cosine * across * right - sine * along * down + width,
            sine * across,
            cosine * along,
            sine * across * right + cosine * along * down + height,
            0.0,
            0.0,
        ]
    )
    pixels = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, "float32")[None],
        transforms=transform[None],
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return pixels[0] / 255.0


def mixed(augmentation, dataset, seed):
    """The batches of (images, one-hot labels), mixed as asked.

    Args:
        augmentation: a `ClassificationAugmentation`.
        dataset: of batches.
        seed: of the draws.
    """
    fractions = augmentation.mixup, augmentation.cutmix, augmentation.mosaic
    if not any(fractions):
        return dataset
    layers = (
        keras.layers.MixUp(**_LAYER_OPTIONS),
        keras.layers.CutMix(**_LAYER_OPTIONS),
    )
    limits = tf.math.cumsum(tf.constant(fractions))

    def mixture(batch, draw):
        images, labels = batch
        kind, content = tf.unstack(tf.random.split([seed, draw], 2))
        drawn = tf.random.stateless_uniform([], kind)
        ways = (
            *(
                functools.partial(_mixed_by, layer, images, labels, content)
                for layer in layers
            ),
            lambda: _mosaics(images, labels, content),
            lambda: (images, labels),
        )
        way = tf.reduce_sum(tf.cast(drawn >= limits, tf.int32))
        return tf.switch_case(way, ways)

    # Other random numbers than those of the images.
    draws = tf.data.Dataset.random(seed + 1, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(dataset, draws).map(
        mixture, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


class _Seeds(keras.random.SeedGenerator):
    """Keras' layers draw by it: what they draw depends on the seed alone.

    Their own generators go on from call to call, so that what a batch looks
    like would depend on which thread comes first.
    """

    def __init__(self, seed):
        # Keras' own makes a variable here.
        self._seed = seed

    def next(self, ordered=True):
        self._seed, drawn = tf.unstack(tf.random.split(self._seed, 2))
        return drawn


def _change(layer, images, seed):
    """What a Keras layer draws for the images."""
    # As the layer's own call does in tf.data, whatever Keras' backend is.
    layer.backend.set_backend("tensorflow")
    return layer.get_random_transformation(
        images, training=True, seed=_Seeds(seed)
    )


def _rand_augment(strength):
    """The function that changes an image by two random operations.

    `keras.layers.RandAugment` draws two for a whole batch and computes all of
    them, whichever it drew.

    Returns:
        A function of `(h, w, channels)` float32 in [0, 1] and of a seed, int64
        `(2,)`, to such an image.
    """
    made = keras.layers.RandAugment(
        (0, 1), factor=float(strength), **_LAYER_OPTIONS
    )
    layers = [getattr(made, name) for name in _OPERATIONS]

    @tf.function  # traced once for both
    def operated(images, index, seed):
        ways = [
            functools.partial(
                _changed if name in _MOVEMENTS else _changed_colours,
                layer,
                images,
                seed,
            )
            for name, layer in zip(_OPERATIONS, layers)
        ]
        if images.shape[-1] == 1:  # which some releases of Keras cannot grey
            ways[_OPERATIONS.index("random_color_degeneration")] = lambda: (
                images
            )
        return tf.ensure_shape(tf.switch_case(index, ways), images.shape)

    def rand_augmented(image, seed):
        choice, *contents = tf.unstack(tf.random.split(seed, 3))
        drawn = tf.random.stateless_uniform(
            [2], choice, 0, len(layers), tf.int32
        )
        images = image[None]
        for index, content in zip(tf.unstack(drawn), contents):
            images = operated(images, index, content)
        return tf.clip_by_value(images[0], 0.0, 1.0)

    return rand_augmented


def _changed(layer, images, seed):
    return layer.transform_images(images, _change(layer, images, seed))


def _changed_colours(layer, images, seed):
    """As `_changed`; the fourth channel, which is no colour, stays."""
    if images.shape[-1] != 4:
        return _changed(layer, images, seed)
    colours = _changed(layer, images[..., :3], seed)
    return tf.concat([colours, images[..., 3:]], axis=-1)


def _mixed_by(layer, images, labels, seed):
    change = _change(layer, images, seed)
    mixture = layer.transform_images(images, change)
    return (
        tf.ensure_shape(mixture, images.shape),
        tf.ensure_shape(layer.transform_labels(labels, change), labels.shape),
    )


def _mosaics(images, labels, seed):
    """Every image with three others around a random point, cut to fit."""
    place, *orders = tf.unstack(tf.random.split(seed, 4))
    size = tf.shape(images)[1:3]
    top, left = tf.unstack(meeting_point(size, place))
    numbers = tf.range(tf.shape(images)[0])
    others = [
        tf.random.experimental.stateless_shuffle(numbers, order)
        for order in orders
    ]
    below = tf.range(tf.shape(images)[1])[:, None, None] >= top
    right = tf.range(tf.shape(images)[2])[None, :, None] >= left
    masks = [
        tf.cast(mask, "float32")
        for mask in (~below & ~right, ~below & right, below & ~right)
    ]
    masks.append(1 - tf.add_n(masks))
    pixels, mixture = 0.0, 0.0
    for mask, order in zip(masks, [numbers, *others]):
        pixels += mask * tf.gather(images, order)
        mixture += tf.reduce_mean(mask) * tf.gather(labels, order)
    return pixels, mixture
