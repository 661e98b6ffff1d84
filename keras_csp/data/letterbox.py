"""An image in a window: how it is placed, and its pixels there."""

import dataclasses

import tensorflow as tf

GREY = 0.5
_ROUNDING = 1e-3  # pixels, far above float32's and far below what matters


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
    offset = (window - size * scale) / 2
    # Whole pixels, so that an image of the window's size stays as it is;
    # towards zero, so that one that fills the window leaves no edge.
    offset += tf.sign(offset) * _ROUNDING
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
