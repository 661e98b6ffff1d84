"""A source of boxes of a user's own: Pascal VOC's XML files."""

import pathlib
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from keras_csp.data import (
    DETECTION_SOURCES,
    DetectionData,
    ImageRecord,
    load_detection,
)


def read_voc(folder, on_error="skip"):
    """The pictures of VOC's folders: Annotations/*.xml and JPEGImages."""
    folder = pathlib.Path(folder)
    records, names = [], set()
    for path in sorted(folder.glob("Annotations/*.xml")):
        root = ElementTree.parse(path).getroot()
        objects = root.findall("object")
        labels = [one.findtext("name") for one in objects]
        names.update(labels)
        boxes = [
            [
                float(one.findtext(f"bndbox/{side}")) - (side[1:] == "min")
                for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            for one in objects
        ]
        difficult = [one.findtext("difficult") == "1" for one in objects]
        file_name = root.findtext("filename")
        records.append(ImageRecord(file_name, boxes, labels, difficult))
    images = folder / "JPEGImages"
    return DetectionData.from_records(records, sorted(names), images, on_error)


DETECTION_SOURCES["voc:"] = read_voc


OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>
"""


def test_vocs_files_are_read(tmp_path):
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir()
    found = {
        "a": [("dog", 0, 1, 1, 50, 60), ("cat", 1, 11, 21, 40, 80)],
        "b": [("cat", 0, 5, 5, 100, 9)],
    }
    for name, objects in found.items():
        Image.new("RGB", (100, 80)).save(tmp_path / f"JPEGImages/{name}.jpg")
        inside = "".join(OBJECT.format(*one) for one in objects)
        (tmp_path / f"Annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>{inside}</annotation>"
        )
    data = load_detection(f"voc:{tmp_path}")
    assert data.class_names == ("cat", "dog") and data.size == 2
    first, second = data.examples().as_numpy_iterator()
    np.testing.assert_array_equal(
        first["boxes"], [[0, 0, 50, 60], [10, 20, 40, 80]]
    )
    assert first["labels"].tolist() == [1, 0]
    assert first["crowd"].tolist() == [False, True]
    np.testing.assert_array_equal(second["boxes"], [[4, 4, 100, 9]])
    ((images, targets),) = data.evaluation(2, 64).as_numpy_iterator()
    assert images.shape == (2, 64, 64, 3)
    assert targets["labels"].tolist() == [[1, 0], [0, -1]]
