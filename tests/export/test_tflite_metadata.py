"""TensorFlow Lite's own metadata, read by the rules of its format."""

import struct

import keras
import numpy as np
import pytest
from export_networks import little
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.export import Metadata, to_tflite
from keras_csp.export.tflite_metadata import model_metadata

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)

SPEC = keras_csp.ImageSpec(
    mean=(0.4, 0.5, 0.6), std=0.2, class_names=("cat", "dög", "green frog")
)


class Table:
    """A FlatBuffers table, read by the rules of its format."""

    def __init__(self, content, place=None):
        self.content = content
        self.place = self.at(0) if place is None else place

    def number(self, kind, place):
        return struct.unpack_from(kind, self.content, place)[0]

    def at(self, place):
        return place + self.number("<I", place)

    def field(self, number):
        """Where the field is; None if it is not there."""
        table = (
            self.place - struct.unpack_from("<i", self.content, self.place)[0]
        )
        size = struct.unpack_from("<H", self.content, table)[0]
        slot = 4 + 2 * number
        if slot >= size:
            return None
        offset = struct.unpack_from("<H", self.content, table + slot)[0]
        return self.place + offset if offset else None

    def byte(self, number):
        return self.content[self.field(number)]

    def table(self, number):
        return Table(self.content, self.at(self.field(number)))

    def vector(self, number, kind):
        place = self.at(self.field(number))
        length = self.number("<I", place)
        values = [place + 4 + 4 * i for i in range(length)]
        if kind == "float":
            return [
                struct.unpack_from("<f", self.content, v)[0] for v in values
            ]
        return [Table(self.content, self.at(v)) for v in values]

    def text(self, number):
        place = self.at(self.field(number))
        length = self.number("<I", place)
        return self.content[place + 4 : place + 4 + length].decode()


def test_tensorflows_layout():
    """Places of the fields as in metadata_schema.fbs, read independently."""
    metadata = Metadata("net", (8, 8, 3), SPEC)
    content = model_metadata(metadata, "labels.txt")
    assert content[4:8] == b"M001"
    model = Table(content)
    assert model.text(0) == "net"
    assert model.text(7) == "1.0.0"
    (graph,) = model.vector(3, "table")
    (image,) = graph.vector(2, "table")
    assert image.text(0) == "images"
    assert image.table(3).byte(0) == 2  # ImageProperties
    assert image.table(3).table(1).byte(0) == 1  # RGB
    (step,) = image.vector(4, "table")
    assert (
        step.byte(0) == 1
    )  # NormalizationOptions, of pixels up to 255: the network does the rest
    np.testing.assert_allclose(step.table(1).vector(0, "float"), [0, 0, 0])
    np.testing.assert_allclose(
        step.table(1).vector(1, "float"), [255, 255, 255]
    )
    np.testing.assert_allclose(image.table(5).vector(0, "float"), [1, 1, 1])
    np.testing.assert_allclose(image.table(5).vector(1, "float"), [0, 0, 0])
    (output,) = graph.vector(3, "table")
    (labels,) = output.vector(6, "table")
    assert labels.text(0) == "labels.txt"
    assert labels.byte(2) == 2  # TENSOR_AXIS_LABELS


def tensorflows_metadata(path):
    """What the file has under the name that readers look for."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    return Table(bytes(model.buffers[entry.buffer].data))


def test_it_is_under_the_name_that_readers_look_for(tmp_path):
    to_tflite(little(), tmp_path / "m.tflite")
    assert tensorflows_metadata(tmp_path / "m.tflite").text(0) == "little"


def test_a_detectors_outputs_are_named_in_the_files_order(tmp_path):
    """Each by its shape, which the interpreter tells."""
    from ai_edge_litert.interpreter import Interpreter

    detector = keras_csp.Detector(
        tiny_backbone(),
        classes=3,
        input_shape=(64, 64, 3),
        class_names=SPEC.class_names,
    )
    path = tmp_path / "m.tflite"
    to_tflite(randomize(detector), path)
    outputs = (
        tensorflows_metadata(path).vector(3, "table")[0].vector(3, "table")
    )
    names = [output.text(0) for output in outputs]
    assert sorted(names) == ["boxes", "classes", "count", "scores"]
    details = Interpreter(str(path)).get_output_details()
    ranks = [len(output["shape"]) for output in details]
    assert ranks[names.index("boxes")] == 3
    assert ranks[names.index("count")] == 1
    (labels,) = outputs[names.index("classes")].vector(6, "table")
    assert labels.byte(2) == 3  # TENSOR_VALUE_LABELS
