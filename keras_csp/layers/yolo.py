"""The boxes of a YOLO head: Darknet's [yolo] at inference."""

import keras
from keras import ops

from keras_csp._validation import check_positive


@keras.saving.register_keras_serializable(package="keras_csp")
class YoloBoxes(keras.layers.Layer):
    """x = (column + s(t_x)) / W, w = a_w exp(t_w) / image width; y, h alike.

    With the sigmoid S: s(t) = f S(t) - (f - 1) / 2 for f = `scale_x_y`; the
    objectness is S(t_o), the score of class c is S(t_o) S(t_c). With
    `new_coords` no sigmoid is taken (the convolution before has it as its
    activation), and w = a_w (2 t_w)^2 / image width.

    Args:
        anchors: n pairs (a_w, a_h), in pixels of the network's input.
        classes: their number.
        image_size: (height, width) of the network's input.
        stride: instead of `image_size`, for inputs of any size: pixels of the
            input for one position of the map.
        scale_x_y: f. Default 1.
        new_coords: as above. Default False.

    Shapes: `(batch, H, W, n * (5 + classes))`, of which each anchor has t_x,
    t_y, t_w, t_h, t_o and its classes' t_c, to `(batch, H * W * n,
    5 + classes)`: x and y of the centre, w, h (all relative to the image),
    objectness, and the scores. Rows are in the order of the positions, and
    at each of the anchors.
    Raises ValueError at build for channels that are not n * (5 + classes).
    Source: Darknet, src/yolo_layer.c; arXiv 1804.02767, section 2.1.
    """

    def __init__(
        self,
        anchors,
        classes,
        image_size=None,
        scale_x_y=1.0,
        new_coords=False,
        stride=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.anchors = _check_anchors(anchors)
        self.classes = check_positive("classes", classes)
        if (image_size is None) == (stride is None):
            raise ValueError(
                "One of `image_size` and `stride` must be given. Received: "
                f"image_size={image_size!r}, stride={stride!r}"
            )
        self.image_size = image_size and tuple(
            check_positive("image_size", side) for side in image_size
        )
        if stride is not None:
            stride = check_positive("stride", stride)
        self.stride = stride
        self.scale_x_y = scale_x_y
        self.new_coords = new_coords

    def build(self, input_shape):
        expected = len(self.anchors) * (5 + self.classes)
        if input_shape[-1] != expected:
            raise ValueError(
                f"Layer {self.name!r} needs {len(self.anchors)} anchors * (5 + "
                f"{self.classes} classes) = {expected} input channels. "
                f"Received: {input_shape[-1]}"
            )

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        n = len(self.anchors)
        t = ops.reshape(x, (-1, height, width, n, 5 + self.classes))
        centre, size, rest = ops.split(t, [2, 4], axis=-1)
        if not self.new_coords:
            centre, rest = ops.sigmoid(centre), ops.sigmoid(rest)
        centre = self.scale_x_y * centre - (self.scale_x_y - 1) / 2
        boxes = [
            (centre + self._grid(height, width)) / self._sides(width, height),
            self._stretch(size) * self._relative_anchors(height, width),
            rest[..., :1],
            rest[..., :1] * rest[..., 1:],
        ]
        boxes = ops.concatenate(boxes, axis=-1)
        return ops.reshape(boxes, (-1, height * width * n, 5 + self.classes))

    def _stretch(self, size):
        return (2 * size) ** 2 if self.new_coords else ops.exp(size)

    def _relative_anchors(self, rows, columns):
        anchors = ops.convert_to_tensor(self.anchors, self.compute_dtype)
        if self.stride:
            return anchors / (self.stride * self._sides(columns, rows))
        height, width = self.image_size
        return anchors / ops.convert_to_tensor(
            [width, height], self.compute_dtype
        )

    def _sides(self, width, height):
        return ops.cast(ops.stack([width, height]), self.compute_dtype)

    def _grid(self, height, width):
        """(column, row) of each position: (height, width, 1, 2)."""
        columns, rows = ops.meshgrid(
            ops.arange(width, dtype=self.compute_dtype),
            ops.arange(height, dtype=self.compute_dtype),
        )
        return ops.expand_dims(ops.stack([columns, rows], axis=-1), 2)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        rows = None
        if None not in (height, width):
            rows = height * width * len(self.anchors)
        return (batch, rows, 5 + self.classes)

    def get_config(self):
        return {
            **super().get_config(),
            "anchors": self.anchors,
            "classes": self.classes,
            "image_size": self.image_size,
            "scale_x_y": self.scale_x_y,
            "new_coords": self.new_coords,
            "stride": self.stride,
        }


def _check_anchors(anchors):
    pairs = [tuple(pair) for pair in anchors]
    if not pairs or any(len(pair) != 2 or min(pair) <= 0 for pair in pairs):
        raise ValueError(
            "`anchors` must be pairs of a positive width and height. "
            f"Received: anchors={anchors!r}"
        )
    return pairs
