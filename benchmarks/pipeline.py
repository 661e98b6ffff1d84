"""How fast images are prepared, and how fast a network trains on them.

    python benchmarks/pipeline.py                 # photographs of scikit-learn
    python benchmarks/pipeline.py --data FOLDER   # a folder of class folders

The training pipelines alone, the network's training step alone, on a batch
that is ready, and both together, in turns, several rounds, so that all meet
the same machine. CPU time is that of all threads. The result is printed and
written to benchmarks/results/pipeline.{csv,md}.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import tensorflow as tf
from harness.machine import software
from harness.results import RESULTS, table_lines, write_page, write_rows

from keras_csp.data import (
    ClassificationAugmentation,
    DetectionAugmentation,
    load_classification,
    load_detection,
)
from keras_csp.training.run import positive_int

COPIES = 64  # of each photograph of scikit-learn
NETWORK, BOTH = "network alone", "both together"
COLUMNS = (
    "what",
    "images/s",
    "by the network's",
    "CPU ms/image",
    "share of the CPU",
)


def photographs(folder):
    """scikit-learn's two, under many names, as two classes."""
    import sklearn

    images = pathlib.Path(sklearn.__file__).parent / "datasets" / "images"
    for path in (images / "china.jpg", images / "flower.jpg"):
        (folder / path.stem).mkdir()
        for number in range(COPIES):
            copy = folder / path.stem / f"{number}.jpg"
            copy.symlink_to(path)


def boxes(folder, path):
    """A COCO JSON with a box in the middle of each image of a folder."""
    content = {"images": [], "annotations": []}
    content["categories"] = [{"id": 1, "name": "middle"}]
    for number, file in enumerate(sorted(folder.rglob("*.[jJ]*"))):
        image = tf.io.decode_image(file.read_bytes(), expand_animations=False)
        height, width, _channels = image.shape
        size = {"width": width, "height": height}
        name = str(file.relative_to(folder))
        content["images"].append({"id": number, "file_name": name, **size})
        box = [width / 4, height / 4, width / 2, height / 2]
        content["annotations"].append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": box}
        )
    path.write_text(json.dumps(content))


def pipelines(folder, scratch, options):
    """Name to data set; the first is the one that trains the network."""
    data, _test = load_classification(folder)
    batch, size = options.batch, options.size
    made = {
        title: data.training(batch, side, ClassificationAugmentation(**tricks))
        for title, side, tricks in (
            (f"paper, {size}", size, {}),
            ("paper, 256", 256, {}),
            (f"paper, RandAugment, {size}", size, {"rand_augment": 0.5}),
            (f"paper, CutMix, {size}", size, {"cutmix": 1.0}),
        )
    }
    made[f"evaluation, {size}"] = data.evaluation(batch, size)
    boxes(folder, scratch / "boxes.json")
    detection = load_detection(scratch / "boxes.json", images=folder)
    for title, mosaic in (("", 0.0), (", mosaic", 0.3)):
        made[f"detection{title}, 416"] = detection.training(
            batch, 416, DetectionAugmentation(mosaic=mosaic)
        )
    return made


def network(data_set, size):
    """CSPPeleeNet, compiled, for the labels of the data set."""
    _images, labels = data_set.element_spec
    model = keras_csp.CSPPeleeNet(
        input_shape=(size, size, 3), classes=labels.shape[-1]
    )
    model.compile("sgd", "categorical_crossentropy")
    return model


def measured(batches, steps, use):
    """Images/s and CPU seconds for an image, after a first step."""
    batches = iter(batches)
    use(next(batches))
    cpu, start, count = cpu_seconds(), time.perf_counter(), 0
    for batch in itertools.islice(batches, steps):
        use(batch)
        count += len(batch[0])
    seconds = time.perf_counter() - start
    return count / seconds, (cpu_seconds() - cpu) / count


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(folder, scratch, options):
    """Name to a list of (images/s, CPU seconds for an image) by round."""
    data_sets = pipelines(folder, scratch, options)
    trained = next(iter(data_sets.values()))
    model = network(trained, options.size)
    ready = next(iter(trained))

    def train(batch):
        model.train_on_batch(*batch)

    jobs = {
        NETWORK: (lambda: itertools.repeat(ready), options.steps, train),
        BOTH: (trained.repeat, options.steps, train),
    }
    for title, data_set in data_sets.items():
        jobs[title] = (data_set.repeat, 4 * options.steps, lambda batch: None)
    results = {title: [] for title in jobs}
    for number in range(options.rounds):
        for title, (batches, steps, use) in jobs.items():
            print(f"round {number + 1}: {title}", file=sys.stderr, flush=True)
            results[title].append(measured(batches(), steps, use))
    return results


def table_rows(results, size):
    """Medians; pipelines of the network's size relative to the network."""
    speed, cpu = (
        {
            title: statistics.median(values[part] for values in rounds)
            for title, rounds in results.items()
        }
        for part in (0, 1)
    )
    for title in results:
        share = cpu[title] / (cpu[title] + cpu[NETWORK])
        if title == BOTH:
            share = 1 - cpu[NETWORK] / cpu[BOTH]
        with_network = title == BOTH or title.endswith(f", {size}")
        values = (
            title,
            f"{speed[title]:.1f}",
            f"{speed[title] / speed[NETWORK]:.2f}x" if with_network else "",
            f"{1000 * cpu[title]:.1f}",
            f"{share:.1%}" if with_network else "",
        )
        yield dict(zip(COLUMNS, values))


def write(results, size, command, load):
    rows = table_rows(results, size)
    text = [
        "# Preparing images, beside the training of CSPPeleeNet",
        "",
        "Each pipeline alone; the network's training step alone, on a batch "
        "that is ready; and both together, with the first pipeline. The share "
        "of the CPU is a pipeline's CPU time for an image divided by its and "
        "the network's together; in the row of both, what they take more than "
        f"the network. Medians of {len(results[BOTH])} rounds. "
        f"{platform.machine()}, {os.cpu_count()} cores, load average "
        f"{load:.1f} at the start; {software('Keras', 'TensorFlow')}.",
        "",
        f"    {command}",
        "",
        *table_lines(COLUMNS, rows, right=range(1, len(COLUMNS))),
    ]
    write_page(RESULTS / "pipeline.md", text)
    write_rows(
        RESULTS / "pipeline.csv",
        ("what", "round", "images_per_s", "cpu_ms_per_image"),
        [
            {
                "what": title,
                "round": number,
                "images_per_s": f"{speed:.2f}",
                "cpu_ms_per_image": f"{1000 * cpu:.3f}",
            }
            for title, rounds in results.items()
            for number, (speed, cpu) in enumerate(rounds, 1)
        ],
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="a folder of class folders"
    )
    parser.add_argument("--size", type=positive_int, default=224)
    parser.add_argument("--batch", type=positive_int, default=32)
    parser.add_argument(
        "--steps", type=positive_int, default=8, help="of a round"
    )
    parser.add_argument("--rounds", type=positive_int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        folder = options.data
        if folder is None:
            folder = scratch / "photographs"
            folder.mkdir()
            photographs(folder)
        results = run(folder, scratch, options)
    command = ["python", "benchmarks/pipeline.py", *sys.argv[1:]]
    write(results, options.size, shlex.join(command), load)


if __name__ == "__main__":
    main()
