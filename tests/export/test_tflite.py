"""TFLite files: of the small networks, and in fewer bits.

A network trained for a few seconds stands for those that people quantise: its
first layer subtracts a mean and divides by a standard deviation.
"""

import keras
import numpy as np
import pytest
from export_networks import small
from support import SMALL, randomize, tiny_backbone

import keras_csp
from keras_csp.data import load_classification
from keras_csp.export import fold_batchnorm, load, to_tflite
from keras_csp.layers import (
    ConvNormAct,
    CSPStage,
    ImageSpec,
    Preprocessing,
    ResidualBlock,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's job"
)

SIDE = 16
DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture
def samples(rng):
    return rng.random((4, 64, 64, 3), dtype="float32")


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name, samples, tmp_path):
    model = small(name)
    check = to_tflite(model, tmp_path / "new" / "model.tflite", samples)
    assert check.path.stat().st_size == check.size > 1000
    assert check.largest_difference < 1e-5
    assert check.match_rate == 1
    # Independently of the check: the file itself, read again.
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(check.path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], samples[:1]
    )
    interpreter.invoke()
    answer = interpreter.get_tensor(
        interpreter.get_output_details()[0]["index"]
    )
    np.testing.assert_allclose(
        answer, np.asarray(model(samples[:1])), atol=1e-5
    )


def test_grouped_convolution_is_one_builtin_operation(samples, tmp_path):
    check = to_tflite(
        small("SmallCSPResNeXt"), tmp_path / "model.tflite", samples
    )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(check.path))
    names = {op["op_name"] for op in interpreter._get_ops_details()}
    assert "CONV_2D" in names
    assert not {name for name in names if name.startswith("Flex")}
    assert "SPLIT" not in names  # groups were not taken apart


def test_normalisation_is_folded_into_the_convolutions(samples, tmp_path):
    """Of those before it: nothing of it is left to be computed."""
    model = small("SmallMobile")
    check = to_tflite(model, tmp_path / "model.tflite", samples)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(check.path))
    names = {op["op_name"] for op in interpreter._get_ops_details()}
    assert not {"MUL", "ADD", "SUB", "RSQRT"} & names


@pytest.fixture(scope="module")
def digits():
    train, test = load_classification("digits")
    return [
        next(iter(part.evaluation(360, SIDE)))[0].numpy()
        for part in (train, test)
    ]


@pytest.fixture(scope="module")
def model(digits):
    """Some 90 % of the digits are right after these steps."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 1), name="pixels")
    spec = ImageSpec(mean=0.3, std=0.4, class_names=DIGITS)
    x = Preprocessing(spec)(inputs)
    x = ConvNormAct(16, 3, strides=2, name="stem")(x)
    block = ResidualBlock([ConvNormAct(8), ConvNormAct(8, 3)])
    x = CSPStage([block], gamma=0.5, name="stage")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(10, activation="softmax", name="predictions")(x)
    model = keras.Model(inputs, x, name="reader")
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    train, _test = load_classification("digits")
    images, labels = next(iter(train.evaluation(1437, SIDE)))
    model.fit(images, labels, batch_size=32, epochs=5, verbose=0)
    return model


@pytest.fixture(scope="module")
def files(model, digits, tmp_path_factory):
    """{quantize: the check of its file}, of the same model and samples."""
    folder = tmp_path_factory.mktemp("files")
    train, test = digits
    return {
        quantize: to_tflite(
            model,
            folder / f"{quantize}.tflite",
            test,
            quantize=quantize,
            representative=train[:100] if quantize == "int8" else None,
        )
        for quantize in (None, "float16", "dynamic", "int8")
    }


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(str(path))
    made.allocate_tensors()
    return made


def answers(path, images):
    """By LiteRT alone."""
    made = interpreter(path)
    (given,), (wanted,) = made.get_input_details(), made.get_output_details()
    rows = []
    for image in images:
        made.set_tensor(given["index"], image[None])
        made.invoke()
        rows.append(made.get_tensor(wanted["index"])[0])
    return np.array(rows)


def test_smaller_files_give_the_models_answers(files, model, digits):
    expected = model.predict(digits[1], verbose=0)
    for quantize, check in files.items():
        found = answers(check.path, digits[1])
        same = np.mean(found.argmax(-1) == expected.argmax(-1))
        assert check.match_rate == pytest.approx(same)
        difference = np.abs(found - expected).max() / expected.max()
        # A float32 file's is rounding, which depends on the batch.
        assert check.largest_difference == pytest.approx(
            difference, rel=1e-3, abs=1e-6
        )
        assert same >= (0.97 if quantize in ("int8", "dynamic") else 1)
        assert check.path.stat().st_size == check.size
        assert check.samples == 360
    sizes = {quantize: check.size for quantize, check in files.items()}
    assert sizes["float16"] < 0.75 * sizes[None]
    assert sizes["int8"] < 0.75 * sizes[None]
    assert files["int8"].kind == "TFLite int8"
    assert "360 samples" in str(files["int8"])


def test_int8_files_compute_in_integers_only(files):
    """The normalisation of the first layer too."""
    made = interpreter(files["int8"].path)
    kinds = [d["dtype"] for d in made.get_tensor_details()]
    ends = (np.float32,)  # input and output
    assert sum(kind in ends for kind in kinds) == 2
    names = {op["op_name"] for op in made._get_ops_details()}
    assert {"SUB", "MUL"} <= names


def test_int8_weights_are_the_folded_kernels_in_steps(files, model):
    """Folding and rounding done again, without TensorFlow's converter."""
    flat = fold_batchnorm(model)
    kernels = [
        np.moveaxis(layer.get_weights()[0], -1, 0)
        for layer in flat.layers
        if type(layer) is keras.layers.Conv2D
    ]
    made = interpreter(files["int8"].path)
    found = 0
    for details in made.get_tensor_details():
        parameters = details["quantization_parameters"]
        scales = parameters["scales"]
        if len(details["shape"]) != 4 or details["dtype"] != np.int8:
            continue
        match = [k for k in kernels if k.shape == tuple(details["shape"])]
        if not match or len(scales) != len(match[0]):
            continue
        assert not np.any(parameters["zero_points"])
        steps = scales[:, None, None, None]
        numbers = made.get_tensor(details["index"]) * steps
        nearest = min(np.abs((k - numbers) / steps).max() for k in match)
        assert nearest < 0.51, details["name"]
        found += 1
    assert found >= 5


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integer_inputs_and_outputs(kind, files, model, digits, tmp_path):
    check = to_tflite(
        model,
        tmp_path / "m.tflite",
        digits[1],
        quantize="int8",
        representative=digits[0][:100],
        input_type=kind,
        output_type=kind,
    )
    made = interpreter(check.path)
    (given,), (wanted,) = made.get_input_details(), made.get_output_details()
    assert given["dtype"] == wanted["dtype"] == np.dtype(kind)
    # The same file but for its ends.
    scale, zero = given["quantization"]
    ends = np.iinfo(kind)
    integers = np.clip(
        np.round(digits[1][:50] / scale) + zero, ends.min, ends.max
    )
    found = answers(check.path, integers.astype(kind)).astype("float32")
    scale, zero = wanted["quantization"]
    np.testing.assert_allclose(
        (found - zero) * scale, answers(files["int8"].path, digits[1][:50])
    )
    np.testing.assert_allclose(
        load(check.path)(digits[1][:50]), (found - zero) * scale
    )


def test_representative_may_be_batches(model, digits, files, tmp_path):
    train, _test = load_classification("digits")
    batches = train.evaluation(50, SIDE).take(2)  # with labels
    check = to_tflite(
        model,
        tmp_path / "m.tflite",
        digits[1],
        quantize="int8",
        representative=batches,
    )
    assert check.largest_difference == files["int8"].largest_difference


def test_ranges_that_do_not_fit_are_refused_by_layer(model, digits, tmp_path):
    """Ranges set by images that are hardly lit: everything else is cut off."""
    path = tmp_path / "m.tflite"
    path.write_bytes(b"the file from before")
    with pytest.raises(ValueError, match="of 360 samples") as caught:
        to_tflite(
            model,
            path,
            digits[1],
            quantize="int8",
            representative=digits[0][:20] * 0.05,
        )
    message = str(caught.value)
    assert "95.0 % is required (`minimum_match_rate`). Largest" in message
    # What is cut off is the image, in the first operation.
    assert (
        "preprocessing/sub"
        in message.split("errors, relative to the outputs: ")[1]
    )
    assert path.read_bytes() == b"the file from before"
    assert len(list(tmp_path.iterdir())) == 1
    check = to_tflite(
        model,
        path,
        digits[1],
        quantize="int8",
        representative=digits[0][:20] * 0.05,
        minimum_match_rate=0.05,
    )
    assert check.match_rate < 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int4"}, r"`quantize` must be one of .*='int4'"),
        ({"quantize": "int8"}, "needs `representative`"),
        ({"input_type": "int8"}, r"need quantize='int8'"),
        ({"input_type": "float16"}, "input_type='float16'"),
        ({"calibration": "max"}, r"`calibration` must be one of .*='max'"),
        (
            {"calibration": "mse"},
            r"only valid with quantize='int8'.*quantize=None",
        ),
        (
            {"quantize": "int8", "representative": np.zeros((3, 8, 8, 1))},
            r"`representative` must be .* \(3, 8, 8, 1\)",
        ),
        (
            {"quantize": "int8", "representative": []},
            r"`representative` must be .* \(0, 16, 16, 1\)",
        ),
        (
            {
                "quantize": "int8",
                "representative": [np.zeros((1, 8, 8, 1)), np.zeros((1, 9))],
            },
            "must have one shape",
        ),
        ({"minimum_match_rate": 0.5}, "only valid for quantised files"),
        ({"maximum_difference": -1}, "between 0 and 1. .*=-1"),
        (
            {"quantize": "dynamic", "maximum_difference": 0.1},
            "only valid for float32 files",
        ),
        (
            {"quantize": "dynamic", "minimum_match_rate": 2},
            "minimum_match_rate=2",
        ),
    ],
)
def test_mistakes(model, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_tflite(model, tmp_path / "m.tflite", **options)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def detector():
    """With open sides, as trainings have them, and heads that find boxes."""
    keras.utils.set_random_seed(0)
    made = keras_csp.Detector(
        tiny_backbone(None), classes=3, input_shape=(None, None, 3)
    )
    return randomize(made)


def test_int8_detectors_keep_their_suppression(detector, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((6, 64, 64, 3), dtype="float32")
    scores = detector.predict(images, verbose=0, score_threshold=0.0)["scores"]
    model = detector.inference_model(score_threshold=float(np.median(scores)))
    check = to_tflite(
        model,
        tmp_path / "m.tflite",
        images,
        quantize="int8",
        representative=[images[:3], images[3:]],
        input_type="uint8",
        minimum_match_rate=0.5,
    )
    made = interpreter(check.path)
    (given,) = made.get_input_details()
    assert given["dtype"] == np.uint8
    assert tuple(given["shape"]) == (1, 64, 64, 3)
    shapes = [d["shape_signature"] for d in made.get_output_details()]
    assert all((shape > 0).all() for shape in shapes)  # nothing is open
    found = load(check.path)(images)
    expected = model.predict_on_batch(images)
    assert expected["count"].min() > 0
    # The likeliest box of each image, up to eight bits of its map.
    np.testing.assert_allclose(
        found["scores"][:, 0], expected["scores"][:, 0], atol=0.1
    )
    with pytest.raises(ValueError, match=r"outputs of .* are not quantised"):
        to_tflite(
            model,
            tmp_path / "o.tflite",
            images,
            quantize="int8",
            representative=images,
            output_type="int8",
        )


@pytest.mark.slow
def test_ranges_that_do_not_fit_a_detector(detector, tmp_path):
    """The message names layers of the part that is quantised."""
    images = np.random.default_rng(0).random((4, 64, 64, 3), dtype="float32")
    model = detector.inference_model(score_threshold=0.01)
    with pytest.raises(ValueError, match="Largest added errors, relative to"):
        to_tflite(
            model,
            tmp_path / "m.tflite",
            images,
            quantize="int8",
            representative=images * 1e-3,
            minimum_match_rate=1.0,
        )
    assert not list(tmp_path.iterdir())
