"""The published checkpoints: one record each, in three tables.

timm_files.csv: names, statistics and crops are those of timm's
models/cspnet.py (1.0.31), accuracies those of its results/results-imagenet.csv
(commit 4e5207c7bb65 of 2025-10-30).

darknet_files.csv: classifiers, from the README files of
WongKinYiu/CrossStagePartialNetworks and AlexeyAB/darknet.

detector_files.csv, of which a cell is empty where these say nothing:

- AlexeyAB/darknet, README.md (commit 59596d7880f6): the files, their sizes in
  MB of 2**20 bytes, AP; issue 8603: that YOLOv4-P5 was trained with PyTorch.
- WongKinYiu/yolov7, README.md and licences (main a207844b1ce8, whose code
  trained yolov7 and yolov7x; darknet d0d76c27e80e, with the files).
- WongKinYiu/ScaledYOLOv4, README.md and licence (branch yolov4-large
  676800364a34; branch yolov4-csp 9336ffe48abe has the same AP of yolov4-csp).
- WongKinYiu/CrossStagePartialNetworks, README.md (8786894eec2b), with two
  trainings of csdarknet53-panet-spp, and
  WongKinYiu/PartialResidualNetworks, README.md (bde9fa72427d).
- dog-qiuqiu/Yolo-Fastest, README.md and the files (96a2900d1631).
- The bytes of yolov3, yolov3-tiny, yolov4 and yolov4-tiny: what public
  programs that download these files expect.

Where no size of the image is stated it is that of the cfg.
"""

import csv
import dataclasses
import difflib
import functools
import pathlib
import re


@dataclasses.dataclass(frozen=True)
class Record:
    """One published checkpoint, trained on ImageNet-1k.

    Attributes:
        name: timm's name of the network.
        network: the factory of this package that it loads into.
        hub_id, revision: its repository on the Hugging Face hub.
        licence: of the weights, an SPDX identifier.
        input_size: side of the square images it was trained on.
        crop: fraction of the image that the centre crop keeps, of each side:
            the shorter side is resized to input_size / crop.
        top1: ImageNet top-1 at `input_size` and `crop`, percent.
        test_input_size, test_crop, test_top1: the same at the larger size
            that its authors recommend for inference.
        interpolation: of the resizing, "bilinear" or "bicubic".
        mean, std: of the channels, for pixels in [0, 1].
        first_conv, classifier: names of those layers in the file.
        parameters: trainable, with the 1000 classes.
    """

    task = "classification"

    name: str
    network: str
    hub_id: str
    revision: str
    licence: str
    input_size: int
    crop: float
    top1: float
    test_input_size: int
    test_crop: float
    test_top1: float
    interpolation: str
    mean: tuple
    std: tuple
    first_conv: str
    classifier: str
    parameters: int

    @property
    def accuracies(self):
        """(size, crop, top-1), as trained and, if another, as recommended."""
        usual = (self.input_size, self.crop, self.top1)
        larger = (self.test_input_size, self.test_crop, self.test_top1)
        return (usual,) if usual == larger else (usual, larger)


@dataclasses.dataclass(frozen=True)
class DarknetFile:
    """One published Darknet file of a classifier, trained on ImageNet-1k.

    Attributes:
        name: of the cfg file that it belongs to, without ".cfg".
        network: the factory that it loads into, or "" where only
            `keras_csp.darknet.load` reads it.
        accuracy: top-1 as published.
        licence: of the weights; "none stated" where there is no word of it.
        url: where it is published.
    """

    task = "classification"

    name: str
    network: str
    accuracy: str
    licence: str
    url: str


@dataclasses.dataclass(frozen=True)
class DetectorResult:
    """Average precision on COCO, percent, at one size of the images.

    Attributes:
        size: side of the square images, pixels.
        ap: mean over the IoU thresholds 0.5 to 0.95; None where not stated.
        ap50: at the threshold 0.5.
    """

    size: int
    ap: float | None
    ap50: float


@dataclasses.dataclass(frozen=True)
class DetectorRecord:
    """One published Darknet detector, for `Detector.from_darknet`.

    `licence` is what the publisher of the file states. A file that was
    converted from a network of a GPL program has that program in
    `trained_by`; whether its licence extends to weights is for the user to
    judge.

    Attributes:
        name: of its files, without suffix.
        cfg: where its cfg file is published.
        weights: where its .weights file is published; "" where there is none.
        licence: of the weights; "none stated" where there is no word of it.
        trained_by: the program, with its licence, where it is not Darknet
            and that is known.
        results: a `DetectorResult` for each published size.
        dataset: of these, a part of COCO 2017: "test-dev" or "val2017"; ""
            where not stated.
        bytes: size of the weights file, None where not known exactly.
        megabytes: the same as its publisher states it, of 2**20 bytes.
        published_parameters: million, None where not stated.
        parameters: trainable, as this package builds the cfg; None of a cfg
            that was not counted.
    """

    task = "detection"

    name: str
    cfg: str
    weights: str
    licence: str
    trained_by: str
    results: tuple
    dataset: str
    bytes: int | None
    megabytes: float | None
    published_parameters: float | None
    parameters: int | None

    @property
    def values_in_file(self):
        """How many numbers the weights file has, None where not known.

        From its size: a header of 20 bytes, then 4 bytes for each. They are
        the trainable parameters and the statistics of batch normalisation.
        """
        size = self.bytes or (self.megabytes or 0) * 2**20
        return round((size - 20) / 4) if size else None


def _numbers(text):
    return tuple(map(float, text.split()))


def _results(text):
    """Of "640:48.7/67.4 512:-/64.8": size, AP or "-", AP50."""
    results = []
    for word in text.split():
        size, ap, ap50 = re.split("[:/]", word)
        ap = None if ap == "-" else float(ap)
        results.append(DetectorResult(int(size), ap, float(ap50)))
    return tuple(results)


def _or_none(kind):
    return lambda text: kind(text) if text else None


_CONVERT = {
    "mean": _numbers,
    "std": _numbers,
    "results": _results,
    int | None: _or_none(int),
    float | None: _or_none(float),
}


def _read(kind, name):
    """The rows of a table beside this file as objects of `kind`."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    path = pathlib.Path(__file__).with_name(name)
    with path.open(newline="") as file:
        return tuple(
            kind(
                **{
                    key: _converter(key, types[key])(text)
                    for key, text in row.items()
                }
            )
            for row in csv.DictReader(file)
        )


def _converter(name, kind):
    return _CONVERT.get(name) or _CONVERT.get(kind, kind)


@functools.cache
def records():
    """All `Record`s, in the order of timm_files.csv."""
    return _read(Record, "timm_files.csv")


@functools.cache
def darknet_files():
    """All `DarknetFile`s, in the order of darknet_files.csv."""
    return _read(DarknetFile, "darknet_files.csv")


@functools.cache
def detector_records():
    """All `DetectorRecord`s, in the order of detector_files.csv."""
    return _read(DetectorRecord, "detector_files.csv")


def _aliases(record):
    """What a record answers to, in lower case."""
    short = record.hub_id.removeprefix("timm/")
    return {record.name, record.network.lower(), short, record.hub_id}


def find_record(name):
    """The `Record` of a timm name, hub id or factory.

    Raises:
        ValueError: there is none; the message has the closest names.
    """
    known = {}
    for record in records():
        known.update(dict.fromkeys(_aliases(record), record))
    wanted = str(name).lower()
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted, known, n=3)
    raise ValueError(
        f"There is no published checkpoint {name!r}. "
        + (f"Did you mean {', '.join(map(repr, close))}? " if close else "")
        + "keras_csp.list_weights() prints all of them."
    )


def record_of(network):
    """The `Record` that loads into this factory, or None."""
    found = [r for r in records() if r.network == network]
    return found[0] if found else None
