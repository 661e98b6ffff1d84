"""The `weights` argument of a factory as a source of weights.

`choose` decides by the name alone, so that a mistake is found before anything
is downloaded or built; `Source.fetch` finds the file, `load` fills the model.
"""

import logging
import os
import re

from keras_csp import darknet
from keras_csp._registry import get_factory
from keras_csp.weights import hub, keras_files, timm
from keras_csp.weights.catalog import find_record, record_of, records
from keras_csp.weights.imagenet import darknet_classes, imagenet_classes

PUBLISHED_CLASSES = 1000
TIMM_FILE = "model.safetensors"
_KERAS_FILES = (".weights.h5", ".keras")
# In names of files that have the shapes of a leaky network, but not its
# activations.
_OTHER_ACTIVATIONS = ("omega", "mish", "swish")
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin", ".tar")
_KINDS = (
    'None, "imagenet", or the path of a .weights.h5 or .keras file, of a '
    ".safetensors file of timm's, or of a Darknet .weights file"
)


class Source:
    """Where weights come from: a file, once `fetch` has found it."""

    def __init__(self, path=None):
        self.path = path

    def fetch(self):
        """Sets `path`, by a download if need be."""

    @property
    def complete(self):
        """Whether it has every kernel of the features, whatever happens."""
        return True

    def load(self, model):
        """Fills `model`; the paths of the variables left as they were."""
        raise NotImplementedError

    def class_names(self):
        """Names of the classes of the weights' classifier, None if unknown."""
        return None


class TimmSource(Source):
    """A checkpoint of timm's, from a local file or from the hub.

    Args:
        record: the `Record` of its network.
        source: None for the hub repository of the record, or the path of a
            .safetensors file, of a folder that holds a model.safetensors, or
            another "organisation/name", with or without "@revision".
    """

    def __init__(self, record, source=None):
        super().__init__()
        self.record = record
        self.source = None if source is None else os.fspath(source)
        if source is not None:
            _refuse_pickles(self.source)

    def fetch(self):
        if self.source is None:
            hub_id, revision = self.record.hub_id, self.record.revision
        elif local := _local_safetensors(self.source):
            self.path = local
            return
        else:
            hub_id, revision = _hub_id(self.source)
        self.path = hub.download(hub_id, TIMM_FILE, revision)

    def load(self, model):
        return timm.load(model, self.path, self.record)

    def class_names(self):
        """ImageNet's, where the file has as many classes."""
        if timm.classes_of(self.path, self.record) != PUBLISHED_CLASSES:
            return None
        return tuple(imagenet_classes().values())


def _local_safetensors(source):
    """The path of the file that `source` is or, as a folder, has."""
    if os.path.isdir(source):
        source = os.path.join(source, TIMM_FILE)
    return source if os.path.isfile(source) else None


def _hub_id(source):
    match = re.fullmatch(
        r"(?:hf://|hf-hub:)?([^/@\s]+/[^/@\s]+)(?:@(\S+))?", source
    )
    if match is None or source.endswith(".safetensors"):
        raise ValueError(
            "There is no file of that name, and a hub id is of the form "
            f'"organisation/name". Received: {source!r}'
        )
    return match.groups()


class _KerasSource(Source):
    def load(self, model):
        keras_files.load(model, self.path)
        return []


class _KerasHubSource(_KerasSource):
    """A repository that `model.save("hf://user/name")` made."""

    def __init__(self, hub_id):
        super().__init__()
        self.hub_id = hub_id

    def fetch(self):
        self.path = hub.download(self.hub_id, "model.weights.h5")


class _DarknetSource(Source):
    @property
    def complete(self):
        return not darknet.is_backbone(self.path)

    def class_names(self):
        return tuple(darknet_classes().values())

    def load(self, model):
        try:
            return darknet.load_weights(model, self.path)
        except ValueError:
            if model.output_shape[-1] == PUBLISHED_CLASSES:
                raise
            return darknet.load_weights(model, self.path, classifier=False)


def choose(network, weights):
    """The source of a network's weights; None for random ones.

    Args:
        network: a `models.spec.NetworkSpec`.
        weights: as a factory takes it.

    Raises:
        ValueError: weights that no network, or not this one, can take.
    """
    if weights is None or isinstance(weights, Source):
        return weights
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            f"`weights` must be {_KINDS}. Received: weights={weights!r}"
        )
    weights = os.fspath(weights)
    if weights == "imagenet":
        return _published(network)
    _refuse_pickles(weights)
    if re.fullmatch(r"hf://[^/]+/[^/]+", weights):
        return _KerasHubSource(weights.removeprefix("hf://"))
    kinds = (
        (weights.endswith(_KERAS_FILES), lambda: _KerasSource(weights)),
        (
            weights.endswith(".safetensors"),
            lambda: _timm_file(network, weights),
        ),
        (
            weights.endswith(".weights") or darknet.is_backbone(weights),
            lambda: _darknet_file(network, weights),
        ),
    )
    make = next((make for matches, make in kinds if matches), None)
    if make is None:
        raise ValueError(
            f"`weights` must be {_KINDS}. Received: weights={weights!r}"
        )
    if not os.path.isfile(weights):
        raise ValueError(
            f"`weights` names no file. Received: weights={weights!r}"
        )
    return make()


def load(source, model):
    """Fills `model`; what stays at its initial value is logged and returned."""
    left = source.load(model)
    if left:
        logging.getLogger("keras_csp").warning(
            "%s: left at their initial values, since the weights have another "
            "classifier: %s",
            model.name,
            ", ".join(left),
        )
    return left


def _published(network):
    record = record_of(network.name)
    if record is not None:
        return TimmSource(record)
    received = f"Received: weights='imagenet' for {network.name}"
    if network.pretrained:
        other = network.pretrained.name
        raise ValueError(
            f"{network.name} has no published weights of its own: timm's "
            f"belong to keras_csp.{other}, a network that differs in its "
            f"activations or stages. Use keras_csp.{other}("
            "weights='imagenet'), or give the path of the authors' Darknet "
            f".weights file. {received}"
        )
    raise ValueError(
        f'{network.name} has no published weights: weights="imagenet" is not '
        "available. Networks that have them: "
        + ", ".join(r.network for r in records())
        + f". {received}"
    )


def _timm_file(network, path):
    record = record_of(network.name)
    if record is not None:
        return TimmSource(record, path)
    twin = network.pretrained and network.pretrained.name
    raise ValueError(
        f"A .safetensors file holds a network of timm's, and {network.name} is "
        "none of them"
        + (f": its twin there is {twin}. " if twin else ". ")
        + f"Use keras_csp.{twin or '<its network>'}(weights={path!r}) or "
        "keras_csp.weights.load_timm. Received: "
        f"weights={path!r} for {network.name}"
    )


def _darknet_file(network, path):
    name = os.path.basename(path).lower()
    other = [word for word in _OTHER_ACTIVATIONS if word in name]
    if network.cfg is not None and not other:
        return _DarknetSource(path)
    if network.cfg is not None:
        raise ValueError(
            "By its name, this file belongs to a network with another "
            f"activation than {network.name} (cfg/{network.cfg}.cfg): the "
            "authors' omega networks have Mish. The file cannot tell. Use "
            "keras_csp.darknet.load(cfg, weights) with its own cfg file. "
            f"Received: weights={path!r}"
        )
    twin = network.name.removesuffix("Timm")
    raise ValueError(
        f"A Darknet file fits the network of its cfg file, and {network.name} "
        "has none by the authors"
        + (f": its twin there is {twin}. " if twin != network.name else ". ")
        + "Use keras_csp.darknet.load(cfg, weights). "
        f"Received: weights={path!r} for {network.name}"
    )


def _refuse_pickles(path):
    if os.fspath(path).endswith(_PICKLES):
        raise ValueError(
            "Pickled files execute code when loaded and are refused. Where "
            "you trust it, convert it: safetensors.torch.save_file("
            "torch.load(path, weights_only=True), 'model.safetensors'). "
            f"Received: {os.fspath(path)!r}"
        )


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
    return get_factory(record.network)(weights=weights, **options)
