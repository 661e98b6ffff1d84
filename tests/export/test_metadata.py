"""What travels in a file, read by zipfile and by TensorFlow's own layout."""

import struct
import zipfile

import keras
import numpy as np
import pytest
from support import SMALL, randomize, tiny_backbone

import keras_csp
from keras_csp.export import Metadata, load, to_onnx, to_saved_model, to_tflite
from keras_csp.export.metadata import describe
from keras_csp.export.tflite_metadata import model_metadata
from keras_csp.models.builder import build_network

LABELS = ("cat", "dög", "green frog")
RGB = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
WRITE = {"m.tflite": to_tflite, "m.onnx": to_onnx, "folder": to_saved_model}


def small(classes=3, **options):
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs, name="little", **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = small()
    for name, write in WRITE.items():
        write(model, folder / name, labels=LABELS, preprocessing=RGB)
    return model, folder


@pytest.mark.parametrize("name", WRITE)
def test_it_comes_back(name, files, rng):
    model, folder = files
    run = load(folder / name, threads=1)
    assert run.metadata.network == "little"
    assert run.metadata.labels == LABELS
    assert run.metadata.input_shape == (8, 8, 3)
    assert run.metadata.written_by == f"keras_csp {keras_csp.__version__}"
    assert not run.detects
    pixels = rng.integers(0, 256, (5, 8, 8, 3), dtype="uint8")
    x = (pixels / 255 - RGB["mean"]) / RGB["std"]
    given = run.metadata.preprocess(pixels)
    np.testing.assert_allclose(given, x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        run(given), model.predict(x, verbose=0), rtol=1e-4, atol=1e-6
    )


def test_any_zip_reader_finds_the_labels_of_a_tflite_file(files):
    _model, folder = files
    with zipfile.ZipFile(folder / "m.tflite") as archive:
        assert archive.testzip() is None
        text = archive.read("labels.txt").decode()
    assert tuple(text.splitlines()) == LABELS


def test_the_same_file_each_time(files, tmp_path):
    model, folder = files
    to_tflite(model, tmp_path / "m.tflite", labels=LABELS, preprocessing=RGB)
    again = (tmp_path / "m.tflite").read_bytes()
    assert again == (folder / "m.tflite").read_bytes()


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
    metadata = Metadata("net", (8, 8, 3), RGB["mean"], RGB["std"], LABELS)
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
    assert step.byte(0) == 1  # NormalizationOptions, of pixels up to 255
    np.testing.assert_allclose(
        step.table(1).vector(0, "float"), [102, 127.5, 153], rtol=1e-6
    )
    np.testing.assert_allclose(
        step.table(1).vector(1, "float"), [51, 63.75, 76.5], rtol=1e-6
    )
    np.testing.assert_allclose(image.table(5).vector(1, "float"), [-2, -2, -2])
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


def test_a_detectors_outputs_are_named_in_the_files_order(tmp_path):
    """Each by its shape, which the interpreter tells."""
    from ai_edge_litert.interpreter import Interpreter

    detector = randomize(keras_csp.Detector(tiny_backbone(), classes=3))
    path = tmp_path / "m.tflite"
    to_tflite(detector.inference_model(), path, labels=LABELS)
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


def test_it_is_in_the_file_under_the_name_that_readers_look_for(files):
    assert tensorflows_metadata(files[1] / "m.tflite").text(0) == "little"


def test_published_preprocessing():
    model = build_network(SMALL["SmallMobile"], input_shape=(64, 64, 3))
    metadata = describe(model, (64, 64, 3), preprocessing="cspresnext50")
    record = keras_csp.weights.find_record("cspresnext50")
    assert (metadata.mean, metadata.std) == (record.mean, record.std)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "the 3 classes of 'little'. Received: 2"),
        ({"labels": ["a", "b", 3]}, "strings"),
        ({"labels": ["a", "b", "c\nd"]}, r"one line of text.*c\\nd"),
        ({"labels": "abc"}, "Received: 1 labels"),
        ({"preprocessing": "cspresnet"}, "no published checkpoint"),
        ({"preprocessing": {"mean": [0, 0, 0]}}, "`preprocessing` must be"),
        ({"preprocessing": 1}, "preprocessing=1"),
        ({"preprocessing": {"mean": [0], "std": [1]}}, "3 means"),
        ({"preprocessing": {"mean": [0] * 3, "std": [1, 1, 0]}}, "positive"),
    ],
)
def test_mistakes(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_tflite(small(), tmp_path / "m.tflite", **options)
    assert not list(tmp_path.iterdir())


def test_files_of_others(tmp_path, files):
    model, _folder = files
    with pytest.raises(ValueError, match="There is no file"):
        load(tmp_path / "m.tflite")
    (tmp_path / "m.txt").touch()
    with pytest.raises(ValueError, match=r"Expected a \.tflite"):
        load(tmp_path / "m.txt")
    (tmp_path / "m.tflite").write_bytes(b"no TFLite file")
    with pytest.raises(ValueError, match="Cannot read"):
        load(tmp_path / "m.tflite")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Cannot read"):
        load(tmp_path / "empty")
    with pytest.raises(ValueError, match="Not the metadata"):
        Metadata.from_json('{"network": 1}')
    model.save(tmp_path / "m.keras")
    run = load(tmp_path / "m.keras")
    assert run.metadata.input_shape == (8, 8, 3)
    assert run.metadata.labels is None
    assert np.asarray(run(np.zeros((2, 8, 8, 3)))).shape == (2, 3)
