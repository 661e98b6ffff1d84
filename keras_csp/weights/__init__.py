"""Weights: the published checkpoints, and how a file of them fills a network.

    keras_csp.weights.load_timm("cspresnext50")        from the hub
    keras_csp.CSPResNeXt50Timm(weights="imagenet")     the same, as classifier
    keras_csp.CSPResNeXt50(weights="csresnext50.weights")  the authors' file

    catalog.py       the published files, from timm_files.csv,
                     darknet_files.csv and detector_files.csv
    listing.py       `list_weights`: the catalog as tables
    hub.py           downloads from the Hugging Face hub
    sources.py       what a `weights` argument means, and the `ImageSpec` of it
    timm.py          timm's state dicts into networks
    timm_config.py   the config.json beside them
    keras_files.py   .weights.h5 and .keras
    imagenet.py      the names of ImageNet's classes

Darknet's .weights files are read by `keras_csp.darknet`.
"""

from keras_csp.weights.catalog import (
    DarknetFile,
    DetectorRecord,
    DetectorResult,
    Record,
    darknet_files,
    detector_records,
    find_record,
    record_of,
    records,
)
from keras_csp.weights.hub import DownloadError
from keras_csp.weights.imagenet import imagenet_classes
from keras_csp.weights.listing import list_weights
from keras_csp.weights.sources import (
    TimmSource,
    choose,
    image_spec,
    load,
    load_timm,
)
from keras_csp.weights.timm import classes_of

__all__ = [
    "DarknetFile",
    "DetectorRecord",
    "DetectorResult",
    "DownloadError",
    "Record",
    "TimmSource",
    "choose",
    "classes_of",
    "darknet_files",
    "detector_records",
    "find_record",
    "image_spec",
    "imagenet_classes",
    "list_weights",
    "load",
    "load_timm",
    "record_of",
    "records",
]
