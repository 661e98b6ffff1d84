"""What a detector of weights that depend on its names alone finds and learns.

    KERAS_BACKEND=jax python tests/golden/make_detector.py FILE.json

detector.json beside it was written by the TensorFlow backend on a CPU, in
float32 and in bfloat16; benchmarks/gpu.py compares GPUs with it. It has the
losses of three steps of `fit`, and before them the best twenty boxes of two
images.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from make_steps import PRECISIONS, images  # isort: skip  (keras_csp first)
import keras
import numpy as np
from support import randomize, tiny_backbone

import keras_csp


def answers(precision="float32", jit_compile=False):
    """{"losses", "boxes", "scores", "classes"}, as lists."""
    keras.config.set_dtype_policy(PRECISIONS[precision])
    detector = randomize(
        keras_csp.Detector(
            tiny_backbone(64), "efm", classes=3, input_shape=(64, 64, 3)
        )
    )
    for layer in detector.layers:
        if layer.name.startswith("head_"):  # scores on both sides of 0.25
            layer.kernel.assign(0.2 * layer.kernel)
    x = images(detector, number=4, seed=1)
    found = detector.predict(x[:2], verbose=0, max_detections=20)
    targets = {
        "boxes": np.array([[[8, 8, 30, 40], [30, 4, 60, 30]]] * 4, "float32"),
        "labels": np.array([[2, -1], [0, 1], [1, 1], [-1, -1]], "int32"),
    }
    detector.compile(keras.optimizers.SGD(1e-3), jit_compile=jit_compile)
    history = detector.fit(
        x, targets, batch_size=4, epochs=3, shuffle=False, verbose=0
    )
    keras.config.set_dtype_policy("float32")
    boxes = {key: found[key].tolist() for key in ("boxes", "scores", "classes")}
    return {"losses": history.history["loss"], **boxes}


def main(path):
    found = {precision: answers(precision) for precision in PRECISIONS}
    pathlib.Path(path).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
