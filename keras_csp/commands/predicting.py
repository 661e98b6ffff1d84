"""`predict`: what a written file, or a .keras file, sees in photographs."""

import json
import pathlib
import sys

import numpy as np

from keras_csp._files import atomic_write
from keras_csp.detection.drawing import draw_detections
from keras_csp.detection.evaluation import in_original

_HELP = "what an exported file or a .keras file sees in photographs"


def add_to(commands):
    parser = commands.add_parser(
        "predict",
        help=_HELP,
        description=f"Prints {_HELP}: the likeliest classes, or boxes.",
    )
    parser.add_argument(
        "file",
        type=pathlib.Path,
        help=".tflite, .onnx or .keras file, or the folder of a SavedModel",
    )
    parser.add_argument(
        "photographs",
        type=pathlib.Path,
        nargs="+",
        help="JPEG or PNG files, or folders of them",
    )
    parser.add_argument(
        "--top", type=int, default=5, help="classes of each; default 5"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="write them here, too"
    )
    parser.add_argument(
        "--pictures",
        type=pathlib.Path,
        help="of a detector: a folder for the photographs with their boxes",
    )
    parser.set_defaults(run=_predict)


def _predict(options):
    from keras_csp import export
    from keras_csp.commands.photographs import Inputs
    from keras_csp.data.photographs import find_photographs

    if options.top < 1:
        raise ValueError(f"--top must be 1 or more. Received: {options.top}")
    run = export.load(options.file)
    if run.metadata is None:
        raise ValueError(
            f"{options.file} does not say what its images are: write it with "
            "`python -m keras_csp export`"
        )
    inputs = Inputs(run.metadata, run.detects)
    rows, failed = [], 0
    for path in find_photographs(options.photographs):
        try:
            given, image, view = inputs.read(path)
        except ValueError as error:
            print(f"keras_csp: {error}", file=sys.stderr)
            failed += 1
            continue
        answer = run(given[None])
        if run.detects:
            found = in_original(answer, image, view)
            rows.append(_boxes(path, found, run.metadata, image))
            _draw(options.pictures, len(rows), path, image, found, run.metadata)
        elif isinstance(answer, dict):
            raise ValueError(
                f"{options.file} is no classifier and no detector: it gives "
                f"{', '.join(sorted(answer))}"
            )
        else:
            rows.append(_classes(path, answer, run.metadata, options.top))
        print(_line(rows[-1]), flush=True)
    if options.json:
        with atomic_write(options.json) as part:
            part.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return 1 if failed else 0


def _classes(path, answer, metadata, top):
    scores = np.asarray(answer, "float64").reshape(-1)
    best = np.argsort(-scores, kind="stable")[:top]
    return {
        "file": str(path),
        "classes": [
            {"class": _name(metadata, index), "score": float(scores[index])}
            for index in best
        ],
    }


def _boxes(path, found, metadata, image):
    height, width = image.shape[:2]
    detections = [
        {
            "class": _name(metadata, label),
            "score": float(score),
            "box": np.round(box, 2).tolist(),
        }
        for label, score, box in zip(
            found["classes"], found["scores"], found["boxes"].astype("float64")
        )
    ]
    return {
        "file": str(path),
        "width": width,
        "height": height,
        "detections": detections,
    }


def _draw(folder, number, path, image, found, metadata):
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    highest = int(max(found["classes"], default=0))
    names = [_name(metadata, index) for index in range(highest + 1)]
    picture = folder / f"{path.stem}_{number}.png"
    draw_detections(picture, image, found, names)


def _name(metadata, index):
    if metadata.labels and 0 <= index < len(metadata.labels):
        return metadata.labels[int(index)]
    return f"class {int(index)}"


def _line(row):
    if "classes" in row:
        found = [f"{c['class']} {c['score']:.3f}" for c in row["classes"]]
    else:
        found = [
            f"{d['class']} {d['score']:.3f} at "
            + " ".join(f"{side:.0f}" for side in d["box"])
            for d in row["detections"]
        ]
    return f"{row['file']}: {', '.join(found) or 'nothing'}"
