"""Trains a CSP detector on your boxes, and measures it as COCO does.

    python examples/train_detector.py --train train.json --validation val.json
    python examples/train_detector.py --train tfds:voc/2007:train \\
        --validation tfds:voc/2007:validation --backbone CSPResNet50

A JSON in COCO's format, its images in a folder beside it (--images), or
tfds:NAME:SPLIT. In --output: the log as CSV, AP after every epoch, the state
after every epoch (start the same command again to go on), the best detector
as detector.keras, and pictures: detections beside the truth, precision-recall.
"""

import argparse
import json
import pathlib
import sys

import keras_csp  # before keras and TensorFlow: it chooses oneDNN
import keras
from keras_csp import detection, recipes
from keras_csp.callbacks import TrainingState
from keras_csp.data import Augmentation, load_detection
from keras_csp.detection.drawing import draw_comparison, draw_precision_recall


def load(source, images, broken):
    """A data set of a JSON, or of tfds:NAME:SPLIT."""
    if source.startswith("tfds:"):
        name, _, split = source.removeprefix("tfds:").partition(":")
        return load_detection(f"tfds:{name}", split=split or "train")
    return load_detection(source, images=images, broken=broken)


def build(options, recipe, train, steps):
    anchors = detection.fit_anchors(
        train,
        3 * len(detection.get_neck(options.neck).outputs),
        options.size,
        options.seed,
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
    detector.compile(recipe.optimizer(steps), loss)
    return detector


def fit(detector, train, validation, options, recipe):
    """Trains, from the last finished epoch on; returns the best AP50."""
    folder = options.output
    state = TrainingState(folder / "state", monitor="val_AP50")
    epoch = state.restore(detector)
    if epoch:
        print(f"going on after epoch {epoch} of {options.epochs}")
    augmentation = Augmentation(
        mosaic=options.mosaic,
        rotate90=options.no_up,
        vertical_flip=0.5 if options.no_up else 0.0,
    )
    detector.fit(
        train.training(
            options.batch or recipe.batch_size,
            options.sizes or (options.size,),
            augmentation,
            seed=options.seed + epoch,
        ),
        validation_data=validation.evaluation(8, options.size),
        validation_freq=options.validation_freq,
        epochs=options.epochs,
        initial_epoch=epoch,
        callbacks=[
            keras.callbacks.CSVLogger(folder / "log.csv", append=epoch > 0),
            state,
        ],
        verbose=options.verbose,
    )
    if state.best_path.is_file():
        detector.load_weights(state.best_path)
    return state.best


def report(detector, data, options, title):
    """AP of one data set: printed, as JSON and as pictures."""
    precision = detection.AveragePrecision(
        detector.classes, data.class_names
    )
    dataset = data.evaluation(8, options.size)
    results = detector.evaluate(dataset, precision=precision, verbose=0)
    results["per_class"] = precision.per_class()
    path = options.output / f"{title}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(
        f"{title}: AP {results['AP']:.3f}, AP50 {results['AP50']:.3f}, "
        + ", ".join(
            f"{name} {row['AP50']:.3f}"
            for name, row in list(results["per_class"].items())[:20]
        )
    )
    draw_precision_recall(
        options.output / f"{title}_precision_recall.png", precision, title
    )
    images, targets = next(iter(dataset))
    images = images.numpy()[:6]
    found = detector.predict(images, verbose=0)
    draw_comparison(
        options.output / f"{title}_detections.png",
        images,
        {key: value.numpy()[:6] for key, value in targets.items()},
        found,
        data.class_names,
    )


def main():
    options = parse()
    keras.utils.set_random_seed(options.seed)
    try:
        recipe = recipes.get_recipe(options.recipe)
        train = load(options.train, options.images, options.broken)
        validation = load(options.validation, options.images, options.broken)
        test = options.test and load(options.test, None, options.broken)
        if options.limit:
            train = train.first(options.limit)
        options.output.mkdir(parents=True, exist_ok=True)
        batch = options.batch or recipe.batch_size
        steps = -(-train.size // batch) * options.epochs
        detector = build(options, recipe, train, steps)
        print(keras_csp.count(
            detector, input_shape=(options.size, options.size, 3)
        ).summary())  # fmt: skip
        best = fit(detector, train, validation, options, recipe)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"train_detector: {error}")
    print(f"best epoch: {best}")
    detector.save(options.output / "part.keras")
    (options.output / "part.keras").replace(options.output / "detector.keras")
    (options.output / "classes.json").write_text(
        json.dumps({"names": train.class_names, "size": options.size})
    )
    report(detector, validation, options, "validation")
    if test:
        report(detector, test, options, "test")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--train", required=True, help="COCO JSON, or tfds:NAME:SPLIT")
    add("--validation", required=True, help="likewise; AP after every epoch")
    add("--test", help="likewise; AP at the end, with the best epoch")
    add("--images", help="folder of the images; default: beside the JSON")
    add("--broken", choices=("skip", "raise"), default="skip",
        help="what to do with a faulty annotation; default skip and count")
    add("--backbone", default="CSPPeleeNet", help="of keras_csp.list_models()")
    add("--neck", choices=sorted(detection.NECKS), default="efm")
    add("--attention", choices=("sam",))
    add("--spp", action="store_true")
    add("--weights", help="imagenet, for the backbone; or a .weights.h5 file")
    add("--recipe", default="small-detection", choices=sorted(recipes.RECIPES))
    add("--box-loss", default="ciou", choices=detection.BOX_LOSSES)
    add("--anchor-threshold", type=float, default=0.4,
        help="anchors with a larger IoU are trained too; 1: only the best")
    add("--size", type=int, default=416, help="side of the input, pixels")
    add("--sizes", type=int, nargs="+", help="of the training, multi-scale")
    add("--batch", type=int, help="default: the recipe's")
    add("--epochs", type=int, default=100)
    add("--validation-freq", type=int, default=1, help="epochs; default 1")
    add("--mosaic", type=float, default=0.3, help="share of the images")
    add("--no-up", action="store_true",
        help="images have no up: turn by 90 degrees, flip vertically")
    add("--limit", type=int, help="train on the first images only")
    add("--seed", type=int, default=0)
    add("--verbose", type=int, default=1, help="2: one line an epoch")
    add("--output", type=pathlib.Path, default="runs/detector")
    return parser.parse_args()  # fmt: skip


if __name__ == "__main__":
    main()
