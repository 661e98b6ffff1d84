"""`predict`: what a model sees in photographs."""

import collections
import json
import pathlib
import sys

from keras_csp._files import atomic_write
from keras_csp.commands.models import add_model, load_runtime, parse_size
from keras_csp.commands.progress import Progress

_HELP = "what a model sees in photographs: the likeliest classes, or boxes"
_MANY = 10  # photographs, from which on there is a progress bar


def add_to(commands):
    parser = commands.add_parser(
        "predict",
        help=_HELP,
        description=f"Prints {_HELP}, in pixels of the upright photograph. A "
        "file that cannot be read is named, the others are read, and the exit "
        "status is 1.",
    )
    add_model(parser)
    parser.add_argument(
        "photographs",
        type=pathlib.Path,
        nargs="+",
        help="JPEG or PNG files, or folders of them",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=5,
        help="how many classes of each photograph; default 5",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="a file for the same as JSON"
    )
    parser.add_argument(
        "--pictures",
        type=pathlib.Path,
        help="of a detector: a folder for the photographs with their boxes",
    )
    parser.set_defaults(run=_predict)


def _predict(options):
    from keras_csp.commands.answers import understand
    from keras_csp.commands.photographs import PhotographReader
    from keras_csp.data.photographs import find_photographs

    if options.top < 1:
        raise ValueError(f"--top must be 1 or more. Received: {options.top}")
    files = find_photographs(options.photographs)
    pictures = _pictures(options.pictures, files)
    _check_writable(options.json)
    run = load_runtime(options)
    reader = PhotographReader(run.metadata, parse_size(options.size))
    names = run.metadata.class_names
    records, failed = [], 0
    progress = Progress(len(files), least=_MANY)
    for number, path in enumerate(files):
        progress.update(number, path.name)
        try:
            pixels, image, view = reader.read(path)
        except ValueError as error:
            progress.clear()
            print(f"keras-csp: {error}", file=sys.stderr)
            failed += 1
            continue
        outputs = run(pixels[None])
        answer = understand(outputs, path, image, view, names, options.top)
        if pictures:
            _draw(pictures[number], answer)
        records.append(answer.record())
        progress.clear()
        print(answer, flush=True)
    if options.json:
        _write_json(options.json, records)
    return 1 if failed else 0


def _check_writable(path):
    """Before the work, not after it."""
    if path is not None and path.is_dir():
        raise ValueError(f"--json must be a file. Received a folder: {path}")


def _write_json(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(records, indent=1) + "\n", "utf-8")


def _pictures(folder, files):
    """The path of each photograph's picture; None without a folder.

    Raises:
        ValueError: a picture would take the place of a photograph.
    """
    if folder is None:
        return None
    paths = [folder / f"{name}.png" for name in picture_names(files)]
    photographs = {file.resolve() for file in files}
    lost = [path for path in paths if path.resolve() in photographs]
    if lost:
        raise ValueError(
            "--pictures must be another folder than that of the photographs; "
            f"it would overwrite {lost[0]}"
        )
    return paths


def picture_names(files):
    """The stems of the files; of equal ones all but the first get a number.

    Compared without regard to case, as some file systems do.
    """
    stems = [file.stem for file in files]
    used = collections.Counter(stem.lower() for stem in stems)
    seen, names = set(), []
    for stem in stems:
        name, number = stem, 1
        if stem.lower() in seen:
            while name.lower() in used:
                number += 1
                name = f"{stem}_{number}"
            used[name.lower()] += 1
        seen.add(stem.lower())
        names.append(name)
    return names


def _draw(path, answer):
    from keras_csp.commands.answers import BoxAnswer
    from keras_csp.detection.drawing import draw_detections

    if not isinstance(answer, BoxAnswer):
        raise ValueError("--pictures is only valid for detectors")
    path.parent.mkdir(parents=True, exist_ok=True)
    highest = int(max(answer.found["classes"], default=0))
    names = [answer.name(index) for index in range(highest + 1)]
    with atomic_write(path) as part:
        draw_detections(part, answer.image, answer.found, names)
