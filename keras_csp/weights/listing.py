"""`list_weights`: the published checkpoints as tables."""

from keras_csp import _tables as text
from keras_csp._validation import check_choice
from keras_csp.weights.catalog import (
    darknet_files,
    detector_records,
    records,
)

TASKS = ("classification", "detection")


def list_weights(task=None, show=True, markdown=False):
    """Prints the published checkpoints and returns their records.

    Args:
        task: "classification" or "detection". Default `None`: both.
        show: False prints nothing.
        markdown: prints Markdown tables instead of aligned columns.

    Returns:
        A tuple: of classifiers timm's `Record`s and the `DarknetFile`s, of
        detectors the `DetectorRecord`s. All have `name`, `task`, `licence`.

    Raises:
        ValueError: another task.
    """
    check_choice("task", task, (None, *TASKS))
    listed = [entry for entry in _TABLES if task in (None, entry[0])]
    if show:
        for _, title, _, rows, right in listed:
            cells = [[_link(cell, markdown) for cell in row] for row in rows()]
            table = text.markdown if markdown else text.aligned
            print("", title, "", *table(cells, right), sep="\n")
    return tuple(record for entry in listed for record in entry[2]())


def _timm_table():
    yield (
        "checkpoint",
        "factory",
        "M params",
        "top-1 at size (crop)",
        "resizing",
        "mean, std",
        "licence",
        "hub id",
    )
    for record in records():
        yield (
            record.name,
            record.network,
            f"{record.parameters / 1e6:.1f}",
            ", ".join(
                f"{top1:.2f} at {size} ({crop:g})"
                for size, crop, top1 in record.accuracies
            ),
            record.interpolation,
            "0.5, 0.5" if record.mean[0] == 0.5 else "ImageNet's",
            record.licence,
            record.hub_id,
        )


def _darknet_table():
    yield ("cfg", "factory", "published accuracy", "licence", "file")
    for file in darknet_files():
        yield (
            file.name,
            file.network or "darknet.load",
            file.accuracy,
            file.licence,
            file.url,
        )


def _detector_table():
    yield (
        "detector",
        "AP / AP50 at size",
        "of COCO",
        "M params",
        "published",
        "M in file",
        "licence",
        "trained by",
        "cfg",
        "weights",
    )
    for record in detector_records():
        yield (
            record.name,
            ", ".join(map(_result, record.results)),
            record.dataset,
            _millions(record.parameters),
            f"{record.published_parameters or '':}",
            _in_file(record),
            record.licence,
            record.trained_by,
            record.cfg,
            record.weights,
        )


def _result(result):
    ap = "-" if result.ap is None else f"{result.ap:.1f}"
    return f"{ap} / {result.ap50:.1f} at {result.size}"


def _millions(count):
    return "" if count is None else f"{count / 1e6:.2f}"


def _in_file(record):
    """Millions; as exactly as the size of the file is known."""
    if record.bytes is not None:
        return _millions(record.values_in_file)
    return f"~{record.values_in_file / 1e6:#.3g}" if record.megabytes else ""


def _link(cell, markdown):
    web = markdown and cell.startswith("https://")
    return f"[file]({cell})" if web else cell


# Task, title, records, rows, columns of numbers.
_TABLES = (
    (
        "classification",
        'timm\'s, by weights="imagenet" or load_timm',
        records,
        _timm_table,
        (),
    ),
    (
        "classification",
        "Darknet's, by weights=path or darknet.load",
        darknet_files,
        _darknet_table,
        (),
    ),
    (
        "detection",
        "Darknet's detectors, by Detector.from_darknet(cfg, weights)",
        detector_records,
        _detector_table,
        (3, 4, 5),
    ),
)
