"""A one-stage detector: a functional model that ends in YOLO heads."""

import collections
import functools
import inspect
import os
import pathlib
import types

import keras

from keras_csp import darknet
from keras_csp._keras_internals import producer
from keras_csp._structure import with_layers
from keras_csp.detection.anchors import share_anchors
from keras_csp.detection.evaluation import (
    EVALUATION,
    AveragePrecision,
    detections,
)
from keras_csp.detection.graph import build_graph
from keras_csp.detection.inputs import (
    as_batches,
    as_images,
    as_targets,
    slices,
    unknown_length,
)
from keras_csp.detection.losses import YoloLoss
from keras_csp.detection.nms import NonMaxSuppression
from keras_csp.layers.loss_options import BOX_LOSSES
from keras_csp.layers.new_classes import with_classes
from keras_csp.layers.yolo_head import YoloHead
from keras_csp.weights import hub, keras_files


@keras.saving.register_keras_serializable(package="keras_csp")
class Detector(keras.Model):
    """A functional model that ends in `YoloHead` layers.

    Detector(backbone, neck, ...)      the paper's: section 3.3, Fig. 6, Table 2
    Detector.from_darknet(cfg, ...)    Darknet's, with its weights
    Detector(inputs, outputs)          any graph of Keras with such heads

    Called on images it gives the maps of its heads, {level: `(batch, h, w,
    n (5 + classes))`}; `predict` gives boxes. `fit` takes batches of images
    `(batch, height, width, 3)` in [0, 1] and {"boxes": `(batch, m, 4)` x1,
    y1, x2, y2 in pixels of the input, "labels": `(batch, m)` integers, below
    0 for padding}, or (images, boxes, labels), as a `tf.data.Dataset`;
    `keras_csp.data.load_detection` reads such from files. The first layer
    normalises the pixels as the backbone's weights were trained; it holds the
    `ImageSpec`, which `keras_csp.image_spec` reads.

    Args:
        backbone: the name of a network of `keras_csp.list_models()`, default
            "CSPPeleeNet"; or a functional `keras.Model` with the levels that
            the neck reads, e.g. one of keras.applications (say how it wants
            its pixels with `spec`).
        neck: "fpn", "prn", "cem", "gfm", "efm" (default) or "panet": the
            functions of `keras_csp.detection.NECKS`; or a
            `keras_csp.detection.Neck`.
        classes: their number. Default: that of `class_names`, else that of a
            .keras file given as `weights`, else 80.
        input_shape: (height, width, channels), sides that the largest stride
            divides, default (416, 416, 3); `None` for both sides takes images
            of any such size, as a training over several sizes needs.
        levels: of a neck given by name, two to five, finest first, e.g. ("P3",
            "P4", "P5"). Beyond the backbone's last one, further convolutions
            halve it. Default: the neck's.
        attention: of a neck given by name: `None` (default) or "sam".
        spp: of a neck given by name: whether the coarsest level has spatial
            pyramid pooling. Default False.
        anchors: pairs (width, height) in pixels of the input, equally many
            for each level, as `keras_csp.detection.fit_anchors` gives; or a
            dict from level to pairs. Default: YOLOv3's for P3 to P5,
            YOLOv3-tiny's for P4 and P5; others in proportion to the stride.
        backbone_weights: of a backbone given by name, as its factory takes
            `weights`: `None` (default) for random ones, "imagenet", a path,
            "hf://user/name".
        weights: `None` (default), or the path of a `.weights.h5` or `.keras`
            file of such a detector, or "hf://user/name" of one on the Hugging
            Face hub.
        class_names: names of the classes. Default: none known.
        spec: an `ImageSpec`. Default: the backbone's mean and standard
            deviation, and photographs letterboxed.
        name: default e.g. "csppeleenet_efm".

    Raises:
        ValueError: an argument out of range, quoting the value received.
        keras_csp.weights.DownloadError: the hub did not deliver.
    """

    def __init__(self, *args, **kwargs):
        # Keras makes a functional model from its inputs and outputs, also
        # where it loads or clones one. (Both, *args and **kwargs, tell it so.)
        weights = None
        if not _is_graph(args, kwargs):
            bound = _SIGNATURE.bind(*args, **kwargs).arguments
            weights = _weights_path(bound.pop("weights", None))
            options = bound.pop("options", {})
            graph, weights = _graph_for(bound, weights)
            args, kwargs = (), {**graph, **options}
        super().__init__(*args, **kwargs)
        # In a namespace, where Keras does not look for layers to save.
        self._made = types.SimpleNamespace(
            heads=_heads(self),
            inference={},
            evaluation=None,
            loss=None,
            loss_parts=None,
        )
        if weights is not None:
            keras_files.load(self, weights)

    @classmethod
    def from_darknet(
        cls, cfg, weights=None, class_names=None, input_shape=None
    ):
        """The detector of a Darknet .cfg file with [yolo] sections.

        Its boxes are chosen as the cfg says: `nms_kind`, `beta_nms`, `thresh`
        (0.2 where there is none, as OpenCV has it), and photographs are
        stretched to its size, or letterboxed with `letter_box=1`. Its heads
        are trained as their sections say, see `keras_csp.layers.LossOptions`.

        Args:
            cfg: path of the file.
            weights: path of its .weights file, or of one with its first
                layers, e.g. yolov4.conv.137. Default None: random.
            class_names: a list of names, or the path of a text file with one
                a line, e.g. coco.names. Default: none known. Where they are
                not as many as the classes of the cfg, or the cfg has not as
                many as the file, all weights but those of the classes are
                kept, see `with_classes`.
            input_shape: (height, width, channels) instead of the cfg's; the
                sides may be None: any size that the strides divide.

        Raises:
            ValueError: as `keras_csp.darknet.load`; a cfg without [yolo]
                sections.
        """
        model = darknet.load(cfg, weights, input_shape, class_names)
        if not isinstance(model, cls):
            raise ValueError(
                f"{os.fsdecode(cfg)} has no [yolo] section, so it is not a "
                "detector; read it with keras_csp.darknet.load"
            )
        return model

    @property
    def heads(self):
        """The `YoloHead`s, finest level first."""
        return list(self._made.heads.values())

    @property
    def anchors(self):
        """{level: pairs (width, height) in pixels}."""
        return {k: tuple(h.anchors) for k, h in self._made.heads.items()}

    @property
    def classes(self):
        """The number of classes."""
        return self.heads[0].classes

    @property
    def largest_stride(self):
        """What the sides of images must divide by, where they are open."""
        return int(max(max(head.strides) for head in self.heads))

    def compile(self, optimizer="adam", loss=None, **kwargs):
        """As `keras.Model.compile`.

        Args:
            optimizer: default "adam".
            loss: a `keras_csp.detection.YoloLoss`, or the name of its box
                term: "mse", "iou", "giou", "diou" or "ciou". Default None:
                `YoloLoss()`, what each head says; "ciou" for those of
                `Detector(backbone, ...)`, the cfg's for Darknet's.
            **kwargs: e.g. `steps_per_execution`; `jit_compile` is True by
                default on the JAX backend, elsewhere False.
        """
        if loss is None or (isinstance(loss, str) and loss in BOX_LOSSES):
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
        if sample_weight is not None:
            y = {**y, "sample_weight": sample_weight}
        parts = self._loss_parts(y, y_pred)
        # Weighted by images: a count that does not depend on the data would
        # grow once more where TensorFlow looks for a batch after the last.
        images = keras.ops.shape(x)[0]
        for tracker in self._part_trackers:
            tracker.update_state(parts[tracker.name], sample_weight=images)
        return sum(parts.values()) + sum(self.losses)

    def _loss_parts(self, targets, maps):
        targets = dict(targets)
        sample_weight = targets.pop("sample_weight", None)
        if "crowd" in targets:  # groups of objects: none is to be found
            crowd = targets["crowd"]
            targets["labels"] = keras.ops.where(crowd, -1, targets["labels"])
            regions = keras.ops.where(crowd[..., None], targets["boxes"], 0)
            targets.setdefault("ignore", regions)
        maps = [maps[level] for level in self._made.heads]
        return self._made.loss(targets, maps, self.heads, sample_weight)

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

    def fit(
        self,
        x=None,
        y=None,
        validation_data=None,
        class_weight=None,
        sample_weight=None,
        **kwargs,
    ):
        """As `keras.Model.fit`; `validation_data` adds val_AP, val_AP50, ...

        Args:
            x, y: a `tf.data.Dataset` of batches, or images and targets.
                Images of three channels are given in grey to a detector of
                one.
            validation_data: a data set, or a pair of images and targets.
            class_weight: {label: weight}: the errors of the boxes of a class
                are multiplied by it. Default None: 1.
            sample_weight: weights of images given as arrays, `(images,)`; a
                data set gives them as a third part. Default None: 1.
            **kwargs: the other arguments of `keras.Model.fit`, by name. Where
                the optimizer averages weights (`use_ema`), give
                `keras.callbacks.SwapEMAWeights()` among the `callbacks`, to
                validate the averages.
        """
        if self._made.loss is None:
            raise ValueError("Call `compile` before `fit`")
        if hasattr(x, "element_spec"):
            x = as_batches(x, self, class_weight)
            kwargs.setdefault("shuffle", False)  # a data set does it itself
        else:
            x = as_images(x, self)
            y = as_targets(y, self, sample_weight, class_weight)
        if hasattr(validation_data, "element_spec"):
            validation_data = as_batches(validation_data, self)
        with unknown_length():
            return super().fit(x, y, validation_data=validation_data, **kwargs)

    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        return_dict=False,
    ):
        """As `keras.Model.train_on_batch`, with the weights of `fit`."""
        y = as_targets(y, self, sample_weight, class_weight)
        return super().train_on_batch(x, y, return_dict=return_dict)

    def evaluate(
        self,
        x,
        y=None,
        batch_size=32,
        verbose="auto",
        steps=None,
        return_dict=True,
        precision=None,
        callbacks=None,
        sample_weight=None,
        score_threshold=EVALUATION["score_threshold"],
        iou_threshold=EVALUATION["iou_threshold"],
        nms=None,
        max_detections=100,
        **kwargs,
    ):
        """COCO's average precision, and the losses if compiled.

        Args:
            x, y: as of `fit`; "crowd", "area", "original_boxes" and "view"
                among its targets are used (those of
                `DetectionData.evaluation`).
            batch_size: of images and targets given as arrays. Default 32.
            verbose: of the progress bar, as in Keras.
            steps: batches to take. Default: all.
            return_dict: False gives the values alone. Default True.
            precision: an `AveragePrecision` to be filled, which then also has
                the numbers of each class and the curves. Default: a new one.
            callbacks: as in Keras.
            sample_weight: weights of images given as arrays, for the losses;
                average precision counts all alike. Default None: 1.
            score_threshold, iou_threshold, nms, max_detections: as of
                `NonMaxSuppression`. Default 0.001, since average precision
                counts every box, 0.6, the detector's own, and 100.

        Returns:
            {"AP", "AP50", "AP75", "AP_small", ..., "loss", ...}.
        """
        if isinstance(callbacks, keras.callbacks.CallbackList):  # of `fit`
            verbose = 0
        else:
            callbacks = keras.callbacks.CallbackList(
                callbacks, model=self, epochs=1, steps=steps, verbose=verbose
            )
        if y is None:
            dataset = as_batches(x, self)
        else:
            images = as_images(x, self)
            y = as_targets(y, self, sample_weight)
            dataset = list(slices(images, y, batch_size or 32))
        if precision is None:
            precision = AveragePrecision(self.classes)
        model = self._evaluation_model(
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            nms=nms,
            max_detections=max_detections,
        )
        sums, images = collections.Counter(), 0
        callbacks.on_test_begin()
        found_batches = detections(model, dataset, steps, verbose, callbacks)
        for index, (targets, found) in enumerate(found_batches):
            losses = self._losses_of(targets, found.pop("maps"))
            precision.update(targets, found)
            count = len(found["count"])
            images += count
            for name, value in losses.items():
                sums[name] += count * value
            callbacks.on_test_batch_end(index, losses)
        results = {name: value / images for name, value in sums.items()}
        results.update(precision.result())
        callbacks.on_test_end(results)
        return results if return_dict else list(results.values())

    def _evaluation_model(self, **thresholds):
        """Boxes and the maps that the losses need, from one pass."""
        key = tuple(sorted(thresholds.items()))
        if self._made.evaluation is None or self._made.evaluation[0] != key:
            candidates = max(
                EVALUATION["candidates"], thresholds["max_detections"]
            )
            found = self.inference_model(
                candidates=candidates, **thresholds
            ).output
            model = keras.Model(self.inputs[0], {**found, "maps": self.output})
            self._made.evaluation = key, model
        return self._made.evaluation[1]

    def _losses_of(self, targets, maps):
        if self._made.loss is None:
            return {}
        if self._made.loss_parts is None:
            self._made.loss_parts = _compiled(self._loss_parts)
        used = targets.keys() & _OF_THE_LOSS
        targets = {
            key: keras.ops.convert_to_tensor(targets[key]) for key in used
        }
        maps = {
            level: keras.ops.convert_to_tensor(value)
            for level, value in maps.items()
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
            x: images `(batch, height, width, channels)` in [0, 1], or a data
                set.
            batch_size, verbose, steps, callbacks: as in Keras.
            **thresholds: `score_threshold`, `iou_threshold`, `nms`,
                `nms_beta`, `max_detections`, `candidates` of
                `NonMaxSuppression`.

        Returns:
            As `NonMaxSuppression`: a dict of arrays "boxes", "scores",
            "classes", "count".
        """
        return self.inference_model(**thresholds).predict(
            as_images(x, self), batch_size, verbose, steps, callbacks
        )

    def with_classes(self, class_names=None, classes=None, start="mean"):
        """This detector for other classes; boxes and objectness stay.

        A class of the same name as an old one keeps its filters. A warning of
        the "keras_csp" logger says what is new.

        Args:
            class_names: the names of the new classes. Default None: none
                known.
            classes: their number, where no names are given.
            start: what the filters of new classes start from: "mean"
                (default), that of all old classes'; or "random".

        Returns:
            A new `Detector`, uncompiled, that shares all layers, and so all
            weights, with this one, except for the heads and the convolutions
            before them.

        Raises:
            ValueError: neither names nor their number.
        """
        return with_classes(self, class_names, classes, start)

    def with_anchors(self, anchors):
        """This detector with other anchors, as many at each head.

        Args:
            anchors: pairs (width, height) in pixels of the input, of which
                the smallest go to the finest head; or a dict from the key of
                a head, as `anchors` has it, to its pairs.

        Returns:
            A new `Detector`, uncompiled, that shares all layers, and so all
            weights, with this one, except for the `YoloHead`s.

        Raises:
            ValueError: not as many pairs as the heads have, or not pairs of
                positive numbers.
        """
        heads = self._made.heads
        counts = {key: len(head.anchors) for key, head in heads.items()}
        shared = share_anchors(anchors, counts)
        new = [
            YoloHead.from_config({**head.get_config(), "anchors": shared[key]})
            for key, head in heads.items()
        ]
        return with_layers(self, list(zip(heads.values(), new)))

    def inference_model(self, **thresholds):
        """A `keras.Model` from images to boxes, NMS included, to export.

        Args:
            **thresholds: as of `predict`.
        """
        key = tuple(sorted(thresholds.items()))
        if key not in self._made.inference:
            suppression = NonMaxSuppression(
                self.heads, name="detections", **thresholds
            )
            maps = [self.output[level] for level in self._made.heads]
            self._made.inference[key] = keras.Model(
                self.inputs[0],
                suppression(maps),
                name=f"{self.name}_detections",
            )
        return self._made.inference[key]


# Which of the targets `YoloLoss` or its caller reads.
_OF_THE_LOSS = {
    "boxes",
    "labels",
    "crowd",
    "ignore",
    "box_weights",
    "sample_weight",
}


def _signature():
    """The arguments of a detector of the paper: its graph's, and `weights`."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    graph = inspect.signature(build_graph).parameters.values()
    weights = inspect.Parameter("weights", kind, default=None)
    others = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)
    return inspect.Signature([*graph, weights, others])


_SIGNATURE = _signature()
Detector.__signature__ = _SIGNATURE


def _is_graph(args, kwargs):
    """Whether these are the inputs and outputs of a functional model."""
    return "inputs" in kwargs or any(
        keras.utils.is_keras_tensor(tensor)
        for tensor in keras.tree.flatten(args[:1])
    )


def _graph_for(arguments, weights):
    """The graph of a detector, and the file that fills it, if any.

    A .keras file of another number of classes is read by a detector of that
    number, whose heads are then replaced: nothing is left to be filled.
    """
    names = arguments.get("class_names")
    saved = None if weights is None else keras_files.detector_classes(weights)
    classes = arguments.get("classes")
    if classes is None:
        classes = len(names) if names else saved or 80
    graph = functools.partial(build_graph, **arguments)
    if saved in (None, classes):
        return graph(classes=classes), weights
    theirs = keras_files.image_spec(weights).class_names
    other = Detector(**graph(classes=saved, class_names=theirs))
    keras_files.load(other, weights)
    mine = other.with_classes(names, classes)
    return {
        "inputs": mine.inputs[0],
        "outputs": mine.output,
        "name": mine.name,
    }, None


def _heads(model):
    """{key of the output: its `YoloHead`}, finest first.

    Raises:
        ValueError: an output that no head gives, or heads of different
            numbers of classes.
    """
    outputs = model.output
    if not isinstance(outputs, dict):
        outputs = {"output": outputs} if outputs is not None else {}
    heads = {key: producer(tensor) for key, tensor in outputs.items()}
    wrong = [k for k, head in heads.items() if not isinstance(head, YoloHead)]
    if wrong or not heads:
        raise ValueError(
            "A detector's outputs must be {level: the output of a "
            f"keras_csp.layers.YoloHead}}. Received: {model.output}"
        )
    classes = {head.classes for head in heads.values()}
    if len(classes) > 1:
        raise ValueError(
            "The heads of a detector must have one number of classes. "
            f"Received: {sorted(classes)}"
        )
    return dict(sorted(heads.items(), key=lambda item: item[1].strides))


def _compiled(function):
    """`function`, as one program on JAX, which else compiles each operation."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def _weights_path(weights):
    """The path of a file of a detector's weights, or None.

    Raises:
        ValueError: another kind of file, or none.
    """
    if weights is None:
        return None
    path = os.fspath(weights)
    if hub.is_address(path):
        return hub.find_weights(path)
    if not path.endswith(hub.KERAS_WEIGHTS):
        raise ValueError(
            "`weights` must be None, or the path of a .weights.h5 or .keras "
            'file of the whole detector, or "hf://user/name"; '
            "`backbone_weights` are those of the backbone, e.g. "
            f'"imagenet". Received: weights={weights!r}'
        )
    if not pathlib.Path(path).is_file():
        raise ValueError(f"The weights file does not exist: {path}")
    return path
