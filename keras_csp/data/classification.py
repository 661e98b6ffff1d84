"""Classification data: digits, class folders, TFDS, or your own data set."""

import dataclasses
import inspect
import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_csp._channels import PHOTOGRAPH_CHANNELS, in_channels
from keras_csp._validation import check_choice, check_positive, is_integer
from keras_csp.data.classification_augmentation import (
    ClassificationAugmentation,
    mixed,
    viewer,
)
from keras_csp.data.random_ops import checked
from keras_csp.data.reading import Reader, mapped
from keras_csp.data.resizing import fit_image
from keras_csp.data.sources import find_reader, tfds
from keras_csp.data.sources.folder import read_folder, splits_of
from keras_csp.data.ten_crops import SHIFT, ten_crops
from keras_csp.layers.preprocessing import as_spec

# Of images; of a folder all are shuffled, by name.
_SHUFFLE_BUFFER = 10_000


def load_classification(
    source="digits",
    validation_split=0.2,
    seed=0,
    on_error="skip",
    data_dir=None,
    channels=None,
):
    """Reads a classification set in two splits; images are decoded when used.

    Args:
        source: "digits" (default): scikit-learn's 1,797 real handwritten
            digits, no download; "tfds:NAME": a TensorFlow Datasets set with
            an image and a label; what a reader that you have entered in
            `keras_csp.data.CLASSIFICATION_SOURCES` reads; else the path of a
            folder of class folders, or of one with `train` and `test` (or
            `val`) folders of such. A class folder without images stays a
            class, with a warning.
        validation_split: fraction of the images that becomes the second
            split where there is no `test`, `val` or `validation`. Default 0.2.
        seed: for choosing those images. Default 0.
        on_error: "skip" (default) leaves unreadable images out where they are
            met, names each in a warning and counts them in `skipped`;
            "raise" decodes all images now and raises.
        data_dir: TFDS's folder. Default TFDS's own.
        channels: in which image files are read: 3, 1 (grey) or 4, of files
            that have a fourth channel, e.g. PNG files in RGBA. Default: 3, or
            those of the TFDS set. A model that is given to `training` or
            `evaluation` gets its own.

    Returns:
        Two `ClassificationData`: for training and for testing.

    Raises:
        ValueError: one line: a path that is not a folder, no readable images
            in a split, fewer than two classes, too few images to divide, an
            unreadable image with `on_error="raise"`, no such TFDS set, or an
            option that the source does not have.
    """
    check_choice("on_error", on_error, ("skip", "raise"))
    if not isinstance(validation_split, float) or not 0 < validation_split < 1:
        raise ValueError(
            "`validation_split` must be between 0 and 1. Received: "
            f"validation_split={validation_split!r}"
        )
    _check_seed(seed)
    if channels is not None:
        check_choice("channels", channels, PHOTOGRAPH_CHANNELS)
    reader, name, prefix = find_reader(
        source, CLASSIFICATION_SOURCES, read_folders
    )
    given = {"data_dir": data_dir, "channels": channels}
    given = {k: v for k, v in given.items() if v is not None}
    taken = inspect.signature(reader).parameters
    for option, value in given.items():
        if option not in taken:
            raise ValueError(
                f"`{option}` is not an option of {prefix or 'folder'} sources. "
                f"Received: source={str(source)!r}, {option}={str(value)!r}"
            )
    options = {"validation_split": validation_split, "seed": seed, **given}
    options = {k: v for k, v in options.items() if k in taken}
    pair = reader(name, **options)
    if on_error == "raise":
        for data in pair:
            data.check()
    return pair


@dataclasses.dataclass(frozen=True, eq=False)
class ClassificationData:
    """Images with labels; `load_classification` reads them.

    Attributes:
        class_names: tuple, the name of each label.
        size: the number of images.
        channels: of the images, 3, 1 or 4.

    Raises:
        ValueError: none of the images can be read.
    """

    class_names: tuple
    size: int
    channels: int
    # Of (name, uint8 image or encoded string, label).
    _elements: tf.data.Dataset = dataclasses.field(repr=False)
    _reader: Reader = dataclasses.field(repr=False)
    _buffer: int = dataclasses.field(repr=False)

    def __post_init__(self):
        # One is enough for an epoch to be filled.
        if not any(True for _ in self.examples().take(1)):
            kind = " of 4 channels" if self.channels == 4 else ""
            raise ValueError(
                f"{self._fault()}: there is no readable image{kind}"
            )

    @classmethod
    def from_dataset(cls, dataset, class_names, size=None):
        """The data of a `tf.data.Dataset` of single (image, label).

        Args:
            dataset: image uint8 `(h, w, channels)`, of 3, 1 or 4 channels, or
                a scalar string, an encoded image; label a scalar integer.
            class_names: the name of each label.
            size: the number of images, where the data set does not know it.

        Raises:
            ValueError: elements of another kind, an unknown size, or no
                readable image.
        """
        image, _label = _checked_spec(dataset)
        channels = 3 if image.dtype == tf.string else image.shape[-1]
        size = _checked_size(int(dataset.cardinality()), size)
        elements = dataset.take(size).enumerate()
        elements = elements.map(
            lambda number, pair: (tf.strings.as_string(number), *pair)
        )
        return _of_elements(elements, size, class_names, channels)

    @property
    def skipped(self):
        """Names of the images met so far that could not be read, sorted."""
        return tuple(sorted(map(self._reader.shown, self._reader.warned)))

    def first(self, number):
        """The same data with the first `number` images only.

        Those of a folder are of all classes in turn.
        """
        check_positive("number", number)
        size = min(number, self.size)
        return self._with(self._elements.take(size), size)

    def shard(self, count, index):
        """Every `count`-th image from `index` on: one host's shard.

        The first shards may have an image more than the others.
        """
        check_positive("count", count)
        if not is_integer(index) or not 0 <= index < count:
            raise ValueError(
                f"`index` must be from 0 to {count - 1}. Received: "
                f"index={index!r}"
            )
        size = len(range(index, self.size, count))
        if not size:
            raise ValueError(
                f"{self.size} images are too few for so many shards. Received: "
                f"count={count}, index={index}"
            )
        return self._with(self._elements.shard(count, index), size)

    def examples(self):
        """The images as they are, without those that cannot be read.

        Returns:
            `tf.data.Dataset` of uint8 `(h, w, channels)`, upright, and int32
            labels, in the set's order.
        """
        return self._decoded(self._elements)

    def training(
        self,
        batch_size,
        spec,
        augmentation=None,
        seed=0,
        drop_remainder=False,
    ):
        """Augmented batches, in a new order every epoch.

        The files of a folder are shuffled by name; of other data at most
        10,000 images, encoded if they come so, are held to draw from.

        Args:
            batch_size: the last batch may have fewer.
            spec: how images are brought to the network: a model, whose
                `ImageSpec` is read, an `ImageSpec`, or the side of a square.
            augmentation: a `ClassificationAugmentation`. Default: the
                paper's.
            seed: the same one gives the same epochs, bit for bit (TensorFlow
                mixes its global seed in, if one is set). Default 0.
            drop_remainder: leave a smaller last batch out. Default False.

        Returns:
            `tf.data.Dataset` of float32 `(batch, size, size, channels)` in
            [0, 1], and float32 `(batch, classes)` that add up to 1. Images are
            converted to the channels of a model: to grey by their luminance,
            or from grey to three equal channels; a model of four gets the
            files that have four. An epoch has as many images as the set: an
            unreadable one's place is taken by another. `len` is the number of
            batches.
        """
        check_positive("batch_size", batch_size)
        spec, channels = as_spec(spec, "crop")
        data = self._for_network(channels)
        if spec.size[0] != spec.size[1]:
            raise ValueError(
                "A training's random crops are squares. Received: "
                f"size={spec.size}"
            )
        _check_seed(seed)
        batches = -(-self.size // batch_size)
        if drop_remainder:
            batches = self.size // batch_size
            if not batches:
                raise ValueError(
                    f"{self.size} images do not fill a batch. Received: "
                    f"batch_size={batch_size}, drop_remainder=True"
                )
        augmentation = checked(augmentation, ClassificationAugmentation)
        view = viewer(augmentation, spec.size[0])
        examples = data._decoded(
            self._elements.shuffle(
                self._buffer, seed=seed, reshuffle_each_iteration=True
            )
        )
        # One round; unreadable images are replaced from the next one.
        examples = examples.repeat().take(self.size)
        draws = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)

        def prepared(example, draw):
            image, label = example
            pixels = view(image, tf.stack([seed, draw]))
            return data._pair(pixels, label, spec.size, channels)

        dataset = mapped(tf.data.Dataset.zip(examples, draws), prepared)
        dataset = dataset.batch(batch_size, drop_remainder)
        dataset = mixed(augmentation, dataset, seed)
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(batches)
        )
        return dataset.prefetch(tf.data.AUTOTUNE)

    def evaluation(self, batch_size, spec):
        """Batches in the set's order, without augmentation.

        Args:
            batch_size: the last batch may have fewer.
            spec: a model, whose `ImageSpec` is read, an `ImageSpec`, or a
                side or (height, width), which is cut from the middle, as in
                the paper. Its `resize`, `crop` and `interpolation` apply.

        Returns:
            As `training`. Unreadable images are left out.
        """
        spec, channels = as_spec(spec, "crop")
        return self._views(
            lambda image: fit_image(image, spec)[0],
            batch_size,
            spec.size,
            channels,
        )

    def ten_crop(self, batch_size, spec, shift=SHIFT):
        """Batches in the set's order: the paper's ten crops of each image.

        Args:
            batch_size: images; each counts tenfold.
            spec: as for `training`. Only its size is used, which must be
                square.
            shift: pixels between them. Default 32.

        Returns:
            `tf.data.Dataset` of float32 `(batch, 10, size, size, channels)`
            in [0, 1], and float32 `(batch, classes)`.
        """
        check_positive("shift", shift)
        spec, channels = as_spec(spec, "crop")
        if spec.size[0] != spec.size[1]:
            raise ValueError(
                f"Ten crops are squares. Received: size={spec.size}"
            )
        return self._views(
            lambda image: ten_crops(image, spec.size[0], shift),
            batch_size,
            spec.size,
            channels,
        )

    def check(self):
        """Decodes every image; ValueError names the first unreadable one."""
        for _ in self.examples():
            pass
        if self.skipped:
            raise ValueError(self._fault())

    def _fault(self):
        if not self.skipped:
            return "No images"
        first, *others = self.skipped
        more = f" and {len(others)} more" if others else ""
        return f"Unreadable image {first}{more}"

    def _for_network(self, channels):
        """The data, files read as a network of so many channels needs them."""
        files = self._elements.element_spec[1].dtype == tf.string
        reader = self._reader.for_network(channels) if files else self._reader
        if reader is self._reader:
            return self
        return dataclasses.replace(
            self, channels=reader.channels, _reader=reader
        )

    def _with(self, elements, size):
        return dataclasses.replace(
            self, _elements=elements, size=size, _buffer=min(size, self._buffer)
        )

    def _decoded(self, elements):
        classes = len(self.class_names)

        def decoded(name, content, label):
            label = tf.cast(label, tf.int32)
            known = (label >= 0) & (label < classes)
            message = f"A label is not from 0 to {classes - 1}; image and label"
            tf.debugging.Assert(known, [message, name, label])
            if content.dtype == tf.string:
                content = self._reader.read(name, None, content)
            return content, label

        return mapped(elements, decoded).filter(
            lambda image, _label: tf.size(image) > 0
        )

    def _views(self, view, batch_size, size, channels):
        """Batches of what `view` makes of each image, in the set's order."""
        check_positive("batch_size", batch_size)
        data = self._for_network(channels)

        def prepared(image, label):
            return data._pair(view(image), label, size, channels)

        dataset = mapped(data.examples(), prepared).batch(batch_size)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _pair(self, pixels, label, size, channels):
        shape = (*pixels.shape[:-3], *size, self.channels)
        return (
            in_channels(tf.ensure_shape(pixels, shape), channels),
            tf.one_hot(label, len(self.class_names)),
        )


def read_digits(_name, validation_split, seed):
    """scikit-learn's digits, in two splits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype("uint8")
    names = tuple(map(str, digits.target_names))
    return tuple(
        ClassificationData.from_dataset(
            tf.data.Dataset.from_tensor_slices(
                (images[part], digits.target[part])
            ),
            names,
        )
        for part in _split(digits.target, validation_split, seed)
    )


def _split(labels, validation_split, seed):
    """Numbers of both parts, each class divided alike."""
    from sklearn.model_selection import train_test_split

    try:
        return train_test_split(
            np.arange(len(labels)),
            test_size=validation_split,
            stratify=labels,
            random_state=seed,
        )
    except ValueError as error:
        raise ValueError(
            "The images cannot be divided into two parts that have every "
            f"class: {error}"
        ) from error


def read_folders(path, validation_split, seed, channels=3):
    """Folders of class folders, in two splits."""
    path = pathlib.Path(path)
    if not path.is_dir():
        raise ValueError(f"The data folder does not exist: {path}")
    train, test = splits_of(path)
    if test is None:
        names, files, labels = read_folder(path)
        return tuple(
            _of_files(
                path,
                names,
                [files[i] for i in part],
                [labels[i] for i in part],
                channels,
            )
            for part in _split(labels, validation_split, seed)
        )
    found = {part: read_folder(part) for part in (train, test)}
    if found[train][0] != found[test][0]:
        raise ValueError(
            f"The classes of the two splits of {path} differ: "
            f"{list(found[train][0])} and {list(found[test][0])}"
        )
    return tuple(
        _of_files(part, *content, channels) for part, content in found.items()
    )


def _of_files(path, names, files, labels, channels):
    size = len(files)
    files = [os.fsencode(file) for file in files]
    return ClassificationData(
        class_names=names,
        size=size,
        channels=channels,
        _elements=tf.data.Dataset.from_tensor_slices(
            (files, [""] * size, labels)
        ),
        _reader=Reader(path, channels, upright=True),
        _buffer=size,
    )


def read_tfds(name, validation_split, data_dir=None, channels=None):
    """A set of TensorFlow Datasets, in two splits."""
    found, split = tfds.split_name(name)
    if split:
        raise ValueError(
            "Classification data come in two splits, which are found by name; "
            f"give tfds:{found}. Received: source='tfds:{name}'"
        )
    names, own, splits = tfds.read_labels(name, validation_split, data_dir)
    return tuple(
        _of_elements(elements, size, names, channels or own)
        for elements, size in splits
    )


# {prefix: reader}: the function that reads the sources of a prefix, e.g.
# "csv:". It takes the text after the prefix and those of `validation_split`,
# `seed`, `data_dir` and `channels` that it has an argument for, and returns two
# `ClassificationData`, e.g. by `from_dataset`. A prefix without a colon is the
# whole source. Enter your own.
CLASSIFICATION_SOURCES = {"digits": read_digits, "tfds:": read_tfds}


def _of_elements(elements, size, names, channels):
    """Of (name, image, label), the image as pixels or encoded."""
    return ClassificationData(
        class_names=tuple(names),
        size=size,
        channels=channels,
        _elements=elements,
        _reader=Reader(channels=channels, upright=True),
        _buffer=min(size, _SHUFFLE_BUFFER),
    )


def _checked_spec(dataset):
    spec = getattr(dataset, "element_spec", type(dataset).__name__)
    fits = isinstance(spec, tuple) and len(spec) == 2
    fits = fits and all(isinstance(part, tf.TensorSpec) for part in spec)
    if fits:
        image, label = spec
        encoded = image.dtype == tf.string and image.shape.rank == 0
        pixels = image.dtype == tf.uint8 and image.shape.rank == 3
        known = pixels and image.shape[-1] in PHOTOGRAPH_CHANNELS
        fits = (encoded or known) and (
            label.dtype.is_integer and label.shape.rank == 0
        )
    if not fits:
        raise ValueError(
            "A data set must give single (image, label): the image uint8 of "
            "shape (height, width, channels) with 1, 3 or 4 channels, or an "
            "encoded string, the label a scalar integer. Received: "
            f"{spec}"
        )
    return image, label


def _checked_size(known, size):
    """The number of images, from the data set or as it is given."""
    if size is None and known < 0:
        raise ValueError(
            "The data set does not know its number of images; give `size`. "
            "Received: size=None"
        )
    if size is None:
        return known
    check_positive("size", size)
    if known >= 0 and known != size:
        raise ValueError(
            f"The data set has {known} images; use `first` for fewer. "
            f"Received: size={size}"
        )
    return size


def _check_seed(seed):
    if not is_integer(seed) or not 0 <= seed < 1 << 31:
        raise ValueError(
            f"`seed` must be an integer from 0 to 2^31 - 1. Received: "
            f"seed={seed!r}"
        )
