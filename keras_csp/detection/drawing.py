"""Pictures of boxes, and the precision-recall plot."""

import numpy as np


def draw_boxes(axes, image, boxes, classes, names, scores=None, color=None):
    """An image with its boxes, each labelled with its class and score.

    Args:
        axes: matplotlib axes.
        image: `(height, width, 3)` in [0, 1], or integers in [0, 255].
        boxes: `(n, 4)`, x1, y1, x2, y2 in pixels of the image.
        classes: `(n,)` integers.
        names: of the classes.
        scores: `(n,)`; default None, no scores.
        color: of all boxes. Default: a colour for each class.
    """
    from matplotlib import patches

    axes.imshow(_in_colour(image))
    axes.axis("off")
    # The first, which scores best, is drawn last: on top of the others.
    for index in reversed(range(len(boxes))):
        x1, y1, x2, y2 = boxes[index]
        label = int(classes[index])
        shade = color or f"C{label % 10}"
        axes.add_patch(
            patches.Rectangle(
                (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=shade, lw=1.2
            )
        )
        text = names[label]
        if scores is not None:
            text += f" {scores[index]:.2f}"
        # Above the box; below its edge where the picture ends there.
        above = y1 > 0.04 * len(image)
        axes.text(
            x1,
            y1 - 1 if above else y1 + 1,
            text,
            fontsize=6,
            color="white",
            va="bottom" if above else "top",
            clip_on=True,
            parse_math=False,
            bbox={"facecolor": shade, "pad": 0.6, "lw": 0, "alpha": 0.8},
        )


def _in_colour(image):
    """The first three channels; of a fourth, Matplotlib would make alpha."""
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    return image[..., :3]


def draw_detections(path, image, detections, names):
    """An image with what was found in it, as a PNG of the same shape.

    Args:
        path: of the PNG; its longer side is the image's, but 640 to 1600
            pixels.
        image: `(height, width, 3)` in [0, 1], or integers in [0, 255].
        detections: {"boxes", "classes", "scores"} of this image, the boxes in
            its pixels.
        names: of the classes.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    figure = _figure(
        *(max(6 * side / longer, 0.1) for side in (width, height)),
        dpi=min(max(longer, 640), 1600) / 6,
        layout=None,
    )
    draw_boxes(
        figure.add_axes([0, 0, 1, 1]),
        image,
        detections["boxes"],
        detections["classes"],
        names,
        detections["scores"],
    )
    figure.savefig(path)


def draw_comparison(path, images, targets, detections, names):
    """Found boxes above true ones, image by image, as a PNG.

    Args:
        path: of the PNG.
        images: `(n, height, width, 3)` in [0, 1].
        targets: {"boxes", "labels"} as `Detector.fit` takes them.
        detections: as `Detector.predict` returns them.
        names: of the classes.
    """
    figure = _figure(3.2 * len(images), 6.6)
    grid = figure.subplots(2, len(images), squeeze=False)
    for column, image in enumerate(images):
        count = int(detections["count"][column])
        found, true = grid[:, column]
        draw_boxes(
            found,
            image,
            detections["boxes"][column][:count],
            detections["classes"][column][:count],
            names,
            detections["scores"][column][:count],
        )
        found.set_title(f"found: {count}", fontsize=8)
        real = np.asarray(targets["labels"][column]) >= 0
        draw_boxes(
            true,
            image,
            np.asarray(targets["boxes"][column])[real],
            np.asarray(targets["labels"][column])[real],
            names,
        )
        true.set_title(f"true: {real.sum()}", fontsize=8)
    figure.savefig(path, dpi=110)


def draw_precision_recall(path, precision, title=""):
    """The precision-recall curves of an `AveragePrecision`, as a PNG."""
    figure = _figure(6, 4.5)
    axes = figure.subplots()
    recall = np.linspace(0, 1, 101)
    table = precision.per_class()
    for name, curve in precision.curves().items():
        label = f"{name}: AP50 {table[name]['AP50']:.3f}"
        axes.plot(recall, curve, label=label)
    axes.set(
        xlabel="recall",
        ylabel="precision at IoU 0.5",
        title=title,
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110)


def _figure(width, height, layout="constrained", **options):
    # The figure alone, without pyplot, needs no display and no closing.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, **options)
