"""Outputs of every network with weights that depend on their names only.

    KERAS_BACKEND=jax python tests/golden/make_outputs.py FILE.json [NAME ...]

tests/test_backends.py runs this on every installed backend and compares with
outputs.json beside it, which was written on the TensorFlow backend and agreed
with JAX and PyTorch when it was written. Weights: `support.randomize`.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras_csp  # isort: skip
import keras
import numpy as np
from support import SMALL, randomize

from keras_csp.models.network import build_network

TABLE_1 = {
    f"CSPPeleeNet-{gamma}-{fusion}": {"gamma": gamma, "fusion": fusion}
    for gamma in (0.25, 0.5, 0.75)
    for fusion in ("csp", "first", "last")
    if (gamma, fusion) != (0.5, "csp")  # that is CSPPeleeNet
}


def names():
    return [*SMALL, *keras_csp.list_models(), *TABLE_1]


def build(name):
    options = {
        "input_shape": (64, 64, 3),
        "classes": 10,
        "classifier_activation": None,
    }
    if name in SMALL:
        return build_network(SMALL[name], **options)
    variant = TABLE_1.get(name, {})
    return keras_csp.get_factory(name.split("-")[0])(**options, **variant)


def logits(name):
    # Large patches: a network averages finer noise away.
    patches = np.random.default_rng(0).random((2, 4, 4, 3), dtype="float32")
    images = patches.repeat(16, axis=1).repeat(16, axis=2)
    model = randomize(build(name))
    return np.asarray(keras.ops.convert_to_numpy(model(images)))


def main(path, *wanted):
    answers = {}
    for name in wanted or names():
        answers[name] = [
            [float(f"{value:.7g}") for value in row] for row in logits(name)
        ]
        keras.utils.clear_session()
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in answers.items()]
    pathlib.Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
