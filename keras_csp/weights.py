"""The published checkpoints: a list of them, and a way to load each.

keras_csp.weights.load_timm("cspresnext50")        from the hub
keras_csp.CSPResNeXt50(weights="imagenet")         the same, as classifier
keras_csp.CSPResNeXt50(weights="csresnext50.weights")  the authors' file
"""

from keras_csp import models, text
from keras_csp.checkpoints import (
    DarknetFile,
    DownloadError,
    Record,
    TimmSource,
    classes_of,
    darknet_files,
    find_record,
    records,
)

__all__ = [
    "DarknetFile",
    "DownloadError",
    "Record",
    "darknet_files",
    "find_record",
    "list_weights",
    "load_timm",
    "records",
]


def load_timm(name, source=None, **options):
    """A network of timm's with its trained weights and logits out.

    Args:
        name: timm's name, e.g. "cs3darknet_focus_s"; `list_weights()` prints
            all of them.
        source: None (default) for the published checkpoint; or the path of a
            .safetensors file that timm saved, of a folder that holds a
            model.safetensors, or a hub id "organisation/name", with or
            without "@revision".
        options: of the factory, e.g. `include_top=False` or `input_shape`.
            The default of `classes` is the file's number of them, that of
            `classifier_activation` is None: logits, as timm gives them.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: unknown name, or a file of another network; both are
            named.
        DownloadError: the hub did not deliver; nothing is left in its cache.
    """
    record = find_record(name)
    weights = TimmSource(record, source)
    weights.fetch()
    options.setdefault("classifier_activation", None)
    options.setdefault("classes", classes_of(weights.path, record) or 1000)
    return models.get_factory(record.network)(weights=weights, **options)


def list_weights(show=True, markdown=False):
    """Prints the published checkpoints and returns timm's `Record`s.

    Args:
        show: False prints nothing.
        markdown: prints Markdown tables instead of aligned columns.
    """
    if show:
        tables = (
            ('timm\'s, by weights="imagenet" or load_timm', _timm_table()),
            ("Darknet's, by weights=path or darknet.load", _darknet_table()),
        )
        for title, rows in tables:
            cells = [[_link(cell, markdown) for cell in row] for row in rows]
            table = text.markdown if markdown else text.aligned
            print("", title, "", *table(cells), sep="\n")
    return records()


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
            f"{record.top1:.2f} at {record.input_size} ({record.crop:g})",
            record.interpolation,
            "0.5, 0.5" if record.mean[0] == 0.5 else "ImageNet's",
            record.licence,
            record.hub_id,
        )


def _darknet_table():
    yield ("cfg", "factory", "published accuracy", "licence", "file")
    for file in darknet_files():
        yield (
            file.cfg,
            file.network or "darknet.load",
            file.accuracy,
            file.licence,
            file.url,
        )


def _link(cell, markdown):
    web = markdown and cell.startswith("https://")
    return f"[file]({cell})" if web else cell
