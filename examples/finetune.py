"""Fine-tunes a trained network on your images, in three phases.

    python examples/finetune.py --data FOLDER    # or tfds:tf_flowers
    python examples/finetune.py --data FOLDER --model CSPPeleeNet --size 64 \\
        --weights runs/mine/model.keras --compare

A new classifier is trained alone, then with the last stage, then everything,
as the recipe fine-tuning says; batch normalization is trained with everything,
unless --freeze-norm keeps it as it was. --weights is one of

    imagenet   published ones, downloaded once; of the networks that have such
               (python -m keras_csp weights lists them), as CSPResNet50Timm
    FILE       of the same --model with any classes: .keras or .weights.h5
    none       everything is trained, from scratch

--compare also trains from scratch, for as many epochs. In --output:

    run.json       the recipe as it ran, and the other arguments
    model.keras    the network, which knows its size and its classes
    results.json   the test accuracies
    curves.png     the same as a picture

The last epoch is saved: none is chosen by the test images.
"""

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp.data import load_classification
from keras_csp.training import Phase, fit_in_phases, recipes, run
from keras_csp.training.curves import draw_accuracies
from keras_csp.training.phases import phase_ends

FROM_SCRATCH = (Phase("all", fraction=1.0, batch_normalization=True),)


def make_recipe(options):
    """The recipe of --recipe, changed by the other arguments."""
    recipe = recipes.get_recipe(
        options.recipe, kind="classification", batch_size=options.batch
    )
    if not recipe.phases:
        raise ValueError(f"The recipe {recipe.name} has no phases")
    if options.freeze_norm:
        phases = [
            dataclasses.replace(phase, batch_normalization=False)
            for phase in recipe.phases
        ]
        recipe = recipe.replace(phases=phases)
    return recipe.at_size(options.size)


def build(options, recipe, data, weights):
    """The network without its classifier, and a new one for these classes."""
    # Published weights are for colours: grey images get three channels then.
    channels = 3 if weights == "imagenet" else data.channels
    network = keras_csp.get_factory(options.model)(
        include_top=False,
        weights=weights,
        input_shape=(recipe.size, recipe.size, channels),
        pooling="avg",
    )
    classifier = keras.layers.Dense(
        len(data.class_names), activation="softmax", name="predictions"
    )
    model = keras.Model(
        network.input, classifier(network.output), name=network.name
    )
    # How the pixels are normalised is kept: it belongs to the weights.
    return keras_csp.with_image_spec(
        model, size=recipe.size, class_names=data.class_names
    )


def train(model, recipe, data, test, options):
    """Trains one phase after another.

    Returns:
        {"accuracies": of the test images after each epoch,
        "ends": the last epoch of each phase}.
    """
    history = fit_in_phases(
        model,
        recipe,
        data,
        test,
        options.epochs,
        seed=options.seed,
        compile_options={"metrics": ["accuracy"], "jit_compile": False},
        verbose=options.verbose,
    )
    return {
        "accuracies": history["val_accuracy"],
        "ends": phase_ends(recipe.phases, options.epochs),
    }


def run_all(options, recipe, data, test):
    """Trains what was asked for; saves the first model and all accuracies."""
    plans = {}
    if options.weights != "none":
        plans["fine-tuned"] = options.weights, recipe
    if options.weights == "none" or options.compare:
        plans["from scratch"] = None, recipe.replace(phases=FROM_SCRATCH)
    results = {}
    for name, (weights, plan) in plans.items():
        keras.utils.set_random_seed(options.seed)
        model = build(options, plan, data, weights)
        if not results:
            save_run(options, plan)
        results[name] = train(model, plan, data, test, options)
        print(f"{name}: test accuracy {results[name]['accuracies'][-1]:.4f}")
        if len(results) == 1:
            # The same layers, without the state of the optimizer.
            model = keras.Model(model.inputs, model.outputs, name=model.name)
            run.save_model(options.output / "model.keras", model)
    run.write_json(options.output / "results.json", results)
    draw_accuracies(options.output / "curves.png", results)


def save_run(options, recipe):
    names = ("data", "model", "weights", "compare", "epochs", "seed")
    arguments = {name: getattr(options, name) for name in names}
    run.save_run(options.output, recipe, arguments)


def main():
    options = parse()
    with run.cli_errors("finetune", resumes=False):
        recipe = make_recipe(options)
        phase_ends(recipe.phases, options.epochs)  # before anything is read
        data, test = load_classification(options.data, seed=options.seed)
        print(recipe.summary())
        run_all(options, recipe, data, test)


def parse():
    parser = run.make_parser(__doc__, output="runs/finetune")
    run.add_classification_arguments(
        parser, model="CSPResNet50Timm", size="the recipe's"
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet (default), a FILE or none",
    )
    run.add_recipe_arguments(parser, "classification", "fine-tuning", epochs=20)
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also train from scratch",
    )
    parser.add_argument(
        "--freeze-norm",
        action="store_true",
        help="never train batch normalization",
    )
    return run.parse_arguments(parser)


if __name__ == "__main__":
    main()
