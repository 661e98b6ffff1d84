"""TensorFlow's SavedModel, checked as TensorFlow serves it."""

import pathlib

from keras_csp._files import atomic_write_folder
from keras_csp.export.inputs import exportable, prepare
from keras_csp.export.runtimes import METADATA_FILE, SavedModelRuntime
from keras_csp.export.verification import float_tolerance, verify


def to_saved_model(
    model,
    path,
    samples=None,
    *,
    input_shape=None,
    maximum_difference=None,
):
    """Writes `model` as a SavedModel after serving `samples` with it.

    Its signature `serving_default` takes "images", batches of any size. The
    network's name and the model's `ImageSpec` (see `to_tflite`) are in a file
    of its folder, `assets.extra/keras_csp.json`.

    Args:
        model: a functional `keras.Model` on the TensorFlow backend with one
            input, or a `Detector`, whose boxes come out after non-maximum
            suppression;
            `Detector.inference_model(score_threshold=...)` has other
            thresholds.
        path: of the folder; one that is there is replaced if it is a
            SavedModel.
        samples: `(n, height, width, channels)` real inputs, as the model
            takes them, on which it is compared with the model. Default: parts
            of two photographs.
        input_shape: `(height, width, channels)`; needed only for a model of
            open sides without samples or a size in its `ImageSpec`.
        maximum_difference: as of `to_tflite`.

    Returns:
        An `ExportCheck`.

    Raises:
        ValueError: another backend, an argument out of range, a `path` that
            is something else, samples that do not fit the model, or outputs
            that differ by more than `maximum_difference`. Nothing is left
            then, and what was there before stays.
    """
    tolerance = float_tolerance(maximum_difference)
    model = exportable(model, "SavedModel")
    path = pathlib.Path(path)
    if path.exists() and not (path / "saved_model.pb").is_file():
        raise ValueError(
            "`path` must be new or a SavedModel to be replaced. Received: "
            f"{str(path)!r}"
        )
    metadata, samples = prepare(model, samples, input_shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write_folder(path) as part:
        _write(model, part, metadata.input_shape)
        extra = part / "assets.extra"
        extra.mkdir()
        (extra / METADATA_FILE).write_text(metadata.to_json(), "utf-8")
        return verify(model, "SavedModel", path, samples, part, _run, tolerance)


def _write(model, folder, shape):
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *shape), "float32", name="images")]
    model.export(folder, verbose=False, input_signature=signature)


def _run(path, samples):
    return SavedModelRuntime(path)(samples)
