"""Darknet's work on images in numpy, pixel by pixel, from its C sources.

Images are `(h, w, channels)` floats in [0, 1], as here; nothing is taken from
the package.
"""

import colorsys
import math

import numpy as np


def resize(image, width, height):
    """resize_image of src/image.c: corner on corner, first x and then y."""
    old_height, old_width, channels = image.shape
    across = np.zeros((old_height, width, channels))
    for column in range(width):
        if column == width - 1 or old_width == 1:
            across[:, column] = image[:, -1]
            continue
        x = column * (old_width - 1) / (width - 1)
        left, share = int(x), x - int(x)
        across[:, column] = (1 - share) * image[:, left]
        across[:, column] += share * image[:, left + 1]
    resized = np.zeros((height, width, channels))
    for row in range(height):
        if row == height - 1 or old_height == 1:
            resized[row] = across[-1]
            continue
        y = row * (old_height - 1) / (height - 1)
        top, share = int(y), y - int(y)
        resized[row] = (1 - share) * across[top] + share * across[top + 1]
    return resized


def crop(image, left, top, width, height):
    """crop_image: outside, the nearest pixel of the border."""
    cut = np.zeros((height, width, image.shape[-1]))
    for row in range(height):
        for column in range(width):
            y = min(max(row + top, 0), image.shape[0] - 1)
            x = min(max(column + left, 0), image.shape[1] - 1)
            cut[row, column] = image[y, x]
    return cut


def ten_crops(image, size, shift=32):
    """validate_classifier_10 of src/classifier.c, up to the network."""
    squashed = resize(image, size + shift, size + shift)
    places = [
        (-shift, -shift),
        (shift, -shift),
        (0, 0),
        (-shift, shift),
        (shift, shift),
    ]
    return np.stack(
        [
            crop(view, left, top, size, size)
            for view in (squashed, squashed[:, ::-1])
            for left, top in places
        ]
    )


def top_k(scores, count):
    """top_k of src/utils.c: each score sinks to its place among the best."""
    best = [-1] * count
    for number in range(len(scores)):
        current = number
        for place in range(count):
            if best[place] < 0 or scores[current] > scores[best[place]]:
                best[place], current = current, best[place]
            if current < 0:
                break
    return best


def rotated_crop(image, angle, scale, size, right, down, aspect, centre=0.0):
    """rotate_crop_image: black outside.

    Darknet's grid is of pixels' corners; with `centre` 0.5 it is of centres.
    """
    height, width, channels = image.shape

    def pixel(x, y):
        if 0 <= x < width and 0 <= y < height:
            return image[y, x]
        return np.zeros(channels)

    cut = np.zeros((size, size, channels))
    for row in range(size):
        for column in range(size):
            across = (column + centre - size / 2 + right) / scale * aspect
            along = (row + centre - size / 2 + down) / scale
            x = math.cos(angle) * across - math.sin(angle) * along
            y = math.sin(angle) * across + math.cos(angle) * along
            x, y = x + width / 2 - centre, y + height / 2 - centre
            left, top = math.floor(x), math.floor(y)
            dx, dy = x - left, y - top
            cut[row, column] = (
                (1 - dy) * (1 - dx) * pixel(left, top)
                + dy * (1 - dx) * pixel(left, top + 1)
                + (1 - dy) * dx * pixel(left + 1, top)
                + dy * dx * pixel(left + 1, top + 1)
            )
    return cut


def distorted(image, hue, saturation, exposure):
    """distort_image: through HSV, cut to [0, 1] only at the end."""
    changed = np.zeros(image.shape)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[place])
        # colorsys does not mind S and V above 1.
        changed[place] = colorsys.hsv_to_rgb(
            (h + hue) % 1, s * saturation, v * exposure
        )
    return np.clip(changed, 0, 1)
