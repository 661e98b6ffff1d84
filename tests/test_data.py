import functools

import keras
import numpy as np
import pytest

from keras_csp.data import load_classification


@pytest.fixture
def folder(tmp_path, rng):
    """Ten 40x30 images in each of two class folders."""
    for name, level in (("dark", 20), ("light", 220)):
        (tmp_path / name).mkdir()
        for index in range(10):
            image = np.full((40, 30, 3), level) + rng.integers(
                -9, 9, (40, 30, 3)
            )
            keras.utils.save_img(
                tmp_path / name / f"{index}.png", image, scale=False
            )
    return tmp_path


def all_of(dataset):
    images, labels = zip(*dataset)
    return np.concatenate(images), np.concatenate(labels)


def test_digits():
    data = load_classification("digits")
    assert data.class_names == tuple("0123456789")
    assert data.image_shape == (32, 32, 1)
    images, _labels = all_of(data.train)
    tests, test_labels = all_of(data.test)
    assert len(images) == data.train_size == 1437
    assert len(tests) == data.test_size == 360
    assert images.min() >= 0 and images.max() <= 1 and images.max() > 0.9
    assert (np.bincount(test_labels) >= 34).all()  # stratified
    # No image is in both parts.
    flat = {image.tobytes() for image in images}
    assert sum(image.tobytes() in flat for image in tests) == 0
    assert load_classification("digits", image_size=8).image_shape == (8, 8, 1)


def test_digits_are_reproducible():
    first, second = (load_classification("digits", seed=3) for _ in range(2))
    for one, two in zip(all_of(first.train), all_of(second.train)):
        np.testing.assert_array_equal(one, two)


def test_folder_of_class_folders(folder):
    data = load_classification(folder, image_size=16, batch_size=4)
    assert data.class_names == ("dark", "light")
    assert (data.train_size, data.test_size) == (16, 4)
    images, labels = all_of(data.train)
    assert images.shape == (16, 16, 16, 3)
    brightness = images.mean((1, 2, 3))
    assert (brightness[labels == 0] < 0.2).all()
    assert (brightness[labels == 1] > 0.8).all()


def test_train_and_test_folders(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("split")
    for split in ("train", "val"):
        (path / split).symlink_to(folder)
    data = load_classification(str(path), image_size=8)
    assert (data.train_size, data.test_size) == (20, 20)


def test_real_folders(shared_data):
    root = shared_data / "classification"
    data = load_classification(root / "cifar10" / "mini", image_size=32)
    assert (data.train_size, data.test_size) == (1000, 200)
    assert len(data.class_names) == 10
    data = load_classification(root / "flowers5", image_size=64)
    assert (data.train_size, data.test_size) == (800, 200)
    images, _ = next(iter(data.test))
    assert images.shape[1:] == (64, 64, 3)


def use_tfds_folder(monkeypatch, path):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = functools.partial(tfds.builder, data_dir=path)
    monkeypatch.setattr(tfds, "builder", builder)
    return tfds


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_tfds(tmp_path, monkeypatch, splits):
    """A set written by TFDS itself, from a builder as its own are."""
    tfds = use_tfds_folder(monkeypatch, tmp_path)
    count = len(splits)

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = f"keras_csp_squares{count}"
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path  # where TFDS looks for a set's description

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(20, 20, 1)),
                    "label": tfds.features.ClassLabel(names=["dark", "light"]),
                }
            )
            return tfds.core.DatasetInfo(
                builder=self,
                features=features,
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            for index in range(10):
                image = np.full((20, 20, 1), 200 * (index % 2), "uint8")
                yield index, {"image": image, "label": index % 2}

    data = load_classification(f"tfds:{Builder.name}", 32, batch_size=4)
    assert data.image_shape == (32, 32, 1)
    assert data.class_names == ("dark", "light")
    assert (data.train_size, data.test_size) == ((8, 2), (10, 10))[count - 1]
    images, labels = all_of(data.train)
    assert len(images) == data.train_size
    np.testing.assert_allclose(
        images.max((1, 2, 3)), labels * 200 / 255, atol=1e-6
    )


def test_tfds_detection_set_is_refused(monkeypatch, shared_data):
    use_tfds_folder(monkeypatch, shared_data / "tfds")
    with pytest.raises(ValueError, match="'bccd' has no image and class label"):
        load_classification("tfds:bccd")


def _empty(path):
    (path / "class").mkdir(parents=True)
    return path


def _one_class(path):
    (path / "only").mkdir(parents=True)
    for index in range(5):
        keras.utils.save_img(
            path / "only" / f"{index}.png", np.zeros((9, 9, 3))
        )
    return path


def _broken(path, content):
    (path / "dark" / "bad.png").write_bytes(content)
    return path


def _cut(path):
    target = path / "dark" / "cut.jpg"
    keras.utils.save_img(target, np.random.default_rng(0).random((64, 64, 3)))
    target.write_bytes(target.read_bytes()[:200])
    return path


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path / "missing", "does not exist: .*missing"),
        (lambda path: path / "dark" / "0.png", r"does not exist: .*0\.png"),
        (
            lambda path: _empty(path / "empty"),
            "empty is not a folder with one folder",
        ),
        (lambda path: _one_class(path / "one"), "has one class, 'only'"),
        (lambda path: _broken(path, b"not an image"), r"Unreadable.*bad\.png"),
        (lambda path: _broken(path, b""), r"Unreadable.*bad\.png"),
        (_cut, r"Unreadable.*cut\.jpg"),
        (lambda path: "tfds:no_such_set", "'no_such_set' cannot be had"),
    ],
    ids=[
        "missing",
        "file",
        "empty",
        "one class",
        "text",
        "no bytes",
        "cut",
        "tfds",
    ],
)
def test_bad_folders_are_one_line(folder, prepare, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_classification(prepare(folder), image_size=16)
    assert "\n" not in str(caught.value)


def test_classes_must_agree(folder):
    (folder / "train").mkdir()
    (folder / "dark").rename(folder / "train" / "dark")
    (folder / "test" / "light").mkdir(parents=True)
    for index in range(10):
        (folder / "light" / f"{index}.png").rename(
            folder / "test" / "light" / f"{index}.png"
        )
    with pytest.raises(ValueError, match=r"\['dark'\] and \['light'\]"):
        load_classification(folder, image_size=16)
