"""Classification data: digits, a folder of class folders, or TFDS."""

import concurrent.futures
import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_csp.data.tfds import builder_of

_HELD_OUT = 0.2  # of a set that comes without a test split
_TEST_SPLITS = ("test", "val", "validation")
_SHUFFLE_BUFFER = 10_000


@dataclasses.dataclass(frozen=True)
class ClassificationData:
    """Two data sets and what they hold.

    Attributes:
        train, test: `tf.data.Dataset` of batches (images, labels): float32
            `(batch, *image_shape)` in [0, 1], and integers.
        class_names: the name of each label.
        image_shape: `(height, width, channels)`.
        train_size, test_size: images in each.
    """

    train: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple
    image_shape: tuple
    train_size: int
    test_size: int


def load_classification(
    source="digits", image_size=None, batch_size=32, seed=0
):
    """Reads a classification set, resized to squares, split in two.

    Args:
        source: "digits" (default): scikit-learn's 1,797 real handwritten
            digits, no download; "tfds:NAME": a TensorFlow Datasets set with
            an image and a label; else the path of a folder of class folders,
            or of a folder with `train` and `test` (or `val`) folders of such.
        image_size: side of the images. Default 32 for digits, else 64.
        batch_size: default 32.
        seed: of the shuffling, and of the split where 20 % are held out for
            lack of a test split.

    Returns:
        A `ClassificationData`.

    Raises:
        ValueError: one line: a path that is no folder, no images, fewer than
            two classes, an unreadable image (named), or no such TFDS set.
    """
    if source == "digits":
        return _digits(image_size or 32, batch_size, seed)
    if str(source).startswith("tfds:"):
        name = str(source).removeprefix("tfds:")
        return _tfds(name, image_size or 64, batch_size, seed)
    return _folder(pathlib.Path(source), image_size or 64, batch_size, seed)


def _digits(image_size, batch_size, seed):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.asarray(digits.images, "float32")[..., None] / 16.0
    images = np.asarray(tf.image.resize(images, (image_size, image_size)))
    parts = train_test_split(
        images,
        digits.target,
        test_size=_HELD_OUT,
        stratify=digits.target,
        random_state=seed,
    )
    train_images, test_images, train_labels, test_labels = parts

    def batches(images, labels, shuffle):
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
        return _batched(dataset, len(labels), batch_size, seed, shuffle)

    return ClassificationData(
        train=batches(train_images, train_labels, True),
        test=batches(test_images, test_labels, False),
        class_names=tuple(map(str, digits.target_names)),
        image_shape=images.shape[1:],
        train_size=len(train_labels),
        test_size=len(test_labels),
    )


def _folder(path, image_size, batch_size, seed):
    if not path.is_dir():
        raise ValueError(f"The data folder does not exist: {path}")
    options = {
        "image_size": (image_size, image_size),
        "crop_to_aspect_ratio": True,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": False,
    }
    test_path = next(
        (path / name for name in _TEST_SPLITS if (path / name).is_dir()), None
    )
    if (path / "train").is_dir() and test_path:
        train = _read(path / "train", options)
        test = _read(test_path, options)
    else:
        train, test = _read(
            path,
            {**options, "validation_split": _HELD_OUT, "subset": "both"},
        )
    _check_folder(path, train, test)
    return ClassificationData(
        train=_scaled(train),
        test=_scaled(test),
        class_names=tuple(train.class_names),
        image_shape=(image_size, image_size, 3),
        train_size=len(train.file_paths),
        test_size=len(test.file_paths),
    )


def _read(path, options):
    try:
        return keras.utils.image_dataset_from_directory(path, **options)
    except ValueError as error:
        summary = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} is not a folder with one folder of JPEG, PNG, BMP or GIF "
            f"images for each class: {summary}"
        ) from error


def _check_folder(path, train, test):
    if train.class_names != test.class_names:
        raise ValueError(
            f"The classes of the two splits of {path} differ: "
            f"{train.class_names} and {test.class_names}"
        )
    if len(train.class_names) < 2:
        raise ValueError(
            f"{path} has one class, {train.class_names[0]!r}; there must be "
            "at least two class folders"
        )
    paths = [*train.file_paths, *test.file_paths]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for name, fault in zip(paths, threads.map(_fault, paths)):
            if fault:
                raise ValueError(f"Unreadable image {name}: {fault}")


def _fault(path):
    """Why the file is no image, as the pipeline's own decoder says."""
    try:
        image = tf.io.decode_image(
            tf.io.read_file(path), channels=3, expand_animations=False
        )
    except (tf.errors.OpError, OSError) as error:
        return (error.message if hasattr(error, "message") else str(error))[:80]
    return "" if min(image.shape[:2]) > 0 else "it has no pixels"


def _scaled(dataset):
    return dataset.map(
        lambda images, labels: (images / 255.0, labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def _tfds(name, image_size, batch_size, seed):
    builder = builder_of(name)
    features = builder.info.features
    labelled = {"image", "label"} <= set(features)
    if not labelled or not hasattr(features["label"], "names"):
        raise ValueError(
            f"The TFDS set {name!r} has no image and class label; its "
            f"features are {', '.join(sorted(features))}"
        )
    splits = builder.info.splits
    test = next((s for s in _TEST_SPLITS if s in splits), "")
    kept = round(100 * (1 - _HELD_OUT))
    train_split = "train" if test else f"train[:{kept}%]"
    test_split = test or f"train[{kept}%:]"
    channels = features["image"].shape[-1] or 3

    def prepared(image, label):
        image = tf.image.resize(image, (image_size, image_size))
        return image / 255.0, label

    def batches(split, shuffle):
        dataset = builder.as_dataset(split=split, as_supervised=True)
        dataset = dataset.map(prepared, num_parallel_calls=tf.data.AUTOTUNE)
        return _batched(
            dataset, splits[split].num_examples, batch_size, seed, shuffle
        )

    return ClassificationData(
        train=batches(train_split, True),
        test=batches(test_split, False),
        class_names=tuple(features["label"].names),
        image_shape=(image_size, image_size, channels),
        train_size=splits[train_split].num_examples,
        test_size=splits[test_split].num_examples,
    )


def _batched(dataset, size, batch_size, seed, shuffle):
    if shuffle:
        dataset = dataset.shuffle(min(size, _SHUFFLE_BUFFER), seed=seed)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
