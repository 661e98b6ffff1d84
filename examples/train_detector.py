"""Trains a CSP detector on your boxes, and measures it as COCO does.

    python examples/train_detector.py --train train.json --validation val.json
    python examples/train_detector.py --train tfds:voc/2007:train \\
        --validation tfds:voc/2007:validation --backbone CSPResNet50
    python examples/train_detector.py --train train.json \\
        --validation val.json --from yolov4-tiny.cfg \\
        --weights yolov4-tiny.weights

With --from a published detector learns your boxes: its layers and weights stay,
its heads get your classes, and the recipe is fine-tuning-detection.

The boxes: a JSON in COCO's format, its images beside it or in --images; or a
set of TensorFlow Datasets, tfds:NAME:SPLIT. Faulty boxes and images are named
and left out. The arguments change the recipe; --recipe FOLDER/run.json takes
that of another run. In --output:

    run.json            the recipe as it ran, and the other arguments
    log.csv             losses and AP, a row for each epoch
    state/              the last and the best epoch
    detector.keras      the best epoch, by AP50
    validation.json     its AP, overall and for each class; likewise test
    validation_*.png    detections beside the truth; precision and recall

keras-csp predict finds objects with detector.keras, which knows its classes.

If interrupted, rerun the same command to resume after the last epoch. A larger
--epochs continues a finished run. Other arguments need another --output.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp import detection
from keras_csp.data import load_detection
from keras_csp.detection.drawing import draw_comparison, draw_precision_recall
from keras_csp.training import TrainingState, fit_in_phases, recipes, run

ANCHORS_PER_LEVEL = 3
# What a resumed run must have in common with its beginning.
ARGUMENTS = (
    "train",
    "validation",
    "test",
    "images",
    "on_error",
    "limit",
    "start",
    "refit_anchors",
    "backbone",
    "neck",
    "levels",
    "attention",
    "spp",
    "backbone_weights",
    "weights",
    "validation_freq",
    "seed",
    "epochs",
)


def load_start(options):
    """The detector of --from, of images of any size; None without it."""
    if options.start is None:
        return None
    if not options.start.endswith(".cfg"):
        detector = keras.saving.load_model(options.start)
        if not isinstance(detector, keras_csp.Detector):
            raise ValueError(f"--from {options.start} is not a detector")
        return detector
    load = keras_csp.Detector.from_darknet
    detector = load(options.start, options.weights)
    if options.size or options.sizes:  # other than the cfg's
        shape = (None, None, detector.input_shape[-1])
        size = keras_csp.image_spec(detector).size
        detector = load(options.start, options.weights, input_shape=shape)
        detector = keras_csp.with_image_spec(detector, size=size)
    return detector


def make_recipe(options, start=None):
    """The recipe of --recipe, changed by the other arguments.

    Args:
        options: the arguments.
        start: the detector of --from, whose size is the default.
    """
    name, size = "small-detection", options.size
    if options.start:
        name = "fine-tuning-detection"
    if start is not None:
        size = size or keras_csp.image_spec(start).size
    recipe = recipes.get_recipe(
        options.recipe or name,
        kind="detection",
        batch_size=options.batch,
        learning_rate=options.learning_rate,
        box_loss=options.box_loss,
        anchor_threshold=options.anchor_threshold,
    )
    recipe = recipe.at_size(size).replace(sizes=options.sizes)
    recipe = recipe.with_augmentation(mosaic=options.mosaic)
    if options.no_up:
        recipe = recipe.with_augmentation(rotate90=True, vertical_flip=0.5)
    return recipe


def load_all(options):
    """{"train", "validation", "test"}, the last one if it is asked for."""
    sources = {"train": options.train, "validation": options.validation}
    if options.test:
        sources["test"] = options.test
    data = {}
    for title, source in sources.items():
        data[title] = load_detection(
            source, images=options.images, on_error=options.on_error
        )
        names, expected = data[title].class_names, data["train"].class_names
        if names != expected:
            raise ValueError(f"--{title} has classes {names}, not {expected}")
    if options.limit:
        data["train"] = data["train"].first(options.limit)
    return data


def build(options, recipe, train, start=None):
    """The detector: that of --from for these classes, or a new one."""
    if start is None:
        detector = build_new(options, recipe, train)
    else:
        detector = start.with_classes(train.class_names)
    # The size at which it is measured, and which keras-csp predict uses.
    detector = keras_csp.with_image_spec(detector, size=recipe.size)
    if options.refit_anchors:
        detector = detection.refit_anchors(detector, train, seed=options.seed)
    return detector


def build_new(options, recipe, train):
    """A detector of images of any size, with anchors of these boxes."""
    neck = detection.get_neck(
        options.neck, options.levels, options.attention, options.spp
    )
    anchors = detection.fit_anchors(
        train,
        ANCHORS_PER_LEVEL * len(neck.outputs),
        spec=recipe.size,
        seed=options.seed,
    )
    return keras_csp.Detector(
        options.backbone,
        neck,
        classes=len(train.class_names),
        input_shape=(None, None, 3),
        anchors=anchors,
        backbone_weights=options.backbone_weights,
        weights=options.weights,
        class_names=train.class_names,
    )


def fit(detector, data, options, recipe):
    """Trains the epochs that are missing, and loads the best one."""
    state = TrainingState(
        options.output / "state",
        monitor="val_AP50",
        log=options.output / "log.csv",
    )
    epoch = state.finished()
    if epoch:
        print(f"resuming after epoch {epoch} of {options.epochs}")
    fit_in_phases(
        detector,
        recipe,
        data["train"],
        data["validation"],
        options.epochs,
        state,
        seed=options.seed,
        validation_freq=options.validation_freq,
        verbose=options.verbose,
    )
    print(f"best epoch: {state.best or 'the last'}")


def report(detector, dataset, class_names, folder, title):
    """AP of one data set: printed, as JSON and as pictures."""
    precision = detection.AveragePrecision(detector.classes, class_names)
    results = detector.evaluate(dataset, precision=precision, verbose=0)
    results["per_class"] = precision.per_class()
    run.write_json(folder / f"{title}.json", results)
    print(f"{title}: AP {results['AP']:.3f}, AP50 {results['AP50']:.3f}")
    for name, values in list(results["per_class"].items())[:20]:
        print(f"  {name}: AP {values['AP']:.3f}, AP50 {values['AP50']:.3f}")
    draw_precision_recall(
        folder / f"{title}_precision_recall.png", precision, title
    )
    images, targets = next(iter(dataset))
    images = images.numpy()[:6]
    draw_comparison(
        folder / f"{title}_detections.png",
        images,
        {key: value.numpy()[:6] for key, value in targets.items()},
        detector.predict(images, verbose=0),
        class_names,
    )


def main():
    options = parse()
    with run.cli_errors("train_detector"):
        keras.utils.set_random_seed(options.seed)
        start = load_start(options)
        recipe = make_recipe(options, start)
        data = load_all(options)
        train = data["train"]
        options.epochs = options.epochs or recipe.epochs(train.size)
        recipe = recipe.for_epochs(options.epochs, train.size)
        detector = build(options, recipe, train, start)
        run.save_run(
            options.output,
            recipe,
            {name: getattr(options, name) for name in ARGUMENTS},
            free=("epochs", "recipe.steps"),
        )
        shape = (*keras_csp.image_spec(detector).size, 3)
        print(keras_csp.count(detector, input_shape=shape).summary())
        print(recipe.summary())
        fit(detector, data, options, recipe)
        run.save_model(options.output / "detector.keras", detector)
        for title in data:
            if title != "train":
                dataset = recipe.evaluation(data[title], detector)
                names = train.class_names
                report(detector, dataset, names, options.output, title)


def parse():
    parser = run.make_parser(__doc__, output="runs/detector")
    add_data_arguments(parser.add_argument_group("data"))
    add_detector_arguments(parser.add_argument_group("detector"))
    run.add_recipe_arguments(parser, "detection", None, epochs=100)
    add_recipe_changes(parser.add_argument_group("changes of the recipe"))
    return run.parse_arguments(parser)


def add_data_arguments(group):
    group.add_argument(
        "--train", required=True, help="a COCO JSON, or tfds:NAME:SPLIT"
    )
    group.add_argument(
        "--validation",
        required=True,
        help="likewise; its AP is measured after every epoch",
    )
    group.add_argument("--test", help="likewise; its AP is measured at the end")
    group.add_argument(
        "--images", help="folder of the images; default: beside the JSON"
    )
    group.add_argument(
        "--on-error",
        choices=("skip", "raise"),
        default="skip",
        help="faulty annotations are skipped and counted (default), or an "
        "error is raised",
    )
    group.add_argument(
        "--limit",
        type=run.positive_int,
        help="train on the first images only",
    )


def add_detector_arguments(group):
    group.add_argument(
        "--from",
        dest="start",
        help="a published detector to start from: a Darknet .cfg, with its "
        "--weights, or a .keras file of a detector; default: a new one, of "
        "--backbone and --neck",
    )
    group.add_argument(
        "--refit-anchors",
        action="store_true",
        help="with --from: anchors of your boxes in place of its own",
    )
    group.add_argument(
        "--backbone",
        default="CSPPeleeNet",
        help="a name of keras_csp.list_models(); default CSPPeleeNet",
    )
    group.add_argument(
        "--neck",
        choices=sorted(detection.NECKS),
        default="efm",
        help="how the levels are fused, Fig. 6; default efm",
    )
    group.add_argument(
        "--levels",
        nargs="+",
        metavar="LEVEL",
        help="of the pyramid, finest first, e.g. P3 P4 P5; default: the neck's",
    )
    group.add_argument(
        "--attention",
        choices=("sam",),
        help="spatial attention; default: none",
    )
    group.add_argument(
        "--spp", action="store_true", help="spatial pyramid pooling"
    )
    group.add_argument(
        "--backbone-weights",
        help="of the backbone: imagenet, for networks that have such weights, "
        "or a file; default: random",
    )
    group.add_argument(
        "--weights",
        help="of the whole detector: a .weights.h5 or .keras file, or a "
        "Darknet file with --from; default: random",
    )


def add_recipe_changes(group):
    group.add_argument("--learning-rate", type=float, help="the largest")
    group.add_argument(
        "--box-loss", choices=detection.BOX_LOSSES, help="loss of the boxes"
    )
    group.add_argument(
        "--anchor-threshold",
        type=float,
        help="anchors with a larger IoU are trained too; 1: only the best",
    )
    group.add_argument(
        "--size",
        type=run.positive_int,
        help="side of the input in pixels, a multiple of 32; the training "
        "sizes of the recipe change in proportion",
    )
    group.add_argument(
        "--sizes",
        type=run.positive_int,
        nargs="+",
        help="sides of the training images, one drawn for each batch",
    )
    group.add_argument(
        "--mosaic",
        type=float,
        help="fraction of the images that are made of four",
    )
    group.add_argument(
        "--no-up",
        action="store_true",
        help="images have no up: they are turned by quarters and flipped "
        "upside down",
    )
    group.add_argument(
        "--validation-freq",
        type=run.positive_int,
        default=1,
        help="epochs from one validation to the next; default 1",
    )


if __name__ == "__main__":
    main()
