"""State dicts of timm's CspNet into the networks of models/timm.py.

Keys are timm's: `stages.0.blocks.1.conv2.bn.running_var`. In its CrossStage3
(the CS3 networks) the first half of a stage's channels is the main branch and
the second the shortcut; here, as in eq. 4, the shortcut comes first. So the
outputs of that expansion, and the inputs of the transition after the
concatenation, exchange their halves.

What wraps a network puts a prefix before all of its keys: `module.` by
DistributedDataParallel, `_orig_mod.` by torch.compile, `timm_model.` by
transformers, any name by Lightning; and they nest. `find_prefix` reads it from
the keys.
"""

import collections
import dataclasses
import logging
import math
import re

import keras
import numpy as np
import safetensors

from keras_csp.layers import ConvNormAct, CSPStage, SqueezeExcitation
from keras_csp.layers import kernel_layout as conversion
from keras_csp.weights.catalog import records

_NORM = {
    "bn.weight": "gamma",
    "bn.bias": "beta",
    "bn.running_mean": "moving_mean",
    "bn.running_var": "moving_variance",
}
_IGNORED = "num_batches_tracked"  # PyTorch's counter, of no use here
# The parts of timm's CspNet that have tensors, after any prefix.
_PART = re.compile(r"(?:^|(?<=\.))(?:stem\.conv\d+|stages\.\d+|head\.fc)\.")
_LOGGER = logging.getLogger("keras_csp")


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """One tensor of the file and the variable that it becomes."""

    key: str
    variable: keras.Variable
    shape: tuple  # in the file
    convert: callable = np.asarray


def classes_of(path, record, prefix=None):
    """The number of classes of a safetensors file, None without classifier.

    Args:
        path, record, prefix: as of `load`.
    """
    with open_safetensors(path) as file:
        stored = _stored_shapes(file)
    prefix = find_prefix(stored, record, path) if prefix is None else prefix
    shape = stored.get(f"{prefix}{record.classifier}.weight")
    return shape[0] if shape else None


def load(model, path, record, prefix=None):
    """Fills `model`, a network of models/timm.py, from a safetensors file.

    All of the network's tensors in the file and all of the model's variables
    must match, or nothing is assigned. Two exceptions: a classifier of another
    number of classes is left as it is, and a model of 1 or 4 input channels
    gets the first kernel of 3 as timm adapts it (`adapt_input_channels`).
    Tensors may be of float32, float16 or bfloat16; variables keep their type.

    Args:
        model: built, with or without its classifier ("predictions").
        path: of the safetensors file.
        record: the `Record` whose names the file has.
        prefix: of the network's keys, e.g. "model.". Default `None`: as
            `find_prefix` finds it. Keys without it are not the network's and
            are left out.

    Returns:
        The paths of the variables that were left as they were.

    Raises:
        ValueError: not a safetensors file, or one of another network; the
            message names both networks. Or networks under several prefixes;
            the message names them.
    """
    with open_safetensors(path) as file:
        stored = _stored_shapes(file)
        if prefix is None:
            prefix = find_prefix(stored, record, path)
        shapes = _under(prefix, stored)
        tensors = _adapted(_tensors(model), shapes, record)
        left = _new_classifier(tensors, shapes, record)
        tensors = [t for t in tensors if t.variable.path not in left]
        _check(tensors, shapes, model, path, record, prefix)
        for tensor in tensors:
            value = file.get_tensor(prefix + tensor.key)
            tensor.variable.assign(tensor.convert(np.asarray(value, "float32")))
    if len(stored) > len(shapes):
        _LOGGER.info(
            "%s: the network is under %r; %d other tensors were left out",
            path,
            prefix,
            len(stored) - len(shapes),
        )
    return left


def find_prefix(stored, record, path):
    """What stands before the keys of a network in a state dict.

    The prefix under which the file holds as many parameters as the record
    has. Where none does, as in a damaged file or one of another network, the
    prefix of the most tensors.

    Args:
        stored: {key: shape} of the file.
        record: the `Record` of the network.
        path: of the file, for the message.

    Returns:
        The prefix, "" for none.

    Raises:
        ValueError: several prefixes, e.g. "model." and "ema_model.", fit
            alike.
    """
    parts = collections.defaultdict(dict)
    for key, shape in stored.items():
        if match := _PART.search(key):
            prefix = key[: match.start()]
            parts[prefix][key.removeprefix(prefix)] = shape
    if not parts:
        return ""
    fitting = [p for p, shapes in parts.items() if _is_of(shapes, record)]
    if not fitting:
        most = max(map(len, parts.values()))
        fitting = [p for p, shapes in parts.items() if len(shapes) == most]
    if len(fitting) > 1:
        raise ValueError(
            f"{str(path)!r} holds timm's {record.name} under "
            f"{len(fitting)} prefixes: {', '.join(map(repr, fitting))}. Give "
            "the one to load, e.g. keras_csp.weights.load_timm("
            f"{record.name!r}, {str(path)!r}, prefix={fitting[0]!r})"
        )
    return fitting[0]


def _stored_shapes(file):
    """{key: shape} of an open file, without PyTorch's counters."""
    return {
        key: tuple(file.get_slice(key).get_shape())
        for key in file.keys()  # noqa: SIM118
        if not key.endswith(_IGNORED)
    }


def _under(prefix, stored):
    """{key without the prefix: shape} of the network with this prefix."""
    shapes = {}
    for key, shape in stored.items():
        part = _PART.search(key)
        others = part is not None and key[: part.start()] != prefix
        if key.startswith(prefix) and not others:
            shapes[key.removeprefix(prefix)] = shape
    return shapes


def open_safetensors(path):
    try:
        return safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{str(path)!r} is not a complete safetensors file: {error}"
        ) from error


def adapt_input_channels(kernel, channels):
    """A kernel of RGB for images of 1 or 4 channels, as timm does it.

    One channel: the sum over the three, so that a grey image gives what it
    would in RGB. Four: R, G, B, R times 3/4.

    Args:
        kernel: `(output, 3, height, width)`.
        channels: 1 or 4.
    """
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.concatenate([kernel, kernel], axis=1)[:, :channels]
    return repeated * (3 / channels)


def _tensors(model):
    return [
        tensor
        for prefix, layer, halves in _layers(model)
        for tensor in _layer_tensors(prefix, layer, halves)
    ]


def _layers(model):
    """(prefix in the file, layer, axis whose halves are exchanged)."""
    stem = [la for la in model.layers if la.name.startswith("stem")]
    stem = [la for la in stem if isinstance(la, ConvNormAct)]
    for number, layer in enumerate(stem, 1):
        yield f"stem.conv{number}", layer, None
    stages = {}
    for layer in model.layers:
        if match := re.match(r"stage(\d+)(_down)?", layer.name):
            number, down = match.groups()
            stage = stages.setdefault(int(number), ([], []))
            stage[0 if down else 1].append(layer)
    for number, (down, body) in stages.items():
        yield from _stage_layers(f"stages.{number - 1}", down, body)
    if model.layers[-1].name == "predictions":
        yield "head.fc", model.layers[-1], None


def _stage_layers(prefix, down, body):
    averaging = any(not isinstance(layer, ConvNormAct) for layer in down)
    units = [layer for layer in down if isinstance(layer, ConvNormAct)]
    csp = body[0] if isinstance(body[0], CSPStage) else None
    # timm's CrossStage3 is the one without a transition before the fusion.
    halves = csp is not None and csp.fusion == "first"
    if csp is not None:
        *units, expansion = units
        yield f"{prefix}.conv_exp", expansion, 0 if halves else None
    for unit in units:
        yield f"{prefix}.conv_down" + (".1" if averaging else ""), unit, None
    for index, block in enumerate(csp.blocks if csp else body):
        yield from _block_layers(f"{prefix}.blocks.{index}", block)
    if csp is not None:
        if csp.partial_transition is not None:
            name = f"{prefix}.conv_transition_b"
            yield name, csp.partial_transition, None
        yield f"{prefix}.conv_transition", csp.transition, 1 if halves else None


def _block_layers(prefix, block):
    convolutions = 0
    for layer in block.layers.layers:
        if isinstance(layer, SqueezeExcitation):
            yield f"{prefix}.attn.fc1", layer.reduce, None
            yield f"{prefix}.attn.fc2", layer.expand, None
        else:
            convolutions += 1
            yield f"{prefix}.conv{convolutions}", layer, None


def _layer_tensors(prefix, layer, halves):
    """The tensors of a unit, or of a convolution or classifier with bias."""
    if not isinstance(layer, ConvNormAct):
        yield _kernel(f"{prefix}.weight", layer)
        yield _vector(f"{prefix}.bias", layer.bias)
        return
    convolution = next(la for la in layer.layers if hasattr(la, "kernel"))
    norm = next(la for la in layer.layers if hasattr(la, "moving_mean"))
    yield _kernel(f"{prefix}.conv.weight", convolution, halves)
    for key, name in _NORM.items():
        yield _vector(f"{prefix}.{key}", getattr(norm, name), halves == 0)


def _kernel(key, layer, halves=None):
    def convert(kernel):
        if halves is not None:
            kernel = np.roll(kernel, kernel.shape[halves] // 2, axis=halves)
        return conversion.kernel_to_keras(layer, kernel)

    return _Tensor(key, layer.kernel, conversion.torch_shape(layer), convert)


def _vector(key, variable, halves=False):
    def convert(vector):
        return np.roll(vector, len(vector) // 2) if halves else vector

    return _Tensor(key, variable, tuple(variable.shape), convert)


def _adapted(tensors, shapes, record):
    """`tensors`, the first kernel adapted to another number of channels."""
    key = f"{record.first_conv}.weight"
    first = next(t for t in tensors if t.key == key)
    theirs, ours = shapes.get(key, first.shape), first.shape
    if theirs[1] != 3 or ours[1] not in (1, 4):
        return tensors

    def convert(kernel):
        return first.convert(adapt_input_channels(kernel, ours[1]))

    shape = (ours[0], 3, *ours[2:])
    adapted = dataclasses.replace(first, shape=shape, convert=convert)
    return [adapted if t is first else t for t in tensors]


def _new_classifier(tensors, shapes, record):
    """Paths of the classifier's variables, where the classes differ."""
    ours = [t for t in tensors if t.key.startswith(f"{record.classifier}.")]
    same = all(shapes.get(t.key) == t.shape for t in ours)
    return [] if same else [t.variable.path for t in ours]


def _check(tensors, shapes, model, path, record, prefix):
    """Raises unless file and model have the same tensors."""
    head = f"{record.classifier}."
    expected = {tensor.key: tensor.shape for tensor in tensors}
    missing = [key for key in expected if key not in shapes]
    unexpected = [
        key
        for key in shapes
        if key not in expected and not key.startswith(head)
    ]
    different = [
        f"{key} {shapes[key]} where {shape} is needed"
        for key, shape in expected.items()
        if shapes.get(key, shape) != shape
    ]
    if not (missing or unexpected or different):
        return
    problems = [
        f"{len(names)} {kind}, e.g. {names[0]}"
        for kind, names in (
            ("tensors of other shapes", different),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if names
    ]
    under = f" Of its keys, those after {prefix!r}: " if prefix else " "
    raise ValueError(
        f"{str(path)!r} does not fit {model.name!r}, which takes the weights "
        f"of timm's {record.name} (keras_csp.{record.network}), at "
        f"{model.input_shape[-1]} input channels. {_identity(shapes)}{under}"
        f"{'; '.join(problems)}. Nothing was loaded."
    )


def _identity(shapes):
    """A sentence on which network of timm's the file holds."""
    for record in records():
        if _is_of(shapes, record):
            return (
                f"The file holds timm's {record.name}: use "
                f"keras_csp.{record.network} or keras_csp.weights.load_timm("
                f"{record.name!r}, ...)."
            )
    return "The file holds no network of timm's that is known here."


def _is_of(shapes, record):
    """Whether these are the tensors of the record's network, by their size.

    As if the file had 1000 classes and RGB. Without a classifier its width is
    that of a layer of the file.
    """
    classifier = shapes.get(f"{record.classifier}.weight")
    widths = {shape[0] for shape in shapes.values() if shape}
    if classifier:
        widths = {classifier[-1]}
    features = _features_size(shapes, record)
    return any(
        features + 1000 * (width + 1) == record.parameters for width in widths
    )


def _features_size(shapes, record):
    """Trainable parameters without the classifier, as if in RGB."""
    first = f"{record.first_conv}.weight"
    return sum(
        # The first kernel as if it were of three channels.
        math.prod((*shape[:1], 3, *shape[2:]) if key == first else shape)
        for key, shape in shapes.items()
        if not key.startswith(f"{record.classifier}.") and "running" not in key
    )
