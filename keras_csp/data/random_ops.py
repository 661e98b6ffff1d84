"""What both augmentations draw; the same seed draws the same."""

import tensorflow as tf

_MEETING = (0.3, 0.7)  # of the four images of a mosaic, in its sides


def chance(probability, seed):
    """True with this probability, a scalar."""
    return tf.random.stateless_uniform([], seed) < probability


def factor(most, seed):
    """Uniform between 1 and `most`, or the inverse, equally often.

    Source: Darknet, src/utils.c, rand_scale.
    """
    draws = tf.random.stateless_uniform([2], seed)
    drawn = 1 + draws[0] * (most - 1)
    return tf.where(draws[1] < 0.5, drawn, 1 / drawn)


def meeting_point(size, seed):
    """Where the four images of a mosaic meet: rows and columns, int32 `(2,)`.

    Between 0.3 and 0.7 of the sides.

    Args:
        size: `(2,)`, height and width.
        seed: int64 `(2,)`.
    """
    point = tf.random.stateless_uniform([2], seed, *_MEETING)
    return tf.cast(tf.round(point * tf.cast(size, "float32")), "int32")


def coloured(augmentation, pixels, seed):
    """The pixels with another hue, saturation and brightness.

    Source: Darknet, src/image.c, random_distort_image.

    Args:
        augmentation: has `hue`, `saturation` and `brightness`.
        pixels: `(h, w, channels)` in [0, 1]. Of one channel the brightness
            alone changes; the fourth of four is no colour and stays.
        seed: int64 `(2,)`.
    """
    if pixels.shape[-1] == 4:
        colours = coloured(augmentation, pixels[..., :3], seed)
        return tf.concat([colours, pixels[..., 3:]], axis=-1)
    turn, saturation, brightness = tf.unstack(tf.random.split(seed, 3))
    grey = pixels.shape[-1] == 1
    if augmentation.hue and not grey:
        most = augmentation.hue
        turn = tf.random.stateless_uniform([], turn, -most, most)
        pixels = tf.image.adjust_hue(pixels, turn)
    if augmentation.saturation != 1 and not grey:
        # V, the largest of red, green and blue, stays; S is the distance
        # from it. As in Darknet, S may grow above 1 and is cut at the end.
        value = tf.reduce_max(pixels, axis=-1, keepdims=True)
        drawn = factor(augmentation.saturation, saturation)
        pixels = value - (value - pixels) * drawn
    if augmentation.brightness != 1:
        # The factor of V is that of red, green and blue.
        pixels *= factor(augmentation.brightness, brightness)
    return tf.clip_by_value(pixels, 0.0, 1.0)


def checked(augmentation, kind):
    """The augmentation, `kind`'s default for None; ValueError for others."""
    if augmentation is None:
        return kind()
    if not isinstance(augmentation, kind):
        raise ValueError(
            f"`augmentation` must be a `{kind.__name__}`. Received: "
            f"augmentation={augmentation!r}"
        )
    return augmentation


def check_range(augmentation, name, least, most, kinds=(int, float)):
    """ValueError unless the field is a number, of `kinds`, in the range."""
    value = getattr(augmentation, name)
    if (
        isinstance(value, bool)
        or not isinstance(value, kinds)
        or not least <= value <= most
    ):
        whole = "an integer " if kinds is int else ""
        raise ValueError(
            f"`{name}` must be {whole}from {least} to {most}. Received: "
            f"{name}={value!r}"
        )
