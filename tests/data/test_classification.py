"""Classification sets: from digits, folders, TFDS or tf.data to batches."""

import functools
import io
import itertools

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from support import run_python

from keras_csp.data import (
    ClassificationAugmentation,
    ClassificationData,
    centre_crop,
    load_classification,
    ten_crops,
)
from keras_csp.layers import ImageSpec, Preprocessing

NAMES = ("dark", "light")
PLAIN = ClassificationAugmentation(
    min_crop=8,
    max_crop=8,
    angle=0,
    aspect=1,
    flip=0,
    hue=0,
    saturation=1,
    brightness=1,
)
ALL_ON = ClassificationAugmentation.for_size(
    16, rand_augment=0.4, mixup=0.3, cutmix=0.3, mosaic=0.4
)


def picture(label, rng):
    """Dark or light by its label, and unlike every other one."""
    image = (20, 220)[label] + rng.integers(-9, 9, (12, 10, 3))
    return PIL.Image.fromarray(image.astype("uint8"))


@pytest.fixture
def folder(tmp_path, rng):
    """Ten images in each of two class folders."""
    for label, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for index in range(10):
            picture(label, rng).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture
def split_folder(folder, tmp_path_factory):
    """The same in `train` and in `val`."""
    path = tmp_path_factory.mktemp("split")
    for split in ("train", "val"):
        (path / split).symlink_to(folder)
    return path


def numbered(count=10, classes=2, channels=3):
    """8x8 images, number i is 20 i everywhere and labelled i % classes."""
    images = np.zeros((count, 8, 8, channels), "uint8")
    images += (20 * np.arange(count, dtype="uint8"))[:, None, None, None]
    dataset = tf.data.Dataset.from_tensor_slices(
        (images, np.arange(count) % classes)
    )
    names = tuple(map(str, range(classes)))
    return ClassificationData.from_dataset(dataset, names)


def encoded(contents, labels=None):
    labels = [0] * len(contents) if labels is None else labels
    return tf.data.Dataset.from_tensor_slices((contents, labels))


def png(image):
    stream = io.BytesIO()
    PIL.Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def numpy_of(dataset):
    return list(dataset.as_numpy_iterator())


def all_of(dataset):
    images, labels = zip(*dataset.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def same(one, two):
    """Whether two lists of batches are equal to the bit."""
    one, two = tf.nest.flatten(one), tf.nest.flatten(two)
    return len(one) == len(two) and all(map(np.array_equal, one, two))


def numbers_of(images):
    return np.round(images[:, 0, 0, 0] * 255 / 20).astype(int).tolist()


# Where the images come from.


def test_digits():
    train, test = load_classification("digits")
    for data, size in ((train, 1437), (test, 360)):
        assert isinstance(data, ClassificationData)
        assert data.class_names == tuple("0123456789")
        assert (data.size, data.channels, data.skipped) == (size, 1, ())
    images, labels = zip(*numpy_of(train.examples()))
    tests, test_labels = zip(*numpy_of(test.examples()))
    assert (len(images), len(tests)) == (1437, 360)
    assert {image.shape for image in images} == {(8, 8, 1)}
    assert np.max(images) == 255 and np.min(images) == 0
    assert (np.bincount(test_labels) >= 34).all()  # stratified
    # They are scikit-learn's, each once.
    from sklearn.datasets import load_digits

    original = load_digits()
    found = sorted(
        (int(label), np.round(image[..., 0] / 255 * 16).tobytes())
        for image, label in zip(images + tests, labels + test_labels)
    )
    expected = sorted(
        (int(label), image.tobytes())
        for image, label in zip(original.images, original.target)
    )
    assert found == expected


def test_a_seed_draws_the_second_part():
    tests = [
        numpy_of(load_classification(seed=seed)[1].examples())
        for seed in (3, 3, 4)
    ]
    assert same(tests[0], tests[1]) and not same(tests[0], tests[2])
    train, test = load_classification(validation_split=0.5)
    assert abs(train.size - test.size) <= 1


def test_folder_of_class_folders(folder):
    train, test = load_classification(folder)
    assert train.class_names == test.class_names == NAMES
    assert (train.size, test.size, train.channels) == (16, 4, 3)
    images, labels = all_of(train.evaluation(4, 16))
    assert images.shape == (16, 16, 16, 3)
    brightness = images.mean((1, 2, 3))
    assert (brightness[labels[:, 0] == 1] < 0.2).all()
    assert (brightness[labels[:, 1] == 1] > 0.8).all()
    # Every file is in one of the two.
    seen = [
        image.tobytes()
        for data in (train, test)
        for image, _label in numpy_of(data.examples())
    ]
    files = [PIL.Image.open(path).tobytes() for path in folder.glob("*/*.png")]
    assert sorted(seen) == sorted(files) and len(set(files)) == 20


def test_a_folder_may_be_called_as_the_digits_are(folder, monkeypatch):
    """A source by name is the whole of what is asked for."""
    path = folder.rename(folder.with_name("digits_of_mine"))
    monkeypatch.chdir(path.parent)
    train, test = load_classification("digits_of_mine")
    assert (train.class_names, train.size, test.size) == (NAMES, 16, 4)


def test_train_and_val_folders(split_folder):
    train, test = load_classification(str(split_folder))
    assert (train.size, test.size) == (20, 20)
    labels = [int(label) for _image, label in train.first(6).examples()]
    assert labels == [0, 1, 0, 1, 0, 1]


def test_real_folders(shared_data):
    root = shared_data / "classification"
    train, test = load_classification(root / "cifar10" / "mini")
    assert (train.size, test.size, len(train.class_names)) == (1000, 200, 10)
    images, labels = all_of(test.evaluation(50, 32))
    assert (
        images.shape == (200, 32, 32, 3) and labels.sum(0).tolist() == [20] * 10
    )
    train, test = load_classification(root / "flowers5")
    assert (train.size, test.size, len(train.class_names)) == (800, 200, 5)
    images, labels = next(iter(train.first(8).training(8, 64)))
    assert images.shape == (8, 64, 64, 3) and len(np.unique(labels, axis=0)) > 1
    assert train.skipped == ()


NUMBERS = itertools.count()  # TFDS remembers the names of sets


def write_tfds(tfds, folder, splits, shape=(20, 20, 1)):
    """A set written by TFDS itself, from a builder as its own are.

    Args:
        splits: name to labels.
    """

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = f"keras_csp_squares{next(NUMBERS)}"
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder  # where TFDS looks for a set's description

        def _info(self):
            label = tfds.features.ClassLabel(names=NAMES)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"image": tfds.features.Image(shape=shape), "label": label}
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            return {
                split: self._generate_examples(labels)
                for split, labels in splits.items()
            }

        def _generate_examples(self, labels):
            for index, label in enumerate(labels):
                image = np.full(shape, 200 * (label == 1), "uint8")
                yield index, {"image": image, "label": label}

    return f"tfds:{Builder.name}"


HALVES = [0, 1] * 5


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        ({"train": HALVES}, (8, 2)),
        # As imagenet2012: the labels of the test images are unknown.
        (
            {"train": HALVES, "validation": HALVES[:4], "test": [-1] * 6},
            (10, 4),
        ),
        (
            {
                "train": HALVES,
                "validation": HALVES[:4],
                "test": HALVES[:6],
                "other": HALVES,
            },
            (10, 6),
        ),
    ],
    ids=["train", "unlabelled test", "test"],
)
def test_tfds(tmp_path, splits, sizes):
    tfds = pytest.importorskip("tensorflow_datasets")
    name = write_tfds(tfds, tmp_path, splits)
    pair = load_classification(name, data_dir=tmp_path)
    for data, size in zip(pair, sizes):
        assert (data.size, data.channels) == (size, 1)
        assert data.class_names == NAMES
        images, labels = zip(*numpy_of(data.examples()))
        assert np.shape(images) == (size, 20, 20, 1)
        np.testing.assert_array_equal(
            np.max(images, (1, 2, 3)), 200 * np.array(labels)
        )


def test_tfds_without_training_images(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    name = write_tfds(tfds, tmp_path, {"other": HALVES})
    with pytest.raises(
        ValueError, match=r"has no split 'train', only \['other"
    ):
        load_classification(name, data_dir=tmp_path)


def test_tfds_that_cannot_be_divided(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    name = write_tfds(tfds, tmp_path, {"train": [0, 1, 1]})
    with pytest.raises(
        ValueError, match=r"3 images .* by validation_split=0\.01"
    ):
        load_classification(name, validation_split=0.01, data_dir=tmp_path)
    sizes = [d.size for d in load_classification(name, 0.4, data_dir=tmp_path)]
    assert sizes == [2, 1]


def test_tfds_splits_are_found_not_named():
    with pytest.raises(ValueError, match=r"two splits.* give tfds:mnist"):
        load_classification("tfds:mnist:train")


def test_tfds_detection_set_is_refused(shared_data):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="'bccd' has no image and class label"):
        load_classification("tfds:bccd", data_dir=shared_data / "tfds")


@pytest.mark.parametrize(
    ("name", "splits", "classes", "channels"),
    [
        ("imagenet2012", ("train", "validation"), 1000, 3),
        ("tf_flowers", ("train",), 5, 3),
        ("mnist", ("train", "test"), 10, 1),
    ],
)
def test_tfds_sets_of_the_world(tmp_path, name, splits, classes, channels):
    """TFDS makes up the pixels; names, splits and classes are the sets' own."""
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder(name, data_dir=tmp_path)
    builder.info.set_splits(
        tfds.core.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[10],
                    num_bytes=1,
                    filename_template=tfds.core.ShardedFileTemplate(
                        data_dir=builder.data_dir,
                        dataset_name=name,
                        split=split,
                        filetype_suffix="tfrecord",
                    ),
                )
                for split in splits
            ]
        )
    )
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
    with tfds.testing.mock_data(num_examples=10, data_dir=tmp_path):
        train, test = load_classification(f"tfds:{name}")
        assert len(train.class_names) == classes
        assert (train.channels, test.channels) == (channels, channels)
        sizes = (10, 10) if len(splits) == 2 else (8, 2)
        assert (train.size, test.size) == sizes
        images, labels = next(iter(test.evaluation(2, 32)))
        assert images.shape == (2, 32, 32, channels)
        np.testing.assert_array_equal(np.sum(labels, 1), 1)
        assert np.max(images) > 0.2 and not test.skipped


def test_tfds_image_folder(folder, tmp_path_factory):
    """TFDS's own builder of folders, through `from_dataset`."""
    tfds = pytest.importorskip("tensorflow_datasets")
    path = tmp_path_factory.mktemp("tfds")
    (path / "train").symlink_to(folder)
    builder = tfds.ImageFolder(str(path))
    dataset = builder.as_dataset(split="train", as_supervised=True)
    names = builder.info.features["label"].names
    data = ClassificationData.from_dataset(dataset, names, size=20)
    assert data.class_names == NAMES and data.size == 20
    images, labels = all_of(data.evaluation(8, 16))
    ours = load_classification(folder, 0.5)
    others = [all_of(part.evaluation(8, 16)) for part in ours]
    expected = {image.tobytes() for images, _ in others for image in images}
    assert {image.tobytes() for image in images} == expected
    bright = images.mean((1, 2, 3)) > 0.5
    np.testing.assert_array_equal(bright, labels[:, 1])


# Your own data sets.


@pytest.mark.parametrize("channels", [3, 1])
def test_from_dataset_of_arrays(channels):
    data = numbered(channels=channels)
    assert (data.size, data.channels) == (10, channels)
    images, labels = all_of(data.evaluation(4, 8))
    assert images.shape == (10, 8, 8, channels)
    assert numbers_of(images) == list(range(10))
    assert labels.argmax(1).tolist() == [0, 1] * 5
    image, label = data.examples().element_spec
    assert image == tf.TensorSpec((8, 8, channels), tf.uint8)
    assert label == tf.TensorSpec((), tf.int32)


def test_photographs_are_turned_upright(rng, caplog, tmp_path):
    """Files, and encoded images: a broken one is called by its number."""
    image = rng.integers(0, 256, (6, 10, 3), "uint8")
    stream, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(image).save(stream, "jpeg", exif=exif, quality=100)
    dataset = encoded([stream.getvalue(), b"on_error", png(image)])
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(stream.getvalue())
        (tmp_path / name / "2.jpg").write_bytes(stream.getvalue())
    files, _test = load_classification(tmp_path, validation_split=0.5)
    assert next(iter(files.examples()))[0].shape == (10, 6, 3)
    data = ClassificationData.from_dataset(dataset, NAMES)
    turned, plain = [image for image, _label in numpy_of(data.examples())]
    assert turned.shape == (10, 6, 3) and plain.shape == (6, 10, 3)
    np.testing.assert_array_equal(plain, image)
    assert data.skipped == ("1",) and data.size == 3
    assert "The image 1 is skipped" in caplog.text


def test_the_size_of_a_generator():
    def generate():
        for label in (0, 1, 1):
            yield np.full((8, 8, 3), 20 * label, "uint8"), label

    specs = (tf.TensorSpec((8, 8, 3), tf.uint8), tf.TensorSpec((), tf.int32))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=specs)
    make = functools.partial(ClassificationData.from_dataset, dataset, NAMES)
    with pytest.raises(ValueError, match=r"give `size`\. Received: size=None"):
        make()
    with pytest.raises(ValueError, match="Received: size=0"):
        make(size=0)
    assert make(size=3).size == 3
    # One without an end is cut.
    endless = dataset.repeat()
    data = ClassificationData.from_dataset(endless, NAMES, size=5)
    assert len(numpy_of(data.examples())) == 5
    with pytest.raises(ValueError, match=r"has 10 images.*Received: size=9"):
        known = tf.data.Dataset.from_tensor_slices(
            (np.zeros((10, 8, 8, 3), "uint8"), np.zeros(10, int))
        )
        ClassificationData.from_dataset(known, NAMES, size=9)


IMAGES, LABELS = np.zeros((2, 8, 8, 3), "uint8"), np.zeros(2, "int64")


@pytest.mark.parametrize(
    ("tensors", "received"),
    [
        ((IMAGES.astype("float32"), LABELS), "tf.float32"),
        ((IMAGES[..., :2], LABELS), r"\(8, 8, 2\)"),
        ((IMAGES[..., 0], LABELS), r"\(8, 8\)"),
        ((IMAGES[None], LABELS[None]), r"\(2, 8, 8, 3\)"),
        ((IMAGES, LABELS.astype("float32")), "tf.float32"),
        ((IMAGES, np.eye(2, dtype="int32")), r"shape=\(2,\)"),
        (IMAGES, r"\(8, 8, 3\)"),
        ({"image": IMAGES, "label": LABELS}, "'image'"),
        (({"image": IMAGES}, LABELS), "'image'"),
        ((np.array([["a"], ["b"]]), LABELS), "tf.string"),
    ],
)
def test_other_elements_are_refused(tensors, received):
    dataset = tf.data.Dataset.from_tensor_slices(tensors)
    with pytest.raises(ValueError, match=f"single .*Received: .*{received}"):
        ClassificationData.from_dataset(dataset, NAMES)


def test_what_is_no_data_set_is_refused():
    with pytest.raises(ValueError, match="Received: tuple"):
        ClassificationData.from_dataset((IMAGES, LABELS), NAMES)


@pytest.mark.parametrize("label", [2, -1])
def test_an_unknown_label_is_an_error_and_not_another_class(label):
    """One-hot it would be all zeros."""
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, [0, label]))
    data = ClassificationData.from_dataset(dataset, NAMES)
    with pytest.raises(tf.errors.InvalidArgumentError, match="from 0 to 1"):
        numpy_of(data.evaluation(2, 8))


# What is made of them.


def test_evaluation_is_the_centre_in_order(rng):
    shapes = ((20, 30, 3), (40, 12, 3), (16, 16, 3), (9, 50, 3), (30, 20, 3))
    images = [rng.integers(0, 256, shape, "uint8") for shape in shapes]
    dataset = encoded([png(image) for image in images], [0, 1, 1, 0, 1])
    data = ClassificationData.from_dataset(dataset, NAMES)
    for crop in (1.0, 0.8):
        batches = numpy_of(data.evaluation(2, ImageSpec(16, crop=crop)))
        assert [len(batch) for batch, _labels in batches] == [2, 2, 1]
        found = np.concatenate([batch for batch, _labels in batches])
        assert found.dtype == batches[0][1].dtype == "float32"
        expected = [centre_crop(image, 16, crop) for image in images]
        np.testing.assert_array_equal(found, expected)
    labels = np.concatenate([labels for _images, labels in batches])
    np.testing.assert_array_equal(labels, np.eye(2)[[0, 1, 1, 0, 1]])
    ((crops, _labels), *_rest) = numpy_of(data.ten_crop(3, 16, 4))
    assert crops.shape == (3, 10, 16, 16, 3)
    expected = [ten_crops(image, 16, 4) for image in images[:3]]
    np.testing.assert_array_equal(crops, expected)
    assert numpy_of(data.ten_crop(5, 8))[0][0].shape == (5, 10, 8, 8, 3)


def test_training_batches():
    data = numbered()
    dataset = data.training(4, 8, PLAIN)
    images, labels = dataset.element_spec
    assert images.shape == (None, 8, 8, 3) and images.dtype == tf.float32
    assert labels.shape == (None, 2) and labels.dtype == tf.float32
    batches = numpy_of(dataset)
    assert len(dataset) == len(batches) == 3
    assert [len(batch) for batch, _labels in batches] == [4, 4, 2]
    for batch, labels in batches:
        numbers = np.array(numbers_of(batch))
        np.testing.assert_array_equal(labels, np.eye(2)[numbers % 2])
    cut = data.training(4, 8, PLAIN, drop_remainder=True)
    assert [len(batch) for batch, _labels in numpy_of(cut)] == [4, 4]
    assert len(cut) == 2 and cut.element_spec[0].shape == (4, 8, 8, 3)


def test_every_epoch_has_each_image_once_in_another_order():
    dataset = numbered().training(4, 8, PLAIN)
    orders = [tuple(numbers_of(all_of(dataset)[0])) for _epoch in range(5)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) == 5
    assert orders[0] != tuple(range(10))


def test_the_papers_augmentation_is_the_default():
    data = numbered()
    default = numpy_of(data.training(4, 8))
    paper = numpy_of(data.training(4, 8, ClassificationAugmentation()))
    assert same(default, paper)
    assert not same(default, numpy_of(data.training(4, 8, PLAIN)))


def test_a_seed_is_its_epochs(folder):
    """With everything on, and in another read of the set."""

    def training(seed):
        train, _test = load_classification(folder)
        return train.training(5, 16, ALL_ON, seed)

    dataset = training(3)
    first, second = numpy_of(dataset), numpy_of(dataset)
    assert not same(first, second)
    for images, labels in first:
        assert images.shape[1:] == (16, 16, 3) and images.dtype == "float32"
        assert images.min() >= 0 and images.max() <= 1
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-5)
    # An epoch that was left after its first batch counts as one.
    again = training(3)
    assert same(first[0], numpy_of(again.take(1))[0])
    assert same(second, numpy_of(again))
    # Another seed; without the tricks, which take long to trace.
    data = numbered()
    one, other = (numpy_of(data.training(5, 8, seed=seed)) for seed in (3, 4))
    assert not same(one, other)


def test_an_image_alone_varies():
    """The draws are new in every epoch, not only for every place in it."""
    dataset = numbered().first(1).training(1, 8)
    epochs = [numpy_of(dataset) for _ in range(3)]
    assert [len(batches) for batches in epochs] == [1, 1, 1]
    dataset = load_classification()[0].first(1).training(1, 16)
    epochs = [numpy_of(dataset) for _ in range(3)]
    assert not same(epochs[0], epochs[1]) and not same(*epochs[1:])


def test_readable_images_need_no_python(folder, monkeypatch):
    """A thread that waits for Python would hang the end of the program."""

    def refuse(*arguments):
        raise AssertionError(arguments)

    train, _test = load_classification(folder)
    monkeypatch.setattr(train._reader, "_warn", refuse)
    assert len(numpy_of(train.training(4, 16))) == 4


def test_first_and_shards():
    data = numbered()
    assert data.first(3).size == 3 and data.first(99).size == 10
    assert numbers_of(all_of(data.first(3).evaluation(8, 8))[0]) == [0, 1, 2]
    images, _labels = all_of(data.first(3).training(2, 8, PLAIN))
    assert sorted(numbers_of(images)) == [0, 1, 2]
    shards = [data.shard(4, index) for index in range(4)]
    assert [shard.size for shard in shards] == [3, 3, 2, 2]
    for dataset in ("evaluation", "training"):
        seen = []
        for shard in shards:
            options = (PLAIN,) if dataset == "training" else ()
            images, _labels = all_of(getattr(shard, dataset)(2, 8, *options))
            assert len(images) == shard.size
            seen += numbers_of(images)
        assert sorted(seen) == list(range(10))
    assert numbers_of(all_of(shards[1].evaluation(9, 8))[0]) == [1, 5, 9]
    assert data.shard(1, 0).size == 10
    with pytest.raises(ValueError, match="10 images are too few for so many"):
        data.shard(11, 10)


# Images that cannot be read.


def harm(path, content=b"no image"):
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def harmed(split_folder, folder):
    """Three of twenty images cannot be read: a text, a cut one, no bytes."""
    whole = (folder / "dark" / "4.png").read_bytes()
    broken = [
        harm(folder / "dark" / "3.png"),
        harm(folder / "dark" / "4.png", whole[:100]),
        harm(folder / "light" / "7.png", b""),
    ]
    train = split_folder / "train"
    return split_folder, [
        path.replace(str(folder), str(train)) for path in broken
    ]


def test_unreadable_images_are_named_once_and_counted(harmed, caplog):
    path, broken = harmed
    train, test = load_classification(path)
    for _epoch in range(2):
        assert len(numpy_of(train.examples())) == 17
    assert train.size == 20 and train.skipped == tuple(broken)
    assert len(caplog.records) == 3
    for name, record in zip(broken, sorted(caplog.messages)):
        assert record.startswith(f"The image {name} is skipped: ")
        assert "{{" not in record and "\n" not in record
    # The other part is on its own.
    assert test.skipped == ()
    assert len(all_of(test.evaluation(8, 16))[0]) == 17


def test_others_take_their_places_in_training():
    contents = [png(np.full((8, 8, 3), 10 * n, "uint8")) for n in range(20)]
    for number in (3, 4, 17):
        contents[number] = contents[number][:60]
    data = ClassificationData.from_dataset(encoded(contents), NAMES)
    dataset = data.training(8, 8, PLAIN)
    assert len(dataset) == 3
    twice = set()
    for _epoch in range(4):
        images, labels = all_of(dataset)
        np.testing.assert_array_equal(labels.sum(1), 1)
        numbers = np.round(images[:, 0, 0, 0] * 25.5).astype(int)
        counts = np.bincount(numbers, minlength=20)
        assert counts.sum() == 20 and not counts[[3, 4, 17]].any()
        assert counts.max() == 2 and (counts == 2).sum() == 3
        twice |= set(np.flatnonzero(counts == 2))
    assert len(twice) > 5  # not always the same
    assert data.skipped == ("17", "3", "4")


def test_broken_raise(harmed, folder):
    path, broken = harmed
    with pytest.raises(ValueError, match="Unreadable") as found:
        load_classification(path, on_error="raise")
    assert str(found.value) == f"Unreadable image {broken[0]} and 2 more"
    for name in ("3", "4"):
        picture(0, np.random.default_rng(1)).save(
            folder / "dark" / f"{name}.png"
        )
    with pytest.raises(ValueError, match="Unreadable") as found:
        load_classification(path, on_error="raise")
    assert str(found.value) == f"Unreadable image {broken[2]}"


def test_nothing_readable_is_an_error(folder):
    for path in folder.glob("*/*.png"):
        harm(path)
    for broken in ("skip", "raise"):
        with pytest.raises(ValueError, match="there is no readable") as found:
            load_classification(folder, on_error=broken)
        assert "Unreadable image" in str(found.value)
        assert "and 15 more" in str(found.value)
        assert "\n" not in str(found.value)


def test_nothing_readable_in_a_part_is_an_error():
    good = png(IMAGES[0])
    data = ClassificationData.from_dataset(
        encoded([b"x", good, b"y", good]), NAMES
    )
    for part in (
        functools.partial(data.first, 1),
        functools.partial(data.shard, 2, 0),
        lambda: ClassificationData.from_dataset(encoded([b"x"] * 3), NAMES),
    ):
        with pytest.raises(ValueError, match="no readable image"):
            part()
    assert data.shard(2, 1).size == 2
    with pytest.raises(ValueError, match="No images"):
        ClassificationData.from_dataset(encoded([good]).take(0), NAMES)


def test_an_epoch_whose_images_are_gone_ends(folder):
    train, _test = load_classification(folder)
    for path in folder.glob("*/*.png"):
        path.unlink()
    with pytest.raises(tf.errors.FailedPreconditionError, match="contain 4 el"):
        numpy_of(train.training(4, 8, PLAIN))


# Bad arguments.


def _empty(path):
    (path / "empty" / "class").mkdir(parents=True)
    return path / "empty"


def _one_class(path):
    return path / "dark"


def _wrapped(path):
    (path / "wrapped").mkdir()
    (path / "wrapped" / "only").symlink_to(path / "dark")
    return path / "wrapped"


def _two_images(path):
    for label, name in enumerate(NAMES):
        (path / "few" / name).mkdir(parents=True)
        shade = PIL.Image.new("L", (4, 4), label)
        shade.save(path / "few" / name / "a.png")
    return path / "few"


def _no_such_set(_path):
    pytest.importorskip("tensorflow_datasets")
    return "tfds:no_such_set"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path / "missing", "does not exist: .*missing"),
        (lambda path: path / "dark" / "0.png", r"does not exist: .*0\.png"),
        (_empty, "empty is not a folder with one folder"),
        (_one_class, "dark is not a folder with one folder"),
        (_wrapped, "has one class, 'only'"),
        (_two_images, "cannot be divided into two parts"),
        (_no_such_set, "'no_such_set' could not be loaded"),
    ],
)
def test_bad_sources_are_one_line(folder, prepare, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_classification(prepare(folder))
    assert "\n" not in str(caught.value)


def test_classes_must_agree(folder):
    for split, name in (("train", "dark"), ("test", "light")):
        (folder / split).mkdir()
        (folder / name).rename(folder / split / name)
        (folder / split / "both").mkdir()
    with pytest.raises(
        ValueError, match=r"differ: \['both', 'dark'\] and \['b"
    ):
        load_classification(folder)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"validation_split": 0.0}, r"validation_split=0\.0"),
        ({"validation_split": 1.0}, r"validation_split=1\.0"),
        ({"validation_split": "0.5"}, "validation_split='0.5'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
        ({"data_dir": "there"}, "source='digits', data_dir='there'"),
    ],
)
def test_bad_arguments(arguments, received):
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        load_classification(**arguments)


@pytest.mark.parametrize(
    ("method", "arguments", "received"),
    [
        ("training", (0, 8), "batch_size=0"),
        ("training", (2, 8.0), r"size=8\.0"),
        ("training", (2, 8, "much"), "augmentation='much'"),
        ("training", (2, 8, None, 1.5), r"seed=1\.5"),
        ("training", (2, 8, None, 1 << 31), f"seed={1 << 31}"),
        ("training", (16, 8, None, 0, True), "batch_size=16, drop_remainder"),
        ("evaluation", (True, 8), "batch_size=True"),
        ("evaluation", (2, -8), "size=-8"),
        ("evaluation", (2, ImageSpec()), "ImageSpec.size=None"),
        ("training", (2, (8, 16)), r"size=\(8, 16\)"),
        ("ten_crop", (2, "8"), "size='8'"),
        ("ten_crop", (2, 8, 0), "shift=0"),
        ("first", (0,), "number=0"),
        ("shard", (0, 0), "count=0"),
        ("shard", (2, 2), "index=2"),
        ("shard", (2, -1), "index=-1"),
        ("shard", (2, 0.5), r"index=0\.5"),
    ],
)
def test_bad_arguments_of_methods(method, arguments, received):
    data = numbered()
    with pytest.raises(ValueError, match=f"Received: .*{received}") as caught:
        getattr(data, method)(*arguments)
    assert "\n" not in str(caught.value)


# With Keras.


def test_fit_takes_it():
    train, test = load_classification()
    train, test = train.first(96), test.first(40)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        train.training(32, 8, PLAIN),
        validation_data=test.evaluation(32, 8),
        epochs=2,
        shuffle=False,  # the data set shuffles itself
        verbose=0,
    ).history
    assert np.isfinite(history["loss"]).all() and len(history["loss"]) == 2
    assert len(history["val_accuracy"]) == 2


@pytest.mark.slow
def test_the_backend_does_not_matter(folder, tmp_path):
    """tf.data runs the Keras layers whatever trains the network.

    To the last bit but one: Keras makes some constants on its own backend.
    """
    code = """
import sys
import keras_csp, keras, numpy as np
from keras_csp.data import ClassificationAugmentation, load_classification
assert keras.backend.backend() == sys.argv[2]
train, _test = load_classification(sys.argv[1])
dataset = train.training(
    5, 16, ClassificationAugmentation.for_size(
        16, rand_augment=0.4, mixup=0.3, cutmix=0.3, mosaic=0.4
    ), seed=3
)
batches = [batch for _epoch in range(3) for batch in dataset]
parts = [np.concatenate(part) for part in zip(*batches)]
np.savez(sys.argv[3], *parts)
"""
    found = {}
    for backend in ("jax", "tensorflow"):
        path = tmp_path / f"{backend}.npz"
        run_python(code, folder, backend, path, KERAS_BACKEND=backend)
        with np.load(path) as file:
            found[backend] = [file[name] for name in file.files]
    for part, other in zip(*found.values(), strict=True):
        assert len(part) == 3 * 16
        np.testing.assert_allclose(part, other, atol=1e-6)


@pytest.fixture
def four(tmp_path, rng):
    """A folder of RGBA files whose fourth channel is data, and two in RGB."""
    for name in NAMES:
        (tmp_path / "four" / name).mkdir(parents=True)
        for index in range(5):
            image = rng.integers(0, 256, (12, 10, 4 if index else 3), "uint8")
            path = tmp_path / "four" / name / f"{index}.png"
            PIL.Image.fromarray(image).save(path)
    return tmp_path / "four"


def network(channels):
    image = keras.Input((16, 16, channels))
    spec = ImageSpec(mean=[0.5] * channels)
    return keras.Model(image, Preprocessing(spec)(image))


def test_a_model_of_four_channels_gets_files_that_have_four(four):
    data, _ = load_classification(four, validation_split=0.2)
    assert data.channels == 3
    augmentation = ClassificationAugmentation.for_size(16)
    model = network(4)
    for batches in (
        data.training(3, model, augmentation),
        data.evaluation(3, model),
    ):
        images, labels = all_of(batches)
        assert images.shape[1:] == (16, 16, 4)
        assert len(images) == len(labels) >= 6
    ((crops, _), *_) = numpy_of(data.ten_crop(3, model, shift=2))
    assert crops.shape == (3, 10, 16, 16, 4)
    assert data.skipped and all("0.png" in name for name in data.skipped)
    assert all_of(data.evaluation(3, network(3)))[0].shape == (8, 16, 16, 3)


def test_channels_may_be_said_where_the_data_are_read(four, rng):
    train, _ = load_classification(four, channels=4)
    assert train.channels == 4
    assert {image.shape[-1] for image, _ in numpy_of(train.examples())} == {4}
    grey, _ = load_classification(four, channels=1)
    assert all_of(grey.evaluation(4, 16))[0].shape == (8, 16, 16, 1)
    for path in four.rglob("[1-9].png"):
        path.unlink()
        picture(0, rng).save(path)
    with pytest.raises(ValueError, match=r"\.png.*no readable image of 4"):
        load_classification(four, channels=4)
    with pytest.raises(ValueError, match="channels=2"):
        load_classification(four, channels=2)
    with pytest.raises(ValueError, match="`channels` is not an option of dig"):
        load_classification("digits", channels=4)


def test_arrays_of_four_channels_are_taken_as_they_are():
    data = numbered(channels=4)
    assert data.channels == 4
    assert all_of(data.evaluation(4, network(4)))[0].shape == (10, 16, 16, 4)
    with pytest.raises(ValueError, match="of 3 channels"):
        data.evaluation(4, network(3))
