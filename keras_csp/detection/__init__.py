"""Object detection: Fig. 6's fusion tables, YOLOv3 heads, COCO's AP."""

from keras_csp.detection.anchors import fit_anchors, refit_anchors
from keras_csp.detection.boxes import box_ciou, box_diou, box_giou, box_iou
from keras_csp.detection.detector import Detector
from keras_csp.detection.evaluation import AveragePrecision
from keras_csp.detection.losses import YoloLoss
from keras_csp.detection.necks import NECKS, Neck, get_neck, node
from keras_csp.detection.nms import NonMaxSuppression
from keras_csp.layers.loss_options import BOX_LOSSES

__all__ = [
    "BOX_LOSSES",
    "NECKS",
    "AveragePrecision",
    "Detector",
    "Neck",
    "NonMaxSuppression",
    "YoloLoss",
    "box_ciou",
    "box_diou",
    "box_giou",
    "box_iou",
    "fit_anchors",
    "get_neck",
    "node",
    "refit_anchors",
]
