"""Detection data: images and boxes, from files, TFDS or records."""

import dataclasses
import inspect
import logging
import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_csp._channels import PHOTOGRAPH_CHANNELS, in_channels
from keras_csp._validation import check_choice, check_positive, is_integer
from keras_csp.data.detection_augmentation import (
    DetectionAugmentation,
    augmented,
)
from keras_csp.data.random_ops import checked
from keras_csp.data.reading import Reader, Table, mapped
from keras_csp.data.resizing import fit_image, placed
from keras_csp.data.sources import coco, find_reader, tfds
from keras_csp.data.sources.records import check_records
from keras_csp.layers.preprocessing import as_spec

_LOGGER = logging.getLogger("keras_csp")
_STRIDE = 32
_NAMED = 3  # faults quoted in a message
# Of encoded images; of a COCO JSON all are shuffled, by number.
_SHUFFLE_BUFFER = 1000
_PARTNERS = 3  # of an image in a mosaic
# What a target that is per box has where an image has fewer boxes.
_PADDING = {
    "boxes": 0,
    "labels": -1,
    "ignore": 0,
    "crowd": False,
    "area": 0,
    "original_boxes": 0,
}


def load_detection(
    source,
    images=None,
    split=None,
    on_error="skip",
    data_dir=None,
    channels=None,
):
    """Reads a detection set; images are decoded only when used.

    Args:
        source: the path of a JSON in COCO's format, or "tfds:NAME" or
            "tfds:NAME:SPLIT", a TensorFlow Datasets set with `objects` of
            `bbox` and `label`; or what a reader that you have entered in
            `keras_csp.data.DETECTION_SOURCES` reads.
        images: the folder of the JSON's images. Default: of `set/train`,
            `set/annotations/train` and `set/annotations` for
            `set/annotations/instances_train.json` or `train.json` there, the
            first that holds one of the images.
        split: of a TFDS set. Default "train".
        on_error: "skip" (default) leaves faulty boxes and images out, names
            the first in a warning and keeps all in `faults`; "raise" raises.
        data_dir: TFDS's folder. Default TFDS's own.
        channels: in which the files are read: 3, 1 (grey) or 4, of files that
            have a fourth channel, e.g. PNG files in RGBA. Default 3. A model
            that is given to `training` or `evaluation` gets its own.

    Returns:
        A `DetectionData`.

    Raises:
        ValueError: what is not COCO's format, no image folder, no usable
            image, no such TFDS set or one without boxes; faults, with
            `on_error="raise"`; an option that the source does not have.
    """
    check_choice("on_error", on_error, ("skip", "raise"))
    if channels is not None:
        check_choice("channels", channels, PHOTOGRAPH_CHANNELS)
    options = {
        "images": images,
        "split": split,
        "data_dir": data_dir,
        "channels": channels,
    }
    options = {k: v for k, v in options.items() if v is not None}
    reader, name, prefix = find_reader(source, DETECTION_SOURCES, read_coco)
    taken = inspect.signature(reader).parameters
    for option, value in options.items():
        if option not in taken:
            raise ValueError(
                f"`{option}` is not an option of {prefix or 'COCO JSON'} "
                f"sources. Received: source={str(source)!r}, {option}={value!r}"
            )
    return reader(name, on_error=on_error, **options)


def read_coco(path, images=None, on_error="skip", channels=3):
    """The `DetectionData` of a JSON in COCO's format."""
    found, folder = coco.read_coco(pathlib.Path(path), images)
    return _data(path, found, Reader(folder, channels), on_error)


def read_tfds(name, split=None, data_dir=None, on_error="skip", channels=3):
    """The `DetectionData` of a TFDS set, NAME or NAME:SPLIT."""
    name, own = tfds.split_name(name)
    if own and split:
        raise ValueError(
            "A split is given twice. Received: "
            f"source='tfds:{name}:{own}', split={split!r}"
        )
    found, encoded = tfds.read_boxes(name, split or own or "train", data_dir)
    reader = Reader(channels=channels)
    return _data(f"tfds:{name}", found, reader, on_error, encoded)


# {prefix: reader}: the function that reads the sources of a prefix, e.g.
# "voc:". It takes the text after the prefix, `on_error`, and those of `images`,
# `split`, `data_dir` and `channels` that it has an argument for, and returns a
# `DetectionData`, e.g. by `from_records`. Enter your own.
DETECTION_SOURCES = {"tfds:": read_tfds}


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionData:
    """Images with boxes; `load_detection` reads them.

    Attributes:
        class_names: tuple, the name of each label.
        category_ids: tuple, the JSON's id of each label.
        faults: tuple of `Fault`, what was left out.
        size: the number of images, those without objects included.
        channels: in which the images are read.
    """

    class_names: tuple
    category_ids: tuple
    faults: tuple
    _records: tuple = dataclasses.field(repr=False)
    _reader: "Reader" = dataclasses.field(repr=False)
    # The images of a TFDS set; those of a JSON are files.
    _encoded: object = dataclasses.field(default=None, repr=False)

    @classmethod
    def from_records(
        cls, records, class_names, images=".", on_error="skip", channels=3
    ):
        """Your own images and boxes, checked as those of a file are.

        Args:
            records: an iterable of `keras_csp.data.ImageRecord`.
            class_names: the name of each label.
            images: the folder of the images. Default: the current one.
            on_error: "skip" (default) leaves faulty boxes and images out,
                names the first in a warning and keeps all in `faults`;
                "raise" raises.
            channels: as of `load_detection`.

        Raises:
            ValueError: no usable image, no such folder, class names that are
                not different texts, a record whose fields differ in length,
                or faults with `on_error="raise"`.
        """
        check_choice("on_error", on_error, ("skip", "raise"))
        check_choice("channels", channels, PHOTOGRAPH_CHANNELS)
        found = check_records(records, class_names, images)
        reader = Reader(images, channels)
        return _data("The records", found, reader, on_error)

    @property
    def size(self):
        return len(self._records)

    @property
    def channels(self):
        return self._reader.channels

    def first(self, number):
        """The same data with the first `number` images only."""
        check_positive("number", number)
        return dataclasses.replace(self, _records=self._records[:number])

    def box_sizes(self, spec=416):
        """Width and height of the boxes in a network's input.

        Args:
            spec: as for `evaluation`. Boxes that a crop would cut, or drop,
                are taken whole.

        Returns:
            float32 `(boxes, 2)` in pixels, without crowd boxes.
        """
        spec, _channels = as_spec(spec, "letterbox")
        images = [(record.height, record.width) for record in self._records]
        view = placed(images, spec.size, spec.resize, spec.crop)
        sizes = [
            (record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd] * scale
            for record, scale in zip(self._records, view.scale.numpy()[:, ::-1])
        ]
        return np.concatenate([np.zeros((0, 2), "float32"), *sizes])

    def examples(self):
        """The images as they are.

        Returns:
            `tf.data.Dataset` of dicts: `image` uint8 `(h, w, channels)`;
            `boxes` float32 `(n, 4)`, x1, y1, x2, y2 in its pixels; `labels`
            int32 `(n,)`; `crowd` bool `(n,)`; `area` float32 `(n,)`, square
            pixels; `image_id` int64.
        """
        return _decoded(self._items(), self._decoder())

    def training(
        self,
        batch_size,
        spec=416,
        augmentation=None,
        seed=0,
        repeat=False,
        limit=None,
        sizes=None,
    ):
        """Augmented batches, in a new order every epoch.

        Args:
            batch_size: the last batch may have fewer.
            spec: how images are brought to the network: a model, whose
                `ImageSpec` is read, an `ImageSpec`, or a side, letterboxed.
                A tuple or list is several sizes, as `sizes`. Default 416.
            augmentation: default `DetectionAugmentation()`.
            seed: the same one gives the same epochs, bit for bit (TensorFlow
                mixes its global seed in, if one is set). Default 0.
            repeat: True never ends, and fills every batch. Default False.
            limit: use the first so many images only. Default all.
            sizes: several sizes, each a side or (height, width), instead of
                that of `spec`; every batch takes one of them at random:
                (320, 416) are two squares, ((320, 256),) is one rectangle.

        Returns:
            `tf.data.Dataset` of (images, targets): float32
            `(batch, height, width, channels)` in [0, 1], and a dict of `boxes`
            float32 `(batch, m, 4)`, x1, y1, x2, y2 in pixels of the image;
            `labels` int32 `(batch, m)`; and `ignore` float32 `(batch, k, 4)`,
            the crowd boxes: regions where nothing is background. m is the
            most boxes of an image of the batch, at least 1; what is missing to
            it has label -1 and zeros; k and zeros likewise. A model of one
            channel gets grey images; one of four the files that have four,
            the others being skipped with a warning.

        Raises:
            ValueError: an argument out of range, or no file of four channels
                for such a model.
        """
        check_positive("batch_size", batch_size)
        spec, sizes, channels = _sizes(spec, sizes)
        augmentation = checked(augmentation, DetectionAugmentation)
        if augmentation.rotate90 and any(len(set(size)) > 1 for size in sizes):
            raise ValueError(
                f"`rotate90` needs square images. Received: sizes={sizes}"
            )
        data = self if limit is None else self.first(limit)
        data = data._for_network(channels)
        decode = data._decoder()
        examples = _decoded(data._shuffled(seed), decode)
        parts = {
            "example": examples.repeat() if repeat else examples,
            "draw": tf.data.Dataset.random(
                seed, rerandomize_each_iteration=True
            ),
            "size": _batch_sizes(sizes, batch_size, seed),
        }
        if augmentation.mosaic:
            others = data._shuffled(seed + 1).repeat()
            parts["others"] = others.batch(_PARTNERS)
        fixed = sizes[0] if len(sizes) == 1 else None

        def prepared(part):
            pixels, boxes, labels = augmented(
                augmentation,
                _learned(part["example"]),
                spec,
                fixed or part["size"],
                tf.stack([tf.cast(seed, "int64"), part["draw"]]),
                lambda: [
                    _learned(_first_usable(other, part["example"]))
                    for other in _unstacked(decode, part["others"])
                ],
            )
            shape = (*(fixed or (None, None)), data.channels)
            pixels = in_channels(tf.ensure_shape(pixels, shape), channels)
            return pixels, _targets(boxes, labels)

        return _batched(
            mapped(tf.data.Dataset.zip(parts), prepared), batch_size
        )

    def evaluation(self, batch_size, spec=416):
        """Batches in the set's order, without augmentation.

        Args:
            batch_size: the last batch may have fewer.
            spec: a model, whose `ImageSpec` is read, an `ImageSpec`, or a
                side or (height, width), letterboxed. Default 416.

        Returns:
            As `training`, the crowd boxes among `boxes`. The targets also have
            `crowd` bool `(batch, m)`; `area` float32 `(batch, m)`, square
            pixels of the original; `image_id` int64 `(batch,)`;
            `original_boxes` float32 `(batch, m, 4)`, in its pixels; `view`
            float32 `(batch, 4)`, (scale_x, scale_y, left, top) of point =
            original * scale + (left, top).
        """
        check_positive("batch_size", batch_size)
        _check_sizes("spec", spec)
        spec, channels = as_spec(spec, "letterbox")
        data = self._for_network(channels)

        def prepared(example):
            pixels, view = fit_image(example["image"], spec)
            pixels = tf.ensure_shape(pixels, (*spec.size, data.channels))
            return in_channels(pixels, channels), {
                "boxes": view.boxes(example["boxes"]),
                "labels": example["labels"],
                "crowd": example["crowd"],
                "area": example["area"],
                "image_id": example["image_id"],
                "original_boxes": example["boxes"],
                "view": view.numbers(),
            }

        return _batched(mapped(data.examples(), prepared), batch_size)

    def _for_network(self, channels):
        """The data read as a network of so many channels needs them."""
        reader = self._reader.for_network(channels)
        data = dataclasses.replace(self, _reader=reader)
        if reader.channels == 4 and not any(data.examples().take(1)):
            raise ValueError(
                "None of the images can be read in 4 channels; the first is "
                f"{reader.shown(os.fsencode(self._records[0].file_name))}"
            )
        return data

    def _items(self):
        """Pairs of a record's number and its encoded image, if any."""
        numbers = tf.data.Dataset.range(self.size)
        if self._encoded is None:
            return numbers.map(lambda number: (number, b""))
        return tf.data.Dataset.zip(numbers, self._encoded)

    def _shuffled(self, seed):
        buffer = self.size
        if self._encoded is not None:
            buffer = min(buffer, _SHUFFLE_BUFFER)
        return self._items().shuffle(
            buffer, seed=seed, reshuffle_each_iteration=True
        )

    def _decoder(self):
        """Maps a number and an encoded image to the record as a dict.

        Its `image` is empty if it cannot be used.
        """
        table = Table(self._records)
        read = self._reader.read

        def decode(number, encoded):
            name, size = table.names[number], table.sizes[number]
            image = read(name, size, encoded)
            return {"image": image, **table.row(number)}

        return decode


def _data(source, found, reader, on_error, encoded=None):
    if not found.records:
        first = f"; first fault: {found.faults[0]}" if found.faults else ""
        raise ValueError(f"{source}: there is no usable image{first}")
    _report(source, found.faults, on_error)
    return DetectionData(
        class_names=found.class_names,
        category_ids=found.category_ids,
        faults=found.faults,
        _records=found.records,
        _reader=reader,
        _encoded=encoded,
    )


def _report(source, faults, on_error):
    if not faults:
        return
    named = "; ".join(map(str, faults[:_NAMED]))
    more = ", ..." if len(faults) > _NAMED else ""
    boxes = sum(fault.annotation_id is not None for fault in faults)
    counts = f"{boxes} faulty boxes and {len(faults) - boxes} faulty images"
    if on_error == "raise":
        raise ValueError(f"{source}: {counts}: {named}{more}")
    _LOGGER.warning("%s: left out %s: %s%s", source, counts, named, more)


def _learned(example):
    """The example's image, boxes and labels, -1 for what is to be ignored."""
    labels = tf.where(example["crowd"], -1, example["labels"])
    return example["image"], example["boxes"], labels


def _targets(boxes, labels):
    ignored = labels < 0
    return {
        "boxes": tf.boolean_mask(boxes, ~ignored),
        "labels": tf.boolean_mask(labels, ~ignored),
        "ignore": tf.boolean_mask(boxes, ignored),
    }


def _batch_sizes(sizes, batch_size, seed):
    """Heights and widths, each `batch_size` times."""
    draws = tf.data.Dataset.random(seed + 2, rerandomize_each_iteration=True)
    choices = tf.constant(sizes, tf.int32)
    return draws.flat_map(
        lambda draw: tf.data.Dataset.from_tensors(
            choices[draw % len(sizes)]
        ).repeat(batch_size)
    )


def _unstacked(decode, items):
    numbers, encoded = (tf.unstack(part, _PARTNERS) for part in items)
    return map(decode, numbers, encoded)


def _first_usable(example, other):
    return tf.cond(_is_usable(example), lambda: example, lambda: other)


def _is_usable(example):
    return tf.size(example["image"]) > 0


def _decoded(items, decode):
    return mapped(items, decode).filter(_is_usable)


def _batched(dataset, batch_size):
    """Batches of (image, targets), what is per box padded to one length."""
    _image, spec = dataset.element_spec
    padding = {
        name: tf.constant(_PADDING.get(name, 0), spec[name].dtype)
        for name in spec
    }

    def with_a_box(image, targets):
        """Padding only makes lengths equal: all could be 0."""
        return image, {
            name: _at_least_one(value, padding[name])
            if name in _PADDING
            else value
            for name, value in targets.items()
        }

    return (
        dataset.map(with_a_box)
        .padded_batch(batch_size, padding_values=(0.0, padding))
        .prefetch(tf.data.AUTOTUNE)
    )


def _at_least_one(values, padding):
    missing = tf.maximum(1 - tf.shape(values)[0], 0)
    paddings = [[0, missing]] + [[0, 0]] * (values.shape.rank - 1)
    return tf.pad(values, paddings, constant_values=padding)


def _sizes(spec, sizes):
    """The `ImageSpec`, the (height, width)s and the channels of a training."""
    if sizes is None and isinstance(spec, (tuple, list)):
        sizes, spec = spec, _STRIDE  # of which only the resizing is used
    _check_sizes("spec", spec)
    if sizes is None:
        spec, channels = as_spec(spec, "letterbox")
        return spec, (spec.size,), channels
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    for size in sizes:
        _check_sizes("sizes", size)
    if not sizes:
        raise ValueError(f"`sizes` must not be empty. Received: {sizes!r}")
    pairs = tuple(as_spec(size, "letterbox")[0].size for size in sizes)
    spec, channels = as_spec(spec, "letterbox", size=pairs[0])
    return spec, pairs, channels


def _check_sizes(name, size):
    """Sides in numbers must be multiples of 32; a model knows its own."""
    if not isinstance(size, (int, tuple, list)):
        return
    sides = (size,) if isinstance(size, int) else tuple(size)
    wrong = [
        side
        for side in sides
        if not is_integer(side) or side < _STRIDE or side % _STRIDE
    ]
    if wrong or not 1 <= len(sides) <= 2:
        raise ValueError(
            f"`{name}` must be a side or (height, width), multiples of "
            f"{_STRIDE}. Received: {name}={size!r}"
        )
