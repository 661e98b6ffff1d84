"""The papers' formulas of IoU and its kin, in Python's floats."""

import math


def formulas(box, other):
    """The papers', of two boxes with an area, in Python's floats."""
    (a1, b1, a2, b2), (c1, d1, c2, d2) = box, other
    area, other_area = (a2 - a1) * (b2 - b1), (c2 - c1) * (d2 - d1)
    width = max(0.0, min(a2, c2) - max(a1, c1))
    height = max(0.0, min(b2, d2) - max(b1, d1))
    union = area + other_area - width * height
    iou = width * height / union
    hull_width = max(a2, c2) - min(a1, c1)
    hull_height = max(b2, d2) - min(b1, d1)
    hull = hull_width * hull_height
    giou = iou - (hull - union) / hull
    rho = math.hypot((a1 + a2 - c1 - c2) / 2, (b1 + b2 - d1 - d2) / 2)
    diou = iou - rho**2 / (hull_width**2 + hull_height**2)
    angle = math.atan((c2 - c1) / (d2 - d1)) - math.atan((a2 - a1) / (b2 - b1))
    v = 4 / math.pi**2 * angle**2
    alpha = v / (1 - iou + v) if v else 0.0
    return {
        "iou": iou,
        "giou": giou,
        "diou": diou,
        "ciou": diou - alpha * v,
        "alpha": alpha,
        "v": v,
    }
