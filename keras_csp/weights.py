"""The published checkpoints: a list of them, and a way to load each.

keras_csp.weights.load_timm("cspresnext50")        from the hub
keras_csp.CSPResNeXt50(weights="imagenet")         the same, as classifier
keras_csp.CSPResNeXt50(weights="csresnext50.weights")  the authors' file
"""

from keras_csp import models
from keras_csp.checkpoints import (
    DownloadError,
    Record,
    TimmSource,
    find_record,
    records,
    timm,
)
from keras_csp.counting import aligned

__all__ = [
    "DownloadError",
    "Record",
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
    options.setdefault("classes", timm.classes_of(weights.path, record) or 1000)
    return models.get_factory(record.network)(weights=weights, **options)


def list_weights(show=True):
    """Prints the published checkpoints and returns their `Record`s."""
    if show:
        print(
            "\n".join(aligned([_HEADER, *map(_row, records())], right=(3, 5)))
        )
    return records()


_HEADER = (
    "name",
    "factory",
    "hub id",
    "M params",
    "input",
    "top-1",
    "interpolation",
    "mean / std",
    "licence",
)


def _row(record):
    return (
        record.name,
        record.network,
        record.hub_id,
        f"{record.parameters / 1e6:.1f}",
        f"{record.input_size} ({record.crop:g})",
        f"{record.top1:.2f}",
        record.interpolation,
        " ".join(f"{v:g}" for v in record.mean)
        + " / "
        + " ".join(f"{v:g}" for v in record.std),
        record.licence,
    )
