"""What a network answers for one photograph: classes or boxes, in words."""

import numpy as np

from keras_csp.detection.evaluation import in_original

_DETECTIONS = {"boxes", "scores", "classes", "count"}


class Answer:
    """Classes or boxes of one photograph.

    Args:
        path: of the photograph.
        class_names: of the network, or None.
    """

    def __init__(self, path, class_names):
        self.path = path
        self._names = class_names or ()

    def name(self, index):
        index = int(index)
        if 0 <= index < len(self._names):
            return self._names[index]
        return f"class {index}"


class ClassAnswer(Answer):
    """The best classes, best first.

    Args:
        scores: `(classes,)`.
        top: how many are kept.
    """

    def __init__(self, path, class_names, scores, top):
        super().__init__(path, class_names)
        self.scores = np.asarray(scores, "float64")
        self.best = np.argsort(-self.scores, kind="stable")[:top]

    def record(self):
        """As it is written to JSON."""
        classes = [
            {"class": self.name(index), "score": float(self.scores[index])}
            for index in self.best
        ]
        return {"file": str(self.path), "classes": classes}

    def __str__(self):
        found = [f"{self.name(i)} {self.scores[i]:.3f}" for i in self.best]
        return f"{self.path}: {', '.join(found)}"


class BoxAnswer(Answer):
    """Boxes in pixels of the photograph.

    Args:
        image: the photograph, `(height, width, 3)`.
        found: {"boxes" `(n, 4)` x1, y1, x2, y2, "scores", "classes"}.
    """

    def __init__(self, path, class_names, image, found):
        super().__init__(path, class_names)
        self.image, self.found = image, found

    def _rows(self):
        found = self.found
        return zip(found["classes"], found["scores"], found["boxes"])

    def record(self):
        """As it is written to JSON."""
        height, width = self.image.shape[:2]
        detections = [
            {
                "class": self.name(label),
                "score": float(score),
                "box": np.round(box, 2).tolist(),
            }
            for label, score, box in self._rows()
        ]
        return {
            "file": str(self.path),
            "width": width,
            "height": height,
            "detections": detections,
        }

    def __str__(self):
        found = [
            f"{self.name(label)} {score:.3f} at "
            + " ".join(f"{side:.0f}" for side in box)
            for label, score, box in self._rows()
        ]
        return f"{self.path}: {', '.join(found) or 'nothing'}"


def understand(outputs, path, image, view, class_names, top):
    """The `Answer` in a network's outputs for a batch of one photograph.

    Args:
        outputs: as a runtime returns them.
        path, image: of the photograph.
        view: how it was placed, as `keras_csp.data.fit_image` returns it.
        class_names: of the network, or None.
        top: how many classes to keep.

    Raises:
        ValueError: outputs that are neither class scores nor boxes.
    """
    if isinstance(outputs, dict) and outputs.keys() >= _DETECTIONS:
        found = in_original(outputs, image, view)
        return BoxAnswer(path, class_names, image, found)
    if not isinstance(outputs, (dict, list, tuple)):
        scores = np.asarray(outputs)
        if scores.ndim == 2:
            return ClassAnswer(path, class_names, scores[0], top)
    raise ValueError(
        "the model gives neither class scores (batch, classes) nor boxes. "
        f"Received: an output of {_shapes(outputs)}"
    )


def _shapes(outputs):
    if isinstance(outputs, dict):
        return ", ".join(
            f"{name} {np.shape(value)}" for name, value in outputs.items()
        )
    if isinstance(outputs, (list, tuple)):
        return ", ".join(str(np.shape(value)) for value in outputs)
    return f"shape {np.shape(outputs)}"
