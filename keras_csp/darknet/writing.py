"""A network back in Darknet's two files: the cfg that it was made of, and
its weights.

The text of the cfg stays with the model (`origin_of`). What has changed since
is put into it: the classes, the anchors, the size, and how a detector's boxes
are chosen. Everything else stays byte for byte.
"""

import collections
import logging
import os

import keras

from keras_csp._files import atomic_write_together
from keras_csp._keras_internals import functional, nodes, producer
from keras_csp.darknet import weights as weight_files
from keras_csp.darknet.build import calls, image_spec_of
from keras_csp.darknet.cfg import ORIGIN
from keras_csp.darknet.cfg_text import CfgText, heads_of, number_text
from keras_csp.darknet.plan import IMAGE, NMS_KINDS, make_plan
from keras_csp.darknet.slots import find_slots
from keras_csp.layers.preprocessing import (
    Preprocessing,
    image_spec,
    origin_of,
)
from keras_csp.layers.units import ConvNormAct

_LOGGER = logging.getLogger("keras_csp")


def save(model, cfg, weights, class_names=None):
    """Writes a network as Darknet's .cfg and .weights files.

        detector = Detector.from_darknet("yolov4.cfg", "yolov4.weights")
        ...
        keras_csp.darknet.save(detector, "mine.cfg", "mine.weights")

    `keras_csp.darknet.load` makes the same network of them, and other readers
    of Darknet's files (Darknet, OpenCV) find the same boxes. (OpenCV adds 1e-6
    to the variances of normalisations, Darknet 1e-5, so that its scores may
    differ by some thousandths where variances are small.) The cfg is the
    one that the model was made of, byte for byte, with what has changed since:
    `classes` and the `filters` of the convolution before each [yolo]; its
    anchors (`mask` and `num` stay, unless two heads that share an anchor now
    differ in it, or a head has another number of them); `width`, `height` and
    `letter_box`, as the `ImageSpec` has them; `thresh`, `nms_kind`,
    `beta_nms`, `scale_x_y` and `new_coords`. What a cfg has no option for is
    named in a warning of the "keras_csp" logger.

    The images seen, in the header of the .weights file, are those of the
    .weights file that the model was loaded from; images of a training with
    Keras are not counted. They are 0 where some of the weights came from
    elsewhere.

    Args:
        model: of `load` or `Detector.from_darknet`, also trained, cloned, or
            read from its .keras file.
        cfg, weights: paths of the two files, overwritten if there are such.
            Either both appear, complete, or none.
        class_names: path of a text file for the names of the classes, one a
            line, e.g. mine.names. Default None: none is written.

    Raises:
        ValueError: a model that was not made of a cfg, or whose layers are
            no longer those of its cfg; one that normalises its pixels; names
            that are not known; or paths that do not go together.
        FileNotFoundError: a folder that does not exist.
    """
    paths = _check_paths(cfg, weights, class_names)
    text, slots = changed_cfg(model), find_slots(model)
    names = image_spec(model).class_names
    if class_names is not None and names is None:
        raise ValueError(
            f"The names of the classes of {model.name!r} are not known; put "
            "them there with keras_csp.with_image_spec. Received: "
            f"class_names={class_names!r}"
        )
    with atomic_write_together(*paths) as parts:
        parts[0].write_bytes(text.encode())
        weight_files.write(parts[1], slots, weight_files.header_of(model))
        if class_names is not None:
            parts[2].write_text("\n".join([*names, ""]), "utf-8")


def _check_paths(cfg, weights, class_names):
    given = {"cfg": cfg, "weights": weights, "class_names": class_names}
    paths = {k: os.fsdecode(v) for k, v in given.items() if v is not None}
    said = ", ".join(f"{name}={path!r}" for name, path in paths.items())
    if len(set(map(os.path.realpath, paths.values()))) < len(paths):
        raise ValueError(f"The files must be different ones. Received: {said}")
    if paths["cfg"].endswith(".weights") or paths["weights"].endswith(".cfg"):
        raise ValueError(
            "The first path is that of the cfg, the second that of the "
            f"weights. Received: {said}"
        )
    if weight_files.is_backbone(paths["weights"]):
        raise ValueError(
            "A name that ends in .NN is that of a file of the first NN "
            "layers; for all of them choose another, e.g. mine.weights. "
            f"Received: {said}"
        )
    return list(paths.values())


def changed_cfg(model):
    """The text of the cfg that a model was made of, with what has changed.

    Raises:
        ValueError: as `save`.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model. Received: "
            f"{model!r} of type {type(model).__name__}"
        )
    original = origin_of(model).get(ORIGIN)
    if original is None:
        raise ValueError(
            f"{model.name!r} was not made of a Darknet cfg, so there is none "
            "to write. keras_csp.darknet.load and Detector.from_darknet make "
            "such models; keras_csp.darknet.save_weights writes the weights "
            "of a network whose cfg you have, and keras_csp.export files for "
            "other programs"
        )
    source = f"the cfg of {model.name!r}"
    text = CfgText(original, source)
    spec = image_spec(model)
    shape = (*(spec.size or (None, None)), model.inputs[0].shape[-1])
    plan = make_plan(text.sections, shape, warn=False)
    _put_input(text, plan, spec)
    unsaid = _put_heads(text, plan, model) if plan.is_detector else []
    changed = text.render()
    plan = make_plan(CfgText(changed, source).sections, warn=False)
    _check_same(model, plan)
    _warn_unsaid(unsaid + _unsaid_of_spec(spec, plan), model)
    return changed


def _put_input(text, plan, spec):
    net = text.sections[0]
    for key, side in zip(("height", "width", "channels"), plan.input_shape):
        if net.integer(key, None) != side:
            text.put(net, key, side)
    letterbox = spec.resize == "letterbox"
    if plan.is_detector and plan.letterbox != letterbox:
        text.put(net, "letter_box", int(letterbox))


def _unsaid_of_spec(spec, plan):
    """What Darknet does otherwise with photographs, and has no option for."""
    theirs = image_spec_of(plan, plan.input_shape, spec.class_names)
    if (spec.mean, spec.std) != (theirs.mean, theirs.std):
        raise ValueError(
            "Darknet feeds pixels in [0, 1] as they are, so a network that "
            "normalises them has no cfg. Received: an ImageSpec with "
            f"mean={spec.mean}, std={spec.std}"
        )
    return [
        f"{name}={getattr(spec, name)!r} of the ImageSpec"
        for name in ("resize", "crop", "interpolation", "antialias")
        if getattr(spec, name) != getattr(theirs, name)
    ]


def _warn_unsaid(unsaid, model):
    if unsaid:
        _LOGGER.warning(
            "%s: a Darknet cfg has no option for %s",
            model.name,
            ", ".join(dict.fromkeys(unsaid)),
        )


def _put_heads(text, plan, model):
    """Puts what the `YoloHead`s hold; returns what there is no option for."""
    layers = {layer.name: layer for layer in model.layers}
    found, unsaid = [], []
    for written in heads_of(text, plan):
        head = layers.get(written.step.name)
        if head is None:
            raise _changed(model, f"it lacks the layer {written.step.name!r}")
        written.put_sizes(text, head.classes, len(head.anchors))
        unsaid += _put_options(text, written.step, written.yolo, head)
        found.append((written, head))
    if any(w.step.arguments["anchors"] != _anchors(h) for w, h in found):
        _put_anchors(text, [(written.yolo, head) for written, head in found])
    return unsaid


def _anchors(head):
    return tuple(
        (float(width), float(height)) for width, height in head.anchors
    )


# Arguments of a `YoloHead` that a [yolo] section has under another name.
_OPTIONS = {
    "scale_x_y": "scale_x_y",
    "new_coords": "new_coords",
    "score_threshold": "thresh",
}
# The loss is that of a training, which the cfg's own options describe.
_ELSEWHERE = ("anchors", "classes", "stride", "nms", "nms_beta", "loss")


def _put_options(text, step, section, head):
    unsaid = []
    for name, planned in step.arguments.items():
        value = getattr(head, name)
        if name in _ELSEWHERE or value == planned:
            continue
        if name in _OPTIONS:
            text.put(section, _OPTIONS[name], number_text(value))
        else:
            unsaid.append(f"{name}={value!r} of {head.name!r}")
    _put_suppression(text, step, section, head)
    return unsaid


def _put_suppression(text, step, section, head):
    planned = step.arguments
    wanted = head.nms, head.nms_beta
    if wanted == (planned["nms"], planned["nms_beta"]):
        return
    kinds = {"iou": "default", "diou": "diounms"}
    kind = section.text("nms_kind", "default")
    nms, fixed_beta = NMS_KINDS[kind]
    if nms != head.nms or fixed_beta is not None:
        text.put(section, "nms_kind", kinds[head.nms])
    if section.number("beta_nms", 0.6) != head.nms_beta:
        text.put(section, "beta_nms", number_text(head.nms_beta))


def _put_anchors(text, heads):
    """Puts anchors where their `mask` says, if that is still possible.

    Args:
        text: a `CfgText`, which is changed.
        heads: ([yolo] section, `YoloHead`) in the order of the cfg.
    """
    lists = [_listed(section) for section, _ in heads]
    masks = [_mask(section) for section, _ in heads]
    anchors = [_anchors(head) for _, head in heads]
    if all(pairs == lists[0] for pairs in lists):
        # Darknet's training looks at all of them: the lists stay alike.
        placed = [_placed(anchors, masks)] * len(heads)
    else:
        placed = [_placed([x], [mask]) for x, mask in zip(anchors, masks)]
    if None in placed:
        lists, masks = _anew(heads)
    else:
        lists = [
            [new.get(position, pair) for position, pair in enumerate(pairs)]
            for new, pairs in zip(placed, lists)
        ]
    for pairs, mask, (section, _) in zip(lists, masks, heads):
        _put_list(text, section, pairs, mask)


def _placed(anchors, masks):
    """{position: pair}; None where the masks do not fit the anchors.

    That is where they are as many no longer, or a position has two pairs.
    """
    placed = {}
    for mask, pairs in zip(masks, anchors):
        if len(mask) != len(pairs):
            return None
        for position, pair in zip(mask, pairs):
            if placed.setdefault(position, pair) != pair:
                return None
    return placed


def _anew(heads):
    """One list of all heads' anchors, the finest head's first, and masks."""
    order = sorted(heads, key=lambda item: item[1].strides)
    pairs = [pair for _, head in order for pair in _anchors(head)]
    starts, start = {}, 0
    for section, head in order:
        starts[section.line] = start
        start += len(head.anchors)
    masks = [
        tuple(range(starts[s.line], starts[s.line] + len(head.anchors)))
        for s, head in heads
    ]
    return [pairs] * len(heads), masks


def _put_list(text, section, pairs, mask):
    if pairs != _listed(section):
        said = ", ".join(",".join(map(number_text, pair)) for pair in pairs)
        text.put(section, "anchors", said)
    if len(pairs) != section.integer("num", 1):
        text.put(section, "num", len(pairs))
    if mask != _mask(section):
        text.put(section, "mask", ",".join(map(str, mask)))


def _listed(section):
    """All pairs that `anchors` lists, of which `mask` picks."""
    numbers = section.numbers("anchors")
    total = section.integer("num", 1)
    return [tuple(numbers[2 * n : 2 * n + 2]) for n in range(total)]


def _mask(section):
    return section.integers("mask", tuple(range(section.integer("num", 1))))


def _check_same(model, plan):
    """The model must be the network of the plan.

    Raises:
        ValueError: a layer that is not there, reads another layer, or is
            another one; its name is in the message.
    """
    _check_calls(model, plan)
    layers = {layer.name: layer for layer in model.layers}
    for step in plan.steps:
        layer = layers.get(step.name)
        if step.kind == "yolo":
            strides = {"strides": step.arguments["stride"]}
            _check_arguments(model, layer, strides)
        elif isinstance(layer, ConvNormAct):
            _check_arguments(model, layer, step.arguments)
    floats = {slot.index: slot.floats for slot in find_slots(model)}
    for step in plan.steps:
        if step.weights != floats.get(step.index, 0):
            raise _changed(
                model,
                f"{step.name!r} has {floats.get(step.index, 0)} weights, and "
                f"the cfg {step.weights}",
            )


def _check_calls(model, plan):
    graph = functional(model)
    expected, outputs = calls(plan)
    actual = [] if graph is None else _calls_of(graph)
    expected, actual = (
        collections.Counter(expected),
        collections.Counter(actual),
    )
    for there, missing in (
        ("the cfg", expected - actual),
        ("the model", actual - expected),
    ):
        for name, inputs in missing:
            read = ", ".join("the image" if x == IMAGE else x for x in inputs)
            raise _changed(model, f"only {there} has {name!r} after {read}")
    tensors = keras.tree.flatten(graph.outputs)
    if {producer(tensor).name for tensor in tensors} != set(outputs):
        raise _changed(model, "its outputs are others")


def _calls_of(graph):
    found = []
    for node in nodes(graph):
        if isinstance(node.operation, Preprocessing):
            continue
        before = [producer(tensor) for tensor in node.input_tensors]
        names = tuple(
            IMAGE if isinstance(x, Preprocessing) else x.name for x in before
        )
        found.append((node.operation.name, names))
    return found


def _check_arguments(model, layer, arguments):
    for name, planned in arguments.items():
        value = getattr(layer, name)
        if isinstance(value, list):
            value = tuple(value)
        if value != planned:
            raise _changed(
                model,
                f"{layer.name!r} has {name}={value!r}, and the cfg {planned!r}",
            )


def _changed(model, difference):
    return ValueError(
        f"{model.name!r} is no longer the network of its cfg: {difference}. "
        "Only the classes, anchors, sizes and thresholds may have changed"
    )
