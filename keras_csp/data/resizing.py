"""How a photograph is brought to a network's size: its pixels, its boxes."""

import dataclasses

import tensorflow as tf

from keras_csp.layers.preprocessing import ImageSpec, as_spec

GREY = 0.5
_ROUNDING = 1e-3  # pixels, far above float32's and far below what matters
# Antialiasing's triangle is bilinear when enlarging and a weighted mean of
# what a pixel covers when shrinking.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


@dataclasses.dataclass(frozen=True)
class View:
    """placed = original * scale + offset, of points (y, x) in pixels.

    Attributes:
        scale, offset: float32 tensors `(2,)`, of y and of x; `(n, 2)` of
            several images.
    """

    scale: tf.Tensor
    offset: tf.Tensor

    def boxes(self, boxes):
        """Boxes `(n, 4)` x1, y1, x2, y2 of the original, placed."""
        scale, offset = self.scale[::-1], self.offset[::-1]
        return boxes * tf.tile(scale, [2]) + tf.tile(offset, [2])

    def original_boxes(self, boxes):
        """The inverse of `boxes`."""
        scale, offset = self.scale[::-1], self.offset[::-1]
        return (boxes - tf.tile(offset, [2])) / tf.tile(scale, [2])

    def numbers(self):
        """(scale_x, scale_y, left, top), float32 `(4,)`."""
        return tf.concat([self.scale[::-1], self.offset[::-1]], axis=0)

    def pixels(
        self,
        image,
        window,
        change=lambda pixels: pixels,
        interpolation="bilinear",
        antialias=True,
    ):
        """The image placed in the window, grey where it is not.

        Args:
            image: `(h, w, channels)` uint8.
            window: int32 `(2,)`, height and width of the result.
            change: what is done to the image's pixels, not to the grey.
            interpolation: "bilinear" (default) or "bicubic".
            antialias: whether it is smoothed where it shrinks, as Pillow
                does. Default True. False gives OpenCV's pixels.

        Returns:
            float32 `(height, width, channels)` in [0, 1].
        """
        start, end = self._covered(tf.shape(image)[:2], window)
        # Unlike a crop, or an affine transform, it repeats the image's own
        # edge, not the grey.
        pixels = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=end - start,
            scale=self.scale,
            translation=self.offset - tf.cast(start, "float32"),
            kernel_type=_KERNELS[interpolation],
            antialias=antialias,
        )[0]
        # The weights' sum is rounded, and bicubic ones go beyond the values.
        pixels = tf.clip_by_value(pixels / 255.0, 0.0, 1.0)
        return tf.pad(
            change(pixels),
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


def fit_image(image, spec, size=None):
    """An image as a network takes it, and how it was placed.

    Evaluation, prediction and the check of exported files all use it.

    Bicubic pixels are Pillow's, which timm evaluates with. Stretched without
    antialiasing they are OpenCV's, between the centres of pixels, and Darknet
    networks are read with that: a published detector, Yolo-Fastest-1.1 on 104
    photographs of COCO, has 28.7 % AP50 with either, 28.6 % with Darknet's own
    grid from corner to corner, and 27.5 % with antialiasing.

    Args:
        image: `(h, w, channels)` uint8.
        spec: the network's `ImageSpec`: its `resize`, `crop`,
            `interpolation` and `antialias`.
        size: (height, width), or the side of a square. Default: `spec.size`.

    Returns:
        float32 `(height, width, channels)` in [0, 1], and a `View`, which
        maps boxes there and back.

    Raises:
        ValueError: neither `size` nor `spec` has a size.
    """
    spec, _channels = as_spec(spec, spec.resize, size)
    window = tf.stack(spec.size)
    view = placed(tf.shape(image)[:2], window, spec.resize, spec.crop)
    pixels = view.pixels(
        image,
        window,
        interpolation=spec.interpolation,
        antialias=spec.antialias,
    )
    return pixels, view


def placed(size, window, resize="letterbox", crop=1.0):
    """The `View` of an image in a window.

    Args:
        size: int32 `(2,)`, height and width of the image; or `(n, 2)` of
            several, whose views are those of one `View`.
        window: int32 `(2,)`, height and width of the window.
        resize: "letterbox" (default) shows all of the image, with grey bars;
            "stretch" all of it, each side on its own; "crop" fills the window
            with the middle of the image.
        crop: with "crop", the fraction of the largest such rectangle that is
            shown. Default 1.
    """
    size, window = tf.cast(size, "float32"), tf.cast(window, "float32")
    ratio = window / size
    if resize == "stretch":
        return View(ratio, tf.zeros_like(ratio))
    reduce = tf.reduce_max if resize == "crop" else tf.reduce_min
    scale = reduce(ratio, axis=-1, keepdims=True)
    offset = (window - size * scale) / 2
    # Whole pixels, so that an image of the window's size stays as it is;
    # towards zero, so that one that fills the window leaves no edge.
    offset += tf.sign(offset) * _ROUNDING
    offset = tf.cast(tf.cast(offset, "int32"), "float32")
    view = View(tf.broadcast_to(scale, tf.shape(ratio)), offset)
    if resize != "crop" or crop == 1:
        return view
    middle = window / 2
    return View(view.scale / crop, middle + (view.offset - middle) / crop)


def letterbox(image, size):
    """The image fitted into a window, with grey bars, and how.

    Args:
        image: `(h, w, channels)` uint8.
        size: (height, width) of the window, or the side of a square.

    Returns:
        float32 `(height, width, channels)` in [0, 1], and the `View`.
    """
    return fit_image(image, ImageSpec(size, resize="letterbox"))


def centre_crop(image, size, crop=1.0):
    """The rectangle in the middle of an image.

    Args:
        image: `(h, w, channels)` uint8.
        size: (height, width) of the result, or the side of a square.
        crop: fraction of the largest such rectangle that is shown. Default 1,
            Darknet's.

    Returns:
        float32 `(height, width, channels)` in [0, 1].
    """
    return fit_image(image, ImageSpec(size, resize="crop", crop=crop))[0]
