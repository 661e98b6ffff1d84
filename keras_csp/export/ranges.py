"""The ranges of 8-bit tensors that have the least error, not the widest.

Outliers set a range from the least to the largest value seen, and 256 steps
must cover it. A narrower range clips these few values and rounds all others
finer. Here each tensor gets, out of several narrower ranges, the one with the
least mean squared error on the representative inputs.
"""

import itertools

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from keras_csp.export.runtimes import inspected
from keras_csp.export.tflite_file import packed

# Fractions of a range that are kept, below zero and above.
_FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
# Values sampled from each tensor for each input.
_VALUES = 4096
_INPUTS = 100
# Of a histogram; the narrowest range has a step of two to three of them.
_BINS = 2048


def narrowed(content, inputs):
    """`content`, a TFLite file with calibrated ranges, with better ones.

    Args:
        content: of a float model, as TensorFlow's converter calibrates it:
            each tensor has the least and the largest value seen.
        inputs: real ones, an array.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    ranges = {
        index: tensor.quantization
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if _is_calibrated(tensor)
    }
    histograms = {
        index: Histogram(seen.min[0], seen.max[0])
        for index, seen in ranges.items()
    }
    _fill(histograms, content, inputs[:_INPUTS])
    for index, histogram in histograms.items():
        low, high = histogram.best_range()
        ranges[index].min = np.float32([low])
        ranges[index].max = np.float32([high])
    return packed(model)


class Histogram:
    """How often a tensor had which values.

    Args:
        low, high: the least and the largest value; 0 is always within the
            range, since 8 bits must hold it exactly.
    """

    def __init__(self, low, high):
        self.low, self.high = min(float(low), 0.0), max(float(high), 0.0)
        self.counts = np.zeros(_BINS, "int64")
        edges = np.linspace(self.low, self.high, _BINS + 1)
        self._values = (edges[1:] + edges[:-1]) / 2

    def add(self, values):
        # Seen by another kernel, the largest may be larger by rounding.
        values = np.clip(values, self.low, self.high)
        counts, _ = np.histogram(values, _BINS, (self.low, self.high))
        self.counts += counts

    def best_range(self):
        """(low, high) with the least error; the widest of equal ones.

        Both ends are chosen together: narrowing one makes the steps finer,
        which may make it worthwhile to narrow the other.
        """
        if self.low == self.high:
            return self.low, self.high
        lows = {f * self.low for f in _FRACTIONS}
        highs = {f * self.high for f in _FRACTIONS}
        pairs = sorted(
            itertools.product(lows, highs), key=lambda p: p[0] - p[1]
        )
        return min(pairs, key=lambda pair: self.error(*pair))

    def error(self, low, high):
        """Mean squared error of the values in 256 steps from low to high.

        TFLite moves the range by less than a step, so that 0 is one of them.
        """
        step = (high - low) / 255
        first = np.round(low / step)
        steps = np.clip(np.round(self._values / step), first, first + 255)
        errors = np.square(steps * step - self._values)
        return np.average(errors, weights=self.counts)


def _is_calibrated(tensor):
    ranges = tensor.quantization
    return ranges is not None and ranges.min is not None and len(ranges.min)


def _fill(histograms, content, inputs):
    """Adds values of each tensor on each input."""
    interpreter = inspected(bytes(content), delegates=False)
    (given,) = interpreter.get_input_details()
    rng = np.random.default_rng(0)
    for value in inputs:
        interpreter.set_tensor(given["index"], value[None])
        interpreter.invoke()
        for index, histogram in histograms.items():
            values = interpreter.get_tensor(index).ravel()
            if values.size > _VALUES:
                values = rng.choice(values, _VALUES)
            histogram.add(values)
