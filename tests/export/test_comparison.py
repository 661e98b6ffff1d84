"""How a file's outputs are compared, on outputs made up."""

import numpy as np
import pytest

from keras_csp.export.comparison import compare


def detections(*images):
    """Of lists of (x1, y1, x2, y2, score, class), as a detector gives them."""
    most = 5
    outputs = {
        "boxes": np.zeros((len(images), most, 4)),
        "scores": np.zeros((len(images), most)),
        "classes": np.full((len(images), most), -1),
        "count": np.array([len(rows) for rows in images]),
    }
    for image, rows in enumerate(images):
        for place, (*box, score, label) in enumerate(rows):
            outputs["boxes"][image, place] = box
            outputs["scores"][image, place] = score
            outputs["classes"][image, place] = label
    return outputs


def test_values():
    expected = np.array([[1.0, 4.0], [3.0, 2.0], [0.0, 1.0]])
    found = np.array([[1.0, 3.8], [1.9, 2.0], [0.0, 1.0]])
    difference, match_rate = compare(expected, found)
    assert difference == pytest.approx(1.1 / 4)
    assert match_rate == pytest.approx(2 / 3)


def test_several_outputs():
    expected = {"a": np.ones((2, 2)), "b": np.array([[0.0, 2.0]])}
    found = {"a": np.ones((2, 2)), "b": np.array([[0.5, 2.0]])}
    assert compare(expected, found) == (0.25, 1.0)


A, B = (0, 0, 10, 10, 0.9, 1), (20, 20, 40, 40, 0.8, 0)


def test_detections_may_change_places():
    assert compare(detections([A, B]), detections([B, A])) == (0.0, 1.0)
    moved = (0, 0, 10, 10.4, 0.9, 1)
    difference, match_rate = compare(detections([A, B]), detections([B, moved]))
    assert difference == pytest.approx(0.4 / 40)
    assert match_rate == 1


def test_boxes_that_all_begin_at_the_edge():
    edge = (0, 0, 10, 10, 0.9, 1)
    assert compare(detections([edge]), detections([edge])) == (0.0, 1.0)
    moved = (0.5, 0, 10, 10, 0.9, 1)
    assert compare(detections([edge]), detections([moved]))[0] == 0.5


def test_a_detection_too_many():
    assert compare(detections([A], [B]), detections([A], [B, A])) == (
        np.inf,
        0.5,
    )


def test_detections_of_a_quantised_file():
    """Two of three and two of two are one pair: IoU 0.9, another class."""
    c = (50, 50, 60, 60, 0.5, 0)
    near = (0, 0, 10, 9, 0.7, 1)
    other_class = (20, 20, 40, 40, 0.8, 1)
    difference, match_rate = compare(
        detections([A, B, c]), detections([near, other_class]), exact=False
    )
    assert match_rate == pytest.approx(2 * 1 / 5)
    assert difference == pytest.approx(0.2)


def test_a_box_is_paired_once():
    twin = (0, 0, 10, 9, 0.6, 1)
    _, match_rate = compare(detections([A]), detections([A, twin]), exact=False)
    assert match_rate == pytest.approx(2 / 3)
    far = (0, 0, 10, 4.9, 0.9, 1)
    assert compare(detections([A]), detections([far]), exact=False)[1] == 0


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_found_is_said(exact):
    with pytest.warns(UserWarning, match="finds nothing in any of the 2"):
        result = compare(detections([], []), detections([], []), exact)
    assert result == (0.0, 1.0)


def test_one_number_has_no_best_class():
    expected = np.array([[10.0], [2.0], [0.1], [5.0]])
    found = np.array([[10.4], [2.6], [0.1], [5.0]])
    difference, match_rate = compare(expected, found)
    assert difference == pytest.approx(0.06)
    assert match_rate == 0.75


def test_outputs_that_are_all_zero():
    zeros = np.zeros((2, 3))
    assert compare(zeros, zeros) == (0.0, 1.0)
    assert compare(zeros, zeros + 0.5)[0] == 0.5
