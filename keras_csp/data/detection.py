"""Detection data: images and boxes of a COCO JSON or of TFDS."""

import dataclasses
import logging
import pathlib
import re

import numpy as np
import tensorflow as tf

from keras_csp.data import annotations
from keras_csp.data.augmentation import Augmentation, augmented, letterbox

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
    "crowd": False,
    "area": 0,
    "original_boxes": 0,
}


def load_detection(
    source, images=None, split=None, broken="skip", data_dir=None
):
    """Reads a detection set; images are decoded only when used.

    Args:
        source: the path of a JSON in COCO's format, or "tfds:NAME", a
            TensorFlow Datasets set with `objects` of `bbox` and `label`.
        images: the folder of the JSON's images. Default: of `set/train`,
            `set/annotations/train` and `set/annotations` for
            `set/annotations/instances_train.json` or `train.json` there, the
            first that holds one of the images.
        split: of a TFDS set. Default "train".
        broken: "skip" (default) leaves faulty boxes and images out, names
            the first in a warning and keeps all in `faults`; "raise" raises.
        data_dir: TFDS's folder. Default TFDS's own.

    Returns:
        A `DetectionData`.

    Raises:
        ValueError: what is not COCO's format, no image folder, no usable
            image, no such TFDS set or one without boxes; faults, with
            `broken="raise"`.
    """
    if broken not in ("skip", "raise"):
        raise ValueError(
            f'`broken` must be "skip" or "raise". Received: broken={broken!r}'
        )
    if str(source).startswith("tfds:"):
        if images is not None:
            raise ValueError(
                f"A TFDS set has its own images. Received: images={images!r}"
            )
        name = str(source).removeprefix("tfds:")
        data = _tfds(name, split or "train", data_dir)
    else:
        _refuse_tfds_arguments(split, data_dir)
        data = _coco(pathlib.Path(source), images)
    _report(source, data.faults, broken)
    return data


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionData:
    """Images with boxes, as `load_detection` reads them.

    Attributes:
        class_names: tuple, the name of each label.
        category_ids: tuple, the JSON's id of each label.
        faults: tuple of `Fault`, what was left out.
        size: the number of images, those without objects included.
    """

    class_names: tuple
    category_ids: tuple
    faults: tuple
    _records: tuple = dataclasses.field(repr=False)
    _reader: "_Reader" = dataclasses.field(repr=False)
    # The images of a TFDS set; those of a JSON are files.
    _encoded: object = dataclasses.field(default=None, repr=False)

    @property
    def size(self):
        return len(self._records)

    def first(self, number):
        """The same data with the first `number` images only."""
        _check_positive("number", number)
        return dataclasses.replace(self, _records=self._records[:number])

    def box_sizes(self):
        """Width and height of the boxes by their image's longer side.

        Returns:
            float32 `(boxes, 2)`, without crowd boxes. Times the side of a
            square network: the boxes' sizes in its letterboxed input.
        """
        sizes = [
            (record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd]
            / np.float32(max(record.width, record.height))
            for record in self._records
        ]
        return np.concatenate([np.zeros((0, 2), "float32"), *sizes])

    def examples(self):
        """The images as they are.

        Returns:
            `tf.data.Dataset` of dicts: `image` uint8 `(h, w, 3)`; `boxes`
            float32 `(n, 4)`, x1, y1, x2, y2 in its pixels; `labels` int32
            `(n,)`; `crowd` bool `(n,)`; `area` float32 `(n,)`, square
            pixels; `image_id` int64.
        """
        return _decoded(self._items(), self._decoder())

    def training(
        self,
        batch_size,
        sizes=(416,),
        augmentation=None,
        seed=0,
        repeat=False,
        limit=None,
    ):
        """Augmented batches, in a new order every epoch.

        Args:
            batch_size: the last batch may have fewer.
            sizes: sides of the images, multiples of 32; every batch takes
                one of them at random. Default 416.
            augmentation: an `Augmentation`, default `Augmentation()`.
            seed: the same one gives the same epochs, bit for bit (TensorFlow
                mixes its global seed in, if one is set). Default 0.
            repeat: True never ends, and fills every batch. Default False.
            limit: use the first so many images only. Default all.

        Returns:
            `tf.data.Dataset` of (images, targets): float32
            `(batch, side, side, 3)` in [0, 1], and a dict of `boxes` float32
            `(batch, m, 4)`, x1, y1, x2, y2 in pixels of the square, and
            `labels` int32 `(batch, m)`. m is the most boxes of an image of
            the batch, at least 1; what is missing to it has label -1 and
            zeros. Crowd boxes are left out.
        """
        sizes = _check_sizes("sizes", sizes)
        _check_positive("batch_size", batch_size)
        augmentation = _check_augmentation(augmentation)
        if limit is not None:
            data = self.first(limit)
            return data.training(batch_size, sizes, augmentation, seed, repeat)
        decode = self._decoder()
        examples = _decoded(self._shuffled(seed), decode)
        parts = {
            "example": examples.repeat() if repeat else examples,
            "draw": tf.data.Dataset.random(
                seed, rerandomize_each_iteration=True
            ),
            "size": _batch_sizes(sizes, batch_size, seed),
        }
        if augmentation.mosaic:
            others = self._shuffled(seed + 1).repeat()
            parts["others"] = others.batch(_PARTNERS)
        side = sizes[0] if len(sizes) == 1 else None

        def prepared(part):
            pixels, boxes, labels = augmented(
                augmentation,
                _learned(part["example"]),
                side or part["size"],
                tf.stack([tf.cast(seed, "int64"), part["draw"]]),
                lambda: [
                    _learned(_first_usable(other, part["example"]))
                    for other in _unstacked(decode, part["others"])
                ],
            )
            pixels = tf.ensure_shape(pixels, (side, side, 3))
            return pixels, {"boxes": boxes, "labels": labels}

        return _batched(
            _mapped(tf.data.Dataset.zip(parts), prepared), batch_size
        )

    def evaluation(self, batch_size, size=416):
        """Batches in the set's order, without augmentation.

        Args:
            batch_size: the last batch may have fewer.
            size: side of the images, a multiple of 32. Default 416.

        Returns:
            As `training`, crowd boxes included. The targets have besides
            `crowd` bool `(batch, m)`; `area` float32 `(batch, m)`, square
            pixels of the original; `image_id` int64 `(batch,)`;
            `original_boxes` float32 `(batch, m, 4)`, in its pixels;
            `letterbox` float32 `(batch, 3)`, (scale, left, top) of point =
            original * scale + (left, top).
        """
        (size,) = _check_sizes("size", (size,))
        _check_positive("batch_size", batch_size)

        def prepared(example):
            pixels, view = letterbox(example["image"], size)
            return tf.ensure_shape(pixels, (size, size, 3)), {
                "boxes": view.boxes(example["boxes"]),
                "labels": example["labels"],
                "crowd": example["crowd"],
                "area": example["area"],
                "image_id": example["image_id"],
                "original_boxes": example["boxes"],
                "letterbox": tf.stack(
                    [view.scale[0], view.offset[1], view.offset[0]]
                ),
            }

        return _batched(_mapped(self.examples(), prepared), batch_size)

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
        table = _Table(self._records)
        read = self._reader.read

        def decode(number, encoded):
            name, size = table.names[number], table.sizes[number]
            image = read(name, size, encoded)
            return {"image": image, **table.row(number)}

        return decode


class _Table:
    """Records as tensors, for a number to pick from."""

    def __init__(self, records):
        self.names = tf.constant([record.file_name for record in records])
        self.sizes = tf.constant(
            [(record.height, record.width) for record in records], tf.int64
        )
        self.ids = tf.constant([r.image_id for r in records], tf.int64)
        counts = [len(record.labels) for record in records]
        self.splits = tf.constant(np.cumsum([0, *counts]))
        self.flat = {
            name: tf.constant(
                np.concatenate([getattr(record, name) for record in records])
            )
            for name in ("boxes", "labels", "crowd", "area")
        }

    def row(self, number):
        start, end = self.splits[number], self.splits[number + 1]
        objects = {name: flat[start:end] for name, flat in self.flat.items()}
        return {**objects, "image_id": self.ids[number]}


class _Reader:
    """Decodes images; what cannot be decoded is named once, and empty.

    Python is called for those only: a thread of tf.data that waits for Python
    while it ends blocks the end of the program for good.

    Args:
        folder: of the files; None for images that come encoded.
    """

    def __init__(self, folder=None):
        self.folder = None if folder is None else pathlib.Path(folder)
        self.warned = set()

    def read(self, name, size, encoded):
        """uint8 `(h, w, 3)` from scalars and `(h, w)`, as graph operations.

        A data set of one element is TensorFlow's way to catch an error.
        """
        empty = tf.zeros((0, 0, 3), tf.uint8)
        image = (
            tf.data.Dataset.from_tensors((name, encoded))
            .map(self._decode)
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors(empty))
            .take(1)
            .get_single_element()
        )
        usable = tf.reduce_all(tf.shape(image, tf.int64)[:2] == size)

        def warned():
            warning = tf.numpy_function(
                self._warn, [name, size, encoded], tf.uint8
            )
            return tf.ensure_shape(warning, (None, None, 3))

        return tf.cond(usable, lambda: image, warned)

    def _decode(self, name, encoded):
        if self.folder is not None:
            path = tf.strings.join([str(self.folder), name], "/")
            encoded = tf.io.read_file(path)
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.ensure_shape(image, (None, None, 3))

    def _warn(self, name, size, encoded):
        if name not in self.warned:
            self.warned.add(name)
            path = name.decode()
            _LOGGER.warning(
                "The image %s is skipped: %s",
                path if self.folder is None else self.folder / path,
                self._reason(name, size, encoded),
            )
        return np.zeros((0, 0, 3), "uint8")

    def _reason(self, name, size, encoded):
        try:
            height, width, _channels = self._decode(name, encoded).shape
        except tf.errors.OpError as error:
            return _summary(error)
        return (
            f"it is {width}x{height} pixels, not {size[1]}x{size[0]} as "
            "annotated"
        )


def _summary(error):
    """TensorFlow's message without the names of its operations."""
    message = re.sub(r"{{.*?}} ?|\[Op:.*", "", error.message)
    return message.strip().split("\n", maxsplit=1)[0][:200]


def _coco(path, images):
    found, folder = annotations.read_coco(path, images)
    return _data(path, found, _Reader(folder))


def _data(source, found, reader, encoded=None):
    if not found.records:
        first = f"; first fault: {found.faults[0]}" if found.faults else ""
        raise ValueError(f"{source} has no usable image{first}")
    return DetectionData(
        class_names=found.class_names,
        category_ids=found.category_ids,
        faults=found.faults,
        _records=found.records,
        _reader=reader,
        _encoded=encoded,
    )


def _refuse_tfds_arguments(split, data_dir):
    if split is not None or data_dir is not None:
        raise ValueError(
            "`split` and `data_dir` are for tfds:NAME; a COCO JSON is one "
            f"split. Received: split={split!r}, data_dir={data_dir!r}"
        )


def _report(source, faults, broken):
    if not faults:
        return
    named = "; ".join(map(str, faults[:_NAMED]))
    more = ", ..." if len(faults) > _NAMED else ""
    boxes = sum(fault.annotation_id is not None for fault in faults)
    counts = f"{boxes} faulty boxes and {len(faults) - boxes} faulty images"
    if broken == "raise":
        raise ValueError(f"{source} has {counts}: {named}{more}")
    _LOGGER.warning("%s: left out %s: %s%s", source, counts, named, more)


def _tfds(name, split, data_dir):
    dataset, features = _tfds_dataset(name, split, data_dir)
    records, faults, kept = [], [], []
    for number, example in enumerate(dataset.as_numpy_iterator()):
        record = _tfds_record(number, example, faults)
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
    return _data(f"tfds:{name}", found, _Reader(), encoded)


def _tfds_dataset(name, split, data_dir):
    """The split, its images left encoded, and the set's features."""
    builder = _tfds_builder(name, data_dir)
    import tensorflow_datasets as tfds

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
        dataset = builder.as_dataset(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )
    except ValueError as error:
        raise ValueError(
            f"The TFDS set {name!r} has no split {split!r}, only "
            f"{', '.join(builder.info.splits)}"
        ) from error
    return dataset, features


def _tfds_record(number, example, faults):
    image_id = example.get("image/id", number)
    if not isinstance(image_id, (int, np.integer)):
        image_id = number
    name = example.get("image/filename", b"").decode().strip()
    name = name or str(image_id)
    try:
        height, width = _image_size(example["image"])
    except tf.errors.OpError as error:
        faults.append(annotations.Fault(image_id, name, None, _summary(error)))
        return None
    objects = []
    for index, (box, *rest) in enumerate(_tfds_objects(example["objects"])):
        y1, x1, y2, x2 = map(float, box)
        corners = x1 * width, y1 * height, x2 * width, y2 * height
        corners, reason = annotations.checked_box(corners, width, height)
        if reason:
            faults.append(annotations.Fault(image_id, name, index, reason))
        else:
            objects.append((corners, *rest))
    return annotations.record((image_id, name, width, height), objects)


def _tfds_objects(found):
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


def _tfds_builder(name, data_dir):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"tfds:{name} needs tensorflow-datasets: "
            'pip install "keras-csp[tfds]"'
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            builder.download_and_prepare()
    except Exception as error:
        summary = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"The TFDS set {name!r} cannot be had: {summary[0][:200]}"
        ) from error
    return builder


def _learned(example):
    """The example's image, and what of its boxes is to be learned."""
    kept = ~example["crowd"]
    return (
        example["image"],
        tf.boolean_mask(example["boxes"], kept),
        tf.boolean_mask(example["labels"], kept),
    )


def _batch_sizes(sizes, batch_size, seed):
    """Sides, each `batch_size` times."""
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
    return _mapped(items, decode).filter(_is_usable)


def _mapped(dataset, function):
    return dataset.map(
        function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


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


def _check_sizes(name, sizes):
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    wrong = [
        size
        for size in sizes
        if not isinstance(size, int) or size < _STRIDE or size % _STRIDE
    ]
    if wrong or not sizes:
        raise ValueError(
            f"`{name}` must be multiples of {_STRIDE}. Received: {name}={sizes}"
        )
    return sizes


def _check_augmentation(augmentation):
    if augmentation is None:
        return Augmentation()
    if not isinstance(augmentation, Augmentation):
        raise ValueError(
            "`augmentation` must be an `Augmentation`. Received: "
            f"augmentation={augmentation!r}"
        )
    return augmentation


def _check_positive(name, value):
    if not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
