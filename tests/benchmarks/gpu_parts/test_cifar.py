"""CIFAR-10 from files, with a few pictures made up."""

import shutil
import tarfile

import numpy as np
import pytest
from gpu_parts import cifar
from PIL import Image


def test_a_folder_and_an_archive_give_the_same_images(pictures, tmp_path):
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(pictures, "deep/cifar")
    found = cifar.read(pictures)
    packed = cifar.read(archive)
    assert found["train"].labels.tolist() == sorted([*range(10)] * 2)
    assert found["test"].labels.tolist() == list(range(10))
    with Image.open(pictures / "train" / "class3" / "0001.jpg") as image:
        np.testing.assert_array_equal(found["train"].images[7], image)
    for split in cifar.SPLITS:
        for ours, theirs in zip(found[split], packed[split]):
            np.testing.assert_array_equal(ours, theirs)


def test_what_is_not_cifar_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"folder or a \.tar.*nothing"):
        cifar.read(tmp_path / "nothing")
    shutil.copytree(pictures, tmp_path / "nine")
    shutil.rmtree(tmp_path / "nine" / "test" / "class4")
    with pytest.raises(ValueError, match=r"10 class folders in `test`.*9"):
        cifar.read(tmp_path / "nine")
