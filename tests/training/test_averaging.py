"""The average of files of weights, against NumPy's."""

import zipfile

import h5py
import keras
import numpy as np
import pytest
from support import randomize, tiny_backbone

import keras_csp
from keras_csp.layers import ConvNormAct
from keras_csp.training import average_checkpoints

X = np.random.default_rng(0).random((4, 8, 8, 3)).astype("float32")
Y = np.ones((4, 1), "float32")


class Counter(keras.layers.Layer):
    """An integer variable."""

    def build(self, _shape):
        self.count = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, x):
        return x


def model(filters=4, seed=0, trained=True, activation="leaky"):
    """With kernels, statistics, a counter and an optimizer."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    x = ConvNormAct(filters, 3, activation=activation)(image)
    counter = Counter(name="counter")
    x = counter(keras.layers.GlobalAveragePooling2D()(x))
    counter.count.assign(seed)
    made = keras.Model(image, keras.layers.Dense(1)(x), name="small")
    made.compile(keras.optimizers.Adam(0.01), "mse")
    if trained:
        made.fit(X, Y, epochs=1 + seed, verbose=0)
    return made


def values(made):
    return [keras.ops.convert_to_numpy(v) for v in made.variables]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three models; the first in both kinds of file, with its optimizer."""
    folder = tmp_path_factory.mktemp("files")
    models = [model(seed=seed) for seed in range(3)]
    for seed, made in enumerate(models):
        made.save(folder / f"{seed}.keras")
        made.save_weights(folder / f"{seed}.weights.h5")
    return folder, [values(made) for made in models]


def assert_averages(made, arrays):
    found, integers = values(made), 0
    for value, *each in zip(found, *arrays, strict=True):
        if value.dtype.kind in "iu":
            integers += 1
            np.testing.assert_array_equal(value, each[-1])
            assert not np.array_equal(each[0], each[-1])
        else:
            wanted = np.mean(np.asarray(each, "float64"), axis=0)
            np.testing.assert_array_equal(value, wanted.astype("float32"))
            assert not np.array_equal(value, each[-1])
    assert integers == 1


@pytest.mark.parametrize(
    "names",
    [
        ["0.weights.h5", "1.weights.h5", "2.weights.h5"],
        ["0.weights.h5", "1.keras", "2.keras"],
    ],
)
def test_each_weight_is_the_mean_of_the_files(files, names, tmp_path):
    folder, arrays = files
    made = model(seed=5)
    momenta = [v.numpy() for v in made.optimizer.variables]
    paths = [folder / name for name in names]
    assert average_checkpoints(paths, model=made) is made
    assert_averages(made, arrays)
    for variable, value in zip(made.optimizer.variables, momenta):
        np.testing.assert_array_equal(variable.numpy(), value)
    output = tmp_path / f"mean{''.join(paths[-1].suffixes)}"
    output.write_text("old")
    assert average_checkpoints(paths, output=output) is None
    if output.suffix == ".keras":
        again = keras.saving.load_model(output, {"Counter": Counter})
        assert not getattr(again, "optimizer", None)
    else:
        again = model(trained=False)
        again.load_weights(output)
        assert output.stat().st_size < paths[0].stat().st_size
    assert_averages(again, arrays)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_small_differences_are_not_lost_in_large_sums(tmp_path):
    """A float32 sum of 300 values of 1 + 2^-20 rounds most of it away."""
    made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    paths = []
    for number in range(300):
        paths.append(tmp_path / f"{number}.weights.h5")
        made.set_weights([np.full((1, 1), 1 + 2.0**-20), np.zeros(1)])
        if number:
            paths[-1].hardlink_to(paths[0])
        else:
            made.save_weights(paths[-1])
    average_checkpoints(paths, model=made)
    assert made.get_weights()[0].item() == 1 + 2.0**-20


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats_are_averaged(dtype, tmp_path):
    made = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, dtype=dtype)]
    )
    arrays, paths = [], [tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"]
    for number, path in enumerate(paths):
        made.set_weights([np.full((3, 2), number + 1.0), np.full(2, -number)])
        arrays.append(made.get_weights())
        made.save_weights(path)
    average_checkpoints(paths, model=made)
    kernel, bias = (np.asarray(w, "float32") for w in made.get_weights())
    np.testing.assert_array_equal(kernel, np.full((3, 2), 1.5, "float32"))
    np.testing.assert_array_equal(bias, np.full(2, -0.5, "float32"))


def test_a_detector_is_averaged(tmp_path):
    detector = keras_csp.Detector(
        tiny_backbone(64), "prn", classes=2, input_shape=(64, 64, 3)
    )
    randomize(detector)
    paths, arrays = [tmp_path / "a.keras", tmp_path / "b.keras"], []
    for path in paths:
        detector.save(path)
        arrays.append(values(detector))
        for variable in detector.variables:
            variable.assign(3 * variable)
    average_checkpoints(paths, output=tmp_path / "c.keras")
    again = keras.saving.load_model(tmp_path / "c.keras")
    assert type(again) is keras_csp.Detector
    for value, first in zip(values(again), arrays[0], strict=True):
        np.testing.assert_allclose(value, 2 * first, rtol=1e-6)


def other(folder, kind):
    path = folder / "other.weights.h5"
    if kind == "wider":
        model(5, trained=False).save_weights(path)
    elif kind == "activation":
        model(trained=False, activation="relu6").save_weights(path)
    elif kind == "another layer":
        keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2)]
        ).save_weights(path)
    elif kind == "damaged":
        path.write_bytes(b"\x89HDF half")
    elif kind == "not finite":
        made = model(trained=False)
        made.layers[1].trainable_variables[0].assign(
            np.nan * made.layers[1].trainable_variables[0]
        )
        made.save_weights(path)
    elif kind == "no weights":
        path = folder / "other.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("wider", r"another network.*'layers/.*shape \(.*5.*and there \(.*4"),
        ("activation", r"another network.*'relu6'.*before it was .*'leaky'"),
        ("another layer", r"another network than .*has the weight 'layers/"),
        ("damaged", r"Cannot read weights in .*other\.weights\.h5"),
        ("not finite", "values at 'layers/.* not finite"),
        ("no weights", r"Cannot read weights in .*other\.keras"),
        ("missing", r"There is no file .*other\.weights\.h5"),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(
    files, kind, message, tmp_path
):
    folder, _arrays = files
    path, output = other(tmp_path, kind), tmp_path / "mean.weights.h5"
    output.write_text("old")
    made = model()
    before = values(made)
    with pytest.raises(ValueError, match=message):
        average_checkpoints([folder / "0.keras", path], made, output)
    assert output.read_text() == "old"
    for value, wanted in zip(values(made), before):
        np.testing.assert_array_equal(value, wanted)


def test_wrong_arguments(files, tmp_path):
    folder, _arrays = files
    path = folder / "0.weights.h5"
    for paths, options, message in (
        ([path], {}, "Give the `model` or the `output`"),
        ([], {"output": path}, "at least one path"),
        (str(path), {"output": path}, "must be a list of paths"),
        (["a.pth"], {"output": path}, r"ends in .*Received: a\.pth"),
        ([path], {"output": "a.txt"}, r"ends in .*Received: a\.txt"),
        ([path], {"output": tmp_path / "a.keras"}, "the last of `paths`"),
        ([path], {"model": model(5)}, "another network than 'small'"),
    ):
        with pytest.raises(ValueError, match=message):
            average_checkpoints(paths, **options)


def test_the_format_of_the_files_is_what_this_reads(files):
    """Keras keeps the optimizer in a group of this name."""
    folder, _arrays = files
    with h5py.File(folder / "0.weights.h5") as file:
        assert "optimizer" in file
