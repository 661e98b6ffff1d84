"""Anchor boxes: the published ones, and those of a data set of one's own."""

import itertools
import logging
import math

import numpy as np

from keras_csp._validation import check_positive
from keras_csp.layers.preprocessing import as_spec

_LOGGER = logging.getLogger("keras_csp")

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


def fit_anchors(
    boxes, anchors=9, spec=416, image_size=None, seed=0, iterations=300
):
    """k-means of box shapes with the distance 1 - IoU: YOLOv2, section 2.

    Args:
        boxes: a data set of `keras_csp.data.load_detection`; or widths and
            heights, `(boxes, 2)`, as fractions of the input's width and
            height.
        anchors: how many. Default 9, three for each of three levels. Where
            the boxes have fewer distinct shapes, these are completed by
            copies of them, larger and smaller by factors of sqrt(2), and a
            warning of the "keras_csp" logger says so.
        spec: how images are brought to the network, which decides the boxes'
            size in its input: the detector, or another model, whose
            `ImageSpec` is read, an `ImageSpec`, or a side or (height, width),
            letterboxed. Default 416.
        image_size: a side or (height, width) instead of that of `spec`, e.g.
            for a detector of open sides. Default None.
        seed: of the first choices; the best of ten is taken. Default 0.
        iterations: at most so many. Default 300.

    Returns:
        A tuple of different (width, height) in pixels, the smallest area
        first; give it to `Detector(anchors=...)`.

    Raises:
        ValueError: no box, or one that is not positive and finite; a `spec`
            without a size; more anchors than the input has room for.
    Source: arXiv 1612.08242, section 2.
    """
    anchors = check_positive("anchors", anchors)
    spec, _channels = as_spec(spec, "letterbox", image_size)
    limits = np.array(spec.size[::-1], "float64")
    if hasattr(boxes, "box_sizes"):
        boxes = np.asarray(boxes.box_sizes(spec), "float64")
    else:
        boxes = _checked_boxes(boxes) * limits
    if not len(boxes):
        raise ValueError("Anchors need at least one box. Received: none")
    shapes = _distinct(boxes)
    if len(shapes) > anchors:
        shapes = _distinct(_best_centres(boxes, anchors, seed, iterations))
    if len(shapes) < anchors:
        _LOGGER.warning(
            "Too few distinct box shapes for the anchors: %d for %d. Larger "
            "and smaller copies of them complete the anchors",
            *(len(shapes), anchors),
        )
        shapes = _completed(shapes, anchors, limits)
    return tuple(sorted(shapes, key=lambda shape: (math.prod(shape), shape)))


def refit_anchors(detector, data, image_size=None, seed=0, iterations=300):
    """The detector with anchors of your boxes, as many as it has.

    Its weights stay, and so do the widths of its heads. The smallest anchors
    go to the finest head, as many to each as it had.

    Args:
        detector: a `Detector`, of any origin.
        data: as `boxes` of `fit_anchors`; its images are brought to the
            network as the detector's `ImageSpec` says.
        image_size, seed, iterations: as of `fit_anchors`.

    Returns:
        A `Detector`, as `Detector.with_anchors` gives it: uncompiled, of
        shared layers.

    Raises:
        ValueError: as `fit_anchors`.
    """
    count = sum(len(head.anchors) for head in detector.heads)
    anchors = fit_anchors(data, count, detector, image_size, seed, iterations)
    return detector.with_anchors(anchors)


def share_anchors(anchors, counts):
    """{key: its anchors}, as many as each key had; the smallest come first.

    Args:
        anchors: pairs (width, height) in pixels, in any order; or already a
            dict from key to such pairs.
        counts: {key of a head: its number of anchors}, finest head first.

    Raises:
        ValueError: not pairs of positive numbers, or not as many.
    """
    if isinstance(anchors, dict):
        shared = {key: _pairs(pairs) for key, pairs in anchors.items()}
        received = {key: len(pairs) for key, pairs in shared.items()}
        if received != counts:
            raise ValueError(
                f"`anchors` must be as many for each head as it has: {counts}. "
                f"Received: {received}"
            )
        return shared
    pairs = sorted(_pairs(anchors), key=math.prod)
    if len(pairs) != sum(counts.values()):
        raise ValueError(
            f"`anchors` must be {sum(counts.values())}, as many as the heads "
            f"have: {counts}. Received: {len(pairs)}"
        )
    pairs = iter(pairs)
    return {
        key: tuple(itertools.islice(pairs, count))
        for key, count in counts.items()
    }


def _checked_boxes(boxes):
    boxes = np.asarray(boxes, "float64")
    if boxes.ndim != 2 or boxes.shape[1] != 2:
        raise ValueError(
            "`boxes` must be widths and heights of shape (boxes, 2). "
            f"Received: shape {boxes.shape}"
        )
    good = (np.isfinite(boxes) & (boxes > 0)).all(axis=1)
    if not good.all():
        raise ValueError(
            "`boxes` must be positive and finite. Received: "
            f"{boxes[~good][0].tolist()} among them"
        )
    return boxes


def _rounded(shape):
    """(width, height) as anchors are given, and no side 0."""
    return tuple(max(round(float(side), 1), 0.1) for side in shape)


def _distinct(shapes):
    """The shapes that differ as anchors, the first of each."""
    return list(dict.fromkeys(map(_rounded, shapes)))


def _completed(shapes, count, limits):
    """The shapes, and copies in other sizes until there are `count`.

    A copy has no side below one pixel or beyond the input: boxes as large as
    the input then have the largest anchor, which the coarsest level gets.

    Args:
        shapes: pairs (width, height) in pixels.
        count: of the result.
        limits: width and height of the input.
    """
    found = dict.fromkeys(shapes)
    for parts in (2, 4, 8, 16, 32, 64):  # of an octave, where room is scarce
        for step in range(1, 10 * parts):
            for exponent in (-step / parts, step / parts):
                for shape in shapes:
                    copy = _rounded(np.multiply(shape, 2**exponent))
                    if min(copy) >= 1 and (copy <= limits).all():
                        found.setdefault(copy)
                    if len(found) == count:
                        return list(found)
    raise ValueError(
        "There are more anchors than shapes in an input of so many pixels. "
        f"Received: {count} anchors, width and height {limits.tolist()}"
    )


def _best_centres(boxes, count, seed, iterations):
    """The centres of the best of several k-means, in pixels."""
    shapes = np.unique(boxes, axis=0)
    random = np.random.default_rng(seed)
    found = [
        _clustered(boxes, _first_choice(shapes, count, random), iterations)
        for _ in range(_STARTS)
    ]
    return max(found, key=lambda c: shape_iou(boxes, c).max(axis=1).mean())


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
        if not far.any():  # all the others are equal but for rounding
            break
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
