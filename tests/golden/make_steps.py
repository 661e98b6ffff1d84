"""A training step of networks with weights that depend on their names only.

    KERAS_BACKEND=jax python tests/golden/make_steps.py FILE.json [NAME ...]

steps.json beside it was written by the TensorFlow backend on a CPU, in
float32 and in bfloat16; tests/test_backends.py compares every installed
backend with it, benchmarks/gpu.py GPUs. A step is: stochastic gradient
descent on the mean cross-entropy of four images of ten classes. What is known
of it: the loss, and the norm of what the variables of each kind (kernel,
gamma, moving_mean, ...) have changed by.
"""

import collections
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from make_outputs import PRECISIONS, build, images  # isort: skip  (imports keras_csp first)
import keras
import numpy as np
from support import SMALL, randomize

# One of each kind of network.
NAMES = (
    *SMALL,
    "CSPPeleeNet",
    "CSPResNet50Elastic",
    "CSPDarkNet53",
    "CSPMobileNetV2",
    "Res2NeXt50",
    "CS3SEDarkNetL",
    "CS3DarkNetFocusS",
    "CSPResNeXt50Timm",
    "CSPDenseNetReference",
)
LEARNING_RATE = 1e-3


def step(name, precision="float32", jit_compile="auto"):
    """{"loss", kind of variable: norm of what all of them changed by}."""
    keras.config.set_dtype_policy(PRECISIONS[precision])
    model = randomize(build(name))
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    x = images(model, number=4, seed=1)
    y = np.eye(10, dtype="float32")[[1, 3, 5, 7]]
    before = _values(model)
    found = {"loss": float(model.train_on_batch(x, y))}
    changes = collections.Counter()
    for path, value in _values(model).items():
        change = float(np.sum((value - before[path]) ** 2, dtype="float64"))
        changes[path.rsplit("/", 1)[-1]] += change
    found.update({kind: value**0.5 for kind, value in changes.items()})
    keras.config.set_dtype_policy("float32")
    return found


def _values(model):
    return {
        variable.path: np.asarray(
            keras.ops.convert_to_numpy(variable), "float64"
        )
        for variable in model.variables
        if "seed" not in variable.path
    }


def difference(found, golden):
    """The largest of the relative differences of what is known of a step."""
    return max(
        abs(found[key] - value) / max(abs(value), 1e-6)
        for key, value in golden.items()
    )


def main(path, *wanted):
    answers = {}
    for name in wanted or NAMES:
        answers[name] = {
            precision: {
                key: float(f"{value:.7g}")
                for key, value in step(name, precision, False).items()
            }
            for precision in PRECISIONS
        }
        keras.utils.clear_session()
        print(name, difference(*list(answers[name].values())[::-1]), flush=True)
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in answers.items()]
    pathlib.Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
