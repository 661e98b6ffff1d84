"""A neck of a user's own, as she would write it."""

import numpy as np
from support import tiny_backbone

import keras_csp
from keras_csp.detection import Neck, node
from keras_csp.detection.necks import conv, up


def my_panet(width=32):
    """Top-down and bottom-up, with one convolution at each joint."""
    return Neck(
        name="my_panet",
        nodes=(
            node("P5_in", "P5", conv(width)),
            node("P5_to_P4", "P5_in", up()),
            node("P4_down", ("P5_to_P4", "P4"), conv(width, 3)),
            node("P4_to_P3", "P4_down", up()),
            node("P3_out", ("P4_to_P3", "P3"), conv(width, 3)),
            node("P3_to_P4", "P3_out", conv(width, 3, 2)),
            node("P4_out", ("P3_to_P4", "P4_down"), conv(width, 3)),
            node("P4_to_P5", "P4_out", conv(width, 3, 2)),
            node("P5_out", ("P4_to_P5", "P5_in"), conv(width, 3)),
        ),
        outputs={"P3": "P3_out", "P4": "P4_out", "P5": "P5_out"},
    )


def test_a_detector_with_a_neck_of_the_users():
    detector = keras_csp.Detector(
        tiny_backbone(64), my_panet(), classes=2, input_shape=(64, 64, 3)
    )
    assert detector.name == "tiny_my_panet"
    detector.compile("adam")
    images = np.random.default_rng(0).random((2, 64, 64, 3), "float32")
    targets = {
        "boxes": np.array([[[8, 8, 30, 40]]] * 2, "float32"),
        "labels": np.array([[0], [1]]),
    }
    history = detector.fit(images, targets, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert detector.predict(images, verbose=0)["boxes"].shape == (2, 100, 4)
