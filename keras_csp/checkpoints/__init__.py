"""Files of weights, and how one fills a built network.

sources.py chooses between them, records.py lists the published ones, hub.py
downloads, timm.py and keras_files.py read; Darknet's are a room of their own.
"""

from keras_csp.checkpoints.hub import DownloadError
from keras_csp.checkpoints.records import (
    DarknetFile,
    Record,
    darknet_files,
    find_record,
    record_of,
    records,
)
from keras_csp.checkpoints.sources import TimmSource, choose, load
from keras_csp.checkpoints.timm import classes_of

__all__ = [
    "DarknetFile",
    "DownloadError",
    "Record",
    "TimmSource",
    "choose",
    "classes_of",
    "darknet_files",
    "find_record",
    "load",
    "record_of",
    "records",
]
