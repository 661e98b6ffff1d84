"""TensorFlow Lite's own metadata, which phones' task libraries read.

A FlatBuffer of the published metadata_schema.fbs (TensorFlow Lite Support),
written field by field: its generated classes are in no library that installs
beside TensorFlow today.
"""

import flatbuffers

# Values of the schema's enumerations and unions.
_RGB, _GRAYSCALE = 1, 2
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1
# Labels of a tensor's last axis, and of its values.
_TENSOR_AXIS_LABELS, _TENSOR_VALUE_LABELS = 2, 3
# What the fields written here need of a reader.
_MIN_PARSER_VERSION = "1.0.0"


class Table:
    """A table of the schema: {place of a field: its value}, in any order.

    Values: int (one byte), str, list of float, Table, list of Table.
    """

    def __init__(self, fields):
        self.fields = {k: v for k, v in fields.items() if v is not None}

    def pack(self, builder):
        """Writes the table behind what it refers to; returns its offset."""
        offsets = {
            place: _pack(builder, value)
            for place, value in self.fields.items()
            if not isinstance(value, int)
        }
        builder.StartObject(max(self.fields, default=-1) + 1)
        for place, value in self.fields.items():
            if place in offsets:
                builder.PrependUOffsetTRelativeSlot(place, offsets[place], 0)
            else:
                builder.PrependUint8Slot(place, value, 0)
        return builder.EndObject()


def _pack(builder, value):
    if isinstance(value, Table):
        return value.pack(builder)
    if isinstance(value, str):
        return builder.CreateString(value)
    tables = isinstance(value[0], Table)
    offsets = [item.pack(builder) for item in value] if tables else value
    builder.StartVector(4, len(value), 4)
    for item in reversed(offsets):
        if tables:
            builder.PrependUOffsetTRelative(item)
        else:
            builder.PrependFloat32(item)
    return builder.EndVector()


def model_metadata(metadata, labels, outputs=("outputs",)):
    """ModelMetadata of a file with one image and any number of outputs.

    Args:
        metadata: a `Metadata`.
        labels: name of the associated file of labels, or `None`.
        outputs: their names, in the file's order. The labels belong to the
            scores of a single one, or to the values of a detector's "classes".
    """
    described = [_output(name, labels, len(outputs) > 1) for name in outputs]
    graph = Table({2: [_image(metadata)], 3: described})
    fields = {
        0: metadata.network,
        1: f"{metadata.network}, written by {metadata.written_by}",
        3: [graph],
        7: _MIN_PARSER_VERSION,
    }
    builder = flatbuffers.Builder(1024)
    builder.Finish(Table(fields).pack(builder), b"M001")
    return bytes(builder.Output())


def _image(metadata):
    """TensorMetadata of the input, which is pixels / 255.

    The network itself subtracts the mean and divides by the standard
    deviation of its `ImageSpec`.
    """
    channels = metadata.input_shape[-1]
    colours = {1: _GRAYSCALE, 3: _RGB}.get(channels)
    pixels = {0: [0.0] * channels, 1: [255.0] * channels}  # mean, std
    properties = Table({0: colours})
    steps = Table({0: _NORMALIZATION_OPTIONS, 1: Table(pixels)})
    ranges = {0: [1.0] * channels, 1: [0.0] * channels}  # max, min
    return Table(
        {
            0: "images",
            3: Table({0: _IMAGE_PROPERTIES, 1: properties}),
            4: [steps],
            5: Table(ranges),
        }
    )


def _output(name, labels, several):
    files = None
    if labels and (not several or name == "classes"):
        kind = _TENSOR_VALUE_LABELS if several else _TENSOR_AXIS_LABELS
        files = [Table({0: labels, 1: "One class a line", 2: kind})]
    content = Table({0: _FEATURE_PROPERTIES, 1: Table({})})
    return Table({0: name, 3: content, 6: files})
