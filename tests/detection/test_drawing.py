"""Pictures, read back: the boxes are where they should be."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_csp.detection import AveragePrecision, drawing


def pixels_of(figure_or_path):
    target = figure_or_path
    if isinstance(target, Figure):
        target = io.BytesIO()
        figure_or_path.savefig(target)
        target.seek(0)
    return np.asarray(Image.open(target).convert("RGB")).astype(int)


def canvas(width, height):
    """Axes on which a pixel of the image is a pixel of the picture."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    return figure, figure.add_axes([0, 0, 1, 1])


def is_red(pixels):
    return (pixels[..., 0] > 180) & (pixels[..., 1:] < 90).all(axis=-1)


def test_edges_are_at_the_boxes_pixels():
    figure, axes = canvas(200, 160)
    image = np.full((160, 200, 3), 128, "uint8")
    boxes = np.array([[40.0, 60.0, 150.0, 120.0]])
    drawing.draw_boxes(axes, image, boxes, [0], ["x"], color="red")
    pixels = pixels_of(figure)
    assert pixels.shape == (160, 200, 3)
    red = is_red(pixels)
    # Each edge, to a pixel, in its middle, away from the label.
    for line, edges in ((red[90], (40, 150)), (red[:, 120], (60, 120))):
        places = np.flatnonzero(line)
        assert len(places) >= 2
        near = np.abs(places[:, None] - np.array(edges)).min(axis=1)
        assert near.max() <= 1.5
        for edge in edges:
            assert np.abs(places - edge).min() <= 1
    # Inside and outside is the image.
    assert (pixels[70:110, 60:140] == 128).all()
    assert (pixels[130:] == 128).all()


def test_each_class_has_a_colour_and_a_label():
    figure, axes = canvas(200, 160)
    image = np.zeros((160, 200, 3))
    boxes = [[20, 60, 80, 140], [110, 60, 180, 140]]
    names = ["first", "$costs_$2"]  # not a formula
    drawing.draw_boxes(axes, image, boxes, [0, 1], names, scores=[0.5, 0.876])
    texts = [text.get_text() for text in axes.texts]
    # The first box, the best one as a rule, lies on top.
    assert texts == ["$costs_$2 0.88", "first 0.50"]
    pixels = pixels_of(figure)
    for (x1, _y1, x2, _y2), color in zip(boxes, ("C0", "C1")):
        rgb = 255 * np.array(mpl.colors.to_rgb(color))
        column = pixels[100, x1 - 2 : x1 + 3]
        assert np.abs(column - rgb).max(axis=-1).min() < 60
        assert (pixels[100, (x1 + x2) // 2] == 0).all()


@pytest.mark.parametrize(("y1", "above"), [(0, False), (60, True)])
def test_labels_stay_in_the_picture(y1, above):
    figure, axes = canvas(200, 160)
    image = np.zeros((160, 200, 3))
    drawing.draw_boxes(axes, image, [[30, y1, 90, 150]], [0], ["name"])
    figure.canvas.draw()
    extent = axes.texts[0].get_window_extent()
    # Matplotlib counts from below.
    assert extent.y1 <= 160 and extent.y0 >= 0
    assert (extent.y0 > 160 - y1 - 2) == above


@pytest.mark.parametrize("channels", [3, 1, 4])
def test_no_boxes_is_the_image(tmp_path, channels):
    """In grey, or without a fourth channel, which is not transparency."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (640, 640, channels), "uint8")
    found = {"boxes": np.zeros((0, 4)), "classes": [], "scores": []}
    drawing.draw_detections(tmp_path / "x.png", image, found, [])
    expected = np.broadcast_to(image[..., :3], (640, 640, 3))
    np.testing.assert_array_equal(pixels_of(tmp_path / "x.png"), expected)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((480, 640), (480, 640)),
        ((900, 1200), (900, 1200)),
        ((60, 80), (480, 640)),  # enlarged
        ((3200, 1600), (1600, 800)),  # reduced
        ((1, 700), (12, 700)),
    ],
)
def test_detections_keep_the_images_shape(tmp_path, shape, size):
    height, width = shape
    image = np.full((height, width, 3), 200, "uint8")
    boxes = np.array([[0.25 * width, 0.5 * height, 0.75 * width, height - 1]])
    found = {"boxes": boxes, "classes": [3], "scores": [0.9]}
    path = tmp_path / "found.png"
    drawing.draw_detections(path, image, found, ["a", "b", "c", "d"])
    pixels = pixels_of(path)
    np.testing.assert_allclose(pixels.shape[:2], size, atol=1)
    if height > 1:  # C3, the fourth colour, is red
        row = np.flatnonzero(is_red(pixels[int(0.75 * len(pixels))]))
        shares = row / pixels.shape[1]
        assert np.abs(shares - 0.25).min() < 0.01
        assert np.abs(shares - 0.75).min() < 0.01


def test_comparison(tmp_path):
    images = np.full((2, 64, 96, 3), 0.5)
    detections = {
        "boxes": np.array([[[8.0, 16, 40, 48], [0, 0, 0, 0]]] * 2),
        "scores": np.array([[0.9, 0], [0.8, 0]]),
        "classes": np.array([[3, -1], [3, -1]]),
        "count": np.array([1, 0]),
    }
    targets = {
        "boxes": np.array([[[8.0, 16, 40, 48], [0, 0, 0, 0]]] * 2),
        "labels": np.array([[0, -1], [-1, -1]]),
    }
    path = tmp_path / "comparison.png"
    drawing.draw_comparison(path, images, targets, detections, list("abcd"))
    pixels = pixels_of(path)
    assert pixels.shape == (726, 704, 3)  # 6.6 and 6.4 inches at 110 dpi
    height, width = pixels.shape[:2]
    red = is_red(pixels)
    # One red box: found, in the first image.
    assert red[: height // 2, : width // 2].sum() > 100
    assert not red[:, width // 2 :].any()
    assert not red[height // 2 :].any()


def test_precision_recall(tmp_path):
    precision = AveragePrecision(2, ["cell", "none"])
    boxes = np.array([[[10.0, 10, 50, 50], [60, 60, 90, 90]]])
    precision.update(
        {"boxes": boxes, "labels": np.array([[0, 0]])},
        {
            "boxes": boxes,
            "scores": np.array([[0.9, 0.0]]),
            "classes": np.array([[0, -1]]),
            "count": np.array([1]),
        },
    )
    path = tmp_path / "curve.png"
    drawing.draw_precision_recall(path, precision, "title")
    pixels = pixels_of(path)
    assert pixels.shape == (495, 660, 3)
    blue = 255 * np.array(mpl.colors.to_rgb("C0"))
    curve = np.abs(pixels - blue).max(axis=-1) < 60
    rows, columns = np.nonzero(curve)
    # 1 until half of the boxes are found, then 0.
    left = rows[(columns > 150) & (columns < 250)]
    assert left.size and np.median(left) < 0.2 * len(pixels)
    right = rows[(columns > 450) & (columns < 550)]
    assert right.size and np.median(right) > 0.8 * len(pixels)


def test_pyplot_is_left_alone(tmp_path):
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    test_comparison(tmp_path)
    test_precision_recall(tmp_path)
    test_no_boxes_is_the_image(tmp_path, 3)
    assert plt.get_fignums() == before
