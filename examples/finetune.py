"""Takes a trained network to your images, in three phases.

    python examples/finetune.py --data FOLDER    # or tfds:tf_flowers
    python examples/finetune.py --data FOLDER --model CSPPeleeNet --size 64 \\
        --weights runs/mine/model.keras --compare

A new classifier is trained alone, then with the last stage, then everything,
by the recipe fine-tuning; batch normalization with everything, unless
--freeze-norm keeps it as it was. --weights is one of

    imagenet   timm's, downloaded once; images are normalised as timm did
    FILE       of the same --model with any classes: .keras or .weights.h5
    none       everything is trained, from scratch

--compare also trains from scratch, for as many epochs. In --output: run.json,
the arguments and the recipe; model.keras and classes.json, the network and its
classes; results.json and curves.png, the test accuracies. The last epoch
counts: none is chosen by the test images.
"""

import argparse
import dataclasses
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras
import numpy as np

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.training import recipes
from keras_csp.training import run as runs

RECIPE = recipes.FINE_TUNING
SCRATCH = recipes.Phase("all", 1.0, learning_rate=1.0, batch_normalization=True)


def build(options, data, weights):
    """The network without its classifier, and a new one for these classes."""
    factory = keras_csp.get_factory(options.model)
    image = pixels = keras.Input((options.size, options.size, data.channels))
    if weights == "imagenet":
        pixels = normalised(image, keras_csp.weights.find_record(options.model))
    network = factory(
        include_top=False, weights=weights, input_tensor=pixels, pooling="avg"
    )
    classes = len(data.class_names)
    top = keras.layers.Dense(classes, activation="softmax", name="predictions")
    return keras.Model(image, top(network.output), name=network.name)


def normalised(image, record):
    """As the published network had its images, here in [0, 1]."""
    if image.shape[-1] == 1:
        image = keras.layers.Concatenate(name="grey_as_rgb")([image] * 3)
    variance = np.square(record.std)
    layer = keras.layers.Normalization(mean=record.mean, variance=variance)
    return layer(image)


def train(model, data, options, phases):
    """One phase after another: test accuracies, and where phases end."""
    shape = RECIPE.batch_size, options.size
    # In proportion, but each phase has an epoch.
    ends = np.round(np.cumsum([p.share for p in phases]) * options.epochs)
    least = np.arange(1, len(phases) + 1)
    most = options.epochs + 1 - least[::-1]
    ends = np.clip(ends, least, most).astype(int).tolist()
    views = ClassificationAugmentation.for_size(options.size)
    accuracies = []
    for phase, start, end in zip(phases, [0, *ends], ends):
        phase.apply(model)
        print(f"epochs {start + 1} to {end} train: {phase.part}")
        steps = (end - start) * -(-data[0].size // RECIPE.batch_size)
        model.compile(
            RECIPE.optimizer(steps, rate=phase.learning_rate), RECIPE.loss(),
            metrics=["accuracy"], jit_compile=False,
        )  # fmt: skip
        history = model.fit(
            data[0].training(*shape, views, options.seed + start),
            validation_data=data[1].evaluation(*shape), epochs=end,
            initial_epoch=start, shuffle=False, verbose=options.verbose,
        ).history  # fmt: skip
        accuracies += history["val_accuracy"]
    return {"accuracies": accuracies, "ends": ends}


def run(options, data):
    plans, results, output = {}, {}, options.output
    if options.weights != "none":
        frozen = {"batch_normalization": False} if options.freeze_norm else {}
        phases = [dataclasses.replace(p, **frozen) for p in RECIPE.phases]
        plans["fine-tuned"] = options.weights, phases
    if not plans or options.compare:
        plans["from scratch"] = None, (SCRATCH,)
    for name, (weights, phases) in plans.items():
        keras.utils.set_random_seed(options.seed)
        model = build(options, data[0], weights)
        runs.save_run_args(
            output, vars(options), RECIPE, free=("output", "verbose")
        )
        results[name] = train(model, data, options, phases)
        accuracy = results[name]["accuracies"][-1]
        print(f"{name}: test accuracy {accuracy:.4f}")
        if len(results) == 1:  # the layers, without the optimizer's state
            model = keras.Model(model.inputs, model.outputs, name=model.name)
            runs.save_model(output / "model.keras", model)
    classes = {"names": data[0].class_names, "size": options.size}
    runs.write_json(output / "classes.json", classes)
    runs.write_json(output / "results.json", results)
    runs.draw_accuracies(output / "curves.png", results)


def main():
    options = parse()
    with runs.cli_errors("finetune", resumes=False):
        if options.epochs < len(RECIPE.phases):
            raise ValueError(f"--epochs: 3 or more, not {options.epochs}")
        print(RECIPE.summary())
        run(options, load_classification(options.data, seed=options.seed))


def parse():
    # fmt: off
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add, positive = parser.add_argument, runs.positive_int
    add("--data", default="digits", help="digits (default), FOLDER, tfds:NAME")
    add("--model", default="CSPResNet50", help="of keras_csp.list_models()")
    add("--weights", default="imagenet", help="default imagenet")
    add("--compare", action="store_true", help="with training from scratch")
    add("--freeze-norm", action="store_true", help="batch normalization stays")
    add("--size", type=positive, default=224, help="side, pixels; default 224")
    add("--epochs", type=positive, default=20, help="of all phases; default 20")
    add("--seed", type=int, default=0, help="default 0")
    add("--verbose", type=int, default=1, help="2: one line an epoch")
    add("--output", type=pathlib.Path, default="runs/finetune", help="folder")
    # fmt: on
    return parser.parse_args()


if __name__ == "__main__":
    main()
