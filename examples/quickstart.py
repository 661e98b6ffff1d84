"""Train a CSP network on real images, then prove that what is saved works.

    python examples/quickstart.py                     # handwritten digits
    python examples/quickstart.py --data FOLDER       # a folder per class
    python examples/quickstart.py --data tfds:NAME    # TensorFlow Datasets

It trains, saves the model, reloads it in a new process and compares the
predictions, writes a TFLite file and checks it with LiteRT, and draws a
picture with the training curve and some predictions. The saved model knows its
size and the names of its classes: keras-csp predict needs nothing else.
"""

import argparse
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras
import matplotlib as mpl
import numpy as np

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.export import to_tflite
from keras_csp.training.run import cli_errors, positive_int

mpl.use("Agg")
from matplotlib import pyplot as plt

# What the new process runs: the package, the saved model, nothing else.
RELOAD = """
import sys
import keras_csp, keras, numpy as np
folder = sys.argv[1]
model = keras.saving.load_model(f"{folder}/model.keras")
images = np.load(f"{folder}/samples.npy")
np.save(f"{folder}/reloaded.npy", model.predict(images, verbose=0))
"""


def augmentation(size):
    """Small shifts, turns and zooms; a mirrored digit is another one."""
    return ClassificationAugmentation(
        min_crop=round(0.9 * size),
        max_crop=round(1.2 * size),
        angle=10,
        aspect=0.9,
        flip=0,
    )


def fit(model, images, tests, epochs):
    """Adam, its learning rate falling along a cosine."""
    learning_rate = keras.optimizers.schedules.CosineDecay(
        2e-3, epochs * len(images)
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model.fit(
        images,
        validation_data=tests,
        epochs=epochs,
        shuffle=False,  # the data set shuffles itself
    ).history


def check_reload(model, images, folder):
    """The saved model, in a new process, must predict the same."""
    model.save(folder / "model.keras")
    np.save(folder / "samples.npy", images)
    subprocess.run([sys.executable, "-c", RELOAD, str(folder)], check=True)
    reloaded = np.load(folder / "reloaded.npy")
    difference = np.abs(reloaded - model.predict(images, verbose=0)).max()
    if difference > 1e-6:
        sys.exit(f"quickstart: the reloaded model differs by {difference:.2g}")
    print(f"reloaded in a new process: largest difference {difference:.1g}")


def draw(history, images, labels, predictions, names, path):
    """The training curve above sixteen test images, mistakes in red."""
    figure = plt.figure(figsize=(9, 6.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1))
    axes = top.subplots()
    epochs = range(1, len(history["accuracy"]) + 1)
    axes.plot(epochs, history["accuracy"], label="training")
    axes.plot(epochs, history["val_accuracy"], label="test", marker="o")
    axes.set(xlabel="epoch", ylabel="accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    for panel, image, label, prediction in zip(
        bottom.subplots(2, 8).flat, images, labels, predictions
    ):
        panel.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        best = prediction.argmax()
        truth = label.argmax()
        wrong = best != truth
        panel.set_title(
            f"{names[best]} {prediction[best]:.0%}\n"
            + (f"is {names[truth]}" if wrong else ""),
            color="red" if wrong else "black",
            fontsize=9,
        )
    for panel in bottom.axes:
        panel.axis("off")
    figure.savefig(path, dpi=110)


def main():
    options = parse()
    folder = pathlib.Path(options.output)
    size = options.size or (32 if options.data == "digits" else 64)
    with cli_errors("quickstart", resumes=False):
        keras.utils.set_random_seed(options.seed)
        factory = keras_csp.get_factory(options.model)
        train, test = load_classification(
            options.data, seed=options.seed, on_error="raise"
        )
        model = factory(
            weights=None,
            input_shape=(size, size, train.channels),
            classes=len(train.class_names),
        )
        model = keras_csp.with_image_spec(
            model, size=size, resize="crop", class_names=train.class_names
        )
        folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{options.model}: {train.size} training and {test.size} "
        f"test images of {len(train.class_names)} classes\n"
        f"{keras_csp.count(model).summary()}"
    )
    tests = test.evaluation(options.batch, size)
    history = fit(
        model,
        train.training(options.batch, size, augmentation(size), options.seed),
        tests,
        options.epochs,
    )
    images, labels = (np.asarray(part) for part in next(iter(tests)))
    check_reload(model, images, folder)
    check = to_tflite(model, folder / "model.tflite", images)
    print(
        f"TFLite: {check.size / 1e6:.1f} MB, largest difference "
        f"{check.largest_difference:.1g}, match rate {check.match_rate:.0%}"
    )
    predictions = model.predict(images, verbose=0)
    names = train.class_names
    draw(history, images, labels, predictions, names, folder / "result.png")
    print(
        f"test accuracy: {100 * history['val_accuracy'][-1]:.2f} %\n"
        f"see {folder / 'result.png'}"
    )


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data",
        default="digits",
        help="digits (default), a folder of class folders, or tfds:NAME",
    )
    parser.add_argument(
        "--model",
        default="CSPPeleeNet",
        help="any of keras_csp.list_models(); default CSPPeleeNet",
    )
    parser.add_argument(
        "--size",
        type=positive_int,
        help="side of the images, pixels; default 32 for digits, else 64",
    )
    parser.add_argument("--epochs", type=positive_int, default=10)
    parser.add_argument("--batch", type=positive_int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/quickstart", help="folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
