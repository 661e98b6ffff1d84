"""Finds objects in photographs with a trained detector.

    python examples/detect.py PHOTO_OR_FOLDER... \\
        --model runs/detector/detector.keras

Photographs are JPEG or PNG files, or folders of them; any colour mode, turned
as their EXIF data says. In --output: every photograph with its boxes as
NAME_detections.png, and detections.json, a list of {"file", "width", "height",
"detections": [{"class", "score", "box": [x1, y1, x2, y2]}]}, in pixels of the
upright photograph. A file that cannot be read is named, the others go on, and
the exit status is 1.
"""

import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp._files import atomic_write
from keras_csp.data.photographs import find_photographs, read_photograph
from keras_csp.data.resizing import letterbox
from keras_csp.detection.drawing import draw_detections
from keras_csp.detection.evaluation import in_original


def load(options):
    """The detector, the names of its classes and the side of its input."""
    if not options.model.is_file():
        raise ValueError(f"no such model: {options.model}")
    detector = keras.saving.load_model(options.model, compile=False)
    if not isinstance(detector, keras_csp.Detector):
        raise ValueError(f"not a keras_csp.Detector: {options.model}")
    path = options.classes or options.model.with_name("classes.json")
    classes = json.loads(path.read_text(encoding="utf-8"))
    if not {"names", "size"} <= set(classes):
        raise ValueError(f"not a JSON of names and size: {path}")
    names, size = classes["names"], options.size or classes["size"]
    if len(names) != detector.classes:
        raise ValueError(f"not {detector.classes} names, as the model: {path}")
    if size < 32 or size % 32 or detector.input_shape[1] not in (None, size):
        allowed = detector.input_shape[1] or "a multiple of 32"
        raise ValueError(f"--size must be {allowed}. Received: {size}")
    return detector, names, size


def find(model, image, size):
    """What `model` finds, its boxes in pixels of the image, within it."""
    pixels, view = letterbox(image, size)
    return in_original(model.predict_on_batch(pixels[None]), image, view)


def rows(found, names):
    """The detections as dicts, for the JSON."""
    found = zip(found["classes"], found["scores"], found["boxes"].round(2))
    return [
        {"class": names[label], "score": float(score), "box": box.tolist()}
        for label, score, box in found
    ]


def detect(files, model, names, size, folder):
    """Writes pictures and the JSON; returns the number of unreadable files."""
    results, used = [], set()
    bar = keras.utils.Progbar(len(files), unit_name="photo")
    for number, file in enumerate(files, 1):
        bar.update(number)
        try:
            image = read_photograph(file)
        except ValueError as error:
            print(f"\ndetect: {error}", file=sys.stderr)
            continue
        found = find(model, image, size)
        height, width = image.shape[:2]
        row = {"file": str(file), "width": width, "height": height}
        results.append({**row, "detections": rows(found, names)})
        stem = file.stem
        while stem in used:
            stem = f"{stem}_{number}"
        used.add(stem)
        path = folder / f"{stem}_detections.png"
        draw_detections(path, image, found, names)
    with atomic_write(folder / "detections.json") as part:
        part.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    objects = sum(len(result["detections"]) for result in results)
    print(f"{objects} objects in {len(results)} photographs, see {folder}")
    return len(files) - len(results)


def main():
    options = parse()
    try:
        files = find_photographs(options.photographs)
        detector, names, size = load(options)
        model = detector.inference_model(
            score_threshold=options.score, iou_threshold=options.iou
        )
        options.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"detect: {str(error).splitlines()[0]}")
    sys.exit(detect(files, model, names, size, options.output) > 0)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # fmt: off
    add, path = parser.add_argument, pathlib.Path
    add("photographs", type=path, nargs="+", metavar="PHOTO_OR_FOLDER")
    add("--model", type=path, default="runs/detector/detector.keras")
    add("--classes", type=path, help="default: classes.json beside the model")
    add("--size", type=int, help="side of the input; default: the training's")
    add("--score", type=float, default=0.25, help="least score; default 0.25")
    add("--iou", type=float, default=0.45,
        help="of two boxes of a class that overlap more, one; default 0.45")
    add("--output", type=path, default="runs/detections", help="folder")
    # fmt: on
    return parser.parse_args()


if __name__ == "__main__":
    main()
