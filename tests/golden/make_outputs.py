"""Outputs of every network with weights that depend on their names only.

    KERAS_BACKEND=jax python tests/golden/make_outputs.py FILE.json [NAME ...]

tests/test_backends.py runs this on every installed backend and compares with
outputs.json beside it, which was written on the TensorFlow backend and agreed
with JAX and PyTorch when it was written. Weights: `support.randomize`.
outputs_bfloat16.json is the same with --precision bfloat16, by PyTorch on a
CPU: it says how far from outputs.json half precision is.
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras_csp  # isort: skip
import keras
import numpy as np
from support import SMALL, randomize

from keras_csp.models.builder import build_network

# As results name them: the policies of Keras.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

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


def images(model, number=2, seed=0):
    """What `model` normalises to large patches, uniform in [0, 1).

    A network averages finer noise away.
    """
    rng = np.random.default_rng(seed)
    patches = rng.random((number, 4, 4, 3), dtype="float32")
    spec = keras_csp.image_spec(model)
    pixels = patches * np.float32(spec.std) + np.float32(spec.mean)
    return pixels.repeat(16, axis=1).repeat(16, axis=2)


def logits(name, precision="float32"):
    keras.config.set_dtype_policy(PRECISIONS[precision])
    model = randomize(build(name))
    outputs = model(images(model))
    keras.config.set_dtype_policy("float32")
    return np.asarray(keras.ops.convert_to_numpy(outputs))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    options = parser.parse_args()
    answers = {}
    for name in options.names or names():
        rows = logits(name, options.precision)
        answers[name] = [[float(f"{v:.7g}") for v in row] for row in rows]
        keras.utils.clear_session()
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in answers.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    pathlib.Path(options.path).write_text(text)


if __name__ == "__main__":
    main()
