"""The ten-crop evaluation against Darknet's, written directly in numpy."""

import io

import darknet_images
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from support import SMALL, randomize

import keras_csp
from keras_csp.data import ClassificationData
from keras_csp.models.builder import build_network

CLASSES, SIZE, SHIFT = 9, 32, 8


class Fake:
    """Answers what is asked of it."""

    def __init__(self, *answers):
        self.answers = [np.asarray(answer, "float32") for answer in answers]

    def predict_on_batch(self, crops):
        answer = self.answers.pop(0)
        assert len(crops) == 10 * len(answer)
        return np.repeat(answer, 10, axis=0)


def batches(labels, size=4):
    crops = np.zeros((len(labels), 10, size, size, 3), "float32")
    return [(crops, np.eye(CLASSES, dtype="float32")[labels])]


def evaluate(model, data, **options):
    return keras_csp.evaluate_ten_crop(model, data, SIZE, verbose=0, **options)


@pytest.fixture(scope="module")
def model():
    return randomize(
        build_network(
            SMALL["SmallCSPPelee"],
            classes=CLASSES,
            input_shape=(SIZE, SIZE, 3),
        )
    )


@pytest.fixture(scope="module")
def images():
    """Of several sizes, smooth, so that the crops differ but little."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(14):
        small = rng.integers(0, 256, (3, 3, 3), "uint8")
        width, height = rng.integers(20, 70, 2)
        picture = PIL.Image.fromarray(small).resize((width, height))
        found.append(np.asarray(picture))
    return found


def as_data(images, labels):
    def generate():
        for image, label in zip(images, labels):
            stream = io.BytesIO()
            PIL.Image.fromarray(image).save(stream, "png")
            yield stream.getvalue(), label

    dataset = tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([], tf.int64),
        ),
    )
    names = map(str, range(CLASSES))
    return ClassificationData.from_dataset(dataset, names, size=len(images))


def darknet_sums(model, images):
    """validate_classifier_10: crop by crop, the probabilities added up."""
    sums = []
    for image in images:
        crops = darknet_images.ten_crops(image / 255, SIZE, SHIFT)
        total = np.zeros(CLASSES)
        for crop in crops:
            total += model.predict_on_batch(crop[None].astype("float32"))[0]
        sums.append(total)
    return np.array(sums)


def test_the_whole_is_darknets(model, images):
    sums = darknet_sums(model, images)
    order = np.argsort(-sums, 1)
    # True classes at each place, the sixth too.
    places = np.arange(len(images)) % 7
    labels = order[np.arange(len(images)), places]
    data = as_data(images, labels)

    rows, found = [], []
    for crops, _labels in data.ten_crop(3, SIZE, SHIFT):
        flat = tf.reshape(crops, (-1, SIZE, SIZE, 3))
        probabilities = model.predict_on_batch(flat)
        rows += probabilities.reshape(-1, 10, CLASSES).sum(1).tolist()
        found.append(len(crops))
    assert found == [3, 3, 3, 3, 2]
    np.testing.assert_allclose(rows, sums, atol=2e-5)

    best = [darknet_images.top_k(row, 5) for row in sums]
    expected = {
        "accuracy": np.mean([b[0] == k for b, k in zip(best, labels)]),
        "top_5_accuracy": np.mean([k in b for b, k in zip(best, labels)]),
        "images": len(images),
    }
    assert 0 < expected["accuracy"] < expected["top_5_accuracy"] < 1
    for batch_size in (4, 20):
        options = {"batch_size": batch_size, "shift": SHIFT}
        assert evaluate(model, data, **options) == pytest.approx(expected)
    ready = data.ten_crop(5, SIZE, SHIFT)
    assert evaluate(model, ready) == pytest.approx(expected)


def test_the_ten_are_added_up():
    """Class 1 wins most crops, class 3 one by far, class 2 the sum."""
    answers = np.zeros((10, CLASSES), "float32")
    answers[:6, 1:4] = 0.5, 0.45, 0.05
    answers[6:9, 1:4] = 0.0, 0.9, 0.1
    answers[9, 3] = 1.0

    class Model:
        def predict_on_batch(self, crops):
            return np.tile(answers, (len(crops) // 10, 1))

    result = evaluate(Model(), batches([2, 2, 1, 3, 2]))
    assert result["accuracy"] == 3 / 5


def test_ties_are_darknets():
    """The first of equal classes is Darknet's best one."""
    answer = np.zeros((3, CLASSES))
    answer[:, [2, 4, 5]] = 1 / 3
    best = darknet_images.top_k(answer[0], CLASSES)
    assert best[0] == 2
    result = evaluate(Fake(answer), batches([2, 4, 5]))
    assert result["accuracy"] == 1 / 3
    assert result["top_5_accuracy"] == 1
    # All are equal: five of nine are among the first five.
    flat = np.full((CLASSES, CLASSES), 1 / CLASSES)
    result = evaluate(Fake(flat), batches(range(CLASSES)))
    assert result["accuracy"] == pytest.approx(1 / 9)
    assert result["top_5_accuracy"] == pytest.approx(5 / 9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 3.0])
def test_what_is_no_probability_is_refused(value):
    """Logits, among others, would be added up to something else."""
    answer = np.full((2, CLASSES), 0.1)
    answer[1, 3] = value
    with pytest.raises(ValueError, match="must give probabilities") as found:
        evaluate(Fake(answer), batches([0, 1]))
    assert "\n" not in str(found.value)


def test_another_number_of_classes_is_refused():
    """Labels that the model does not have would all count as right."""
    answer = np.full((2, CLASSES - 1), 0.1)
    with pytest.raises(ValueError, match=r"has 8 classes .* \(2, 9\)"):
        evaluate(Fake(answer), batches([8, 8]))
    numbers = [(batches([0, 1])[0][0], np.array([0, 1]))]
    with pytest.raises(ValueError, match=r"one-hot .* \(2,\)"):
        evaluate(Fake(np.full((2, CLASSES), 0.1)), numbers)


@pytest.mark.parametrize("size", [0, -1, 2.0])
def test_the_batch_must_be_positive(images, size):
    data = as_data(images[:1], [0])
    with pytest.raises(ValueError, match="`batch_size` must be") as found:
        evaluate(Fake(), data, batch_size=size)
    assert str(found.value).endswith(f"Received: batch_size={size}")


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        evaluate(Fake(), [])


def test_unreadable_images_do_not_count(images, model, caplog):
    good = as_data(images[:2], [0, 1])
    broken = tf.data.Dataset.from_tensors((b"no image", np.int64(2)))
    elements = good._elements.map(lambda _name, image, label: (image, label))
    data = ClassificationData.from_dataset(
        elements.concatenate(broken), map(str, range(CLASSES)), size=3
    )
    result = evaluate(model, data, shift=SHIFT)
    assert result == evaluate(model, good, shift=SHIFT)
    assert result["images"] == 2 and data.skipped == ("2",)


def test_progress_is_shown_if_wanted(capsys):
    answer = np.full((2, CLASSES), 0.1)
    keras_csp.evaluate_ten_crop(Fake(answer), batches([0, 1]), SIZE)
    assert "batch" in capsys.readouterr().out
    evaluate(Fake(answer), batches([0, 1]))
    assert capsys.readouterr().out == ""
