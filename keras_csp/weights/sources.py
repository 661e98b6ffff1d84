"""The `weights` argument of a factory as a source of weights.

`choose` decides by the name alone, so that a mistake is found before anything
is downloaded or built. `Source.fetch` finds the file, `image_spec` says what
pixels it was trained with, `load` fills the model.
"""

import logging
import os
import re

from keras_csp import darknet
from keras_csp._registry import get_factory
from keras_csp.layers.preprocessing import ImageSpec
from keras_csp.weights import hub, keras_files, timm, timm_config
from keras_csp.weights.catalog import (
    darknet_files,
    find_record,
    record_of,
    records,
)
from keras_csp.weights.imagenet import darknet_classes, imagenet_classes

PUBLISHED_CLASSES = 1000
_LOGGER = logging.getLogger("keras_csp")
# In names of files that have the shapes of a leaky network, but not its
# activations.
_OTHER_ACTIVATIONS = ("omega", "mish", "swish")
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".bin", ".tar")
_KINDS = (
    'None, "imagenet", "hf://user/name", or the path of a .weights.h5 or '
    ".keras file, of a .safetensors file of timm's, or of a Darknet .weights "
    "file"
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

    def image_spec(self, network):
        """The `ImageSpec` that `network`'s weights were trained with."""
        return published_image_spec(network)

    def load(self, model):
        """Fills `model`; the paths of the variables left as they were."""
        raise NotImplementedError


class TimmSource(Source):
    """A checkpoint of timm's, from a local file or from the hub.

    Args:
        record: the `Record` of its network.
        source: None for the hub repository of the record, or the path of a
            .safetensors file, of a folder that holds a model.safetensors, or
            another "organisation/name", with or without "@revision".
        prefix: of the network's keys in the file, e.g. "model."; default
            `None`: found.
    """

    def __init__(self, record, source=None, prefix=None):
        super().__init__()
        self.record = record
        self.prefix = _with_dot(prefix)
        self.source = None if source is None else os.fspath(source)
        self._config = None
        if source is not None:
            _refuse_pickles(self.source)

    def fetch(self):
        if self.path is not None:
            return
        if self.source is None:
            hub_id, revision = self.record.hub_id, self.record.revision
            self.path = hub.download(hub_id, hub.TIMM_FILE, revision)
        elif local := _local_safetensors(self.source):
            self.path, self._config = local, timm_config.beside(local)
        else:
            hub_id, revision = _hub_id(self.source)
            self.path = hub.download(hub_id, hub.TIMM_FILE, revision)
            self._config = _download_config(hub_id, revision)

    def image_spec(self, network):
        """As its config.json says, else as the record does.

        Without a config 1000 classes are ImageNet's, as in timm.
        """
        spec = published_image_spec(network)
        if self._config is not None:
            return spec.replace(**timm_config.read(self._config))
        if self.classes() == PUBLISHED_CLASSES:
            return spec.replace(class_names=imagenet_classes().values())
        return spec

    def classes(self):
        """The number of classes in the file, None without a classifier."""
        return timm.classes_of(self.path, self.record, self.prefix)

    def load(self, model):
        return timm.load(model, self.path, self.record, self.prefix)


def _with_dot(prefix):
    """A prefix as it stands in keys, which have dots between their parts."""
    if not (prefix is None or isinstance(prefix, str)):
        raise ValueError(
            "`prefix` must be None or what stands before the keys of the "
            f'network, e.g. "model.". Received: prefix={prefix!r}'
        )
    return f"{prefix}." if prefix and not prefix.endswith(".") else prefix


def _download_config(hub_id, revision):
    """The path of timm's config in a repository, None where it has none."""
    try:
        return hub.download(hub_id, timm_config.CONFIG_FILE, revision)
    except hub.DownloadError as error:
        _LOGGER.warning(
            "%s: the pixel statistics and classes of the published network are "
            "used. %s",
            hub_id,
            str(error).removesuffix(" Nothing was loaded."),
        )
        return None


def _local_safetensors(source):
    """The path of the file that `source` is or, as a folder, has."""
    if os.path.isdir(source):
        source = os.path.join(source, hub.TIMM_FILE)
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
    def image_spec(self, network):
        spec = keras_files.image_spec(self.path)
        return super().image_spec(network) if spec is None else spec

    def load(self, model):
        keras_files.load(model, self.path)
        return []


class _HubSource(Source):
    """A repository, which Keras' `model.save("hf://user/name")` or timm made.

    Args:
        network: the `NetworkSpec` that is built.
        address: "hf://user/name", as of `hub.find_weights`.
    """

    _SUFFIXES = (*hub.KERAS_WEIGHTS, ".safetensors")

    def __init__(self, network, address):
        super().__init__()
        hub.parse_address(address, self._SUFFIXES)
        self.network, self.address = network, address
        self._source = None

    def fetch(self):
        self.path = hub.find_weights(self.address, self._SUFFIXES)
        if self.path.endswith(".safetensors"):
            self._source = _timm_file(self.network, self.path)
        else:
            self._source = _KerasSource(self.path)
        self._source.fetch()

    def image_spec(self, network):
        return self._source.image_spec(network)

    def load(self, model):
        return self._source.load(model)


class _DarknetSource(Source):
    @property
    def complete(self):
        return not darknet.is_backbone(self.path)

    def image_spec(self, network):
        """Darknet does not smooth a photograph that shrinks."""
        spec = published_image_spec(network).replace(antialias=False)
        if darknet.is_backbone(self.path):
            return spec
        return spec.replace(class_names=darknet_classes().values())

    def load(self, model):
        try:
            return darknet.load_weights(model, self.path)
        except ValueError:
            if model.output_shape[-1] == PUBLISHED_CLASSES:
                raise
            return darknet.load_weights(model, self.path, classifier=False)


def choose(network, weights):
    """The source of the weights, None for random ones.

    Args:
        network: the `NetworkSpec` that is built.
        weights: as of the factories, or a `Source`.

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
        return _imagenet(network)
    _refuse_pickles(weights)
    if hub.is_address(weights):
        return _HubSource(network, weights)
    if weights.endswith(hub.KERAS_WEIGHTS):
        return _KerasSource(_existing(weights))
    if weights.endswith(".safetensors"):
        return _timm_file(network, _existing(weights))
    if weights.endswith(".weights") or darknet.is_backbone(weights):
        return _darknet_file(network, _existing(weights))
    raise ValueError(
        f"`weights` must be {_KINDS}. Received: weights={weights!r}"
    )


def _existing(path):
    if not os.path.isfile(path):
        raise ValueError(f"`weights` names no file. Received: weights={path!r}")
    return path


def published_image_spec(network):
    """The `ImageSpec` of a network's published weights, without names.

    timm's networks have their record's, those trained by Darknet pixels in
    [0, 1] as they are.
    """
    record = record_of(network.name)
    if record is None:
        return ImageSpec(size=(network.input_size,) * 2)
    return ImageSpec(
        size=(record.input_size,) * 2,
        mean=record.mean,
        std=record.std,
        crop=record.crop,
        interpolation=record.interpolation,
    )


def image_spec(network, source, shape, classes):
    """The `ImageSpec` of a network about to be built.

    Args:
        network: its `NetworkSpec`.
        source: of its weights, fetched; None for random ones.
        shape: (height, width, channels) of the image; sides may be None.
        classes: outputs of the classifier, None without one.
    """
    if source is None:
        spec = published_image_spec(network)
    else:
        spec = source.image_spec(network)
    height, width, channels = shape
    if height is not None and width is not None:
        spec = spec.replace(size=(height, width))
    if spec.class_names is not None and len(spec.class_names) != classes:
        spec = spec.replace(class_names=None)
    return spec.replace(
        mean=_of_channels(spec.mean, channels),
        std=_of_channels(spec.std, channels),
    )


def _of_channels(numbers, channels):
    """RGB statistics for other images, as `timm.adapt_input_channels`.

    Four channels: R, G, B, R. Any other number: the average for all.
    """
    if len(numbers) in (1, channels):
        return numbers
    if channels == 4:
        return (*numbers, numbers[0])
    return (sum(numbers) / len(numbers),)


def load(source, model):
    """Fills `model`; what stays at its initial value is logged, returned."""
    left = source.load(model)
    if left:
        _LOGGER.warning(
            "%s: left at their initial values, since the weights have another "
            "classifier: %s",
            model.name,
            ", ".join(left),
        )
    return left


def _imagenet(network):
    record = record_of(network.name)
    if record is not None:
        return TimmSource(record)
    reason = f"There are no published ImageNet weights of {network.name}. "
    twin = network.timm_counterpart
    if twin:
        reason += (
            f"timm's are of {twin}, another network: "
            f'keras_csp.{twin}(weights="imagenet"). '
        )
    if any(file.network == network.name for file in darknet_files()):
        reason += (
            "For the authors' Darknet weights give the path of their file, "
            f"weights='{network.cfg}.weights'; keras_csp.list_weights() shows "
            "where they are published. "
        )
    if not twin:
        names = ", ".join(record.network for record in records())
        reason += f"Networks with weights of timm's: {names}. "
    raise ValueError(f"{reason}Received: weights='imagenet' for {network.name}")


def _timm_file(network, path):
    record = record_of(network.name)
    if record is not None:
        return TimmSource(record, path)
    twin = network.timm_counterpart
    raise ValueError(
        "A .safetensors file holds a network of timm's, and "
        f"{network.name} is not one of them"
        + (f": timm's is {twin}. " if twin else ". ")
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
            "By its name this file holds a network with another activation "
            f"than {network.name} (cfg/{network.cfg}.cfg): the authors' omega "
            "networks have Mish, and a Darknet file does not state it. Use "
            "keras_csp.darknet.load(cfg, weights) with its own cfg file. "
            f"Received: weights={path!r}"
        )
    twin = network.name.removesuffix("Timm")
    raise ValueError(
        "A Darknet file fits the network of its cfg file, and the authors "
        f"published none for {network.name}"
        + (f": theirs is {twin}. " if twin != network.name else ". ")
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


def load_timm(name, source=None, prefix=None, **options):
    """A network of timm's with its trained weights and logits out.

    Args:
        name: timm's name, e.g. "cs3darknet_focus_s"; `list_weights()` prints
            all of them.
        source: None (default) for the published checkpoint; or the path of a
            .safetensors file that timm saved, of a folder that holds a
            model.safetensors, or a hub id "organisation/name", with or
            without "@revision".
        prefix: what stands before the network's keys in the file, e.g.
            "model.". Default `None`: it is found, whatever it is; a file with
            the network under two prefixes, as of "model." and "ema_model.",
            needs it.
        options: of the factory, e.g. `include_top=False` or `input_shape`.
            The default of `classes` is the file's number of them, that of
            `classifier_activation` is None: logits, as timm gives them.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: unknown name; a file of another network, both are named;
            or the network under several prefixes, which are named.
        DownloadError: the hub did not deliver; nothing is left in its cache.
    """
    record = find_record(name)
    weights = TimmSource(record, source, prefix)
    weights.fetch()
    options.setdefault("classifier_activation", None)
    options.setdefault("classes", weights.classes() or PUBLISHED_CLASSES)
    return get_factory(record.network)(weights=weights, **options)
