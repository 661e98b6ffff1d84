"""Trains a CSP classifier by a recipe: the paper's for ImageNet, or another.

    python examples/train_imagenet.py --smoke         # all of it, in a minute
    python examples/train_imagenet.py --data FOLDER   # a folder per class
    python examples/train_imagenet.py --data tfds:imagenet2012 \\
        --model CSPResNeXt50 --recipe paper-classification --output runs/paper

The arguments change the recipe; --recipe FOLDER/run.json takes that of another
run. The same seed gives the same weights on the same CPU. In --output:

    run.json        the recipe as it ran, and the other arguments
    log.csv         loss and accuracy, a row for each epoch
    curves.png      the same as a picture
    state/          the last epoch, and the best by validation accuracy
    model.keras     the best epoch, with --ema its averaged weights
    results.json    its accuracy from the paper's ten crops

If interrupted, rerun the same command to resume after the last epoch. A larger
--epochs continues a finished run. Other arguments need another --output.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.training import TrainingState, recipes, run
from keras_csp.training.curves import draw_curves
from keras_csp.training.multi_device import make_strategy, shard_safe_batches

# What --smoke stands for.
SMOKE = {
    "model": "CSPResNet10",
    "size": 32,
    "epochs": 4,
    "ema": 0.9,
    "tensorboard": True,
    "output": "runs/smoke",
}


def make_recipe(options):
    """The recipe of --recipe, changed by the other arguments."""
    recipe = recipes.get_recipe(
        options.recipe,
        kind="classification",
        learning_rate=options.learning_rate,
        batch_size=options.batch,
        accumulation=options.accumulate,
        ema=options.ema,
        label_smoothing=options.label_smoothing,
    )
    recipe = recipe.at_size(options.size)
    if options.augmentation == "light":
        light = ClassificationAugmentation.light(recipe.size)
        recipe = recipe.replace(augmentation=light)
    return recipe.with_augmentation(
        flip=options.flip,
        rand_augment=options.rand_augment,
        mixup=options.mixup,
        cutmix=options.cutmix,
        mosaic=options.mosaic,
    )


def build(options, recipe, data):
    factory = keras_csp.get_factory(options.model)
    return recipe.build(factory, data, metrics=["accuracy"])


def train(options, recipe, data, test, strategy):
    """Trains the epochs that are missing; returns the `TrainingState`."""
    model = build(options, recipe, data)
    run.save_run(
        options.output,
        recipe,
        {
            "data": options.data,
            "model": options.model,
            "precision": options.precision,
            "devices": strategy.num_replicas_in_sync,
            "seed": options.seed,
            "epochs": options.epochs,
        },
        free=("epochs", "recipe.steps"),
    )
    print(keras_csp.count(model).summary())
    print(recipe.summary())
    state = TrainingState(
        options.output / "state",
        monitor="val_accuracy",
        log=options.output / "log.csv",
    )
    epoch = state.restore(model)
    if epoch:
        print(f"resuming after epoch {epoch} of {options.epochs}")
    callbacks = [state, keras.callbacks.TerminateOnNaN(), *recipe.callbacks()]
    if options.tensorboard:
        callbacks += run.tensorboard(options.output / "tensorboard")
    tests = recipe.evaluation(test, model)
    model.fit(
        recipe.training(data, model, options.seed + epoch),
        validation_data=shard_safe_batches(tests, strategy),
        epochs=options.epochs,
        initial_epoch=epoch,
        callbacks=callbacks,
        shuffle=False,  # the data set shuffles itself
        verbose=options.verbose,
    )
    return state


def report(options, recipe, data, test, state):
    """Saves the best epoch, and measures it as the paper does."""
    draw_curves(options.output / "curves.png", state.history, options.model)
    model = build(options, recipe, data)  # on one device
    state.restore_best(model)
    run.save_model(options.output / "model.keras", model)
    ten_crop = keras_csp.evaluate_ten_crop(
        model, test, recipe.size, shift=recipe.ten_crop_shift
    )
    run.write_json(
        options.output / "results.json",
        {"best": state.best, "ten_crop": ten_crop},
    )
    print(f"{len(data.skipped + test.skipped)} images could not be read")
    print(f"best: {state.best}; from ten crops: {ten_crop}")
    print(f"see {options.output}")


def main():
    options = parse()
    with run.cli_errors("train_imagenet"):
        keras.utils.set_random_seed(options.seed)
        keras.config.set_dtype_policy(options.precision)
        recipe = make_recipe(options)
        strategy = make_strategy(
            options.devices, recipe.batch_size, recipe.accumulation
        )
        data, test = load_classification(options.data, seed=options.seed)
        options.epochs = options.epochs or recipe.epochs(data.size)
        recipe = recipe.for_epochs(options.epochs, data.size)
        with strategy.scope():
            state = train(options, recipe, data, test, strategy)
        report(options, recipe, data, test, state)


def parse():
    parser = run.make_parser(__doc__, output="runs/imagenet")
    run.add_classification_arguments(
        parser, model="CSPPeleeNet", size="the recipe's"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a small network on handwritten digits, four epochs",
    )
    run.add_recipe_arguments(parser, "classification", "small-classification")
    recipe = parser.add_argument_group("changes of the recipe")
    recipe.add_argument(
        "--learning-rate",
        type=float,
        help="the largest",
    )
    recipe.add_argument(
        "--accumulate",
        type=run.positive_int,
        help="batches whose gradients are added up for one step",
    )
    recipe.add_argument(
        "--ema",
        type=float,
        help="momentum of averaged weights, e.g. 0.999",
    )
    recipe.add_argument(
        "--label-smoothing",
        type=float,
        help="fraction of a label that is spread over all classes",
    )
    recipe.add_argument(
        "--augmentation",
        choices=("recipe", "light"),
        default="recipe",
        help="light only crops a little and flips, for small pictures as "
        "CIFAR-10's; default: the recipe's",
    )
    recipe.add_argument(
        "--flip",
        type=float,
        help="fraction of the images that are flipped left to right",
    )
    recipe.add_argument(
        "--rand-augment",
        type=float,
        help="strength of RandAugment, 0 to 1",
    )
    for name in ("mixup", "cutmix", "mosaic"):
        recipe.add_argument(
            f"--{name}",
            type=float,
            help="fraction of the batches that are mixed so",
        )
    machine = parser.add_argument_group("the machine")
    machine.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
    )
    machine.add_argument(
        "--devices",
        type=run.positive_int,
        help="number of GPUs, or of parts of the CPU; default: all GPUs",
    )
    machine.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write logs for TensorBoard",
    )
    return run.parse_arguments(parser, SMOKE)


if __name__ == "__main__":
    main()
