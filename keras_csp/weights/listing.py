"""`list_weights`: the published checkpoints as tables."""

from keras_csp import _tables as text
from keras_csp.weights.catalog import darknet_files, records


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
