"""The .weights files: headers, damage, backbones, classifiers."""

import logging

import darknet_reference as reference
import keras
import numpy as np
import pytest
from support import SMALL, randomize

import keras_csp
from keras_csp import darknet
from keras_csp.darknet import weights as weights_module
from keras_csp.layers import ConvNormAct
from keras_csp.models.builder import build_network
from keras_csp.models.spec import (
    NetworkSpec,
    Stage,
    conv,
    csp,
    max_pool,
    residual,
)

CFG = """
[net]
height=8
width=8
channels=3

[convolutional]
batch_normalize=1
filters=6
size=3
pad=1
activation=leaky

[convolutional]
filters=4
size=3
groups=2
pad=1
activation=mish

[route]
layers=-1,0

[convolutional]
filters=5
activation=linear

[avgpool]

[softmax]
"""

HEADERS = {
    "0.1.0": np.array([0, 1, 0, 7], "<i4").tobytes(),
    "0.2.0": np.array([0, 2, 0, 7, 0], "<i4").tobytes(),
    "0.2.5": np.array([0, 2, 5, 7, 1], "<i4").tobytes(),
    "1.0.0": np.array([1, 0, 0, 7, 0], "<i4").tobytes(),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.cfg").write_text(CFG)
    return tmp_path


@pytest.fixture
def weights():
    return reference.random_weights(CFG)


def model_of(folder, **options):
    return darknet.load(folder / "small.cfg", **options)


def values(model):
    return {v.path: np.array(v.numpy()) for v in model.weights}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


def refused(model, path, words, **options):
    """The loading fails with these words and changes nothing."""
    before = values(model)
    with pytest.raises(ValueError) as caught:
        darknet.load_weights(model, path, **options)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert_equal(values(model), before)


@pytest.mark.parametrize("version", HEADERS)
def test_headers(version, folder, weights):
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights, HEADERS[version]))
    model = model_of(folder, weights=path)
    unit = model.get_layer("convolutional_0")
    conv, norm, _ = unit.layers
    layer = weights[0]
    np.testing.assert_array_equal(norm.beta.numpy(), layer["biases"])
    np.testing.assert_array_equal(norm.gamma.numpy(), layer["scales"])
    np.testing.assert_array_equal(norm.moving_mean.numpy(), layer["means"])
    np.testing.assert_array_equal(
        norm.moving_variance.numpy(), layer["variances"]
    )
    np.testing.assert_array_equal(
        conv.kernel.numpy(), layer["kernel"].transpose(2, 3, 1, 0)
    )


@pytest.mark.parametrize("version", HEADERS)
def test_a_file_is_written_back_byte_by_byte(version, folder, weights):
    """The version and the images seen of the header included."""
    header = HEADERS[version]
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights, header))
    model = model_of(folder, weights=path)
    darknet.save_weights(model, folder / "again.weights")
    assert (folder / "again.weights").read_bytes() == path.read_bytes()


def test_a_part_of_a_file_says_nothing_of_the_images_seen(folder, weights):
    whole = folder / "whole.weights"
    whole.write_bytes(reference.weights_file(weights, HEADERS["1.0.0"]))
    path = folder / "small.conv.2"
    header = np.array([0, 2, 5, 77, 0], "<i4").tobytes()
    path.write_bytes(reference.weights_file(first(weights, 2), header))
    model = model_of(folder, weights=whole)
    darknet.load_weights(model, path)
    darknet.save_weights(model, folder / "again.weights")
    data = (folder / "again.weights").read_bytes()
    assert np.frombuffer(data[:20], "<i4").tolist() == [0, 2, 5, 0, 0]


def test_the_saved_header_is_that_of_darknet_0_2_5(folder):
    darknet.save_weights(model_of(folder), folder / "a.weights")
    data = (folder / "a.weights").read_bytes()
    assert np.frombuffer(data[:20], "<i4").tolist() == [0, 2, 5, 0, 0]
    assert sorted(p.name for p in folder.iterdir()) == [
        "a.weights",
        "small.cfg",
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        np.array([-1, 2, 5, 0, 0], "<i4").tobytes() + bytes(400),
        np.array([0, 2000, 5, 0, 0], "<i4").tobytes() + bytes(400),
        np.array([1001, 0, 5, 0, 0], "<i4").tobytes() + bytes(400),
        b"PK\x03\x04" + bytes(400),
        b"[net]\nheight=3\n" * 20,
        b"\x89HDF\r\n\x1a\n" + bytes(400),
    ],
)
def test_files_of_another_kind(data, folder):
    (folder / "a.weights").write_bytes(data)
    words = "is not a Darknet .weights file"
    refused(model_of(folder), folder / "a.weights", words)


def test_a_missing_file(folder):
    with pytest.raises(FileNotFoundError):
        darknet.load_weights(model_of(folder), folder / "no.weights")


@pytest.mark.parametrize("change", [-1, -4, -400, 1, 4, 400])
def test_files_of_another_length(change, folder, weights):
    data = reference.weights_file(weights)
    data = data[:change] if change < 0 else data + bytes(change)
    path = folder / "a.weights"
    path.write_bytes(data)
    words = "is damaged"
    if change % 4 == 0:
        words = "ends in layer 'convolutional_" if change < 0 else "more than"
    refused(model_of(folder), path, words)


def test_only_a_header(folder):
    path = folder / "a.weights"
    path.write_bytes(HEADERS["0.2.5"])
    refused(model_of(folder), path, "ends in layer 'convolutional_0'")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("index", "name"), [(0, "scales"), (1, "biases"), (3, "kernel")]
)
def test_numbers_that_are_not_finite(value, index, name, folder, weights):
    weights[index][name].flat[2] = value
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights))
    refused(model_of(folder), path, f"the {name} of 'convolutional_{index}'")


def test_large_numbers_are_finite(folder, weights):
    """Whose sum is not."""
    weights[0]["biases"][:] = 3e38
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights))
    assert darknet.load_weights(model_of(folder), path) == []


def first(weights, count):
    return {index: layer for index, layer in weights.items() if index < count}


@pytest.mark.parametrize("cutoff", [1, 2, 3, 4, 99])
@pytest.mark.parametrize("name", ["small.conv", "small"])
def test_backbones(cutoff, name, folder, weights, caplog):
    path = folder / f"{name}.{cutoff}"
    path.write_bytes(reference.weights_file(first(weights, cutoff)))
    with caplog.at_level(logging.WARNING, "keras_csp"):
        model = model_of(folder, weights=path)
    new = [f"convolutional_{n}" for n in (0, 1, 3) if n >= cutoff]
    if new:
        (record,) = caplog.records
        assert record.getMessage().endswith("left new: " + ", ".join(new))
    else:
        assert not caplog.records
    left = darknet.load_weights(model, path)
    assert {path.split("/")[0] for path in left} == set(new)
    kernel = model.get_layer("convolutional_0").layers[0].kernel.numpy()
    np.testing.assert_array_equal(
        kernel, weights[0]["kernel"].transpose(2, 3, 1, 0)
    )


def test_a_backbone_must_end_where_its_name_says(folder, weights):
    path = folder / "small.conv.2"
    path.write_bytes(reference.weights_file(weights))
    refused(model_of(folder), path, "more than the")
    path.write_bytes(reference.weights_file(first(weights, 1)))
    refused(model_of(folder), path, "ends in layer 'convolutional_1'")
    other = folder / "small.weights"
    other.write_bytes(reference.weights_file(first(weights, 2)))
    refused(model_of(folder), other, "ends in layer 'convolutional_3'")
    refused(model_of(folder), other, "name it for its layers, e.g. small.3")


def test_another_number_of_classes(folder, weights):
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights))
    (folder / "small.cfg").write_text(CFG.replace("filters=5", "filters=7"))
    model = model_of(folder)
    refused(model, path, "ends in layer 'convolutional_3'")
    before = values(model)
    left = darknet.load_weights(model, path, classifier=False)
    assert [p.split("/", 1)[1] for p in left] == ["conv/kernel", "conv/bias"]
    after = values(model)
    for name in left:
        np.testing.assert_array_equal(after[name], before[name])
    assert (after["convolutional_0/conv/kernel"] != 0).any()
    path.write_bytes(reference.weights_file(weights)[:-4])
    refused(model, path, "not a whole classifier", classifier=False)


def test_a_classifier_that_is_not_loaded_must_be_finite(folder, weights):
    weights[3]["kernel"][0] = np.nan
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights))
    words = "not finite, in the classifier"
    refused(model_of(folder), path, words, classifier=False)


HEADS = """
[net]
height=16
width=16
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters={filters}
{head}
activation=linear
[yolo]
mask=0,1
anchors=3,4,5,6,7,8
num=3
classes={classes}
[route]
layers=0
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters={last}
activation=linear
[yolo]
mask=2
anchors=3,4,5,6,7,8
num=3
classes={classes}
"""


def heads_text(classes, head="size=1"):
    """A detector of heads with 6 and 8 inputs, 2 anchors and 1."""
    rows = 5 + classes
    return HEADS.format(classes=classes, filters=2 * rows, last=rows, head=head)


def heads_file(folder, name, classes, head="size=1"):
    """(path of a file of these classes, what is in it)."""
    numbers = reference.random_weights(heads_text(classes, head))
    path = folder / name
    path.write_bytes(reference.weights_file(numbers))
    return path, numbers


def heads_model(folder, classes, head="size=1"):
    path = folder / "heads.cfg"
    path.write_text(heads_text(classes, head))
    return darknet.load(path)


@pytest.mark.parametrize(
    "head", ["size=1", "size=3\npad=1\ngroups=2", "batch_normalize=1"]
)
@pytest.mark.parametrize(("theirs", "ours"), [(7, 1), (1, 7), (3, 3)])
def test_another_number_of_classes_of_a_detector(theirs, ours, head, folder):
    """Every head is skipped, and what stands between them is right."""
    path, numbers = heads_file(folder, "a.weights", theirs, head)
    model = heads_model(folder, ours, head)
    before = values(model)
    left = darknet.load_weights(model, path, classifier=False)
    assert {name.split("/")[0] for name in left} == {
        "convolutional_1",
        "convolutional_5",
    }
    after = values(model)
    for name in left:
        np.testing.assert_array_equal(after[name], before[name])
    for index in (0, 4):
        np.testing.assert_array_equal(
            after[f"convolutional_{index}/conv/kernel"],
            numbers[index]["kernel"].transpose(2, 3, 1, 0),
        )
        for ours_, theirs_ in (
            ("beta", "biases"),
            ("moving_variance", "variances"),
        ):
            np.testing.assert_array_equal(
                after[f"convolutional_{index}/norm/{ours_}"],
                numbers[index][theirs_],
            )


@pytest.mark.parametrize("ours", [2, 7])
def test_heads_of_the_file(ours, folder):
    path, numbers = heads_file(folder, "a.weights", 7)
    model = heads_model(folder, ours)
    before = values(model)
    found = weights_module.read_heads(model, path)
    assert [(head.anchors, head.classes) for head in found] == [(2, 7), (1, 7)]
    for index, head in zip((1, 5), found):
        (bias, biases), (kernel, kernels) = head.arrays
        assert bias.path == f"convolutional_{index}/conv/bias"
        np.testing.assert_array_equal(biases, numbers[index]["biases"])
        assert kernel.path == f"convolutional_{index}/conv/kernel"
        np.testing.assert_array_equal(
            kernels, numbers[index]["kernel"].transpose(2, 3, 1, 0)
        )
    assert_equal(values(model), before)


def test_heads_of_the_first_layers(folder):
    _, numbers = heads_file(folder, "a.weights", 7)
    path, model = folder / "a.conv.3", heads_model(folder, 2)
    path.write_bytes(reference.weights_file(first(numbers, 3)))
    (head,) = weights_module.read_heads(model, path)
    assert head.classes == 7
    left = darknet.load_weights(model, path, classifier=False)
    assert "convolutional_0/conv/kernel" not in left and len(left) == 9
    path = folder / "a.conv.1"
    path.write_bytes(reference.weights_file(first(numbers, 1)))
    assert weights_module.read_heads(model, path) == []
    refused(model, folder / "a.weights", "more than the")


@pytest.mark.parametrize("change", [-8, -4, 4, 8, 4 * 24])
def test_heads_of_no_number_of_classes(change, folder):
    """A class is 2 * (6 + 1) + 8 + 1 = 23 numbers."""
    path, _ = heads_file(folder, "a.weights", 7)
    data = path.read_bytes()
    path.write_bytes(data + bytes(change) if change > 0 else data[:change])
    model = heads_model(folder, 2)
    words = f"holds {23 * 12 + change // 4} numbers for 'convolutional_1', 'c"
    refused(model, path, words, classifier=False)
    path.write_bytes(data + bytes(4 * 23))
    assert weights_module.read_heads(model, path)[0].classes == 8


def test_a_file_without_its_heads(folder):
    path, numbers = heads_file(folder, "a.weights", 7)
    del numbers[1], numbers[5]
    path.write_bytes(reference.weights_file(numbers))
    model = heads_model(folder, 2)
    refused(model, path, "holds 0 numbers for", classifier=False)
    path.write_bytes(path.read_bytes()[:-4])
    refused(model, path, "is cut short", classifier=False)


def test_heads_that_are_not_loaded_must_be_finite(folder):
    path, numbers = heads_file(folder, "a.weights", 7)
    numbers[1]["kernel"].flat[3] = np.nan
    path.write_bytes(reference.weights_file(numbers))
    model = heads_model(folder, 2)
    refused(model, path, "the kernel of 'convolutional_1'", classifier=False)


def test_a_head_that_reads_no_convolution(folder):
    text = heads_text(7).replace("[yolo]", "[dropout]\n[yolo]", 1)
    (folder / "heads.cfg").write_text(text)
    path, _ = heads_file(folder, "a.weights", 7)
    model = darknet.load(folder / "heads.cfg")
    with pytest.raises(ValueError, match=r"does not read a \[convolutional\]"):
        darknet.load_weights(model, path, classifier=False)


NETWORK = NetworkSpec(
    name="SmallDarknet",
    provenance="For tests.",
    stem=(conv(8, 3, 2), max_pool(2)),
    stages=(
        Stage(
            blocks=(
                csp(
                    (residual((conv(4), conv(6, 3, groups=2))),),
                    split=(conv(3), conv(6)),
                    partial_transition=conv(5),
                    transition=conv(7),
                ),
            )
        ),
    ),
)


def network(**options):
    options.setdefault("input_shape", (32, 32, 3))
    return build_network(NETWORK, **options)


@pytest.fixture
def saved(tmp_path):
    """(network, path) of one whose weights were saved."""
    model = randomize(network())
    darknet.save_weights(model, tmp_path / "a.weights")
    return model, tmp_path / "a.weights"


def test_networks_come_back(saved):
    model, path = saved
    other = network()
    assert darknet.load_weights(other, path) == []
    assert_equal(values(other), values(model))


def test_order_of_a_stages_concatenation(saved):
    """Of M's input the file has T's channels first, then those of x0'."""
    model, path = saved
    stage = model.get_layer("stage1")
    kernel = stage.transition.layers[0].kernel.numpy()
    darknets = np.concatenate([kernel[..., 3:, :], kernel[..., :3, :]], axis=2)
    classifier = 1000 * (7 + 1)
    numbers = np.frombuffer(path.read_bytes()[20:], "<f4")[:-classifier]
    theirs = numbers[-7 * 8 :].reshape(7, 8)
    np.testing.assert_array_equal(theirs.T, darknets[0, 0])


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("part.conv.3", None),
        ("part.conv.3", 3),
        ("part.3", 3),
        ("part.weights", 3),
        ("part.conv.99", None),
        ("part.1", 1),
    ],
)
def test_the_first_layers_are_saved(name, layers, folder, weights):
    """The bytes of `darknet partial`, with no images seen in the header."""
    whole = folder / "a.weights"
    whole.write_bytes(reference.weights_file(weights, HEADERS["1.0.0"]))
    model = model_of(folder, weights=whole)
    path = folder / name
    darknet.save_weights(model, path, layers)
    count = layers or int(name.split(".")[-1])
    expected = reference.weights_file(first(weights, count))
    assert path.read_bytes() == expected
    if name != "part.weights":
        new = darknet.load_weights(model_of(folder), path)
        assert len({p.split("/")[0] for p in new}) == 3 - len(
            first(weights, count)
        )


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        ("small-1.1", None, "Give layers=1 to write these, or another path"),
        ("small.3", None, "Give layers=3"),
        ("small.conv.3", 2, "first 3 layers. Give layers=3"),
        ("small.3", 2, "first 3 layers. Give layers=3"),
        ("small.conv.0", None, "`layers` must be"),
        ("small.weights", 0, "`layers` must be"),
        ("small.weights", True, "`layers` must be"),
    ],
)
def test_nothing_is_left_out_unasked(name, layers, words, folder):
    with pytest.raises(ValueError) as caught:
        darknet.save_weights(model_of(folder), folder / name, layers)
    assert words in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["small.cfg"]


def test_features_of_a_network_are_saved(saved):
    model, path = saved
    path = path.with_name("small.conv.7")
    darknet.save_weights(model, path)
    features = network(include_top=False)
    assert darknet.load_weights(features, path) == []
    with pytest.raises(ValueError, match="layers of 'smalldarknet' have no nu"):
        darknet.save_weights(model, path.with_name("small.7"), 7)
    assert not path.with_name("small.7").exists()


@pytest.mark.parametrize("pooling", [None, "avg"])
def test_without_classifier(pooling, saved):
    model, path = saved
    features = network(include_top=False, pooling=pooling)
    assert darknet.load_weights(features, path) == []
    expected = values(model)
    assert_equal(values(features), {p: expected[p] for p in values(features)})
    path.write_bytes(path.read_bytes()[:-4])
    refused(features, path, "not a whole classifier")


@pytest.mark.parametrize("name", ["b.weights", "small.conv.7"])
def test_features_alone(name, saved):
    model, path = saved
    path = path.with_name(name)
    darknet.save_weights(
        keras.Model(model.input, model.get_layer("stage1").output), path
    )
    features = network(include_top=False)
    assert darknet.load_weights(features, path) == []
    top = network()
    assert darknet.load_weights(top, path, classifier=False) == [
        "predictions/kernel",
        "predictions/bias",
    ]
    if name == "small.conv.7":
        assert len(darknet.load_weights(network(), path)) == 2
    else:
        refused(network(), path, "ends in layer 'predictions'")


def test_another_number_of_classes_of_a_network(saved):
    model, path = saved
    other = network(classes=10)
    refused(other, path, "more than the")
    left = darknet.load_weights(other, path, classifier=False)
    assert left == ["predictions/kernel", "predictions/bias"]
    expected = values(model)
    for name, value in values(other).items():
        if name not in left:
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SmallCSPResNeXt", "its shortcut has a convolution"),
        ("SmallCSPPelee", "no plain convolution after its concatenation"),
        ("SmallCSPDense", "it normalises before the convolution"),
    ],
)
def test_networks_that_darknet_cannot_express(name, words, tmp_path):
    model = build_network(SMALL[name], classes=3)
    with pytest.raises(ValueError, match=words):
        darknet.save_weights(model, tmp_path / "a.weights")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            [ConvNormAct(4, activation="torch_leaky", name="unit")],
            "layer 'unit' (ConvNormAct): Darknet lacks its activation",
        ),
        (
            [ConvNormAct(4, activation="hard_sigmoid", name="unit")],
            "layer 'unit' (ConvNormAct): Darknet lacks its activation",
        ),
        (
            [ConvNormAct(4), keras.layers.Activation("elu", name="alone")],
            "layer 'alone' (Activation): Darknet lacks its activation",
        ),
        (
            [ConvNormAct(4), keras.layers.BatchNormalization(name="lone")],
            "cannot express layer 'lone'",
        ),
        (
            [keras.layers.Conv2D(4, 3, name="bare"), ConvNormAct(4)],
            "cannot express layer 'bare'",
        ),
        (
            [
                ConvNormAct(4),
                keras_csp.layers.CSPStage(
                    [ConvNormAct(2)],
                    transition=ConvNormAct(4, groups=2),
                    name="stage",
                ),
            ],
            "layer 'stage' (CSPStage): it has no plain convolution",
        ),
    ],
)
def test_layers_that_darknet_cannot_express(layers, words, tmp_path):
    x = image = keras.Input((8, 8, 3))
    for layer in layers:
        x = layer(x)
    model = keras.Model(image, x)
    with pytest.raises(ValueError) as caught:
        darknet.save_weights(model, tmp_path / "a.weights")
    assert words in str(caught.value)
    with pytest.raises(ValueError):
        darknet.load_weights(model, tmp_path / "a.weights")


def test_a_layer_used_twice(tmp_path):
    unit = ConvNormAct(3)
    model = keras.Sequential([keras.Input((8, 8, 3)), unit])
    image = keras.Input((8, 8, 3))
    twice = keras.Model(image, unit(model(image)))
    with pytest.raises(ValueError, match="uses one layer more than once"):
        darknet.save_weights(twice, tmp_path / "a.weights")


def test_a_model_without_convolutions(tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.MaxPooling2D()(image))
    with pytest.raises(ValueError, match="has no convolution"):
        darknet.save_weights(model, tmp_path / "a.weights")


def test_what_is_no_model(tmp_path):
    with pytest.raises(
        ValueError, match=r"keras\.Model\. Received: 'x' of type"
    ):
        darknet.save_weights("x", tmp_path / "a.weights")


def test_a_folder_that_does_not_exist(folder):
    with pytest.raises(FileNotFoundError, match=r"There is no folder.*gone"):
        darknet.save_weights(model_of(folder), folder / "gone" / "a.weights")


def test_a_cfg_inside_another_model(folder):
    inner = model_of(folder)
    image = keras.Input((8, 8, 3))
    outer = keras.Model(image, inner(image))
    with pytest.raises(ValueError, match="give that one"):
        darknet.save_weights(outer, folder / "a.weights")


def test_a_failed_save_leaves_nothing(folder, monkeypatch):
    from keras_csp.darknet import weights as module

    def broken(_slot):
        raise RuntimeError("full")

    (folder / "a.weights").write_bytes(b"old")
    monkeypatch.setattr(module, "_arrays", broken)
    with pytest.raises(RuntimeError):
        darknet.save_weights(model_of(folder), folder / "a.weights")
    assert (folder / "a.weights").read_bytes() == b"old"
    assert len(list(folder.iterdir())) == 2


def test_one_layer_at_a_time_is_read(folder, weights, monkeypatch):
    """Mapped from the file, which may be larger than the memory left."""
    path = folder / "a.weights"
    path.write_bytes(reference.weights_file(weights))
    read, counts = weights_module._Numbers.read, []

    def recorded(self, start, count):
        numbers = read(self, start, count)
        assert isinstance(numbers, np.memmap)
        counts.append(count)
        return numbers

    monkeypatch.setattr(weights_module._Numbers, "read", recorded)
    model_of(folder, weights=path)
    sizes = [sum(a.size for a in layer.values()) for layer in weights.values()]
    assert max(counts) == max(sizes)
