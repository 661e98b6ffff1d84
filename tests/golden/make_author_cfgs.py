"""Writes author_cfgs.txt from the authors' and Darknet's own cfg files.

    git clone https://github.com/WongKinYiu/CrossStagePartialNetworks
    git clone https://github.com/AlexeyAB/darknet
    python tests/golden/make_author_cfgs.py CrossStagePartialNetworks darknet

Every cfg of the first and the common ones of the second, as facts: a line for
each section with the options that matter for inference, and no other. Files
that agree in all of these are listed once. The lines after `N x M` are M
lines, to be read N times.
"""

import pathlib
import sys

DARKNETS = (
    "cd53paspp-gamma",
    "darknet19",
    "densenet201",
    "efficientnet-lite3",
    "efficientnet_b0",
    "enet-coco",
    "resnet101",
    "resnet152",
    "tiny",
    "vgg-conv",
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "yolov3-tiny_3l",
    "yolov3_5l",
    "yolov4",
    "yolov4-csp",
    "yolov4-csp-s-mish",
    "yolov4-csp-swish",
    "yolov4-csp-x-mish",
    "yolov4-csp-x-swish",
    "yolov4-p5",
    "yolov4-p6",
    "yolov4-tiny",
    "yolov4-tiny-3l",
    "yolov4x-mish",
    "yolov7",
    "yolov7-tiny",
    "yolov7x",
)

KEYS = {
    "net": "height width channels letter_box",
    "convolutional": "filters size stride activation pad padding groups "
    "batch_normalize stride_x stride_y dilation share_index xnor bin_output",
    "maxpool": "size stride padding maxpool_depth out_channels",
    "local_avgpool": "size stride padding",
    "route": "layers groups group_id",
    "shortcut": "from activation weights_type",
    "upsample": "stride scale",
    "scale_channels": "from activation scale_wh",
    "sam": "from activation",
    "dropout": "probability",
    "softmax": "groups temperature",
    "yolo": "mask anchors classes num scale_x_y new_coords nms_kind beta_nms",
}

# "cb" is a convolution with batch_normalize=1 and pad=1, as most are.
SHORT = {
    "convolutional": "c",
    "shortcut": "s",
    "route": "r",
    "filters": "f",
    "size": "k",
    "stride": "/",
    "activation": "a",
    "groups": "g",
}


def sections(path):
    found = []
    for line in path.read_text(errors="replace").splitlines():
        text = "".join(line.split("#")[0].split())
        if text.startswith("["):
            found.append((text[1:-1], {}))
        elif text and not text.startswith(";"):
            key, value = text.split("=", 1)
            found[-1][1].setdefault(key, value)
    return found


def facts(path):
    for kind, options in sections(path):
        words = [SHORT.get(kind, kind)]
        if kind == "convolutional":
            usual = [options.get(k) for k in ("batch_normalize", "pad")]
            words[0] = "cb" if usual == ["1", "1"] else "c"
        for key in KEYS.get(kind, "").split():
            if key in options and not (
                words[0] == "cb" and key in ("batch_normalize", "pad")
            ):
                words.append(f"{SHORT.get(key, key)}={options[key]}")
        yield " ".join(words)


def collapsed(lines):
    """The repetition that saves most, first; the rest likewise."""
    saved, start, period, times = max(_repetitions(lines), default=(0, 0, 0, 0))
    if saved < 2:
        return lines
    end = start + period * times
    block = lines[start : start + period]
    head = collapsed(lines[:start])
    return [*head, f"{times} x {period}", *block, *collapsed(lines[end:])]


def _repetitions(lines):
    for period in range(1, min(60, len(lines) // 2 + 1)):
        start = 0
        while start + 2 * period <= len(lines):
            times = _times(lines, start, period)
            if times > 1:
                yield (times - 1) * period - 1, start, period, times
                start += max(1, (times - 1) * period)
            else:
                start += 1


def _times(lines, start, period):
    """How often the `period` lines at `start` follow one another."""
    block = lines[start : start + period]
    times = 1
    while block == lines[start + times * period :][:period]:
        times += 1
    return times


def main(authors, darknet):
    authors = pathlib.Path(authors)
    paths = sorted(authors.glob("cfg/*.cfg"))
    paths += sorted(authors.glob("in progress/**/*.cfg"))
    names = [str(path.relative_to(authors)) for path in paths]
    paths += [pathlib.Path(darknet, f"cfg/{name}.cfg") for name in DARKNETS]
    names += [f"darknet/cfg/{name}.cfg" for name in DARKNETS]
    same = {}
    for name, path in zip(names, paths, strict=True):
        same.setdefault(tuple(facts(path)), []).append(name)
    lines = [
        "# Facts of the cfg files of github.com/WongKinYiu/",
        "# CrossStagePartialNetworks and github.com/AlexeyAB/darknet, by",
        "# make_author_cfgs.py beside this, which explains the format.",
    ]
    for text, owners in same.items():
        lines += [f"[{' | '.join(owners)}]", *collapsed(list(text))]
    target = pathlib.Path(__file__).with_name("author_cfgs.txt")
    target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
