"""Outputs of networks as classes and boxes, with numbers worked out by hand."""

import pathlib

import numpy as np
import pytest

from keras_csp.commands.answers import understand

PHOTO = pathlib.Path("dog.jpg")
IMAGE = np.zeros((100, 200, 3), "uint8")


class Halved:
    """Placed at half the size, 10 to the right and 20 down."""

    def numbers(self):
        return np.float32([0.5, 0.5, 10, 20])


def detections(*rows):
    outputs = {
        "boxes": np.zeros((1, 4, 4), "float32"),
        "scores": np.zeros((1, 4), "float32"),
        "classes": np.full((1, 4), -1),
        "count": np.array([len(rows)]),
    }
    for index, (label, score, *box) in enumerate(rows):
        outputs["boxes"][0, index] = box
        outputs["scores"][0, index] = score
        outputs["classes"][0, index] = label
    return outputs


def test_boxes_in_pixels_of_the_photograph():
    """The second one reaches past two edges, where it is cut."""
    found = detections((1, 0.75, 20, 30, 40, 50), (0, 0.5, 5, 30, 40, 90))
    answer = understand(found, PHOTO, IMAGE, Halved(), ("cat", "dog"), 5)
    assert str(answer) == (
        "dog.jpg: dog 0.750 at 20 20 60 60, cat 0.500 at 0 20 60 100"
    )
    assert answer.record() == {
        "file": "dog.jpg",
        "width": 200,
        "height": 100,
        "detections": [
            {"class": "dog", "score": 0.75, "box": [20, 20, 60, 60]},
            {"class": "cat", "score": 0.5, "box": [0, 20, 60, 100]},
        ],
    }


def test_nothing_found():
    answer = understand(detections(), PHOTO, IMAGE, Halved(), None, 5)
    assert str(answer) == "dog.jpg: nothing"
    assert answer.record()["detections"] == []


def test_the_best_classes_first():
    scores = np.float32([[0.125, 0.5, 0.25]])
    names = ("red", "green", "blue")
    answer = understand(scores, PHOTO, IMAGE, Halved(), names, 2)
    assert str(answer) == "dog.jpg: green 0.500, blue 0.250"
    assert answer.record() == {
        "file": "dog.jpg",
        "classes": [
            {"class": "green", "score": 0.5},
            {"class": "blue", "score": 0.25},
        ],
    }
    answer = understand(scores, PHOTO, IMAGE, Halved(), None, 1)
    assert str(answer) == "dog.jpg: class 1 0.500"


@pytest.mark.parametrize(
    ("outputs", "shape"),
    [
        (np.zeros((1, 8, 8, 21)), r"shape \(1, 8, 8, 21\)"),
        ([np.zeros((1, 3)), np.zeros((1, 4))], r"\(1, 3\), \(1, 4\)"),
        ({"P4": np.zeros((1, 2, 2, 8))}, r"P4 \(1, 2, 2, 8\)"),
        ({"boxes": np.zeros((1, 9, 4))}, r"boxes \(1, 9, 4\)"),
    ],
)
def test_other_outputs_are_named_by_their_shapes(outputs, shape):
    with pytest.raises(ValueError, match=f"neither class scores .*{shape}"):
        understand(outputs, PHOTO, IMAGE, Halved(), None, 5)
