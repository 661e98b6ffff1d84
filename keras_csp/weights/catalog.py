"""The published checkpoints: one record each, in two tables.

timm_files.csv: names, statistics and crops are those of timm's
models/cspnet.py (1.0.31), accuracies those of its
results/results-imagenet.csv. darknet_files.csv: the README files of
WongKinYiu/CrossStagePartialNetworks and AlexeyAB/darknet.
"""

import csv
import dataclasses
import difflib
import functools
import pathlib


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


@dataclasses.dataclass(frozen=True)
class DarknetFile:
    """One published Darknet file.

    Attributes:
        cfg: the cfg file that it belongs to, without ".cfg".
        network: the factory that it loads into, or "" where only
            `keras_csp.darknet.load` reads it.
        accuracy: as published: top-1 on ImageNet, AP or AP50 on COCO.
        licence: of the weights; "none stated" where there is no word of it.
        url: where it is published.
    """

    cfg: str
    network: str
    accuracy: str
    licence: str
    url: str


def _numbers(text):
    return tuple(map(float, text.split()))


_CONVERT = {"mean": _numbers, "std": _numbers}


def _read(kind, name):
    """The rows of a table beside this file as objects of `kind`."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    path = pathlib.Path(__file__).with_name(name)
    with path.open(newline="") as file:
        return tuple(
            kind(
                **{
                    key: _CONVERT.get(key, types[key])(text)
                    for key, text in row.items()
                }
            )
            for row in csv.DictReader(file)
        )


@functools.cache
def records():
    """All `Record`s, in the order of timm_files.csv."""
    return _read(Record, "timm_files.csv")


@functools.cache
def darknet_files():
    """All `DarknetFile`s, in the order of darknet_files.csv."""
    return _read(DarknetFile, "darknet_files.csv")


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
