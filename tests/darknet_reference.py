"""Darknet in numpy, written from its C sources and not from the package.

Its own parser, its own writer of random .weights files, a forward pass, and
the boxes of [yolo] with their suppression; one image, channels first as in
Darknet. `author_cfgs` gives the cfg texts.
"""

import pathlib

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SHORT = {
    "c": "convolutional",
    "cb": "convolutional",
    "s": "shortcut",
    "r": "route",
    "f": "filters",
    "k": "size",
    "/": "stride",
    "a": "activation",
    "g": "groups",
}


def author_cfgs():
    """{name: text of the cfg} of golden/author_cfgs.txt."""
    path = pathlib.Path(__file__).with_name("golden") / "author_cfgs.txt"
    lines = [x for x in path.read_text().splitlines() if x[0] != "#"]
    cfgs = {}
    while lines:
        names = lines.pop(0)[1:-1].split(" | ")
        facts = []
        while lines and lines[0][0] != "[":
            head = lines.pop(0).split()
            if head[1:2] == ["x"]:
                times, count = int(head[0]), int(head[2])
                facts += times * lines[:count]
                del lines[:count]
            else:
                facts.append(" ".join(head))
        text = "\n".join(_expanded(fact) for fact in facts)
        cfgs.update(dict.fromkeys(names, text))
    return cfgs


def _expanded(fact):
    head, *words = fact.split(" ")
    lines = [f"[{SHORT.get(head, head)}]"]
    if head == "cb":
        lines += ["batch_normalize=1", "pad=1"]
    for word in words:
        key, value = word.split("=", 1)
        lines.append(f"{SHORT.get(key, key)}={value}")
    return "\n".join([*lines, ""])


def resized(text, height, width):
    """The cfg for images of this size."""
    net, bracket, rest = text[1:].partition("[")
    lines = [x for x in net.splitlines() if not x.startswith(("hei", "wid"))]
    lines += [f"height={height}", f"width={width}", ""]
    return "[" + "\n".join(lines) + bracket + rest


def parsed(text):
    """([net], [(kind, options)])."""
    sections = []
    for line in text.split():
        if line.startswith("["):
            sections.append((line[1:-1], {}))
        else:
            key, value = line.split("=")
            sections[-1][1].setdefault(key, value)
    return sections[0][1], sections[1:]


def indexes(options, key, here):
    numbers = [int(n) for n in options[key].split(",")]
    return [n + here if n < 0 else n for n in numbers]


def convolution_shapes(text):
    """{index: (filters, channels per group, size, size)}, in order."""
    net, sections = parsed(text)
    shapes, widths, channels = {}, [], int(net["channels"])
    for here, (kind, options) in enumerate(sections):
        if kind == "convolutional":
            filters, size = (
                int(options.get(k, 1)) for k in ("filters", "size")
            )
            inputs = channels // int(options.get("groups", 1))
            if "share_index" not in options:
                shapes[here] = (filters, inputs, size, size)
            channels = filters
        elif kind == "route":
            channels = sum(widths[n] for n in indexes(options, "layers", here))
            channels //= int(options.get("groups", 1))
        elif kind == "scale_channels":
            channels = widths[indexes(options, "from", here)[0]]
        elif kind == "maxpool" and int(options.get("maxpool_depth", 0)):
            channels = int(options.get("out_channels", 1))
        widths.append(channels)
    return shapes


def random_weights(text, seed=0):
    """{index: {name: array}}, in Darknet's order; ready to be written.

    Convolutions that are added to another map are kept small: without
    training, sums would grow from block to block.
    """
    rng = np.random.default_rng(seed)
    _, sections = parsed(text)
    weights = {}
    for index, shape in convolution_shapes(text).items():
        filters = shape[0]
        kind_after = [k for k, _ in sections[index + 1 : index + 2]]
        gain = 0.3 if kind_after == ["shortcut"] else 1.0
        layer = {"biases": rng.normal(0, 0.1, filters)}
        if int(sections[index][1].get("batch_normalize", 0)):
            layer["scales"] = gain * rng.uniform(0.5, 1.5, filters)
            layer["means"] = rng.normal(0, 0.1, filters)
            layer["variances"] = rng.uniform(0.5, 1.5, filters)
        scale = np.sqrt(2 / np.prod(shape[1:]))
        layer["kernel"] = rng.standard_normal(shape, "float32") * scale
        weights[index] = {k: v.astype("float32") for k, v in layer.items()}
    return weights


def weights_file(weights, header=None):
    """The bytes of a .weights file."""
    if header is None:
        header = np.array([0, 2, 5, 0, 0], "<i4").tobytes()
    arrays = [a for layer in weights.values() for a in layer.values()]
    return header + b"".join(a.astype("<f4").tobytes() for a in arrays)


def outputs(text, weights, image):
    """What each layer returns, a list of (channels, height, width).

    `image` is (channels, height, width).
    """
    _, sections = parsed(text)
    results, x = [], image.astype("float64")
    for here, (kind, options) in enumerate(sections):
        owner = here
        while "share_index" in sections[owner][1]:
            (owner,) = indexes(sections[owner][1], "share_index", owner)
        x = LAYERS[kind](options, x, results, weights.get(owner))
        results.append(x)
    return results


def _convolutional(options, x, _results, layer):
    size, stride = (int(options.get(k, 1)) for k in ("size", "stride"))
    down, right = (
        int(options.get(k, stride)) for k in ("stride_y", "stride_x")
    )
    groups = int(options.get("groups", 1))
    pad = size // 2 if int(options.get("pad", 0)) else 0
    pad = pad or int(options.get("padding", 0))
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad)])
    windows = sliding_window_view(x, (size, size), (1, 2))
    windows = windows[:, ::down, ::right]
    parts = [
        np.tensordot(kernel.astype("float64"), window, ((1, 2, 3), (0, 3, 4)))
        for kernel, window in zip(
            np.split(layer["kernel"], groups), np.split(windows, groups)
        )
    ]
    y = np.concatenate(parts)

    def each(name):
        return layer[name].astype("float64")[:, None, None]

    if "scales" in layer:
        y = (y - each("means")) / np.sqrt(each("variances") + 1e-5)
        y = y * each("scales")
    return activated(y + each("biases"), options, "logistic")


def activated(x, options, default="linear"):
    name = options.get("activation", default)
    if name == "leaky":
        return np.where(x > 0, x, 0.1 * x)
    if name == "relu":
        return np.maximum(x, 0)
    if name == "relu6":
        return np.clip(x, 0, 6)
    if name == "mish":
        return x * np.tanh(np.log1p(np.exp(np.minimum(x, 30))))
    logistic = 1 / (1 + np.exp(-x))
    return {"linear": x, "logistic": logistic, "swish": x * logistic}[name]


def _maxpool(options, x, _results, _layer):
    if int(options.get("maxpool_depth", 0)):
        filters = int(options.get("out_channels", 1))
        return np.stack([x[g::filters].max(0) for g in range(filters)])
    return _pooled(options, x, np.nanmax)


def _local_avgpool(options, x, _results, _layer):
    return _pooled(options, x, np.nanmean)


def _pooled(options, x, reduce):
    stride = int(options.get("stride", 1))
    size = int(options.get("size", stride))
    padding = int(options.get("padding", size - 1))
    sides = [(side + padding - size) // stride + 1 for side in x.shape[1:]]
    first = -(padding // 2)
    y = np.empty((len(x), *sides))
    for i in range(sides[0]):
        for j in range(sides[1]):
            rows, columns = (
                slice(max(0, first + n * stride), first + n * stride + size)
                for n in (i, j)
            )
            y[:, i, j] = reduce(x[:, rows, columns], axis=(1, 2))
    return y


def _avgpool(_options, x, _results, _layer):
    return x.mean((1, 2), keepdims=True)


def _route(options, _x, results, _layer):
    groups = int(options.get("groups", 1))
    group = int(options.get("group_id", 0))
    maps = [results[n] for n in indexes(options, "layers", len(results))]
    return np.concatenate([np.split(y, groups)[group] for y in maps])


def _shortcut(options, x, results, _layer):
    y = x.copy()
    for n in indexes(options, "from", len(results)):
        other = results[n]
        stride = max(1, other.shape[1] // y.shape[1])
        sample = max(1, y.shape[1] // other.shape[1])
        both = min(len(other), len(y))
        y[:both, ::sample, ::sample] += other[:both, ::stride, ::stride]
    return activated(y, options)


def _upsample(options, x, _results, _layer):
    stride = int(options.get("stride", 2))
    y = x.repeat(stride, axis=1).repeat(stride, axis=2)
    return y * float(options.get("scale", 1))


def _multiply(options, x, results, _layer):
    other = results[indexes(options, "from", len(results))[0]]
    return activated(x * other, options)


def _softmax(options, x, _results, _layer):
    temperature = float(options.get("temperature", 1))
    parts = np.split(x.ravel() / temperature, int(options.get("groups", 1)))
    powers = [np.exp(part - part.max()) for part in parts]
    return np.concatenate([power / power.sum() for power in powers])


def _same(_options, x, _results, _layer):
    return x


LAYERS = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "local_avgpool": _local_avgpool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "scale_channels": _multiply,
    "sam": _multiply,
    "softmax": _softmax,
    "dropout": _same,
    "cost": _same,
    "yolo": _same,  # the head's numbers as they are
}


def heads(text):
    """The convolutions before each [yolo], or the last one of a classifier."""
    _, sections = parsed(text)
    kinds = [kind for kind, _ in sections]
    before = [n - 1 for n, kind in enumerate(kinds) if kind == "yolo"]
    return before or [max(convolution_shapes(text))]


def tempered(text, weights, head_maps):
    """The weights with the heads scaled to numbers of about 1.

    Untrained heads give numbers for which exp and softmax overflow.
    """
    weights = dict(weights)
    for index, head_map in zip(heads(text), head_maps):
        layer = dict(weights[index])
        for name in ("kernel", "biases"):
            layer[name] = layer[name] / np.float32(np.std(head_map))
        weights[index] = layer
    return weights


def boxes(text, index, head_map):
    """get_yolo_box of one [yolo]: rows of x, y, w, h, objectness, scores.

    All relative to the image, in the order of rows, columns and anchors;
    `head_map` is what the convolution before gives, (channels, height, width).
    Source: src/yolo_layer.c.
    """
    net, sections = parsed(text)
    options = sections[index][1]
    classes = int(options["classes"])
    numbers = [float(n) for n in options["anchors"].split(",")]
    mask = [int(n) for n in options["mask"].split(",")]
    scale = float(options.get("scale_x_y", 1))
    new_coords = int(options.get("new_coords", 0))
    _, height, width = head_map.shape
    found = []
    for row, column in np.ndindex(height, width):
        for n, place in enumerate(mask):
            start = n * (5 + classes)
            t = head_map[start : start + 5 + classes, row, column]
            t = t.astype("float64")
            rest, size = t[4:], t[2:4]
            centre = t[:2]
            if not new_coords:
                centre, rest = (1 / (1 + np.exp(-v)) for v in (centre, rest))
            centre = centre * scale - 0.5 * (scale - 1)
            x = (column + centre[0]) / width
            y = (row + centre[1]) / height
            size = size**2 * 4 if new_coords else np.exp(size)
            w = size[0] * numbers[2 * place] / int(net["width"])
            h = size[1] * numbers[2 * place + 1] / int(net["height"])
            found.append([x, y, w, h, rest[0], *(rest[0] * rest[1:])])
    return np.array(found)


def suppressed(text, rows, thresh, nms=0.45):
    """[(score, class, x, y, w, h)] of all [yolo], the best first.

    do_nms_sort and diounms_sort of src/box.c, as the last [yolo] says.
    """
    _, sections = parsed(text)
    options = next(o for kind, o in sections[::-1] if kind == "yolo")
    kind = options.get("nms_kind", "default")
    beta = float(options.get("beta_nms", 0.6))
    kept = []
    for c in range(rows.shape[1] - 5):
        mine = []
        for row in sorted(rows, key=lambda row: -row[5 + c]):
            if row[5 + c] <= thresh:
                break
            if all(_overlap(kind, beta, b[2:], row[:4]) <= nms for b in mine):
                mine.append((row[5 + c], c, *row[:4]))
        kept += mine
    return sorted(kept, key=lambda found: -found[0])


def _overlap(kind, beta, a, b):
    low = [min(p[k] - p[k + 2] / 2 for p in (a, b)) for k in (0, 1)]
    high = [max(p[k] + p[k + 2] / 2 for p in (a, b)) for k in (0, 1)]
    common = 1.0
    for k in (0, 1):
        left = max(p[k] - p[k + 2] / 2 for p in (a, b))
        right = min(p[k] + p[k + 2] / 2 for p in (a, b))
        common *= max(0.0, right - left)
    iou = common / (a[2] * a[3] + b[2] * b[3] - common)
    if kind not in ("greedynms", "diounms"):
        return iou
    diagonal = (high[0] - low[0]) ** 2 + (high[1] - low[1]) ** 2
    apart = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    return iou - (apart / diagonal) ** (0.6 if kind == "greedynms" else beta)
