"""Writes darknet_layers.txt from the authors' cfg files.

    git clone https://github.com/WongKinYiu/CrossStagePartialNetworks
    python tests/golden/make_darknet_layers.py CrossStagePartialNetworks/cfg

For each network the facts of its layers in the order of the file: kind,
filters, kernel size, stride, groups, activation, and the side of the output.
Routes are left out: they move data. So is the classifier after the features.
"""

import pathlib
import sys

CFGS = {
    "CSPDarkNet53": "csdarknet53",
    "CSPDarkNet53Elastic": "csdarknet53-elastic",
    "CSPMobileNetV2": "csmobilenet-v2",
    "CSPResNeXt50": "csresnext50",
    "CSPResNeXt50Elastic": "csresnext50-elastic",
    "CSPResNet50": "csresnet50",
    "CSPResNet50Elastic": "csresnet50-elastic",
    "DarkNet53": "darknet53",
    "DarkNetReference": "darknet",
    "MobileNetV2": "mobilenet-v2",
    "ResNeXt50": "resnext50",
    "ResNet10": "resnet10",
    "ResNet50": "resnet50",
}


def sections(path):
    found = []
    for line in path.read_text().splitlines():
        text = line.split("#")[0].strip()
        if text.startswith("["):
            found.append((text[1:-1], {}))
        elif text:
            key, value = text.split("=", 1)
            found[-1][1][key.strip()] = value.strip()
    return found


def facts(path):
    (_, net), *layers = sections(path)
    side, sides = int(net["height"]), []
    for kind, options in layers:
        size, stride = (int(options.get(key, 1)) for key in ("size", "stride"))
        if kind == "avgpool":
            return
        if kind == "convolutional":
            pad = size // 2 if int(options.get("pad", 0)) else 0
            side = (side + 2 * pad - size) // stride + 1
            groups = int(options.get("groups", 1))
            filters = int(options["filters"])
            if "batch_normalize" not in options:
                return
            yield (
                f"conv {filters} {size} {stride} {groups} "
                f"{options['activation']} {side}"
            )
        elif kind == "maxpool":
            side = -(-side // stride)
            yield f"maxpool {size} {stride} {side}"
        elif kind == "upsample":
            side *= stride
            yield f"upsample {stride} {side}"
        elif kind == "shortcut":
            yield f"shortcut {options['activation']} {side}"
        elif kind == "route":
            first = int(options["layers"].split(",")[0])
            side = sides[first]
        sides.append(side)


def main(folder):
    lines = [
        "# Layers of the authors' cfg files (github.com/WongKinYiu/",
        "# CrossStagePartialNetworks), by make_darknet_layers.py beside this.",
    ]
    for name, stem in CFGS.items():
        lines.append(f"[{name}] {stem}.cfg")
        lines.extend(facts(pathlib.Path(folder) / f"{stem}.cfg"))
    target = pathlib.Path(__file__).with_name("darknet_layers.txt")
    target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
