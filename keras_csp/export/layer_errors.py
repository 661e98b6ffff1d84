"""What 8 bits cost each layer: two files, tensor by tensor."""

import collections
import dataclasses
import pathlib

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from keras_csp.export.runtimes import inspected
from keras_csp.export.tflite_file import to_integers, to_numbers

_KINDS = {
    value: name
    for name, value in vars(schema.BuiltinOperator).items()
    if isinstance(value, int)
}


@dataclasses.dataclass(frozen=True)
class LayerError:
    """How far one operation's output is from that of the float file.

    Attributes:
        layer: path of the layer, or of the first of those fused with it.
        operation: of TFLite, e.g. "CONV_2D".
        error: root mean square of the difference, relative to that of the
            output; it includes the errors of the layers before.
        added: `error` minus the largest error of the operation's inputs.
    """

    layer: str
    operation: str
    error: float
    added: float


def layer_errors(exact, quantized, samples):
    """A `LayerError` for each quantised operation, in the order they run.

    Args:
        exact: path (or contents, bytes) of a float32 TFLite file.
        quantized: path or contents of the int8 file of the same model.
        samples: some real inputs, as the model takes them.

    Raises:
        ValueError: the files have no operation's output in common.
    """
    files = [_Tensors(exact), _Tensors(quantized)]
    shared = [name for name in files[1].makers if name in files[0].makers]
    if not shared or files[0].input_shape != files[1].input_shape:
        raise ValueError("The two files must be of the same model")
    noise, power = collections.Counter(), collections.Counter()
    for sample in np.asarray(samples, "float32"):
        for file in files:
            file.run(sample)
        for name in shared:
            numbers, found = (file.value(name) for file in files)
            noise[name] += float(np.mean(np.square(found - numbers)))
            power[name] += float(np.mean(np.square(numbers)))
    errors = {
        name: (noise[name] / max(power[name], 1e-24)) ** 0.5 for name in shared
    }
    return [files[1].layer_error(name, errors) for name in shared]


def report(errors, count=5):
    """The layers with the largest added errors, in one line."""
    worst = sorted(errors, key=lambda e: -e.added)[:count]
    layers = [
        f"{e.layer} ({100 * e.added:+.1f} %, in all {100 * e.error:.1f} %)"
        for e in worst
    ]
    return "Largest added errors, relative to the outputs: " + ", ".join(layers)


class _Tensors:
    """A TFLite file, run so that every tensor can be read."""

    def __init__(self, file):
        if not isinstance(file, bytes):
            file = pathlib.Path(file).read_bytes()
        self._interpreter = inspected(file)
        self._details = self._interpreter.get_tensor_details()
        self._details = {d["index"]: d for d in self._details}
        # Operations from the file: the interpreter does not list those that a
        # delegate runs.
        self._model = flatbuffer_utils.read_model_from_bytearray(
            bytearray(file)
        )
        graph = self._model.subgraphs[0]
        self._names = [_text(tensor.name) for tensor in graph.tensors]
        self.makers = {
            self._names[int(operator.outputs[0])]: operator
            for operator in graph.operators
        }

    @property
    def input_shape(self):
        (given,) = self._interpreter.get_input_details()
        return tuple(given["shape"])

    def run(self, sample):
        (given,) = self._interpreter.get_input_details()
        batch = to_integers(given)(sample[None])
        self._interpreter.set_tensor(given["index"], batch)
        self._interpreter.invoke()

    def value(self, name):
        """The output of that name, as numbers."""
        index = int(self.makers[name].outputs[0])
        numbers = to_numbers(self._details[index])
        return numbers(self._interpreter.get_tensor(index)).astype("float32")

    def layer_error(self, name, errors):
        operator = self.makers[name]
        code = self._model.operatorCodes[operator.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        return LayerError(
            layer=_layer(name),
            operation=_KINDS.get(builtin, str(builtin)),
            error=errors[name],
            added=errors[name] - self._before(operator, errors),
        )

    def _before(self, operator, errors):
        """The largest error of the operation's inputs.

        An input that the float file does not have, e.g. the output of a change
        of scale, is replaced by the inputs of the operation that made it.
        """
        given = [self._names[int(i)] for i in operator.inputs if i >= 0]
        found = [0.0]
        for name in given:
            if name in errors:
                found.append(errors[name])
            elif name in self.makers:
                found.append(self._before(self.makers[name], errors))
        return max(found)


def _text(name):
    return name.decode() if isinstance(name, bytes) else name


def _layer(tensor_name):
    """The path of a layer from the names of the operations fused in one.

    Names are scopes, "model_1/stem_1/conv_1/convolution;...", each with the
    number of the trace that the model was seen in.
    """
    first, *path = tensor_name.split(";")[0].split("/")
    ending = "_" + first.rpartition("_")[2]
    path = [part.removesuffix(ending) for part in path]
    if "batchnorm" in path:
        path = path[: path.index("batchnorm")]
    return "/".join(path) or first
