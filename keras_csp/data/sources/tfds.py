"""TensorFlow Datasets: a set by name, and the boxes of one that has them."""

import re

import numpy as np
import tensorflow as tf

from keras_csp._channels import PHOTOGRAPH_CHANNELS
from keras_csp.data.reading import error_summary
from keras_csp.data.sources import records as annotations
from keras_csp.data.sources.folder import TEST_SPLITS

_VERSION = re.compile(r"[0-9]+\.[0-9*]+\.[0-9*]+")


def split_name(text):
    """(name of the set, its split or None) of "NAME" or "NAME:SPLIT".

    TFDS itself writes "NAME:VERSION"; a version is part of the name.
    """
    name, colon, split = text.rpartition(":")
    if not colon or _VERSION.fullmatch(split):
        return text, None
    return name, split


def builder_of(name, data_dir=None):
    """The set's builder, its files downloaded if they are not there.

    Raises:
        ValueError: TFDS is not installed, or the set could not be loaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"tfds:{name} needs tensorflow-datasets: "
            'pip install "keras-csp[tfds]"'
        ) from error
    try:
        options = {} if data_dir is None else {"data_dir": data_dir}
        builder = tfds.builder(name, **options)
        if not builder.is_prepared():
            builder.download_and_prepare()
    except Exception as error:
        summary = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"The TFDS set {name!r} could not be loaded: {summary[0][:200]}"
        ) from error
    return builder


def read_labels(name, validation_split, data_dir):
    """Both splits of a set with an image and a label.

    Args:
        name: of the set.
        validation_split: fraction of "train" that becomes the second split
            where none of the usual names has labels.
        data_dir: TFDS's folder, None for its own.

    Returns:
        Class names; channels; for each split a `tf.data.Dataset` of (name,
        encoded image, label) and its size.

    Raises:
        ValueError: no such set, one without class labels or a split "train",
            or too few images to divide.
    """
    builder = builder_of(name, data_dir)
    features = builder.info.features
    labelled = {"image", "label"} <= set(features)
    if not labelled or not hasattr(features["label"], "names"):
        raise ValueError(
            f"The TFDS set {name!r} has no image and class label; its "
            f"features are {', '.join(sorted(features))}"
        )

    def elements(split):
        return (
            _encoded(builder, split)
            .enumerate()
            .map(
                lambda number, example: (
                    tf.strings.join([split, tf.strings.as_string(number)], "/"),
                    example["image"],
                    example["label"],
                )
            )
        )

    return (
        tuple(features["label"].names),
        _channels(features["image"].shape[-1]),
        [
            (elements(split), builder.info.splits[split].num_examples)
            for split in _both_splits(name, builder, validation_split)
        ],
    )


def _channels(own):
    """In which the images of a set are read: its own, where it says so."""
    return own if own in PHOTOGRAPH_CHANNELS else 3


def _both_splits(name, builder, validation_split):
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(
            f"The TFDS set {name!r} has no split 'train', only {list(splits)}"
        )
    for test in TEST_SPLITS:
        if test in splits and _has_labels(builder, test):
            return "train", test
    size = splits["train"].num_examples
    kept = size - round(validation_split * size)
    if not 0 < kept < size:
        raise ValueError(
            f"The {size} images of the TFDS set {name!r} cannot be divided "
            f"into two parts by validation_split={validation_split!r}"
        )
    return f"train[:{kept}]", f"train[{kept}:]"


def _has_labels(builder, split):
    """The labels of ImageNet's test split, among others, are all -1."""
    examples = _encoded(builder, split).take(1)
    return all(example["label"] >= 0 for example in examples)


def _encoded(builder, split):
    """The split, its images left encoded."""
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )


def read_boxes(name, split, data_dir):
    """The usable images and boxes of a set with `objects`.

    Args:
        name: of the set.
        split: of it.
        data_dir: TFDS's folder, None for its own.

    Returns:
        `Annotations`, and a `tf.data.Dataset` of the encoded images.

    Raises:
        ValueError: no such set or split, or one without boxes.
    """
    dataset, features = _dataset(name, split, data_dir)
    records, faults, kept = [], [], []
    for number, example in enumerate(dataset.as_numpy_iterator()):
        record = _record(number, example, faults)
        kept.append(record is not None)
        records += [record] if record else []
    names = tuple(features["objects"]["label"].names)
    found = annotations.Annotations(
        class_names=names,
        category_ids=tuple(range(len(names))),
        records=tuple(records),
        faults=tuple(faults),
    )
    kept = tf.constant(kept, tf.bool)
    encoded = (
        dataset.map(lambda example: example["image"])
        .enumerate()
        .filter(lambda number, _image: kept[number])
        .map(lambda _number, image: image)
    )
    return found, encoded


def _dataset(name, split, data_dir):
    """The split, its images left encoded, and the set's features."""
    builder = builder_of(name, data_dir)
    features = builder.info.features
    found = set(features)
    if "objects" in found:
        found |= set(getattr(features["objects"], "feature", ()))
    if not {"image", "objects", "bbox", "label"} <= found:
        raise ValueError(
            f"The TFDS set {name!r} has no image with objects of bbox and "
            f"label; its features are {', '.join(sorted(features))}"
        )
    try:
        dataset = _encoded(builder, split)
    except ValueError as error:
        raise ValueError(
            f"The TFDS set {name!r} has no split {split!r}, only "
            f"{', '.join(builder.info.splits)}"
        ) from error
    return dataset, features


def _record(number, example, faults):
    image_id = example.get("image/id", number)
    if not isinstance(image_id, (int, np.integer)):
        image_id = number
    name = example.get("image/filename", b"").decode().strip()
    name = name or str(image_id)
    try:
        height, width = _image_size(example["image"])
    except tf.errors.OpError as error:
        faults.append(
            annotations.Fault(image_id, name, None, error_summary(error))
        )
        return None
    objects = []
    for index, (box, *rest) in enumerate(_objects(example["objects"])):
        y1, x1, y2, x2 = map(float, box)
        corners = x1 * width, y1 * height, x2 * width, y2 * height
        corners, reason = annotations.checked_box(corners, width, height)
        if reason:
            faults.append(annotations.Fault(image_id, name, index, reason))
        else:
            objects.append((corners, *rest))
    return annotations.record((image_id, name, width, height), objects)


def _objects(found):
    """Rows of box, label, whether to be ignored, and area or None."""
    count = len(found["label"])
    ignored = np.zeros(count, "bool")
    for flag in ("is_crowd", "is_difficult"):
        ignored |= np.asarray(found.get(flag, ignored), "bool")
    area = found.get("area", [None] * count)
    return zip(found["bbox"], found["label"], ignored, area)


def _image_size(encoded):
    if encoded[:2] == b"\xff\xd8":
        return tuple(map(int, tf.io.extract_jpeg_shape(encoded)[:2]))
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tuple(image.shape[:2])
