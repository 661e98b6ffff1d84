"""Photographs of every kind, and files that are not photographs."""

import numpy as np
import pytest
from PIL import Image

from keras_csp.data.photographs import find_photographs, read_photograph


def test_every_kind_of_photograph_is_read_upright(shared_data):
    photos = shared_data / "photos"
    files = find_photographs([photos])
    assert len(files) == 18
    for file in files:
        image = read_photograph(file)
        assert image.dtype == "uint8" and image.shape[2] == 3
        assert image.std() > 5
    for turned in ("landscape_3", "landscape_6", "portrait_5", "portrait_8"):
        image = read_photograph(photos / f"exif_{turned}.jpg").astype(int)
        kind = turned.split("_")[0]
        upright = read_photograph(photos / f"exif_{kind}_1.jpg").astype(int)
        assert image.shape == upright.shape
        assert np.abs(image - upright).mean() < 12


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/1.JPG", "a/b/2.jpeg", "a/note.txt", "3.PNG"):
        (tmp_path / name).touch()
    found = find_photographs([tmp_path, tmp_path / "a" / "note.txt"])
    names = [path.name for path in found]
    assert sorted(names[:3]) == ["1.JPG", "2.jpeg", "3.PNG"]
    assert names[3:] == ["note.txt"]
    with pytest.raises(ValueError, match="no such file or folder: "):
        find_photographs([tmp_path / "c"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no JPEG or PNG files in"):
        find_photographs([tmp_path / "empty"])


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_what_cannot_be_read(content, tmp_path):
    path = tmp_path / "bad.png"
    if content is None:  # half a file
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")
        Image.fromarray(noise).save(path)
        content = path.read_bytes()[:3000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.png: "):
        read_photograph(path)
