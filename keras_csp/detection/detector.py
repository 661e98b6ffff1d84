"""A one-stage detector: backbone, fusion table, YOLOv3 heads."""

import collections
import contextlib
import math
import os
import pathlib
import types
import warnings

import keras

from keras_csp._registry import get_factory
from keras_csp._validation import check_choice, check_positive
from keras_csp.detection.anchors import default_anchors, split_anchors
from keras_csp.detection.evaluation import AveragePrecision
from keras_csp.detection.losses import BOX_LOSSES, YoloLoss
from keras_csp.detection.necks import get_neck
from keras_csp.detection.nms import Detections
from keras_csp.models.builder import check_input_shape
from keras_csp.models.features import feature_extractor
from keras_csp.weights import keras_files

# A side must divide by the largest stride, for the levels to fit together.
_LARGEST_STRIDE = 32

# Average precision counts every box, however low its score.
EVALUATION = {
    "score_threshold": 0.001,
    "iou_threshold": 0.6,
    "candidates": 1000,
}


# Targets with a row for each box, and the numbers of rows that are compiled.
_OF_BOXES = {"boxes", "labels", "crowd", "area", "original_boxes"}
_ROWS = [16 * 2**power for power in range(12)]


@keras.saving.register_keras_serializable(package="keras_csp")
class PriorBias(keras.initializers.Initializer):
    """Head biases for which every objectness starts at `probability`.

    Nearly all boxes are background: without it the first steps of a training
    do little but learn that. Source: arXiv 1708.02002, section 4.1.
    """

    def __init__(self, channels, probability=0.01):
        self.channels = channels
        self.probability = probability

    def __call__(self, shape, dtype=None):
        odds = math.log(self.probability / (1 - self.probability))
        anchor = [0.0] * 4 + [odds] + [0.0] * (self.channels - 5)
        bias = anchor * (shape[0] // self.channels)
        return keras.ops.convert_to_tensor(bias, dtype)

    def get_config(self):
        return {"channels": self.channels, "probability": self.probability}


@keras.saving.register_keras_serializable(package="keras_csp")
class Detector(keras.Model):
    """The paper's detectors: section 3.3, Fig. 6 and Table 2.

    Called on images it gives the maps of its heads, {level: `(batch, h, w,
    n (5 + classes))`}; `predict` gives boxes. `fit` takes batches of images
    `(batch, height, width, 3)` in [0, 1] and {"boxes": `(batch, m, 4)` x1,
    y1, x2, y2 in pixels of the input, "labels": `(batch, m)` integers, below
    0 for padding}, or (images, boxes, labels), as a `tf.data.Dataset`;
    `keras_csp.data.load_detection` reads such from files.

    Args:
        backbone: the name of a network of `keras_csp.list_models()`, default
            "CSPPeleeNet"; or a functional `keras.Model` with levels P3 to P5.
        neck: "fpn", "fpn-3l", "prn", "prn-3l", "cem", "gfm" or "efm"
            (default), rows of `keras_csp.detection.NECKS`.
        classes: default 80.
        input_shape: (height, width, 3), sides that 32 divides, default
            (416, 416, 3); `None` for both sides takes images of any such
            size, as a training over several sizes needs.
        attention: `None` (default) or "sam".
        spp: whether the coarsest level has spatial pyramid pooling. Default
            False.
        anchors: pairs (width, height) in pixels of the input, equally many
            for each level, as `keras_csp.detection.fit_anchors` gives; or a
            dict from level to pairs. Default: YOLOv3's nine, or YOLOv3-tiny's
            for two levels.
        weights: `None` (default): random. "imagenet": published weights in
            the backbone. A path of a `.weights.h5` or `.keras` file of such a
            detector.
        name: default e.g. "csppeleenet_efm".

    Raises:
        ValueError: an argument out of range, quoting the value received.
    """

    def __init__(
        self,
        backbone="CSPPeleeNet",
        neck="efm",
        classes=80,
        input_shape=(416, 416, 3),
        attention=None,
        spp=False,
        anchors=None,
        weights=None,
        name=None,
        **kwargs,
    ):
        table = get_neck(neck)
        check_choice("attention", attention, (None, "sam"))
        check_choice("spp", spp, (True, False))
        check_positive("classes", classes)
        if anchors is None:
            anchors = default_anchors(table.outputs)
        anchors = split_anchors(anchors, table.outputs)
        features = _features(backbone, input_shape, weights)
        pyramid = table.make("neck", attention, spp)(features.output)
        maps = {
            level: _head(f"head_{level}", len(anchors[level]), classes)(x)
            for level, x in sorted(pyramid.items())
        }
        label = backbone if isinstance(backbone, str) else backbone.name
        super().__init__(
            inputs=features.inputs[0],
            outputs=maps,
            name=name or f"{label.lower()}_{neck.replace('-', '_')}",
            **kwargs,
        )
        self._arguments = {
            "backbone": backbone,
            "neck": neck,
            "classes": classes,
            "input_shape": tuple(self.inputs[0].shape[1:]),
            "attention": attention,
            "spp": spp,
            "anchors": {k: list(map(list, v)) for k, v in anchors.items()},
        }
        # In a namespace, where Keras does not look for layers to save.
        self._made = types.SimpleNamespace(
            inference={}, evaluation=None, loss=None, loss_parts=None
        )
        if weights not in (None, "imagenet"):
            _load(self, weights)

    @property
    def anchors(self):
        """{level: pairs (width, height) in pixels}."""
        given = self._arguments["anchors"]
        return {k: tuple(map(tuple, v)) for k, v in given.items()}

    @property
    def classes(self):
        return self._arguments["classes"]

    def compile(self, optimizer="adam", loss="ciou", **kwargs):
        """As `keras.Model.compile`.

        Args:
            optimizer: default "adam".
            loss: a `keras_csp.detection.YoloLoss`, or the name of its box
                term: "mse", "iou", "giou", "diou" or "ciou" (default).
            **kwargs: e.g. `steps_per_execution`; `jit_compile` is True by
                default on the JAX backend, elsewhere False.
        """
        if loss in BOX_LOSSES:
            loss = YoloLoss(loss)
        if not isinstance(loss, YoloLoss):
            raise ValueError(
                "`loss` must be a keras_csp.detection.YoloLoss or the name of "
                f"its box term. Received: loss={loss!r}"
            )
        self._made.loss, self._made.loss_parts = loss, None
        self._part_trackers = [
            keras.metrics.Mean(name=name)
            for name in ("box_loss", "objectness_loss", "class_loss")
        ]
        # XLA compiles anew for every number of boxes in a batch. JAX without
        # it compiles each operation alone, which is far slower.
        kwargs.setdefault("jit_compile", keras.backend.backend() == "jax")
        super().compile(optimizer=optimizer, loss=None, **kwargs)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        parts = self._loss_parts(y, y_pred)
        # Weighted by images: a count that does not depend on the data would
        # grow once more where TensorFlow looks for a batch after the last.
        images = keras.ops.shape(x)[0]
        for tracker in self._part_trackers:
            tracker.update_state(parts[tracker.name], sample_weight=images)
        return sum(parts.values()) + sum(self.losses)

    def _loss_parts(self, targets, maps):
        if "crowd" in targets:  # groups of objects: none is to be found
            labels = keras.ops.where(targets["crowd"], -1, targets["labels"])
            targets = {**targets, "labels": labels}
        return self._made.loss(targets, maps, self.anchors)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()

    def get_compile_config(self):
        if self._made.loss is None:
            return None
        config = {"optimizer": self.optimizer, "loss": self._made.loss}
        return keras.saving.serialize_keras_object(config)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, validation_data=None, **kwargs):
        """As `keras.Model.fit`; `validation_data` adds val_AP, val_AP50, ...

        Args:
            x, y: a `tf.data.Dataset` of batches, or images and targets.
            validation_data: a data set, or a pair of images and targets.
            **kwargs: the other arguments of `keras.Model.fit`, by name.
        """
        if self._made.loss is None:
            raise ValueError("Call `compile` before `fit`")
        x = as_batches(x) if y is None else check_images(x)
        if y is None:
            kwargs.setdefault("shuffle", False)  # a data set does it itself
        if hasattr(validation_data, "element_spec"):
            validation_data = as_batches(validation_data)
        with _unknown_length():
            return super().fit(x, y, validation_data=validation_data, **kwargs)

    def evaluate(
        self,
        x,
        y=None,
        batch_size=32,
        verbose="auto",
        steps=None,
        return_dict=True,
        precision=None,
        **kwargs,
    ):
        """COCO's average precision, and the losses if compiled.

        Args:
            x, y: as of `fit`; "crowd", "area", "original_boxes" and
                "letterbox" among its targets are used (those of
                `DetectionData.evaluation`).
            batch_size: of images and targets given as arrays. Default 32.
            verbose: of the progress bar, as in Keras.
            steps: batches to take. Default: all.
            return_dict: False gives the values alone. Default True.
            precision: an `AveragePrecision` to be filled, which then also has
                the numbers of each class and the curves. Default: a new one.

        Returns:
            {"AP", "AP50", "AP75", "AP_small", ..., "loss", ...}.
        """
        if kwargs.get("callbacks") is not None:  # within `fit`
            verbose = 0
        if y is None:
            dataset = as_batches(x)
        else:
            dataset = list(_slices(check_images(x), y, batch_size or 32))
        if precision is None:
            precision = AveragePrecision(self.classes)
        sums, images = collections.Counter(), 0
        model = self._evaluation_model()
        for targets, found in detected(model, dataset, steps, verbose):
            losses = self._losses_of(targets, found.pop("maps"))
            precision.update(targets, found)
            count = len(found["count"])
            images += count
            for name, value in losses.items():
                sums[name] += count * value
        results = {name: value / images for name, value in sums.items()}
        results.update(precision.result())
        return results if return_dict else list(results.values())

    def _evaluation_model(self):
        """Boxes and the maps that the losses need, from one pass."""
        if self._made.evaluation is None:
            found = self.inference_model(**EVALUATION).output
            self._made.evaluation = keras.Model(
                self.inputs[0], {**found, "maps": self.output}
            )
        return self._made.evaluation

    def _losses_of(self, targets, maps):
        if self._made.loss is None:
            return {}
        if self._made.loss_parts is None:
            self._made.loss_parts = _compiled(self._loss_parts)
        used = targets.keys() & {"boxes", "labels", "crowd"}
        targets = {
            key: keras.ops.convert_to_tensor(targets[key]) for key in used
        }
        parts = dict(self._made.loss_parts(targets, maps))
        parts["loss"] = sum(parts.values()) + sum(self.losses)
        numpy = keras.ops.convert_to_numpy
        return {name: float(numpy(value)) for name, value in parts.items()}

    def predict(
        self,
        x,
        batch_size=None,
        verbose="auto",
        steps=None,
        callbacks=None,
        **thresholds,
    ):
        """Boxes, scores, classes and their count for each image.

        Args:
            x: images `(batch, height, width, 3)` in [0, 1], or a data set.
            batch_size, verbose, steps, callbacks: as in Keras.
            **thresholds: `score_threshold`, `iou_threshold`,
                `max_detections`, `candidates` of `Detections`.

        Returns:
            As `Detections`: a dict of arrays "boxes", "scores", "classes",
            "count".
        """
        return self.inference_model(**thresholds).predict(
            check_images(x), batch_size, verbose, steps, callbacks
        )

    def inference_model(self, **thresholds):
        """A `keras.Model` from images to boxes, NMS included, to export.

        Args:
            **thresholds: `score_threshold`, `iou_threshold`,
                `max_detections`, `candidates` of `Detections`.
        """
        key = tuple(sorted(thresholds.items()))
        if key not in self._made.inference:
            detections = Detections(
                self.anchors,
                self.classes,
                dtype="float32",
                name="detections",
                **thresholds,
            )
            self._made.inference[key] = keras.Model(
                self.inputs[0],
                detections(self.output),
                name=f"{self.name}_detections",
            )
        return self._made.inference[key]

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(
            self._arguments["backbone"]
        )
        return {**self._arguments, "backbone": backbone, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        backbone = keras.saving.deserialize_keras_object(
            config["backbone"], custom_objects
        )
        return cls(**{**config, "backbone": backbone})


def detected(model, dataset, steps=None, verbose="auto"):
    """(targets, what `model` finds), batch by batch, with a progress bar.

    Args:
        model: a `Detector.inference_model`.
        dataset: batches of (images, targets).
        steps: batches to take. Default: all.
        verbose: 0 for no progress bar.
    """
    total = steps
    if total is None and hasattr(dataset, "cardinality"):
        total = int(dataset.cardinality())
        total = total if total > 0 else None
    bar = keras.utils.Progbar(total, unit_name="batch") if verbose else None
    others = keras.backend.backend() != "tensorflow"
    if others and hasattr(dataset, "as_numpy_iterator"):
        # JAX and PyTorch do not take TensorFlow's tensors.
        dataset = dataset.as_numpy_iterator()
    index = 0
    for index, (images, targets) in enumerate(dataset, 1):
        yield targets, model.predict_on_batch(images)
        if bar:
            bar.update(index)
        if index == steps:
            break
    if bar and total != index:
        bar.update(index, finalize=True)


def _slices(images, targets, batch_size):
    """Batches of (images, targets) of arrays."""
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        yield images[rows], {key: y[rows] for key, y in targets.items()}


@contextlib.contextmanager
def _unknown_length():
    """Without Keras' warning that a data set has ended.

    One that leaves unreadable images out cannot know its length before.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


def check_images(images):
    """`images`, unless their shape or type shows that they cannot be right."""
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", "")
    if shape is None:  # a data set, a generator
        return images
    shape = tuple(shape)
    if len(shape) != 4:
        raise ValueError(
            "Images must come in batches of shape (batch, height, width, 3). "
            f"Received: images of shape {shape}"
        )
    if any(side and side % _LARGEST_STRIDE for side in shape[1:3]):
        raise ValueError(
            f"The sides of images must divide by {_LARGEST_STRIDE}; "
            "keras_csp.data.letterbox fits one into such a square. Received: "
            f"images of shape {shape}"
        )
    if "int" in str(dtype):
        raise ValueError(
            "Images must be floating-point numbers in [0, 1]; divide by 255. "
            f"Received: images of type {dtype}"
        )
    return images


def as_batches(x):
    """A data set of (images, {"boxes", "labels"}), of what `fit` is given."""
    if not hasattr(x, "element_spec"):
        return x
    spec = x.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            'A data set must give (images, {"boxes", "labels"}) or (images, '
            f"boxes, labels). Received: {spec}"
        )
    check_images(spec[0])
    if len(spec) == 3:
        x = x.map(
            lambda images, boxes, labels: (
                images,
                {"boxes": boxes, "labels": labels},
            )
        )
    return x.map(_rounded) if keras.backend.backend() == "jax" else x


def _rounded(images, targets):
    """Targets padded to the next of `_ROWS`: JAX compiles a step for each."""
    import tensorflow as tf  # which has made the data set

    rows = tf.shape(targets["labels"])[1]
    longer = tf.boolean_mask(_ROWS, tf.constant(_ROWS) >= rows)
    missing = tf.concat([longer, [rows]], axis=0)[0] - rows
    padded = dict(targets)
    for key in padded.keys() & _OF_BOXES:
        rank = targets[key].shape.rank
        padded[key] = tf.pad(
            targets[key],
            [[0, 0], [0, missing]] + [[0, 0]] * (rank - 2),
            constant_values=tf.cast(
                -1 if key == "labels" else 0, targets[key].dtype
            ),
        )
    return images, padded


def _compiled(function):
    """`function`, as one program on JAX, which else compiles each operation."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def _features(backbone, input_shape, weights):
    """The pyramid P3, P4, P5 of a backbone given by name or as a model."""
    shape = _check_sides(input_shape)
    if isinstance(backbone, str):
        backbone = get_factory(backbone)(
            include_top=False,
            input_shape=shape,
            weights="imagenet" if weights == "imagenet" else None,
        )
    elif weights == "imagenet":
        raise ValueError(
            'weights="imagenet" needs a backbone given by name, e.g. '
            f'"CSPResNeXt50". Received: backbone={backbone!r}'
        )
    return feature_extractor(backbone)


def _check_sides(shape):
    check_input_shape(shape)
    if any(side and side % _LARGEST_STRIDE for side in shape[:2]):
        raise ValueError(
            f"The sides of `input_shape` must divide by {_LARGEST_STRIDE}, "
            f"the largest stride. Received: input_shape={tuple(shape)}"
        )
    return tuple(shape)


def _head(name, anchors, classes):
    """The 1x1 convolution that gives each anchor's 5 + classes numbers."""
    # Half precision is too coarse for coordinates and scores.
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    return keras.layers.Conv2D(
        anchors * (5 + classes),
        1,
        bias_initializer=PriorBias(5 + classes),
        dtype="float32" if half else None,
        name=name,
    )


def _load(model, weights):
    path = os.fspath(weights)
    if not path.endswith((".weights.h5", ".keras")):
        raise ValueError(
            '`weights` must be None, "imagenet" or the path of a .weights.h5 '
            f"or .keras file. Received: weights={weights!r}"
        )
    if not pathlib.Path(path).is_file():
        raise ValueError(f"The weights file does not exist: {path}")
    keras_files.load(model, path)
