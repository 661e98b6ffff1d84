"""Trains a CSP detector on your boxes, and measures it as COCO does.

    python examples/train_detector.py --train train.json --validation val.json
    python examples/train_detector.py --train tfds:voc/2007:train \\
        --validation tfds:voc/2007:validation --backbone CSPResNet50

The boxes: a JSON in COCO's format, its images beside it or in --images; or a
set of TensorFlow Datasets, tfds:NAME:SPLIT. A faulty box or image is named and
left out. In --output:

    run.json            the arguments and the recipe
    log.csv             losses and AP, a row for each epoch
    state/              the last and the best epoch
    detector.keras      the best epoch, by AP50; classes.json for detect.py
    validation.json     its AP, in all and for each class; likewise test
    validation_*.png    what it finds beside the truth; precision and recall

Interrupted or killed? The same command goes on after the last epoch. With a
larger --epochs it goes on to that. Other arguments need another --output.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp import detection
from keras_csp.data import DetectionAugmentation, load_detection
from keras_csp.detection.drawing import draw_comparison, draw_precision_recall
from keras_csp.training import recipes
from keras_csp.training import run as runs
from keras_csp.training.checkpoint import TrainingState

# What may differ where a run goes on.
FREE = ("epochs", "output", "verbose")


def load(source, options):
    """A data set of a JSON, or of tfds:NAME:SPLIT."""
    if source.startswith("tfds:"):
        name, _, split = source.removeprefix("tfds:").partition(":")
        return load_detection(f"tfds:{name}", split=split or "train")
    return load_detection(
        source, images=options.images, on_error=options.broken
    )


def load_all(options):
    """{"train", "validation", "test"}, without a test that is not asked."""
    data = {"train": load(options.train, options)}
    names = data["train"].class_names
    for title in ("validation", "test") if options.test else ("validation",):
        data[title] = load(getattr(options, title), options)
        if (found := data[title].class_names) != names:
            raise ValueError(f"--{title} has classes {found}, not {names}")
    if options.limit:
        data["train"] = data["train"].first(options.limit)
    return data


def count_steps(options, recipe, train):
    """Batches of the whole training, an epoch's last one not being full."""
    return -(-train.size // recipe.batch_size) * options.epochs


def build(options, recipe, train):
    levels = len(detection.get_neck(options.neck).outputs)
    anchors = detection.fit_anchors(
        train, 3 * levels, options.size, options.seed
    )
    detector = keras_csp.Detector(
        options.backbone,
        options.neck,
        classes=len(train.class_names),
        input_shape=(None, None, 3),
        attention=options.attention,
        spp=options.spp,
        anchors=anchors,
        weights=options.weights,
    )
    loss = detection.YoloLoss(
        options.box_loss, anchor_threshold=options.anchor_threshold
    )
    steps = count_steps(options, recipe, train)
    detector.compile(recipe.optimizer(steps), loss)
    return detector


def fit(detector, data, options, recipe):
    """Trains, from the last finished epoch on, and takes the best epoch."""
    state = TrainingState(
        options.output / "state", "val_AP50", options.output / "log.csv"
    )
    epoch = state.restore(detector)
    if epoch:
        print(f"going on after epoch {epoch} of {options.epochs}")
    augmentation = DetectionAugmentation(
        mosaic=options.mosaic,
        rotate90=options.no_up,
        vertical_flip=0.5 if options.no_up else 0.0,
    )
    detector.fit(
        data["train"].training(
            recipe.batch_size,
            options.sizes or (options.size,),
            augmentation,
            seed=options.seed + epoch,
        ),
        validation_data=data["validation"].evaluation(8, options.size),
        validation_freq=options.validation_freq,
        epochs=options.epochs,
        initial_epoch=epoch,
        callbacks=[state],
        verbose=options.verbose,
    )
    if state.best:
        detector.load_weights(state.best_path)
    print(f"best epoch: {state.best or 'the last'}")


def report(detector, data, options, title):
    """AP of one data set: printed, as JSON and as pictures."""
    precision = detection.AveragePrecision(detector.classes, data.class_names)
    dataset = data.evaluation(8, options.size)
    results = detector.evaluate(dataset, precision=precision, verbose=0)
    table = results["per_class"] = precision.per_class()
    runs.write_json(options.output / f"{title}.json", results)
    rows = {"all": results, **dict(list(table.items())[:20])}
    shown = [f"{n} {r['AP']:.3f} {r['AP50']:.3f}" for n, r in rows.items()]
    print(f"{title}, AP and AP50: {', '.join(shown)}")
    path = options.output / f"{title}_precision_recall.png"
    draw_precision_recall(path, precision, title)
    images, targets = next(iter(dataset))
    images = images.numpy()[:6]
    draw_comparison(
        options.output / f"{title}_detections.png",
        images,
        {key: value.numpy()[:6] for key, value in targets.items()},
        detector.predict(images, verbose=0),
        data.class_names,
    )


def main():
    options = parse()
    output, shape = options.output, (options.size, options.size, 3)
    with runs.cli_errors("train_detector"):
        check(options)
        keras.utils.set_random_seed(options.seed)
        recipe = recipes.get_recipe(options.recipe, batch_size=options.batch)
        data = load_all(options)
        detector = build(options, recipe, data["train"])
        runs.save_run_args(output, vars(options), recipe, FREE)
        print(keras_csp.count(detector, input_shape=shape).summary())
        print(recipe.summary(count_steps(options, recipe, data["train"])))
        fit(detector, data, options, recipe)
        runs.save_model(output / "detector.keras", detector)
        classes = {"names": data["train"].class_names, "size": options.size}
        runs.write_json(output / "classes.json", classes)
        for title in list(data)[1:]:
            report(detector, data[title], options, title)


def check(options):
    """Numbers, before anything is read."""
    for size in (options.size, *(options.sizes or ())):
        if size < 32 or size % 32:
            raise ValueError(f"a size must be a multiple of 32, not {size}")
    for name in ("batch", "epochs", "limit", "validation_freq"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be positive, not {value}")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # fmt: off
    add = parser.add_argument
    add("--train", required=True, help="COCO JSON, or tfds:NAME:SPLIT")
    add("--validation", required=True, help="likewise; AP after every epoch")
    add("--test", help="likewise; AP at the end, with the best epoch")
    add("--images", help="folder of the images; default: beside the JSON")
    add("--broken", choices=("skip", "raise"), default="skip",
        help="what to do with a faulty annotation; default skip and count")
    add("--backbone", default="CSPPeleeNet",
        help="of keras_csp.list_models(); default CSPPeleeNet")
    add("--neck", choices=sorted(detection.NECKS), default="efm",
        help="how the levels are fused, Fig. 6; default efm")
    add("--attention", choices=("sam",), help="spatial attention; default none")
    add("--spp", action="store_true", help="spatial pyramid pooling")
    add("--weights", help="imagenet, for the backbone; or a .weights.h5 file")
    add("--recipe", default="small-detection",
        choices=[name for name in recipes.RECIPES if "detection" in name],
        help="optimizer, rate and batch; default small-detection")
    add("--box-loss", default="ciou", choices=detection.BOX_LOSSES)
    add("--anchor-threshold", type=float, default=0.4,
        help="anchors with a larger IoU are trained too; 1: only the best")
    add("--size", type=int, default=416,
        help="side of the input, pixels, a multiple of 32; default 416")
    add("--sizes", type=int, nargs="+",
        help="of the training, one drawn for each batch; default --size")
    add("--batch", type=int, help="images a step; default: the recipe's")
    add("--epochs", type=int, default=100)
    add("--validation-freq", type=int, default=1, help="epochs; default 1")
    add("--mosaic", type=float, default=0.3,
        help="share of images made of four, 0 to 1; default 0.3")
    add("--no-up", action="store_true",
        help="images have no up: turn by 90 degrees, flip vertically")
    add("--limit", type=int, help="train on the first images only")
    add("--seed", type=int, default=0)
    add("--verbose", type=int, default=1, help="2: one line an epoch")
    add("--output", type=pathlib.Path, default="runs/detector",
        help="folder; default runs/detector")
    # fmt: on
    return parser.parse_args()


if __name__ == "__main__":
    main()
