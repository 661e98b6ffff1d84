"""COCO's average precision, by pycocotools."""

import contextlib
import io

import keras
import numpy as np

# Average precision counts every box, however low its score.
EVALUATION = {
    "score_threshold": 0.001,
    "iou_threshold": 0.6,
    "candidates": 1000,
}

# COCO's twelve numbers, in pycocotools' order.
METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def detections(model, dataset, steps=None, verbose="auto", callbacks=None):
    """(targets, what `model` finds), batch by batch, with a progress bar.

    Args:
        model: a `Detector.inference_model`.
        dataset: batches of (images, targets).
        steps: batches to take. Default: all.
        verbose: 0 for no progress bar.
        callbacks: a `keras.callbacks.CallbackList` that is told where a batch
            begins. Default none.
    """
    total = steps
    if total is None and hasattr(dataset, "cardinality"):
        total = int(dataset.cardinality())
        total = total if total > 0 else None
    bar = keras.utils.Progbar(total, unit_name="batch") if verbose else None
    others = keras.backend.backend() != "tensorflow"
    if others and hasattr(dataset, "as_numpy_iterator"):
        # JAX and PyTorch do not take TensorFlow's tensors.
        dataset = dataset.as_numpy_iterator()
    index = 0
    for index, (images, targets, *weights) in enumerate(dataset, 1):
        if callbacks is not None:
            callbacks.on_test_batch_begin(index - 1)
        weighted = {"sample_weight": weights[0]} if weights else {}
        yield {**targets, **weighted}, model.predict_on_batch(images)
        if bar:
            bar.update(index)
        if index == steps:
            break
    if bar and total != index:
        bar.update(index, finalize=True)


class AveragePrecision:
    """COCO AP over batches of true and detected boxes.

    `update` takes batches, `result` gives the twelve numbers of COCO; a
    number that nothing defines (AP_small without small boxes) is -1, as
    pycocotools has it.

    Args:
        classes: their number.
        names: of the classes, for `per_class`. Default "0", "1", ...

    Raises:
        ImportError: pycocotools is not installed.
    """

    def __init__(self, classes, names=None):
        self.classes = classes
        self.names = tuple(names or map(str, range(classes)))
        self._images, self._truths, self._detections = [], [], []
        self._evaluation = None
        _pycocotools()

    def update(self, targets, detections):
        """Adds a batch.

        Args:
            targets: {"boxes": `(batch, m, 4)` x1, y1, x2, y2, "labels":
                `(batch, m)`, below 0 for padding}; optionally "crowd"
                `(batch, m)`, "area" `(batch, m)`, "original_boxes" and
                "view" as `keras_csp.data` gives them, by which both
                sides are measured in pixels of the original image.
            detections: as `Detector.predict` returns them.
        """
        targets = {key: np.asarray(value) for key, value in targets.items()}
        detections = {key: np.asarray(v) for key, v in detections.items()}
        for index in range(len(targets["labels"])):
            image = len(self._images) + 1
            self._images.append({"id": image})
            self._add_truths(image, _row(targets, index))
            self._add_detections(
                image, _row(detections, index), _row(targets, index)
            )

    def _add_truths(self, image, targets):
        boxes = targets.get("original_boxes", targets["boxes"])
        for index in np.flatnonzero(targets["labels"] >= 0):
            x1, y1, x2, y2 = map(float, boxes[index])
            area = (x2 - x1) * (y2 - y1)
            self._truths.append(
                {
                    "id": len(self._truths) + 1,
                    "image_id": image,
                    "category_id": int(targets["labels"][index]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(targets.get("area", {index: area})[index]),
                    "iscrowd": int(targets.get("crowd", {index: 0})[index]),
                }
            )

    def _add_detections(self, image, detections, targets):
        boxes = original_boxes(detections["boxes"], targets.get("view"))
        for index in range(int(detections["count"])):
            x1, y1, x2, y2 = map(float, boxes[index])
            self._detections.append(
                {
                    "image_id": image,
                    "category_id": int(detections["classes"][index]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(detections["scores"][index]),
                }
            )

    def result(self):
        """{"AP", "AP50", "AP75", ..., "AR_large"}: floats from 0 to 1."""
        if not self._images:
            raise ValueError("There were no images to evaluate on")
        coco, evaluation = _pycocotools()
        with contextlib.redirect_stdout(io.StringIO()):
            truth, found = coco(), coco()
            for dataset, annotations in (
                (truth, self._truths),
                (found, self._detected()),
            ):
                dataset.dataset = {
                    "images": self._images,
                    "annotations": annotations,
                    "categories": [
                        {"id": index + 1, "name": name}
                        for index, name in enumerate(self.names)
                    ],
                }
                dataset.createIndex()
            self._evaluation = evaluation(truth, found, "bbox")
            self._evaluation.evaluate()
            self._evaluation.accumulate()
            self._evaluation.summarize()
        return dict(zip(METRICS, map(float, self._evaluation.stats)))

    def _detected(self):
        return [
            {
                **detection,
                "id": index,
                "area": detection["bbox"][2] * detection["bbox"][3],
                "iscrowd": 0,
            }
            for index, detection in enumerate(self._detections, 1)
        ]

    def per_class(self):
        """{class name: {"AP", "AP50", "AP75"}}, after `result`."""
        precision = self._precision()
        table = {}
        for index, name in enumerate(self.names):
            values = precision[:, :, index, 0, 2]
            table[name] = {
                "AP": _mean(values),
                "AP50": _mean(values[0]),
                "AP75": _mean(values[5]),
            }
        return table

    def curves(self, iou=0.5):
        """{class name: precision at recalls 0, 0.01, ..., 1}, after `result`.

        The classes without a true box are left out.
        """
        precision = self._precision()
        index = int(np.argmin(np.abs(self._evaluation.params.iouThrs - iou)))
        return {
            name: precision[index, :, position, 0, 2]
            for position, name in enumerate(self.names)
            if precision[index, 0, position, 0, 2] > -1
        }

    def _precision(self):
        """By IoU, recall, class, area range and number of detections."""
        if self._evaluation is None:
            self.result()
        return self._evaluation.eval["precision"]


def original_boxes(boxes, view):
    """Boxes of a resized image in pixels of the original.

    Args:
        boxes: `(n, 4)`, x1, y1, x2, y2.
        view: (scale_x, scale_y, left, top) of point = original * scale +
            (left, top); None for images that are the original ones.
    """
    if view is None:
        return boxes
    view = np.asarray(view, "float64")
    return (boxes - np.tile(view[2:], 2)) / np.tile(view[:2], 2)


def in_original(found, image, view):
    """Detections of one resized image, in pixels of the original.

    Args:
        found: what a detector's inference model gives for a batch of one.
        image: the original, `(height, width, channels)`.
        view: as `keras_csp.data.fit_image` gives it.

    Returns:
        {"boxes", "scores", "classes"} of what was found, cut at the edges.
    """
    count = int(found["count"][0])
    found = {
        key: np.asarray(found[key])[0][:count]
        for key in ("boxes", "scores", "classes")
    }
    height, width = image.shape[:2]
    boxes = original_boxes(found["boxes"], np.asarray(view.numbers()))
    return {**found, "boxes": np.clip(boxes, 0, [width, height] * 2)}


def _row(batch, index):
    return {key: value[index] for key, value in batch.items()}


def _mean(precision):
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


def _pycocotools():
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError(
            "COCO's average precision needs pycocotools: "
            'pip install "keras-csp[detection]"'
        ) from error
    return COCO, COCOeval
