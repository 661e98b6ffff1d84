"""Trains a CSP classifier on several hosts at once, with Keras on JAX.

    python examples/train_multihost.py                      # one host
    python examples/train_multihost.py --hosts 2 --host 0 \\
        --coordinator 10.0.0.1:9876                         # on 10.0.0.1
    python examples/train_multihost.py --hosts 2 --host 1 \\
        --coordinator 10.0.0.1:9876                         # on the other one

The same command on every host, but for --host; --coordinator is an address of
host 0 and a free port there. Keras' own variables are the defaults of the
three: KERAS_DISTRIBUTION_NUM_PROCESSES, _PROCESS_ID and _JOB_ADDRESSES. Each
host trains with all its GPUs, or its CPU (JAX must be installed for them).

Each host takes every --hosts-th image and makes its share of every batch, with
an augmentation of its own. The result is that of one host: --batch is of all
hosts together, and so are gradients, losses and the statistics of batch
normalization. The test images are shared out likewise, after every epoch; each
counts once. Every host needs all of --data, under the same name.

Host 0 writes and all hosts read at the start, so --output must be one folder
that every host sees, as over NFS; whether it is, is tested. In it:

    run.json      the arguments and the recipe
    log.csv       loss and accuracy over all hosts, a row for each epoch
    state/        the last epoch: weights and optimizer
    model.keras   the network after it

A host is lost? The others end: at once if it died, in less than two minutes if
it fell silent. The same command on every host goes on after the last whole
epoch, also with another --hosts, or a larger --epochs. Other arguments need
another --output.
"""

import argparse
import importlib.util
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "jax")
if not importlib.util.find_spec("jax"):
    sys.exit("train_multihost: JAX is missing: pip install jax")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp.data import ClassificationAugmentation, load_classification
from keras_csp.training import recipes
from keras_csp.training import run as runs
from keras_csp.training.hosts import Hosts, cli_errors

# What may differ between hosts, and also where a run goes on.
OWN = ("host", "coordinator", "output", "verbose")
FREE = (*OWN, "hosts", "epochs")


def build(options, recipe, data):
    """The same weights on every host, from the seed."""
    model = keras_csp.get_factory(options.model)(
        weights=None,
        input_shape=(options.size, options.size, data.channels),
        classes=len(data.class_names),
    )
    steps = options.epochs * recipe.batches(data.size)
    model.compile(
        recipe.optimizer(steps), recipe.loss(), weighted_metrics=["accuracy"]
    )
    return model


def train(hosts, options, recipe, data, test):
    """From where the run stands to its last epoch; host 0 saves."""
    hosts.agree({k: v for k, v in vars(options).items() if k not in OWN})
    hosts.agree({"images": (data.size, test.size), "classes": data.class_names})
    model = hosts.together(lambda: build(options, recipe, data))
    hosts.check_shared(options.output)
    if hosts.first:
        steps = options.epochs * recipe.batches(data.size)
        print(keras_csp.count(model).summary())
        print(recipe.summary(steps))
    remember = (options.output, vars(options), recipe, FREE)
    hosts.together(lambda: hosts.first and runs.save_run_args(*remember))
    state = hosts.state(options.output / "state", options.output / "log.csv")
    epoch = hosts.together(lambda: state.restore(model))
    if epoch and hosts.first:
        print(f"going on after epoch {epoch} of {options.epochs}")
    shape = recipe.batch_size, options.size
    augmentation = ClassificationAugmentation.for_size(
        recipe.crop_side(options.size), flip=options.flip
    )
    model.fit(
        hosts.training(data, *shape, augmentation, options.seed + epoch),
        validation_data=hosts.evaluation(test, *shape),
        epochs=options.epochs,
        initial_epoch=epoch,
        callbacks=[state],
        shuffle=False,  # the data set shuffles itself
        verbose=options.verbose if hosts.first else 0,
    )
    hosts.save(model, options.output / "model.keras")
    if hosts.first:
        print(f"{state.history[-1]}; see {options.output}")


def main():
    options = parse()
    with cli_errors("train_multihost"):
        keras.utils.set_random_seed(options.seed)
        recipe = recipes.get_recipe(options.recipe, batch_size=options.batch)
        hosts = Hosts(options.hosts, options.host, options.coordinator)
        hosts.join(recipe.batch_size)
        data, test = hosts.together(
            lambda: load_classification(options.data, seed=options.seed)
        )
        train(hosts, options, recipe, data, test)


def parse():
    # fmt: off
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add, positive = parser.add_argument, runs.positive_int
    keras_own = "KERAS_DISTRIBUTION_{}".format
    add("--hosts", type=positive, help="how many; default 1",
        default=os.environ.get(keras_own("NUM_PROCESSES"), "1"))
    add("--host", type=int, help="which this is, from 0; default 0",
        default=os.environ.get(keras_own("PROCESS_ID"), "0"))
    add("--coordinator", help="ADDRESS:PORT of host 0",
        default=os.environ.get(keras_own("JOB_ADDRESSES")))
    add("--data", default="digits", help="digits (default), FOLDER, tfds:NAME")
    add("--model", default="CSPDenseNetbReference",
        help="of keras_csp.list_models(); default CSPDenseNetbReference")
    add("--recipe", default="small-classification",
        choices=[name for name in recipes.RECIPES if "classification" in name])
    add("--size", type=positive, default=32, help="side, pixels; default 32")
    add("--batch", type=positive, help="of all hosts; default: the recipe's")
    add("--epochs", type=positive, default=20, help="default 20")
    add("--flip", type=float, default=0.0, help="share of images; default 0")
    add("--seed", type=int, default=0, help="default 0")
    add("--verbose", type=int, default=1, help="2: one line an epoch")
    add("--output", type=pathlib.Path, default="runs/multihost", help="folder")
    # fmt: on
    return parser.parse_args()


if __name__ == "__main__":
    main()
