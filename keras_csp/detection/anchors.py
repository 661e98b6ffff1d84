"""Anchor boxes: the published ones, and those of a data set of one's own."""

import numpy as np

from keras_csp._validation import check_positive

# In pixels of a 416 x 416 input, by number of levels. With two levels the
# finer one has the second to fourth, as in the authors' yolov3-tiny-prn.cfg.
YOLOV3_TINY = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
YOLOV3 = (
    (10, 13),
    (16, 30),
    (33, 23),
    (30, 61),
    (62, 45),
    (59, 119),
    (116, 90),
    (156, 198),
    (373, 326),
)

# k-means ends in the optimum nearest to its start, often not the best one.
_STARTS = 10


def default_anchors(levels):
    """{level: its anchors}.

    YOLOv3's for P3, P4 and P5, YOLOv3-tiny's for P4 and P5; for other levels
    those of YOLOv3's P4 in proportion to the stride.
    """
    levels = tuple(sorted(levels))
    if levels == ("P4", "P5"):
        return dict(zip(levels, (YOLOV3_TINY[1:4], YOLOV3_TINY[3:6])))
    if levels == ("P3", "P4", "P5"):
        return split_anchors(YOLOV3, levels)
    return {
        level: tuple(
            (
                width * 2 ** int(level[1:]) / 16,
                height * 2 ** int(level[1:]) / 16,
            )
            for width, height in YOLOV3[3:6]
        )
        for level in levels
    }


def split_anchors(anchors, levels):
    """{level: its anchors}: the smallest go to the finest level.

    Args:
        anchors: pairs (width, height) in pixels, in any order; or already a
            dict from level to such pairs.
        levels: names, e.g. ("P3", "P4", "P5").

    Raises:
        ValueError: not pairs of positive numbers, or not equally many for
            each level.
    """
    if isinstance(anchors, dict):
        if set(anchors) != set(levels):
            raise ValueError(
                f"`anchors` must have the levels {sorted(levels)}. Received: "
                f"{sorted(anchors)}"
            )
        return {level: _pairs(anchors[level]) for level in sorted(levels)}
    pairs = sorted(_pairs(anchors), key=lambda pair: pair[0] * pair[1])
    each, rest = divmod(len(pairs), len(levels))
    if rest:
        raise ValueError(
            f"`anchors` must be equally many for each of the {len(levels)} "
            f"levels {sorted(levels)}. Received: {len(pairs)} anchors"
        )
    return {
        level: tuple(pairs[index * each : (index + 1) * each])
        for index, level in enumerate(sorted(levels))
    }


def fit_anchors(boxes, anchors=9, image_size=416, seed=0, iterations=300):
    """k-means of box shapes with the distance 1 - IoU: YOLOv2, section 2.

    Args:
        boxes: widths and heights, `(boxes, 2)`, as fractions of the side of
            the square input; or a data set of `keras_csp.data.load_detection`,
            which has them.
        anchors: how many. Default 9, three for each of three levels.
        image_size: side of the input in pixels. Default 416.
        seed: of the first choices; the best of ten is taken. Default 0.
        iterations: at most so many. Default 300.

    Returns:
        A tuple of (width, height) in pixels, the smallest area first; give it
        to `Detector(anchors=...)`.

    Raises:
        ValueError: fewer boxes of different shape than anchors, or a box
            that is not positive and finite.
    Source: arXiv 1612.08242, section 2.
    """
    check_positive("anchors", anchors)
    check_positive("image_size", image_size)
    if hasattr(boxes, "box_sizes"):
        boxes = boxes.box_sizes()
    boxes = np.asarray(boxes, "float64")
    if boxes.ndim != 2 or boxes.shape[1] != 2:
        raise ValueError(
            "`boxes` must be widths and heights of shape (boxes, 2). "
            f"Received: shape {boxes.shape}"
        )
    if not np.isfinite(boxes).all() or (boxes <= 0).any():
        bad = boxes[~(np.isfinite(boxes) & (boxes > 0)).all(axis=1)]
        raise ValueError(
            "`boxes` must be positive and finite. Received: "
            f"{bad[0].tolist()} among them"
        )
    shapes = np.unique(boxes, axis=0)
    if len(shapes) < anchors:
        raise ValueError(
            f"{anchors} anchors need as many boxes of different shape. "
            f"Received: {len(shapes)}"
        )
    random = np.random.default_rng(seed)
    found = [
        _clustered(boxes, _first_choice(shapes, anchors, random), iterations)
        for _ in range(_STARTS)
    ]
    centres = max(found, key=lambda c: shape_iou(boxes, c).max(axis=1).mean())
    centres = centres[centres.prod(axis=1).argsort()] * image_size
    return tuple((round(w, 1), round(h, 1)) for w, h in centres.tolist())


def _clustered(boxes, centres, iterations):
    """Each centre the median of the boxes nearest to it, until none moves."""
    nearest = None
    for _ in range(iterations):
        previous, nearest = nearest, shape_iou(boxes, centres).argmax(axis=1)
        if np.array_equal(previous, nearest):
            break
        for index in np.unique(nearest):
            centres[index] = np.median(boxes[nearest == index], axis=0)
    return centres


def shape_iou(boxes, others):
    """IoU of boxes laid upon one centre: `(n, 2)`, `(m, 2)` to `(n, m)`."""
    common = np.minimum(boxes[:, None], others[None]).prod(axis=-1)
    areas = boxes.prod(axis=-1)[:, None] + others.prod(axis=-1)[None]
    return common / (areas - common)


def _first_choice(shapes, count, random):
    """k-means++: each next one likely where no chosen one is near."""
    chosen = [shapes[random.integers(len(shapes))]]
    while len(chosen) < count:
        far = 1 - shape_iou(shapes, np.array(chosen)).max(axis=1)
        far = np.maximum(far, 0) ** 2
        chosen.append(shapes[random.choice(len(shapes), p=far / far.sum())])
    return np.array(chosen)


def _pairs(anchors):
    pairs = []
    for pair in anchors:
        good = isinstance(pair, (list, tuple, np.ndarray)) and len(pair) == 2
        if not good or not all(side > 0 for side in pair):
            raise ValueError(
                "`anchors` must be pairs (width, height) of positive numbers, "
                f"in pixels. Received: {pair!r} among anchors={anchors!r}"
            )
        pairs.append(tuple(float(side) for side in pair))
    if not pairs:
        raise ValueError(f"`anchors` is empty. Received: anchors={anchors!r}")
    return tuple(pairs)
