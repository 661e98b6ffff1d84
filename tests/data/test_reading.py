"""Photographs of every kind against Pillow; files that are not photographs."""

import functools
import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from keras_csp.data.reading import Reader, orientation, turned

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photograph():
    """A real one, not square."""
    image = PIL.Image.fromarray(load_sample_image("china.jpg"))
    return image.resize((60, 40))


def saved(picture, kind="jpeg", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def read_by(reader, name, content="", size=None):
    """As it is used: in the graph of a data set."""
    (image,) = tf.data.Dataset.from_tensors((name, content)).map(
        lambda name, content: reader.read(name, size, content)
    )
    return image.numpy()


@functools.cache
def reading(**options):
    """Traced once for all contents."""
    return tf.function(
        lambda content: Reader(**options).read("it", None, content),
        input_signature=[tf.TensorSpec([], tf.string)],
    )


def read(content, **options):
    return reading(**options)(content).numpy()


@pytest.fixture(scope="module")
def plain_pixels(photograph):
    """Of the photograph without EXIF data, decoded once for each quality."""
    return functools.cache(
        lambda quality: read(saved(photograph, quality=quality))
    )


@functools.cache
def _orientation():
    """Traced once, as it is used."""
    return tf.function(
        orientation, input_signature=[tf.TensorSpec([], "string")]
    )


def orientation_of(content):
    return int(_orientation()(content))


def exif(number, order="<", maker="maker"):
    found = PIL.Image.Exif()
    found.endian = order
    found[0x010F] = maker
    found[ORIENTATION] = number
    return found.tobytes()


def upright(content):
    """Pillow's own reading of a photograph, turned by Pillow."""
    return PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("number", range(1, 9))
def test_orientation_is_pillows(photograph, plain_pixels, number, order):
    content = saved(photograph, exif=exif(number, order), quality=95)
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    assert b"Exif\0\0" + mark in content
    assert orientation_of(content) == number
    plain, found = plain_pixels(95), read(content, upright=True)
    assert plain.shape == (40, 60, 3)
    # The same pixels, turned by Pillow: decoders differ a little.
    picture = PIL.Image.fromarray(plain)
    picture.getexif()[ORIENTATION] = number
    expected = np.asarray(PIL.ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(found, expected)
    difference = np.abs(found - np.asarray(upright(content), float))
    assert difference.mean() < 2


def test_turns_are_all_of_a_square():
    """Eight different ones, each at a place worked out by hand."""
    image = np.array([[1, 2], [3, 4]], "uint8")[..., None]
    found = [
        np.ravel(turned(image, tf.constant(number))).tolist()
        for number in range(1, 9)
    ]
    assert found == [
        [1, 2, 3, 4],
        [2, 1, 4, 3],
        [4, 3, 2, 1],
        [3, 4, 1, 2],
        [1, 3, 2, 4],
        [3, 1, 4, 2],
        [4, 2, 3, 1],
        [2, 4, 1, 3],
    ]


def entry(number, tag=ORIENTATION, kind=3, order="<"):
    return struct.pack(order + "HHIHH", tag, kind, 1, number, 0)


def tiff(*entries, order="<", mark=b"II", magic=42, directory=8, count=None):
    head = mark + struct.pack(order + "HI", magic, directory)
    count = len(entries) if count is None else count
    return head + struct.pack(order + "H", count) + b"".join(entries)


@pytest.mark.parametrize(
    ("block", "number"),
    [
        (tiff(entry(6)), 6),
        (tiff(entry(1, 0x0100), entry(3), entry(6)), 3),
        (tiff(entry(6, order=">"), order=">", mark=b"MM"), 6),
        (tiff(), 1),
        (tiff(entry(6, 0x0100)), 1),
        (tiff(entry(0)), 1),
        (tiff(entry(9)), 1),
        (tiff(entry(6 << 8)), 1),
        (tiff(entry(6), magic=43), 1),
        (tiff(entry(6), mark=b"MM"), 1),
        (tiff(entry(6), mark=b"XX"), 1),
        (tiff(entry(6), directory=0), 1),
        (tiff(entry(6), directory=1 << 20), 1),
        (tiff(entry(6), directory=(1 << 32) - 4), 1),
        (tiff(entry(6), count=0), 1),
        (tiff(entry(6), count=65535), 6),
        (tiff(entry(6))[:-4], 1),
        (b"", 1),
        (b"I", 1),
        (b"II*\0", 1),
        (bytes(200), 1),
        (b"\xff" * 200, 1),
    ],
)
def test_malformed_exif_does_no_harm(photograph, plain_pixels, block, number):
    content = saved(photograph, exif=b"Exif\0\0" + block)
    end = content.index(b"Exif\0\0" + block) + 6 + len(block)
    # It is the last before the tables, and these are no part of it.
    assert content[end:].startswith(b"\xff\xdb")
    assert orientation_of(content[:end]) == number
    expected = turned(plain_pixels(75), tf.constant(number))
    np.testing.assert_array_equal(read(content, upright=True), expected)


def test_a_photograph_without_exif(photograph):
    for content in (
        saved(photograph),
        saved(photograph, "png"),
        b"",
        b"Exif",
        b"Exif\0\0",
    ):
        assert orientation_of(content) == 1


def grey(image):
    return image.convert("L")


def cmyk(image):
    return image.convert("CMYK")


def palette(image):
    return image.convert("P", palette=PIL.Image.Palette.ADAPTIVE)


def transparent(image):
    image = image.copy()
    image.putalpha(PIL.Image.linear_gradient("L").resize(image.size))
    return image


def sixteen_bits(image):
    values = np.asarray(grey(image)).astype("uint16") * 257
    return PIL.Image.fromarray(values)


def same(image):
    return image


@pytest.mark.parametrize(
    ("change", "kind", "options", "tolerance"),
    [
        (same, "jpeg", {"quality": 95}, 2),
        (same, "jpeg", {"quality": 95, "progressive": True}, 2),
        (grey, "jpeg", {"quality": 95}, 2),
        (cmyk, "jpeg", {"quality": 95}, 2),
        (same, "png", {}, 0),
        (grey, "png", {}, 0),
        (palette, "png", {}, 0),
        (transparent, "png", {}, 0),
        (lambda i: transparent(i).convert("LA"), "png", {}, 0),
        (lambda i: i.convert("1"), "png", {}, 0),
        (sixteen_bits, "png", {}, 0),
        (same, "bmp", {}, 0),
        (palette, "gif", {}, 0),
        (same, "webp", {"lossless": True}, 0),
    ],
)
def test_formats_are_pillows(photograph, change, kind, options, tolerance):
    picture = change(photograph)
    content = saved(picture, kind, **options)
    opened = PIL.Image.open(io.BytesIO(content))
    if opened.mode.startswith("I"):
        opened = grey(photograph)
    expected = np.asarray(opened.convert("RGB"), float)
    found = read(content, upright=True)
    assert found.dtype == "uint8" and found.shape == (40, 60, 3)
    assert np.abs(found - expected).mean() <= tolerance
    # No other one comes near: the colours are not inverted or exchanged.
    for other in (255 - expected, expected[::-1], expected[:, ::-1]):
        assert np.abs(found - other).mean() > 20


def test_an_animation_is_its_first_picture(photograph):
    others = [PIL.ImageOps.invert(photograph)] * 2
    content = saved(photograph, "gif", save_all=True, append_images=others)
    opened = PIL.Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(read(content), opened)


def test_one_channel(photograph):
    for picture in (photograph, grey(photograph)):
        content = saved(picture, "png")
        found = read(content, channels=1)
        assert found.shape == (40, 60, 1)
        difference = found[..., 0] - np.asarray(grey(photograph), float)
        assert np.abs(difference).max() <= 1


def test_real_photographs(shared_data):
    paths = sorted((shared_data / "photos").glob("*.[jp][pn]g"))
    assert len(paths) == 18
    reader = Reader(shared_data / "photos", upright=True)
    names = tf.data.Dataset.from_tensor_slices([path.name for path in paths])
    images = names.map(lambda name: reader.read(name, None, ""))
    for path, found in zip(paths, images.as_numpy_iterator()):
        expected = upright(path.read_bytes()).convert("RGB")
        assert found.shape == (expected.height, expected.width, 3), path
        difference = np.abs(found - np.asarray(expected, float)).mean()
        # Pillow's way from CMYK to RGB is another one.
        assert difference < (6 if "cmyk" in path.name else 2), path
    assert not reader.warned


def test_real_turned_photographs_look_like_the_upright_one(shared_data):
    """Each with its number and "top" and "left" written in it."""
    folder = shared_data / "photos"
    for name, numbers in (("landscape", (3, 6)), ("portrait", (5, 8))):
        plain = (folder / f"exif_{name}_1.jpg").read_bytes()
        expected = read(plain, upright=True).astype(float)
        for number in numbers:
            content = (folder / f"exif_{name}_{number}.jpg").read_bytes()
            found = read(content, upright=True)
            assert np.abs(found - expected).mean() < 6
            assert np.abs(found[::-1] - expected).mean() > 20


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda content: content[:-300], "Invalid JPEG data"),
        (lambda content: b"no image", "Unknown image file format"),
        (lambda content: b"", "Input is empty"),
    ],
)
def test_what_cannot_be_read_is_named_once(photograph, harm, reason, caplog):
    reader = Reader(upright=True)
    for _ in range(2):
        image = read_by(reader, "it", harm(saved(photograph)))
        assert image.shape == (0, 0, 3) and image.dtype == "uint8"
    (record,) = caplog.records
    assert record.name == "keras_csp" and record.levelname == "WARNING"
    message = record.getMessage()
    assert message.startswith("The image it is skipped: ")
    assert reason in message and "\n" not in message
    assert reader.warned == {b"it"} and reader.shown(b"it") == "it"


def test_files(photograph, tmp_path, caplog):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b {x}.png").write_bytes(saved(photograph, "png"))
    reader = Reader(tmp_path)
    np.testing.assert_array_equal(read_by(reader, "a/b {x}.png"), photograph)
    assert read_by(reader, "a/gone.png").shape == (0, 0, 3)
    assert f"{tmp_path}/a/gone.png is skipped" in caplog.text


def test_the_wanted_size(photograph, caplog):
    content = saved(photograph)
    reader = Reader()
    size = tf.constant([40, 60], tf.int64)
    assert read_by(reader, "right", content, size).shape == (40, 60, 3)
    assert read_by(reader, "wrong", content, size[::-1]).shape == (0, 0, 3)
    assert "it is 60x40 pixels, not 40x60 as annotated" in caplog.text
