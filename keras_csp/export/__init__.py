"""Files for other runtimes, each run and compared before it is written."""

from keras_csp.export.checking import ExportCheck
from keras_csp.export.onnx import to_onnx
from keras_csp.export.tflite import to_tflite

__all__ = ["ExportCheck", "to_onnx", "to_tflite"]
