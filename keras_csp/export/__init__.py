"""Files for other runtimes, each run beside the model before it is kept."""

from keras_csp.export.tflite import to_tflite

__all__ = ["to_tflite"]
