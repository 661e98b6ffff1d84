"""Trains a CSP classifier on several hosts at once, with Keras on JAX.

    python examples/train_multihost.py                      # one host
    python examples/train_multihost.py --hosts 2 --host 0 \\
        --coordinator 10.0.0.1:9876                         # on 10.0.0.1
    python examples/train_multihost.py --hosts 2 --host 1 \\
        --coordinator 10.0.0.1:9876                         # on the other one

Run the same command on every host, except for --host. --coordinator is an
address of host 0 and a free port there. The defaults of the three arguments are
Keras' environment variables KERAS_DISTRIBUTION_NUM_PROCESSES, _PROCESS_ID and
_JOB_ADDRESSES. Each host trains with all its GPUs, or its CPU (install JAX for
them).

Host i of n reads images i, i + n, i + 2n, ... and makes its part of every
batch, augmented in its own way. The result is that of one host: --batch counts
the images of all hosts, and gradients, losses and the statistics of batch
normalization are computed over the whole batch. The test images are divided
likewise after every epoch; each counts once. Every host needs all of --data,
under the same name.

Host 0 writes and all hosts read, so --output must be a folder that all hosts
share, e.g. over NFS; this is checked at the start. In it:

    run.json      the recipe as it ran, and the other arguments
    log.csv       loss and accuracy over all hosts, a row for each epoch
    state/        the last epoch: weights and optimizer
    model.keras   the network after it

When a host is lost the others end: at once if its process died, in less than
two minutes if it does not answer. Rerun the same command on every host to
resume after the last complete epoch, also with another --hosts or a larger
--epochs. Other arguments need another --output.
"""

import importlib.util
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "jax")
if not importlib.util.find_spec("jax"):
    sys.exit("train_multihost: JAX is missing: pip install jax")

import keras_csp  # isort: skip  (before keras: it switches oneDNN on)
import keras

from keras_csp.data import load_classification
from keras_csp.training import recipes, run
from keras_csp.training.multi_host import Hosts, cli_errors


def make_recipe(options):
    """The recipe of --recipe, changed by the other arguments."""
    recipe = recipes.get_recipe(
        options.recipe, kind="classification", batch_size=options.batch
    )
    return recipe.at_size(options.size).with_augmentation(flip=options.flip)


def build(options, recipe, data):
    factory = keras_csp.get_factory(options.model)
    return recipe.build(factory, data, weighted_metrics=["accuracy"])


def train(hosts, options, recipe, data, test):
    """Trains the epochs that are missing; host 0 saves."""
    arguments = {
        "data": options.data,
        "model": options.model,
        "seed": options.seed,
        "epochs": options.epochs,
    }
    hosts.assert_same({**arguments, **recipe.get_config()})
    hosts.assert_same(
        {"images": (data.size, test.size), "classes": data.class_names}
    )
    # From the seed: the same weights on every host.
    model = hosts.run_on_all_hosts(lambda: build(options, recipe, data))
    hosts.check_shared_folder(options.output)

    def save_run():
        if hosts.first:
            print(keras_csp.count(model).summary())
            print(recipe.summary())
            free = ("epochs", "recipe.steps")
            run.save_run(options.output, recipe, arguments, free)

    hosts.run_on_all_hosts(save_run)
    state = hosts.state(options.output / "state", options.output / "log.csv")
    epoch = hosts.run_on_all_hosts(lambda: state.restore(model))
    if epoch and hosts.first:
        print(f"resuming after epoch {epoch} of {options.epochs}")
    model.fit(
        hosts.training(data, recipe, model, options.seed + epoch),
        validation_data=hosts.evaluation(test, recipe, model),
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
        recipe = make_recipe(options)
        hosts = Hosts(options.hosts, options.host, options.coordinator)
        hosts.join(recipe.batch_size)
        data, test = hosts.run_on_all_hosts(
            lambda: load_classification(options.data, seed=options.seed)
        )
        recipe = hosts.run_on_all_hosts(
            lambda: recipe.for_epochs(options.epochs, data.size)
        )
        train(hosts, options, recipe, data, test)


def parse():
    parser = run.make_parser(__doc__, output="runs/multihost")
    run.add_classification_arguments(
        parser, model="CSPDenseNetbReference", size="32", default_size=32
    )
    run.add_recipe_arguments(
        parser, "classification", "small-classification", epochs=20
    )
    parser.add_argument(
        "--flip",
        type=float,
        default=0.0,
        help="fraction of the images that are flipped left to right; default 0",
    )
    hosts = parser.add_argument_group("the hosts")
    hosts.add_argument(
        "--hosts",
        type=run.positive_int,
        default=os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1"),
        help="number of hosts; default 1",
    )
    hosts.add_argument(
        "--host",
        type=int,
        default=os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0"),
        help="index of this one, from 0; default 0",
    )
    hosts.add_argument(
        "--coordinator",
        default=os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES"),
        help="ADDRESS:PORT of host 0",
    )
    return run.parse_arguments(parser)


if __name__ == "__main__":
    main()
