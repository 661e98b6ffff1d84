"""Files for other runtimes, each run and compared before it is in place."""

from keras_csp.export.folding import fold_batchnorm
from keras_csp.export.formats import FORMATS, Format, load, save
from keras_csp.export.inputs import photographs
from keras_csp.export.layer_errors import LayerError, layer_errors
from keras_csp.export.metadata import Metadata, describe
from keras_csp.export.onnx import to_onnx
from keras_csp.export.saved_model import to_saved_model
from keras_csp.export.tflite import to_tflite
from keras_csp.export.verification import ExportCheck

__all__ = [
    "FORMATS",
    "ExportCheck",
    "Format",
    "LayerError",
    "Metadata",
    "describe",
    "fold_batchnorm",
    "layer_errors",
    "load",
    "photographs",
    "save",
    "to_onnx",
    "to_saved_model",
    "to_tflite",
]
