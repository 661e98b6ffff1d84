"""Trains a CSP classifier by a recipe: the paper's for ImageNet, or another.

    python examples/train_imagenet.py --smoke         # all of it, in a minute
    python examples/train_imagenet.py --data FOLDER   # a folder per class
    python examples/train_imagenet.py --data tfds:imagenet2012 \\
        --model CSPResNeXt50 --recipe paper-classification --output runs/paper

In --output: run.json, the arguments and the recipe; log.csv and curves.png;
state/, the last epoch and the best by validation accuracy; model.keras, the
best, with --ema its averaged weights; results.json, its accuracy from the
paper's ten crops. The same seed gives the same weights on the same CPU.

Interrupted or killed? The same command goes on after the last epoch. With a
larger --epochs it goes on to that. Other arguments need another --output.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.training import devices, recipes
from keras_csp.training import run as runs
from keras_csp.training.checkpoint import TrainingState, tensorboard

VIEWS = {"paper": "for_size", "light": "light"}
# What may differ where a run goes on, and what --smoke stands for.
FREE = ("epochs", "output", "verbose", "tensorboard", "smoke")
SMOKE = {"model": "CSPResNet10", "size": 32, "epochs": 4, "ema": 0.9,
         "tensorboard": True, "output": "runs/smoke"}  # fmt: skip


def build(options, recipe, data):
    shape = (options.size, options.size, data.channels)
    classes = len(data.class_names)
    factory = keras_csp.models.get_factory(options.model)
    model = factory(weights=None, input_shape=shape, classes=classes)
    steps = options.epochs * recipe.batches(data.size)
    optimizer = recipe.optimizer(steps, options.accumulate, options.ema)
    model.compile(optimizer, recipe.loss(), metrics=["accuracy"])
    return model


def train(options, recipe, data, test, strategy):
    """From where the run stands to its last epoch."""
    output = options.output
    names = ("flip", "rand_augment", "mixup", "cutmix", "mosaic")
    views = getattr(ClassificationAugmentation, VIEWS[options.augmentation])
    augmentation = views(
        recipe.crop_side(options.size),
        **{name: getattr(options, name) for name in names},
    )
    model = build(options, recipe, data)
    runs.save_run_args(output, vars(options), recipe, FREE)
    steps = options.epochs * recipe.batches(data.size)
    print(keras_csp.count(model).summary())
    print(recipe.summary(steps, options.accumulate))
    state = TrainingState(output / "state", "val_accuracy", output / "log.csv")
    if epoch := state.restore(model):
        print(f"going on after epoch {epoch} of {options.epochs}")
    callbacks = [state, keras.callbacks.TerminateOnNaN()]
    if options.ema:  # the validation is of its weights
        callbacks.append(keras.callbacks.SwapEMAWeights())
    if options.tensorboard:
        callbacks += tensorboard(output / "tensorboard")
    shape, seed = (recipe.batch_size, options.size), options.seed + epoch
    model.fit(
        data.training(*shape, augmentation, seed, drop_remainder=True),
        validation_data=devices.shared(test.evaluation(*shape), strategy),
        epochs=options.epochs, initial_epoch=epoch, callbacks=callbacks,
        shuffle=False, verbose=options.verbose,
    )  # fmt: skip
    return state


def report(options, recipe, data, test, state):
    """The best epoch: saved, and measured as the paper does."""
    output, best = options.output, state.best
    runs.draw_curves(output / "curves.png", state.history, options.model)
    model = build(options, recipe, data)  # on one device
    state.restore_best(model)
    runs.save_model(output / "model.keras", model)
    shift = max(1, recipe.crop_side(options.size) // 8)  # 32 of 256 pixels
    crops = keras_csp.evaluate_ten_crop(model, test, options.size, shift=shift)
    results = {"best": best, "ten_crop": crops, "classes": data.class_names}
    runs.write_json(output / "results.json", results)
    print(f"{len(data.skipped + test.skipped)} images could not be read")
    print(f"best: {best}; from ten crops: {crops}; see {output}")


def main():
    options = parse()
    recipe = recipes.get_recipe(
        options.recipe, learning_rate=options.rate, batch_size=options.batch,
        label_smoothing=options.label_smoothing,
    )  # fmt: skip
    with runs.cli_errors("train_imagenet"):
        keras.utils.set_random_seed(options.seed)
        keras.config.set_dtype_policy(options.precision)
        batch = recipe.batch_size, options.accumulate
        strategy = devices.mirrored(options.devices, *batch)
        data, test = load_classification(options.data, seed=options.seed)
        options.size = options.size or recipe.sizes[0]
        default = recipe.epochs(data.size, options.accumulate)
        options.epochs = options.epochs or default
        with strategy.scope():
            state = train(options, recipe, data, test, strategy)
        report(options, recipe, data, test, state)


def parse():
    # fmt: off
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add, positive = parser.add_argument, runs.positive_int
    add("--smoke", action="store_true", help="digits and a small network")
    add("--data", default="digits", help="digits (default), FOLDER, tfds:NAME")
    add("--model", default="CSPPeleeNet", help="of keras_csp.list_models()")
    add("--recipe", default="small-classification",
        choices=[name for name in recipes.RECIPES if "classification" in name])
    add("--size", type=positive, help="side in pixels; default: the recipe's")
    add("--batch", type=positive, help="images; default: the recipe's")
    add("--epochs", type=positive, help="default: the recipe's steps")
    add("--rate", type=float, help="of learning; default: the recipe's")
    add("--label-smoothing", type=float, help="default: the recipe's")
    add("--accumulate", type=positive, default=1, help="batches for a step")
    add("--ema", type=float, help="momentum of averaged weights, as 0.999")
    add("--augmentation", default="paper", choices=("paper", "light"),
        help="the paper's (default), or light, for pictures as CIFAR-10's")
    add("--flip", type=float, default=0.5, help="share of images; default 0.5")
    add("--rand-augment", type=float, default=0.0, help="strength, up to 1")
    for name in ("mixup", "cutmix", "mosaic"):
        add(f"--{name}", type=float, default=0.0, help="share of the batches")
    add("--precision", default="float32",
        choices=("float32", "mixed_float16", "mixed_bfloat16"))
    add("--devices", type=positive, help="GPUs, or parts of the CPU")
    add("--tensorboard", action="store_true", help="write its logs, too")
    add("--seed", type=int, default=0, help="default 0")
    add("--verbose", type=int, default=1, help="2: one line an epoch")
    add("--output", type=pathlib.Path, default="runs/imagenet", help="folder")
    # fmt: on
    if parser.parse_args().smoke:
        parser.set_defaults(**SMOKE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
