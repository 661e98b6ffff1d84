"""Weights: the published checkpoints, and how a file of them fills a network.

    keras_csp.weights.load_timm("cspresnext50")        from the hub
    keras_csp.CSPResNeXt50Timm(weights="imagenet")     the same, as classifier
    keras_csp.CSPResNeXt50(weights="csresnext50.weights")  the authors' file

catalog.py lists the published files, hub.py downloads, sources.py chooses what
a `weights` argument means, timm.py and keras_files.py read; Darknet's files
are a room of their own.
"""

from keras_csp.weights.catalog import (
    DarknetFile,
    Record,
    darknet_files,
    find_record,
    record_of,
    records,
)
from keras_csp.weights.hub import DownloadError
from keras_csp.weights.listing import list_weights
from keras_csp.weights.sources import TimmSource, choose, load, load_timm
from keras_csp.weights.timm import classes_of

__all__ = [
    "DarknetFile",
    "DownloadError",
    "Record",
    "TimmSource",
    "choose",
    "classes_of",
    "darknet_files",
    "find_record",
    "list_weights",
    "load",
    "load_timm",
    "record_of",
    "records",
]
