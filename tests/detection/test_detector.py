"""The Detector as a user meets it: Keras' own contract, and its errors."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import timm_weights
from PIL import Image
from safetensors.numpy import save_file
from support import GOLDEN, TESTS, randomize, run_python, tiny_backbone
from yolo_loss_loops import PARTS

import keras_csp
from keras_csp.data import DetectionAugmentation, DetectionData, ImageRecord
from keras_csp.data.photographs import read_photograph
from keras_csp.detection import Detector, YoloLoss, refit_anchors
from keras_csp.export import tflite, to_onnx, to_tflite
from keras_csp.layers import Preprocessing, YoloHead

SIZE = 64
ANCHORS = ((8, 8), (10, 16), (16, 10), (20, 20), (24, 40), (50, 50))
# JAX compiles each operation; none is run often enough to be optimised.
QUICK_JAX = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow trains it"
)


def small(neck="prn", size=SIZE, **options):
    options = {"classes": 3, "anchors": ANCHORS, **options}
    shape = (size, size, 3)
    return Detector(tiny_backbone(size), neck, input_shape=shape, **options)


def data(rng, images=4):
    boxes = np.zeros((images, 2, 4), "float32")
    boxes[:, 0] = [8, 8, 30, 40]
    boxes[:, 1] = [30, 4, 60, 30]
    labels = np.tile([[2, -1]], (images, 1))
    x = rng.random((images, SIZE, SIZE, 3), dtype="float32")
    return x, {"boxes": boxes, "labels": labels}


def many_boxes(detector):
    """Weights for which heads give scores on both sides of thresholds."""
    keras.utils.set_random_seed(0)
    randomize(detector)
    for variable in detector.weights:
        if "head" in variable.path:
            variable.assign(np.random.normal(0, 0.3, variable.shape))
    return detector


@pytest.fixture(scope="module")
def detector():
    return many_boxes(small())


OTHER_ANCHORS = ((9, 8), (12, 12), (7, 6), (30, 31), (25, 44), (60, 50))


def test_other_anchors_on_the_same_layers(detector, rng):
    x = rng.random((2, SIZE, SIZE, 3), dtype="float32")
    new = detector.with_anchors(OTHER_ANCHORS[::-1])
    assert type(new) is Detector and new.name == detector.name
    assert keras_csp.image_spec(new) == keras_csp.image_spec(detector)
    for ours, theirs in zip(new.weights, detector.weights, strict=True):
        assert ours is theirs
    # The smallest at the finest level.
    assert {level: set(a) for level, a in new.anchors.items()} == {
        "P4": {(7, 6), (9, 8), (12, 12)},
        "P5": {(30, 31), (25, 44), (60, 50)},
    }
    assert detector.anchors["P4"][0] == (8, 8)  # left as it was
    # The same numbers, another meaning of the sizes alone.
    maps, before = new(x), detector(x)
    for head, old in zip(new.heads, detector.heads, strict=True):
        level = head.level
        np.testing.assert_array_equal(maps[level], before[level])
        found = np.asarray(head.decode_boxes(maps[level]))
        expected = np.asarray(old.decode_boxes(before[level]))
        found, expected = (
            np.reshape(boxes, (-1, len(head.anchors), 4))
            for boxes in (found, expected)
        )
        centres = found[..., :2] + found[..., 2:]
        np.testing.assert_allclose(
            centres, expected[..., :2] + expected[..., 2:], atol=1e-3
        )
        sides = (boxes[..., 2:] - boxes[..., :2] for boxes in (found, expected))
        ratio = np.divide(*sides)
        wanted = np.divide(head.anchors, old.anchors)
        np.testing.assert_allclose(
            ratio, np.broadcast_to(wanted, ratio.shape), rtol=1e-3
        )
    same = detector.with_anchors(detector.anchors)
    for key, value in detector.predict(x, verbose=0).items():
        np.testing.assert_array_equal(same.predict(x, verbose=0)[key], value)


def published():
    """Two heads of one level, of different numbers and kinds."""
    image = keras.Input((64, 96, 3))
    x = Preprocessing(keras_csp.ImageSpec(resize="stretch"))(image)
    maps = {
        stride: keras.layers.Conv2D(8, 3, stride, "same")(x)
        for stride in (16, 32)
    }
    # As some of Darknet's cfg files, new_coords among them.
    kinds = (("P5", 32, 1, {}), ("P5_2", 32, 2, {"new_coords": True}))
    kinds += (("P4", 16, 3, {"scale_x_y": 1.2, "nms": "diou"}),)
    outputs = {}
    for key, stride, count, options in kinds:
        anchors = [(10 + n, 20) for n in range(count)]
        y = keras.layers.Conv2D(7 * count, 1)(maps[stride])
        head = YoloHead(anchors, 2, stride, score_threshold=0.1, **options)
        outputs[key] = head(y)
    return Detector(image, outputs)


def test_anchors_refitted_to_data(tmp_path, rng):
    """As many at each head; stretched, as the detector has it."""
    detector = published()

    class Boxes:
        def box_sizes(self, spec):
            assert (spec.size, spec.resize) == ((64, 96), "stretch")
            return sizes

    sizes = np.array([[n, n] for n in (5, 7, 10, 14, 20, 28)], "float32")
    new = refit_anchors(detector, Boxes())
    assert new.anchors == {
        "P4": ((5, 5), (7, 7), (10, 10)),
        "P5": ((14, 14),),
        "P5_2": ((20, 20), (28, 28)),
    }
    for ours, old in zip(new.heads, detector.heads, strict=True):
        config = {**old.get_config(), "anchors": ours.get_config()["anchors"]}
        assert ours.get_config() == config
    new.save(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    assert again.anchors == new.anchors
    opened = Detector("CSPPeleeNet", classes=1, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="need a size"):
        refit_anchors(opened, Boxes())


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (ANCHORS[:5], r"must be 6, .*{'P4': 3, 'P5': 3}. Received: 5"),
        ({"P4": ANCHORS[:3]}, r"Received: {'P4': 3}"),
        ({"P4": ANCHORS[:2], "P5": ANCHORS[:4]}, r"Received: {'P4': 2"),
        ([(1, 0)] * 6, r"Received: \(1, 0\)"),
    ],
)
def test_anchors_that_do_not_fit_the_heads(anchors, message, detector):
    with pytest.raises(ValueError, match=message):
        detector.with_anchors(anchors)


def test_maps_have_n_times_5_plus_classes_channels():
    maps = small("efm", anchors=None, classes=4).output
    shapes = {level: x.shape for level, x in maps.items()}
    assert shapes == {
        "P3": (None, 8, 8, 27),
        "P4": (None, 4, 4, 27),
        "P5": (None, 2, 2, 27),
    }


def test_the_default_is_the_papers_detector():
    model = Detector(input_shape=(64, 64, 3))
    assert model.name == "csppeleenet_efm"
    assert model.classes == 80
    # YOLOv3's anchors, from its cfg file.
    assert model.anchors["P3"] == ((10, 13), (16, 30), (33, 23))
    assert model.anchors["P5"] == ((116, 90), (156, 198), (373, 326))
    heads = [model.get_layer(f"head_{level}") for level in ("P3", "P5")]
    assert [head.kernel.shape for head in heads] == [
        (1, 1, 64, 255),
        (1, 1, 256, 255),
    ]


def test_every_backbone_of_the_package_will_do():
    model = Detector(
        "CSPResNet10",
        "fpn",
        2,
        (64, 64, 3),
        levels=("P3", "P4", "P5"),
    )
    assert model.output["P3"].shape == (None, 8, 8, 21)


def test_objects_are_rare_at_the_start(rng):
    maps = small()(np.zeros((1, SIZE, SIZE, 3), "float32"))
    objectness = keras.ops.sigmoid(maps["P5"][..., 4])
    np.testing.assert_allclose(objectness, 0.01, atol=0.01)


def what_the_neck_reads(detector):
    """A model from images to {level: features}."""
    tensors = detector.get_layer("neck").input
    levels = sorted(detector.anchors)
    return keras.Model(detector.inputs[0], dict(zip(levels, tensors)))


def test_a_backbone_is_given_its_pixels_as_timm_gave_them(
    shared_data, tmp_path
):
    """The same features of the same photographs, whose pixels are [0, 1]."""
    path = tmp_path / "model.safetensors"
    shapes = timm_weights.tensors()["cspresnet50"]
    save_file(timm_weights.state_dict(shapes), path)
    side = timm_weights.SIDE
    detector = Detector(
        "CSPResNet50Timm",
        classes=2,
        input_shape=(side, side, 3),
        backbone_weights=path,
    )
    features = what_the_neck_reads(detector)
    photographs = timm_weights.photographs(shared_data / "photos")
    expected = np.load(GOLDEN / "timm_features.npz")
    for level, y in features(photographs).items():
        ours, theirs = np.asarray(y)[..., ::8], expected[level]
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    spec = keras_csp.image_spec(detector)
    assert spec.mean == pytest.approx((0.485, 0.456, 0.406))
    assert spec.resize == "letterbox"


def test_a_backbone_of_keras_applications(rng):
    """With its own pixels: -1 to 1, of which the first layer makes them."""
    backbone = keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), alpha=0.35, include_top=False, weights=None
    )
    spec = keras_csp.ImageSpec(mean=0.5, std=0.5, resize="letterbox")
    detector = Detector(backbone, "fpn", 2, (64, 64, 3), spec=spec)
    x = rng.random((1, 64, 64, 3), dtype="float32")
    ours = what_the_neck_reads(detector)(x)
    features = keras_csp.feature_extractor(backbone, ("P4", "P5"))
    pixels = keras.applications.mobilenet_v2.preprocess_input(x * 255)
    for level, theirs in features(pixels).items():
        np.testing.assert_allclose(ours[level], theirs, atol=1e-4)


def test_more_levels_than_the_backbone_has(rng):
    levels = ("P3", "P4", "P5", "P6", "P7")
    detector = small("efm", size=128, anchors=None, levels=levels)
    sides = {level: x.shape[1] for level, x in detector.output.items()}
    assert sides == {"P3": 16, "P4": 8, "P5": 4, "P6": 2, "P7": 1}
    found = detector.predict(np.zeros((1, 128, 128, 3), "float32"), verbose=0)
    assert found["boxes"].shape == (1, 100, 4)


def test_heads_on_a_graph_of_ones_own(rng):
    """Detector(inputs, outputs), which Keras calls to load and clone one."""
    image = keras.Input((64, 96, 3))
    x = keras.layers.Conv2D(16, 3, 16, padding="same", activation="relu")(image)
    x = keras.layers.Conv2D(2 * 7, 1)(x)
    x = YoloHead([(20, 30), (40, 20)], 2, 16)(x)
    detector = many_boxes(Detector(image, {"P4": x}))
    assert (detector.classes, detector.largest_stride) == (2, 16)
    images = rng.random((2, 64, 96, 3), dtype="float32")
    expected = detector.predict(images, verbose=0)
    copy = keras.models.clone_model(detector)
    assert isinstance(copy, Detector)
    copy.set_weights(detector.get_weights())
    assert expected["count"].min() > 0
    for key, value in copy.predict(images, verbose=0).items():
        np.testing.assert_array_equal(value, expected[key])
    with pytest.raises(ValueError, match=r"must be .level: the output of a"):
        Detector(image, {"P4": detector.layers[-2].output})
    with pytest.raises(ValueError, match=r"images of 64x96.*\(2, 96, 64, 3"):
        detector.predict(images.transpose(0, 2, 1, 3))


@tensorflow_only
def test_fit_lowers_the_loss_and_learns_the_box(rng):
    keras.utils.set_random_seed(1)
    detector = small()
    rate = keras.optimizers.schedules.CosineDecay(0.003, 200)
    detector.compile(keras.optimizers.Adam(rate))
    x, y = data(rng)
    x *= 0.1
    x[:, 8:40, 8:30] += 0.9  # the object
    # Ten batches an epoch: twenty epochs end sooner than two hundred do.
    tf = pytest.importorskip("tensorflow")
    batches = tf.data.Dataset.from_tensors((x, y)).repeat(10)
    history = detector.fit(batches, epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 10
    parts = [
        history[f"{part}_loss"][-1] for part in ("box", "objectness", "class")
    ]
    assert history["loss"][-1] == pytest.approx(sum(parts), rel=1e-5)
    found = detector.predict(x, verbose=0)
    assert found["count"].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(found["boxes"][:, 0], y["boxes"][:, 0], atol=3)
    assert (found["classes"][:, 0] == 2).all()
    assert not found["boxes"][:, 1:].any()
    results = detector.evaluate(x, y, verbose=0)
    assert results["AP50"] > 0.99
    maps = [detector(x)[level] for level in detector.anchors]
    loss = sum(YoloLoss("ciou")(y, maps, detector.heads).values())
    assert results["loss"] == pytest.approx(float(loss), rel=1e-4)
    # The mean over images, whatever the batches.
    results = detector.evaluate(x, y, batch_size=3, verbose=0)
    assert results["loss"] == pytest.approx(float(loss), rel=1e-4)


class Told(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_test_begin(self, logs=None):
        self.calls.append("begin")

    def on_test_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begins", batch))

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(("batch ends", batch, sorted(logs)))

    def on_test_end(self, logs=None):
        self.calls.append(("end", logs["loss"]))


def test_callbacks_are_told_of_a_validation(rng):
    x, y = data(rng)
    detector = small()
    detector.compile("sgd", "mse")
    of_evaluate, of_fit = Told(), Told()
    results = detector.evaluate(
        x, y, batch_size=2, callbacks=[of_evaluate], verbose=0
    )
    losses = ["box_loss", "class_loss", "loss", "objectness_loss"]
    assert of_evaluate.calls == [
        "begin",
        ("batch begins", 0),
        ("batch ends", 0, losses),
        ("batch begins", 1),
        ("batch ends", 1, losses),
        ("end", results["loss"]),
    ]
    history = detector.fit(
        x, y, validation_data=(x, y), callbacks=[of_fit], verbose=0
    ).history
    assert [of_fit.calls[0], of_fit.calls[-1]] == [
        "begin",
        ("end", history["val_loss"][0]),
    ]


@pytest.mark.slow
@tensorflow_only
def test_tall_images_of_four_channels_all_the_way(tmp_path, rng):
    """An object that the fourth channel alone shows, in files that are wide."""
    image = keras.Input((128, 64, 4))
    spec = keras_csp.ImageSpec(mean=[0.5] * 4, resize="stretch")
    x = Preprocessing(spec)(image)
    for filters in (8, 16, 16, 16):
        x = keras.layers.Conv2D(filters, 3, 2, "same", activation="relu")(x)
    x = keras.layers.Conv2D(14, 1)(x)
    detector = Detector(image, {"P4": YoloHead([(9, 9), (9, 9)], 2, 16)(x)})
    boxes = [(10, 20, 50, 60), (90, 40, 130, 80), (40, 8, 80, 48)]
    records = []
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        pixels = np.full((100, 200, 4), 100, "uint8")
        pixels[y1:y2, x1:x2, 3] = 250
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        records.append(ImageRecord(f"{number}.png", [boxes[number]], [1]))
    data = DetectionData.from_records(records, ["no", "yes"], tmp_path)
    detector = refit_anchors(detector, data)
    # 40 x 40 of 200 x 100, in 64 x 128.
    assert (12.8, 51.2) in detector.anchors["P4"]
    detector.compile(keras.optimizers.Adam(0.01))
    quiet = DetectionAugmentation.none()
    training = data.training(3, detector, quiet, repeat=True)
    (images, _), *_ = training.take(1)
    assert images.shape == (3, 128, 64, 4)
    losses = detector.fit(
        training, epochs=3, steps_per_epoch=15, verbose=0
    ).history["loss"]
    assert losses[-1] < losses[0] / 2
    results = detector.evaluate(data.evaluation(3, detector), verbose=0)
    assert results["AP50"] >= 0 and results["loss"] < losses[0] / 2
    # Prediction reads as training does.
    files = [read_photograph(tmp_path / f"{n}.png", 4) for n in range(3)]
    pixels = keras_csp.preprocess_input(files, detector)
    ((images, _),) = data.evaluation(3, detector)
    np.testing.assert_array_equal(pixels, images)
    # As arrays, whose targets may have regions to ignore.
    (images, targets), *_ = data.training(3, detector, quiet)
    targets = {key: value.numpy() for key, value in targets.items()}
    assert set(targets) == {"boxes", "labels", "ignore"}
    history = detector.fit(images.numpy(), targets, verbose=0).history
    assert history["loss"][0] < losses[0] / 2


@tensorflow_only
def test_fit_takes_data_sets_and_reports_ap(rng):
    import tensorflow as tf

    x, y = data(rng)
    detector = small()
    detector.compile("sgd", "mse")
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    triples = pairs.map(lambda x, y: (x, y["boxes"], y["labels"]))
    history = detector.fit(triples, validation_data=pairs, verbose=0).history
    assert {"loss", "val_loss", "val_AP", "val_AP50"} <= set(history)
    with pytest.raises(ValueError, match=r"come in batches.*\(64, 64, 3\)"):
        detector.fit(pairs.unbatch())
    with pytest.raises(ValueError, match=r"must give \(images"):
        detector.fit(pairs.map(lambda x, y: x))


@pytest.mark.slow
@tensorflow_only
def test_sizes_may_change_from_batch_to_batch(rng):
    detector = small(size=None)
    detector.compile("sgd")
    for size in (64, 96):
        x = rng.random((2, size, size, 3), dtype="float32")
        y = {
            "boxes": np.array(2 * [[[4, 4, 30, 20]]], "float32"),
            "labels": np.zeros((2, 1), "int32"),
        }
        assert np.isfinite(detector.train_on_batch(x, y)).all()
        found = detector.predict(x, verbose=0)
        assert found["boxes"].shape == (2, 100, 4)


ROUNDED = """
import sys
import jax
import keras_csp
import numpy as np
import tensorflow as tf
from keras_csp.detection import Detector
from support import randomize, tiny_backbone

def examples():
    rng = np.random.default_rng(0)
    for count in (1, 5, 16, 17, 3, 32):
        boxes = np.tile(np.float32([[8, 8, 30, 40]]), (count, 1))
        yield rng.random((64, 64, 3), "float32"), {
            "boxes": boxes + np.float32(rng.integers(0, 20, (count, 4))),
            "labels": rng.integers(0, 3, count).astype("int32"),
            "crowd": np.arange(count) % 4 == 3,
        }

signature = tf.TensorSpec((64, 64, 3)), {
    "boxes": tf.TensorSpec((None, 4)),
    "labels": tf.TensorSpec((None,), tf.int32),
    "crowd": tf.TensorSpec((None,), tf.bool),
}
dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)
detector = randomize(
    Detector(tiny_backbone(), "prn", classes=3, input_shape=(64, 64, 3))
)
traced = []
compute_loss = detector.compute_loss
def counted(*args, **kwargs):
    traced.append(kwargs.get("y", args[1] if len(args) > 1 else None))
    return compute_loss(*args, **kwargs)
detector.compute_loss = counted
detector.compile("sgd")
whole = detector.evaluate(dataset.batch(1), verbose=0)["loss"]
alone = []
for images, targets in dataset.batch(1).as_numpy_iterator():
    alone.append(detector.evaluate(images, targets, verbose=0)["loss"])
np.testing.assert_allclose(whole, np.mean(alone), rtol=1e-5)
detector.fit(dataset.batch(1), epochs=2, verbose=0)
assert all(isinstance(y["labels"], jax.core.Tracer) for y in traced)
lengths = {y["labels"].shape[1] for y in traced}
assert lengths == {16, 32}, lengths
"""


@pytest.mark.slow
@tensorflow_only
def test_jax_compiles_one_program_for_many_numbers_of_boxes(tmp_path):
    """Without a change of what the rows of padding say."""
    pytest.importorskip("jax")
    path = TESTS
    run_python(ROUNDED, KERAS_BACKEND="jax", PYTHONPATH=str(path), **QUICK_JAX)


def test_a_crowd_is_no_object(rng):
    """One so small that no prediction lies in it changes nothing."""
    detector = small()
    detector.compile("sgd")
    x, y = data(rng)
    maps = detector(x)
    plain = float(detector.compute_loss(x, y, maps))
    more = {
        "boxes": np.concatenate([y["boxes"], [[[1, 1, 4, 4]]] * 4], axis=1),
        "labels": np.concatenate([y["labels"], [[1]] * 4], axis=1),
        "crowd": np.array([[False, False, True]] * 4),
    }
    assert float(detector.compute_loss(x, more, maps)) == plain
    more.pop("crowd")
    assert float(detector.compute_loss(x, more, maps)) > plain


@tensorflow_only
def test_a_saved_detector_comes_back(detector, rng, tmp_path):
    x, y = data(rng)
    detector.compile(keras.optimizers.SGD(0.25), YoloLoss("giou"))
    detector.save(tmp_path / "detector.keras")
    copy = keras.saving.load_model(tmp_path / "detector.keras")
    for level, expected in detector(x).items():
        np.testing.assert_array_equal(copy(x)[level], expected)
    assert copy.anchors == detector.anchors
    assert float(copy.optimizer.learning_rate) == 0.25
    assert np.isclose(
        copy.test_on_batch(x, y)[0], detector.test_on_batch(x, y)[0]
    )
    detector.save_weights(tmp_path / "d.weights.h5")
    other = small(weights=tmp_path / "d.weights.h5")
    np.testing.assert_array_equal(other(x)["P5"], detector(x)["P5"])
    with pytest.raises(ValueError, match="does not fit 'tiny_efm'"):
        small("efm", anchors=None, weights=tmp_path / "d.weights.h5")


@tensorflow_only
@pytest.mark.parametrize(
    "export", [to_tflite, pytest.param(to_onnx, marks=pytest.mark.slow)]
)
def test_an_exported_detector_gives_the_same_boxes(
    export, detector, rng, tmp_path
):
    x, _ = data(rng)
    model = detector.inference_model(score_threshold=0.3)
    found = model.predict(x, verbose=0)
    assert all(3 < count < 100 for count in found["count"])
    path = tmp_path / "model"
    check = export(model, path, x)
    assert check.match_rate == 1
    assert check.largest_difference < 1e-5
    # Independently of the check: the file itself, read again.
    for index, answer in enumerate(answers(export, path, x)):
        count = found["count"][index]
        assert answer["count"][0] == count
        for key in ("boxes", "scores", "classes"):
            np.testing.assert_allclose(
                answer[key][0], found[key][index], rtol=1e-4, atol=1e-4
            )


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize("export", [to_tflite, to_onnx])
def test_exporting_where_nothing_is_found_says_so(
    export, detector, rng, tmp_path
):
    """And where only some images have nothing, the others are compared."""
    x, _ = data(rng)
    best = detector.predict(x, verbose=0)["scores"].max(axis=1)
    model = detector.inference_model(score_threshold=float(best.max()) + 1e-3)
    with pytest.warns(UserWarning, match="finds nothing in any") as warned:
        check = export(model, tmp_path / "none", x)
    assert warned[0].filename == __file__
    assert check.match_rate == 1
    assert check.path.stat().st_size == check.size
    between = float(best.max() + best.min()) / 2
    model = detector.inference_model(score_threshold=between)
    counts = model.predict(x, verbose=0)["count"]
    assert min(counts) == 0 < max(counts)
    check = export(model, tmp_path / "some", x)
    assert 0 < check.largest_difference < 1e-5


@tensorflow_only
def test_a_file_that_finds_what_the_model_does_not_is_refused(
    detector, rng, tmp_path, monkeypatch
):
    x, _ = data(rng)
    found = detector.inference_model(score_threshold=0.3).predict(x, verbose=0)
    monkeypatch.setattr(tflite, "_run", lambda *_: found)
    none = detector.inference_model(score_threshold=0.999)
    with (
        pytest.warns(UserWarning, match="finds nothing"),
        pytest.raises(ValueError, match="differs from the model by inf"),
    ):
        to_tflite(none, tmp_path / "m.tflite", x)
    assert not list(tmp_path.iterdir())


def answers(export, path, x):
    if export is to_onnx:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        names = [output.name for output in session.get_outputs()]
        for image in x:
            values = session.run(None, {"images": image[None]})
            yield dict(zip(names, values))
    else:
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        for image in x:
            yield runner(images=image[None])


RUN = """
import json, sys
import keras, keras_csp, numpy as np
folder, = sys.argv[1:]
detector = keras.saving.load_model(f"{folder}/m.keras", compile=False)
x = np.load(f"{folder}/x.npy")
maps = {k: keras.ops.convert_to_numpy(v) for k, v in detector(x).items()}
np.savez(f"{folder}/{keras.backend.backend()}.npz", **maps,
         **detector.predict(x, verbose=0, score_threshold=0.3))
"""


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_other_backends_find_the_same_boxes(other, detector, rng, tmp_path):
    if not importlib.util.find_spec(other):
        pytest.skip(f"{other} is not installed")
    x, _ = data(rng)
    detector.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    run_python(RUN, tmp_path, KERAS_BACKEND=other, **QUICK_JAX)
    theirs = np.load(tmp_path / f"{other}.npz")
    ours = {
        **detector(x),
        **detector.predict(x, verbose=0, score_threshold=0.3),
    }
    assert ours["count"].min() > 3
    for key, expected in ours.items():
        tolerance = 1e-4 * np.abs(np.asarray(expected)).max()
        np.testing.assert_allclose(theirs[key], expected, atol=tolerance)


@pytest.mark.slow
@tensorflow_only
def test_mixed_precision_keeps_the_heads_and_boxes_in_float32(rng):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        detector = small()
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = data(rng)
    assert detector(x)["P5"].dtype == "float32"
    detector.compile("adam")
    assert np.isfinite(detector.train_on_batch(x, y)).all()
    assert detector.predict(x, verbose=0)["boxes"].dtype == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "bifpn"}, "`neck` must be one of 'fpn'.*'bifpn'"),
        ({"backbone": "CSPResNext50"}, "CSPResNeXt50"),
        ({"classes": 0}, "classes=0"),
        ({"attention": "se"}, "attention='se'"),
        ({"spp": "yes"}, "spp='yes'"),
        ({"input_shape": (100, 100, 3)}, "must divide by 32.*100, 100"),
        ({"input_shape": 416}, "input_shape=416"),
        ({"anchors": [(1, 2)] * 4}, "3 levels.*4 anchors"),
        ({"anchors": [(1, -2)] * 3}, r"\(1, -2\)"),
        ({"levels": ("P3", "P5")}, "two to five of P2 to P7"),
        ({"levels": ("P4", "P5"), "classes": 2, "class_names": ["a"]}, "1 nam"),
        ({"weights": "x.pth"}, "x.pth"),
        ({"weights": "none.weights.h5"}, "does not exist: none.weights.h5"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Detector(**{"input_shape": (64, 64, 3), **options})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((64, 64, 3)), r"in batches.*\(64, 64, 3\)"),
        (np.zeros((1, 100, 64, 3)), r"divide by 32.*\(1, 100, 64, 3\)"),
        (np.zeros((1, 64, 64, 3), "uint8"), "divide by 255.*uint8"),
        (np.zeros((1, 64, 64, 4)), r"of 3 channels.*\(1, 64, 64, 4\)"),
    ],
)
def test_bad_images_are_named(images, message):
    detector = small(size=None)
    with pytest.raises(ValueError, match=message):
        detector.predict(images)
    detector.compile()
    with pytest.raises(ValueError, match=message):
        detector.fit(images, {})
    with pytest.raises(ValueError, match=message):
        detector.evaluate(images, {})


def test_bad_losses_are_named(detector):
    with pytest.raises(ValueError, match="'l1'"):
        detector.compile(loss="l1")
    with pytest.raises(ValueError, match=r"YoloLoss.*Received: loss=3"):
        detector.compile(loss=3)
    with pytest.raises(ValueError, match="Call `compile` before"):
        small().fit(np.zeros((1, 64, 64, 3)), {})
    with pytest.raises(ValueError, match=r"`backbone_weights`.*'imagenet'"):
        small(weights="imagenet")
    with pytest.raises(ValueError, match=r"imagenet.*given by name"):
        small(backbone_weights="imagenet")


def test_config_is_json(detector):
    json.dumps(keras.saving.serialize_keras_object(detector))
    assert keras_csp.Detector is Detector


def losses_of(detector, images, targets, **weights):
    """The losses of one step that changes nothing."""
    # Traced anew for every kind of targets, it would take longer.
    detector.compile(keras.optimizers.SGD(0.0), "giou", run_eagerly=True)
    history = detector.fit(
        images, targets, batch_size=len(images), verbose=0, **weights
    ).history
    return {name: values[0] for name, values in history.items()}


@pytest.fixture(scope="module")
def weighing():
    """A detector, four images, and targets of two classes and padding."""
    detector = keras_csp.Detector(
        tiny_backbone(), "prn", classes=2, input_shape=(64, 64, 3)
    )
    images = np.random.default_rng(5).random((4, 64, 64, 3), "float32")
    boxes = np.tile(np.float32([[8, 8, 40, 40], [30, 20, 60, 63]]), (4, 1, 1))
    labels = np.int32([[0, -1], [1, 0], [0, -1], [1, 1]])
    return detector, images, {"boxes": boxes, "labels": labels}


def test_class_weights_weigh_the_boxes(weighing):
    detector, images, targets = weighing
    each = np.where(targets["labels"] == 1, 50.0, 1.0)
    expected = losses_of(detector, images, {**targets, "box_weights": each})
    found = losses_of(detector, images, targets, class_weight={0: 1.0, 1: 50})
    assert found == pytest.approx(expected)
    assert found["loss"] > 2 * losses_of(detector, images, targets)["loss"]


def test_sample_weights_weigh_the_images(weighing):
    detector, images, targets = weighing
    weights = np.array([0, 0.5, 0, 3.0])
    expected = dict.fromkeys(PARTS, 0.0)
    for weight, alone in zip(weights, np.eye(4)):
        parts = losses_of(detector, images, targets, sample_weight=alone)
        for name in PARTS:
            expected[name] += weight * parts[name]
    found = losses_of(detector, images, targets, sample_weight=weights)
    for name in PARTS:
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


@pytest.mark.slow
def test_weights_of_a_data_set(weighing):
    tf = pytest.importorskip("tensorflow")
    detector, images, targets = weighing
    weights = np.float32([0, 0.5, 0, 3.0])
    class_weight = {1: 4.0}
    expected = losses_of(
        detector,
        images,
        targets,
        sample_weight=weights,
        class_weight=class_weight,
    )
    dataset = tf.data.Dataset.from_tensor_slices((images, targets, weights))
    detector.compile(keras.optimizers.SGD(0.0), "giou")
    found = detector.fit(
        dataset.batch(4), class_weight=class_weight, verbose=0
    ).history
    # A graph fuses operations and rounds less often than `losses_of` does.
    losses = {k: v[0] for k, v in found.items()}
    assert losses == pytest.approx(expected, rel=1e-5)
    results = detector.evaluate(dataset.batch(2), verbose=0)
    arrays = detector.evaluate(
        images, targets, sample_weight=weights, batch_size=2, verbose=0
    )
    assert results == pytest.approx(arrays)
    plain = detector.evaluate(images, targets, verbose=0)
    assert plain["loss"] != pytest.approx(arrays["loss"], rel=1e-2)
    assert plain["AP"] == arrays["AP"]


def test_weights_of_one_batch(weighing):
    detector, images, targets = weighing
    weights = np.float32([0, 0.5, 0, 3.0])
    expected = losses_of(
        detector, images, targets, sample_weight=weights, class_weight={0: 2}
    )
    detector.compile(keras.optimizers.SGD(0.0), "giou")
    found = detector.train_on_batch(
        images,
        targets,
        sample_weight=weights,
        class_weight={0: 2},
        return_dict=True,
    )
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected)


def test_validation_has_the_weights_of_its_images(weighing):
    detector, images, targets = weighing
    weights = np.float32([0, 0.5, 0, 3.0])
    detector.compile(keras.optimizers.SGD(0.0), "giou")
    history = detector.fit(
        images,
        targets,
        batch_size=4,
        verbose=0,
        validation_data=(images, targets, weights),
    ).history
    expected = detector.evaluate(
        images, targets, sample_weight=weights, verbose=0
    )
    assert history["val_loss"][0] == pytest.approx(expected["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"class_weight": [1, 2]}, "`class_weight` must be a dict"),
        ({"class_weight": {2: 1.0}}, "labels, 0 to 1,.* Received: 2: 1.0"),
        ({"class_weight": {"cat": 1.0}}, "Received: 'cat': 1.0"),
        ({"class_weight": {0: -1}}, "Received: 0: -1"),
        ({"sample_weight": np.ones((4, 1))}, r"Received: shape \(4, 1\)"),
        ({"sample_weight": np.ones(3)}, r"each of 4 images.*shape \(3,\)"),
    ],
)
def test_wrong_weights(weights, message, weighing):
    detector, images, targets = weighing
    detector.compile("adam")
    with pytest.raises(ValueError, match=message):
        detector.fit(images, targets, verbose=0, **weights)


def test_crowds_are_regions_to_ignore(weighing):
    """Nothing in them is background, and nobody is to be found there."""
    detector, images, targets = weighing
    crowd = np.zeros_like(targets["labels"], bool)
    crowd[1, 1] = crowd[3, 0] = True
    found = losses_of(detector, images, {**targets, "crowd": crowd})
    regions = np.where(crowd[..., None], targets["boxes"], 0)
    labels = np.where(crowd, -1, targets["labels"])
    expected = losses_of(
        detector, images, {**targets, "labels": labels, "ignore": regions}
    )
    assert found == pytest.approx(expected)
    without = losses_of(detector, images, {**targets, "labels": labels})
    assert found["objectness_loss"] < without["objectness_loss"]
