"""A TFLite file's contents: smaller, joined, and with its metadata.

The file is a FlatBuffer (TensorFlow's schema.fbs) with, behind it, a ZIP of
associated files; both are documented with TensorFlow Lite's metadata.
"""

import io
import pathlib
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from keras_csp.export.metadata import Metadata
from keras_csp.export.tflite_metadata import model_metadata

_LABELS = "labels.txt"
_DESCRIPTION = "keras_csp.json"


def finished(content, following, metadata):
    """The contents of the file to be written.

    Args:
        content: of a TFLite file as converted.
        following: of another that takes this one's outputs, or `None`.
        metadata: a `Metadata`.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if following is not None:
        following = flatbuffer_utils.read_model_from_bytearray(
            bytearray(following)
        )
        model = joined(model, following)
    labels = _LABELS if metadata.class_names else None
    described = model_metadata(metadata, labels, _outputs(model))
    _add_buffer(model, "TFLITE_METADATA", described)
    return packed(model) + _zipped(metadata)


def read_metadata(path):
    """The `Metadata` of the file at `path`, or `None` if it has none."""
    path = pathlib.Path(path)
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if _DESCRIPTION not in archive.namelist():
            return None
        return Metadata.from_json(archive.read(_DESCRIPTION).decode())


def to_integers(details):
    """A function from floats to the file's input type, scaled if integer."""
    dtype = details["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return lambda x: x.astype(dtype)
    scale, zero = details["quantization"]
    limits = np.iinfo(dtype)
    return lambda x: np.clip(
        np.round(x / scale) + zero, limits.min, limits.max
    ).astype(dtype)


def to_numbers(details):
    """A function from the file's outputs to floats.

    A scale of 0 means that the integers are the values themselves.
    """
    scale, zero = details["quantization"]
    if not scale:
        return lambda y: y
    return lambda y: (y.astype("float32") - zero) * np.float32(scale)


def joined(first, second):
    """One model of which `second` takes the outputs of `first`, by name."""
    buffers, codes = len(first.buffers), len(first.operatorCodes)
    graphs = len(first.subgraphs) - 1  # second's main graph becomes first's
    main, *others = second.subgraphs
    first.buffers += second.buffers
    first.operatorCodes += second.operatorCodes
    for graph in second.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer += buffers
            # The converter names the outputs of both alike.
            tensor.name = b"head/" + _bytes(tensor.name)
        for operator in graph.operators:
            operator.opcodeIndex += codes
            _shift_graphs(operator.builtinOptions, graphs)
    _append(first, main, second.signatureDefs[0])
    first.subgraphs += others
    return first


def _bytes(text):
    return text if isinstance(text, bytes) else str(text or "").encode()


def _shift_graphs(options, by):
    """Shifts the indexes of a loop's condition and body, or of branches."""
    for part in ("cond", "body", "then", "else"):
        name = f"{part}SubgraphIndex"
        if getattr(options, name, 0):
            setattr(options, name, getattr(options, name) + by)


def _append(model, main, signature):
    """Appends the graph `main` to the model's own."""
    graph, own = model.subgraphs[0], model.signatureDefs[0]
    given = {item.name: item.tensorIndex for item in own.outputs}
    places = {item.tensorIndex: given[item.name] for item in signature.inputs}
    for index, tensor in enumerate(main.tensors):
        if index not in places:
            places[index] = len(graph.tensors)
            graph.tensors.append(tensor)
    for operator in main.operators:
        for name in ("inputs", "outputs", "intermediates"):
            indices = getattr(operator, name)
            if indices is not None:
                moved = [places.get(int(i), -1) for i in indices]
                setattr(operator, name, np.asarray(moved, "int32"))
    graph.operators += main.operators
    graph.outputs = np.asarray([places[int(i)] for i in main.outputs], "int32")
    for item in signature.outputs:
        item.tensorIndex = places[item.tensorIndex]
    own.outputs = signature.outputs


def _outputs(model):
    """Their names, in the order of the file's."""
    given = model.signatureDefs[0].outputs
    if len(given) == 1:
        return ("outputs",)
    names = {item.tensorIndex: _bytes(item.name).decode() for item in given}
    return [names[int(index)] for index in model.subgraphs[0].outputs]


def _add_buffer(model, name, content):
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = name, len(model.buffers)
    buffer.data = np.frombuffer(content, "uint8")
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors once: most zero points are all zeros.

    The interpreter requires a zero point for each channel: eight bytes of 0
    for each row of weights, twice, which is a tenth of a small int8 file.
    """

    def __init__(self):
        super().__init__(1024)
        self._written = {}

    def CreateNumpyVector(self, x):
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def packed(model):
    """Contents of the file of a `ModelT`."""
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _zipped(metadata):
    """Uncompressed, as TensorFlow's metadata tools read and write them."""
    files = {_DESCRIPTION: metadata.to_json()}
    if metadata.class_names:
        files[_LABELS] = "\n".join(metadata.class_names) + "\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            moment = (1980, 1, 1, 0, 0, 0)  # the same file each time
            archive.writestr(zipfile.ZipInfo(name, moment), text)
    return stream.getvalue()
