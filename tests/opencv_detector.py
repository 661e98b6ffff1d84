"""Darknet's files read by OpenCV's dnn, and its boxes after suppression."""

import cv2
import numpy as np

THRESHOLD = 0.2  # below it OpenCV sets scores to zero; `thresh` of the cfg


class OpenCVDetector:
    """The network of the files `cfg` and `weights`."""

    def __init__(self, cfg, weights):
        self.net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
        # Winograd's convolutions are less exact.
        self.net.enableWinograd(False)

    def rows(self, image):
        """x, y, w, h relative to `image`, objectness and scores."""
        self.net.setInput(image.transpose(2, 0, 1)[None].copy())
        names = self.net.getUnconnectedOutLayersNames()
        rows = [np.asarray(rows) for rows in self.net.forward(names)]
        return np.concatenate([x.reshape(-1, x.shape[-1]) for x in rows])

    def boxes(self, image, threshold=THRESHOLD, iou_threshold=0.45):
        """[(score, class, box relative to the image)], the best first."""
        rows, found = self.rows(image), []
        corners = np.concatenate(
            [rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], axis=1
        )
        for label in range(rows.shape[1] - 5):
            scores = rows[:, 5 + label]
            for index in cv2.dnn.NMSBoxes(
                corners.tolist(), scores.tolist(), threshold, iou_threshold
            ):
                x, y, w, h = corners[index]
                found.append((scores[index], label, (x, y, x + w, y + h)))
        return sorted(found, key=lambda row: -row[0])


def assert_same_boxes(detector, image, opencv, least=4, **thresholds):
    """Those of OpenCV, to 1e-3 of the image and of the score."""
    found = detector.predict(
        image[None], verbose=0, nms="iou", max_detections=300
    )
    expected = opencv.boxes(image, **thresholds)
    count = int(found["count"][0])
    assert count == len(expected) > least
    height, width = image.shape[:2]
    for row, (score, label, box) in enumerate(expected):
        assert found["classes"][0, row] == label
        assert abs(found["scores"][0, row] - score) < 1e-3
        ours = found["boxes"][0, row] / [width, height, width, height]
        assert np.abs(ours - np.clip(box, 0, 1)).max() < 1e-3
