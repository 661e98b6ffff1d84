"""The networks of every cfg, against OpenCV's and a numpy Darknet.

OpenCV reads .cfg and .weights with code of its own. It differs from Darknet
in the epsilon of batch normalisation, 1e-6 instead of 1e-5, which adds up
over many layers: its files get variances 9e-6 larger. It also zeroes the
class scores of [yolo] below 0.2.
"""

import gc
import sys
import warnings

import darknet_reference as reference
import keras
import numpy as np
import pytest
from support import GOLDEN, slow_unless

import keras_csp
from keras_csp import darknet
from keras_csp.darknet import cfg, layers, plan

sys.path.insert(0, str(GOLDEN))
from make_darknet_layers import CFGS

TEXTS = reference.author_cfgs()
array = keras.ops.convert_to_numpy

# OpenCV refuses shortcuts between maps of different size, and relu6.
NOT_OPENCV = (
    "cfg/resnet10.cfg",
    "cfg/resnet50.cfg",
    "cfg/resnext50.cfg",
    *(
        f"in progress/darknet/icfg/{kind}-{activation}.cfg"
        for kind in ("resnet50", "resnext50")
        for activation in ("leaky", "mish", "relu", "swish")
    ),
    "darknet/cfg/resnet101.cfg",
    "darknet/cfg/resnet152.cfg",
    "darknet/cfg/efficientnet-lite3.cfg",
)
# Shares the weights of convolutions of 128 and 256 channels, which Darknet
# refuses too.
REFUSED = ("in progress/yolov3-spp-matrix.cfg",)
# Networks with maps of 1/64 or 1/128 of the image.
SIZES = {
    "in progress/csresnet50-elastic-panet-spp.cfg": (128, 192),
    "in progress/csresnext50-elastic-panet-spp.cfg": (128, 192),
    "darknet/cfg/yolov3_5l.cfg": (128, 128),
    "darknet/cfg/yolov4-p6.cfg": (128, 192),
}
FAST = (
    "cfg/csmobilenet-v2.cfg",
    "cfg/darknet.cfg",
    "darknet/cfg/enet-coco.cfg",
    "darknet/cfg/yolov4-tiny.cfg",
    "darknet/cfg/yolov7-tiny.cfg",
)
FAST_FACTORIES = ("CSPMobileNetV2", "DarkNetReference", "ResNet10")


def _distinct(names):
    """One name for each text; aliases would repeat the test."""
    return list({TEXTS[name]: name for name in reversed(names)}.values())[::-1]


OPENCV = _distinct([n for n in TEXTS if n not in NOT_OPENCV + REFUSED])


@pytest.fixture
def folder(tmp_path):
    """A folder for files; the models made from them are freed after it."""
    yield tmp_path
    keras.utils.clear_session()
    gc.collect()


def test_every_cfg_of_the_authors_is_listed():
    theirs = [name for name in TEXTS if not name.startswith("darknet/")]
    assert len(theirs) == 49
    assert {f"cfg/{stem}.cfg" for stem in CFGS.values()} <= set(theirs)


def text_of(name):
    detector = "[yolo]" in TEXTS[name]
    size = SIZES.get(name, (96, 128) if detector else (64, 64))
    return reference.resized(TEXTS[name], *size)


class OpenCV:
    """`text` with `weights`, in OpenCV's dnn."""

    def __init__(self, text, weights, folder):
        cv2 = pytest.importorskip("cv2")
        shifted = {
            index: {
                name: value + np.float32(9e-6 * (name == "variances"))
                for name, value in layer.items()
            }
            for index, layer in weights.items()
        }
        paths = folder / "opencv.cfg", folder / "opencv.weights"
        paths[0].write_text(text)
        paths[1].write_bytes(reference.weights_file(shifted))
        self.net = cv2.dnn.readNetFromDarknet(*map(str, paths))

    def outputs(self, image, names=None):
        self.net.setInput(image.transpose(0, 3, 1, 2).copy())
        if names is None:
            names = self.net.getUnconnectedOutLayersNames()
            names = sorted(names, key=lambda name: int(name.split("_")[1]))
        return [np.asarray(y) for y in self.net.forward(names)]


def image_for(text, rng):
    net, _ = reference.parsed(text)
    shape = [int(net[key]) for key in ("height", "width", "channels")]
    return rng.random((1, *shape), dtype="float32")


def written(text, weights, folder):
    """Paths of the two files."""
    paths = folder / "network.cfg", folder / "network.weights"
    paths[0].write_text(text)
    paths[1].write_bytes(reference.weights_file(weights))
    return paths


def as_list(outputs):
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [array(y) for y in outputs]


def in_the_order_of_the_file(detector):
    """(index of the [yolo], key of the output, head)."""
    heads = zip(detector.anchors, detector.heads)
    return sorted((int(h.name.split("_")[1]), key, h) for key, h in heads)


def answers_of(model, image):
    """What OpenCV has for the outputs: of a [yolo] rows relative to the image.

    x, y, w, h, objectness and the scores.
    """
    if not isinstance(model, keras_csp.Detector):
        return as_list(model(image))
    maps, answers = model(image), []
    height, width = image.shape[1:3]
    for _, key, head in in_the_order_of_the_file(model):
        boxes, scores = (array(y) for y in head.decode(maps[key]))
        boxes = boxes / [width, height, width, height]
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        size = boxes[..., 2:] - boxes[..., :2]
        objectness = array(head.rows(maps[key]))[..., 4:5]
        if not head.new_coords:
            objectness = 1 / (1 + np.exp(-objectness))
        rows = [centre, size, objectness, scores]
        answers.append(np.concatenate(rows, axis=-1))
    return answers


def assert_close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert ours.std() > 1e-4  # not all alike, which would prove little
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error <= tolerance, f"{error:.2g} of the largest value"


@pytest.mark.parametrize("name", slow_unless(FAST, OPENCV))
def test_outputs_are_those_of_opencv(name, folder, rng):
    text = text_of(name)
    image = image_for(text, rng)
    heads = reference.heads(text)
    weights = reference.random_weights(text)
    net = OpenCV(text, weights, folder)
    maps = net.outputs(image, [f"conv_{index}" for index in heads])
    weights = reference.tempered(text, weights, maps)
    model = darknet.load(*written(text, weights, folder))

    net = OpenCV(text, weights, folder)
    layers_ = [model.get_layer(f"convolutional_{index}") for index in heads]
    inner = keras.Model(model.input, [layer.output for layer in layers_])
    for ours, theirs in zip(
        as_list(inner(image)),
        net.outputs(image, _names_of_heads(text, heads)),
        strict=True,
    ):
        assert_close(ours, theirs.transpose(0, 2, 3, 1))

    compare = _compare_boxes if "[yolo]" in text else _compare_scores
    for ours, theirs in zip(
        answers_of(model, image), net.outputs(image), strict=True
    ):
        compare(ours, theirs)
    if isinstance(model, keras_csp.Detector):
        _compare_detections(model, text, image)


def _names_of_heads(text, heads):
    """OpenCV's: an activation is a layer of its own, with the next number."""
    _, sections = reference.parsed(text)
    names = []
    for index in heads:
        activation = sections[index][1]["activation"]
        name = f"{activation}_{index + 1}"
        names.append(f"conv_{index}" if activation == "linear" else name)
    return names


def _compare_boxes(ours, theirs):
    ours, theirs = ours[0], theirs.reshape(ours.shape[1:])
    for column in range(5):
        assert_close(ours[:, column], theirs[:, column], 5e-4)
    shown = theirs[:, 5:] != 0
    assert shown.any()
    np.testing.assert_allclose(ours[:, 5:][shown], theirs[:, 5:][shown], 1e-3)
    assert ours[:, 5:][~shown].max() < 0.2 + 1e-3


def _compare_detections(model, text, image):
    """Boxes of the whole detector, and Darknet's of the same head maps."""
    maps, rows = model(image), []
    for index, key, _ in in_the_order_of_the_file(model):
        head_map = array(maps[key])[0].transpose(2, 0, 1)
        rows.append(reference.boxes(text, index, head_map))
    rows = np.concatenate(rows)
    # Few enough for each to be looked at, by a threshold between two scores.
    best = np.sort(np.unique(rows[:, 5:]))[::-1][:60]
    gaps = best[:-1] - best[1:]
    at = len(gaps) // 2 + int(gaps[len(gaps) // 2 :].argmax())
    thresh = (best[at] + best[at + 1]) / 2
    expected = reference.suppressed(text, rows, thresh)
    found = model.predict(image, verbose=0, score_threshold=float(thresh))
    count = int(found["count"][0])
    assert count == len(expected) > 3
    scores = [row[0] for row in expected]
    np.testing.assert_allclose(found["scores"][0][:count], scores, 1e-4)
    height, width = image.shape[1:3]
    for (_, label, x, y, w, h), ours, theirs in zip(
        expected, found["boxes"][0], found["classes"][0]
    ):
        box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        box = np.clip(box, 0, 1) * [width, height, width, height]
        np.testing.assert_allclose(ours, box, atol=1e-3 * max(height, width))
        assert theirs == label


def _compare_scores(ours, theirs):
    if ours.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    assert_close(ours, theirs.reshape(ours.shape))


# Every kind of section, and what the published cfgs have too little of.
SMALL = """
[net]
height=20
width=12
channels=3

[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=mish

[local_avgpool]
size=3
stride=2

[convolutional]
batch_normalize=1
filters=18
size=3
padding=1
groups=6
activation=swish

[maxpool]
maxpool_depth=1
out_channels=6

[maxpool]
size=3
stride=2

[upsample]
stride=2
scale=0.5

[convolutional]
filters=8
size=1
stride=1
activation=relu6

[route]
layers=-1,5
groups=2
group_id=1

[route]
layers=1

[convolutional]
filters=10
size=2
pad=1
activation=logistic

[shortcut]
from=7,-6
activation=relu

[maxpool]
size=5
stride=1

[avgpool]

[scale_channels]
from=-2
activation=leaky

[sam]
from=10

[convolutional]
filters=9
size=1
activation=linear

[dropout]
probability=.5

[avgpool]

[softmax]
groups=3
temperature=2

[cost]
type=sse
"""


@pytest.mark.parametrize(
    "name", slow_unless(["cfg/resnet10.cfg"], _distinct(NOT_OPENCV))
)
def test_outputs_are_those_of_numpy(name, folder, rng):
    text = text_of(name)
    image = image_for(text, rng)
    weights = reference.random_weights(text)
    planes = image[0].transpose(2, 0, 1)
    maps = [reference.outputs(text, weights, planes)[reference.heads(text)[0]]]
    weights = reference.tempered(text, weights, maps)
    model = darknet.load(*written(text, weights, folder))
    ours = array(model(image))[0]
    assert_close(ours, reference.outputs(text, weights, planes)[-1])


_SHARED = """
batch_normalize=1
filters=6
size=3
stride_x=2
stride_y=1
pad=1
activation=leaky
"""
SHARED = f"""[net]
height=12
width=16
channels=6

[convolutional]{_SHARED}
[convolutional]
share_index=0{_SHARED}
[convolutional]
share_index=-1{_SHARED}
[convolutional]
filters=4
activation=linear
"""


def test_shared_weights_and_two_strides_are_those_of_numpy(folder, rng):
    image = image_for(SHARED, rng)
    weights = reference.random_weights(SHARED)
    assert list(weights) == [0, 3]
    path, file = written(SHARED, weights, folder)
    model = darknet.load(path, file)
    planes = image[0].transpose(2, 0, 1)
    expected = np.moveaxis(
        reference.outputs(SHARED, weights, planes)[-1], 0, -1
    )
    assert expected.shape == (12, 2, 4)
    assert_close(array(model(image))[0], expected)
    darknet.save_weights(model, folder / "again.weights")
    assert (folder / "again.weights").read_bytes() == file.read_bytes()


def test_every_kind_of_layer_is_that_of_numpy(folder, rng):
    image = image_for(SMALL, rng)
    weights = reference.random_weights(SMALL)
    model = darknet.load(*written(SMALL, weights, folder))
    theirs = reference.outputs(SMALL, weights, image[0].transpose(2, 0, 1))
    seen = 0
    for index, result in enumerate(theirs):
        layer = next(
            (x for x in model.layers if x.name.endswith(f"_{index}")), None
        )
        if layer is not None:
            ours = keras.Model(model.input, layer.output)(image)
            expected = (
                np.moveaxis(result, 0, -1) if result.ndim == 3 else result
            )
            np.testing.assert_allclose(
                array(ours)[0], expected, 1e-4, 1e-5, err_msg=layer.name
            )
            seen += 1
    assert seen == len(theirs) - 2  # one [route] and [cost] are no layers


POOLING = """
[net]
height=9
width=7
channels=3
[convolutional]
filters=4
activation=linear
[{kind}]
size={size}
stride={stride}
padding={padding}
"""


@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pooling_windows(kind, size, stride, folder, rng):
    for padding in range(2 * size - 1):
        text = POOLING.format(
            kind=kind, size=size, stride=stride, padding=padding
        )
        image = image_for(text, rng)
        weights = reference.random_weights(text)
        model = darknet.load(*written(text, weights, folder))
        planes = image[0].transpose(2, 0, 1)
        theirs = reference.outputs(text, weights, planes)[-1]
        np.testing.assert_allclose(
            array(model(image))[0], theirs.transpose(1, 2, 0), 1e-4, 1e-5
        )


def _changed(rng):
    """SMALL with a few options deleted, moved or changed."""
    lines = [line for line in SMALL.splitlines() if line]
    for _ in range(rng.integers(1, 4)):
        here, there = rng.integers(4, len(lines), 2)
        kind = rng.integers(3)
        if kind == 0:
            del lines[here]
        elif kind == 1:
            lines.insert(there, lines[here])
        elif "=" in lines[here]:
            key, _ = lines[here].split("=")
            lines[here] = f"{key}={rng.integers(-8, 9)}"
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unknown options")
def test_whatever_is_planned_can_be_built(folder, rng):
    """And has the shapes of the plan, and the outputs of the numpy Darknet."""
    built = 0
    for _ in range(120):
        text = _changed(rng)
        try:
            made = plan.make_plan(cfg.parse(text.encode()))
        except ValueError:
            continue
        weights = reference.random_weights(text)
        model = darknet.load(*written(text, weights, folder))
        image = image_for(text, rng)
        ours = array(model(image))[0]
        assert ours.shape == made.steps[-1].shape
        planes = image[0].transpose(2, 0, 1)
        theirs = reference.outputs(text, weights, planes)[-1]
        theirs = np.moveaxis(theirs, 0, -1) if theirs.ndim == 3 else theirs
        np.testing.assert_allclose(ours, theirs, 1e-3, 1e-5, err_msg=text)
        keras.utils.clear_session()
        built += 1
    assert built > 15


@pytest.mark.parametrize("sides", [(8, 4), (4, 8), (4, 4)])
def test_shortcut_adds_maps_of_other_sizes(sides, rng):
    here, there = sides
    y = rng.random((1, here, here, 5), dtype="float32")
    x = rng.random((1, there, there, 3), dtype="float32")
    scale = there // here if there >= here else -(here // there)
    ours = layers.Shortcut(scales=(scale,))([y, x])
    theirs = reference.LAYERS["shortcut"](
        {"from": "0"}, y[0].transpose(2, 0, 1), [x[0].transpose(2, 0, 1)], None
    )
    np.testing.assert_allclose(array(ours)[0], theirs.transpose(1, 2, 0), 1e-6)


def _factory_and_cfg(factory, folder):
    text = text_of(f"cfg/{CFGS[factory]}.cfg")
    paths = written(text, reference.random_weights(text), folder)
    network = keras_csp.get_factory(factory)(
        input_shape=(64, 64, 3), classifier_activation=None
    )
    return network, darknet.load(*paths), paths[1]


@pytest.mark.parametrize("factory", slow_unless(FAST_FACTORIES, CFGS))
def test_factory_equals_the_cfg(factory, folder, rng):
    """The same file in both: the same logits, and the same file again."""
    network, model, path = _factory_and_cfg(factory, folder)
    assert darknet.load_weights(network, path) == []
    image = rng.random((2, 64, 64, 3), dtype="float32")
    before_softmax = keras.Model(model.input, model.layers[-1].input)
    theirs = array(before_softmax(image))[:, 0, 0]
    assert_close(array(network(image)), theirs, 1e-5)

    for saved in (network, model):
        again = folder / "again.weights"
        darknet.save_weights(saved, again)
        assert again.read_bytes() == path.read_bytes()


def test_reloaded_model_writes_the_same_file(folder, rng):
    text = text_of("darknet/cfg/yolov4-tiny.cfg")
    paths = written(text, reference.random_weights(text), folder)
    model = darknet.load(*paths)
    model.save(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras")
    image = image_for(text, rng)
    assert again.heads[0].nms == model.heads[0].nms == "diou"
    for key, theirs in model(image).items():
        np.testing.assert_array_equal(array(again(image)[key]), array(theirs))
    darknet.save_weights(again, folder / "again.weights")
    assert (folder / "again.weights").read_bytes() == paths[1].read_bytes()


def test_open_sides(folder, rng):
    """A classifier takes any size that its cfg would have taken."""
    text = text_of("cfg/resnet10.cfg")
    paths = written(text, reference.random_weights(text), folder)
    any_size = darknet.load(*paths, input_shape=(None, None, 3))
    sized = darknet.load(*paths, input_shape=(96, 64, 3))
    image = rng.random((1, 96, 64, 3), dtype="float32")
    np.testing.assert_allclose(
        array(any_size(image)), array(sized(image)), 1e-5, 1e-6
    )


def test_a_detector_of_open_sides(folder, rng):
    text = text_of("darknet/cfg/yolov4-tiny.cfg")
    paths = written(text, reference.random_weights(text), folder)
    any_size = darknet.load(*paths, input_shape=(None, None, 3))
    sized = darknet.load(*paths, input_shape=(64, 96, 3))
    image = rng.random((1, 64, 96, 3), dtype="float32")
    ours, theirs = (m.predict(image, verbose=0) for m in (any_size, sized))
    assert ours["count"] > 0
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, 1e-4, 1e-3)
    with pytest.raises(ValueError, match=r"divide by 32.*\(1, 50, 64, 3\)"):
        any_size.predict(np.zeros((1, 50, 64, 3), "float32"))
    odd = folder / "odd.cfg"
    odd.write_text(reference.resized(HEADED.format(net="", yolo=""), 40, 64))
    with pytest.raises(ValueError, match=r"stride of each \[yolo\] divides"):
        darknet.load(odd, input_shape=(None, None, 3))
    # Of one size, sides that the strides do not divide are no trouble.
    (x,) = darknet.load(odd).output.values()
    assert x.shape[1:3] == (3, 4)


HEADED = """[net]
height=32
width=64
channels=3
{net}
[convolutional]
filters=14
size=3
stride=16
pad=1
activation=linear
[yolo]
anchors=10,12,20,30
mask=0,1
num=2
classes=2
{yolo}
"""


def headed(folder, net="", yolo=""):
    path = folder / "headed.cfg"
    path.write_text(HEADED.format(net=net, yolo=yolo))
    return path


def test_photographs_and_suppression_are_as_the_cfg_says(folder):
    model = darknet.load(headed(folder))
    spec, head = keras_csp.image_spec(model), model.heads[0]
    assert (spec.resize, spec.size) == ("stretch", (32, 64))
    assert (head.nms, head.iou_threshold) == ("iou", 0.45)
    path = headed(
        folder, "letter_box=1", "nms_kind=diounms\nbeta_nms=0.9\nthresh=.3"
    )
    model = darknet.load(path, class_names=["cat", "dog"])
    spec, head = keras_csp.image_spec(model), model.heads[0]
    assert (spec.resize, spec.class_names) == ("letterbox", ("cat", "dog"))
    assert (head.nms, head.nms_beta, head.score_threshold) == ("diou", 0.9, 0.3)
    for wrong, message in (
        ("nms_kind=soft", r"line 17.*one of default, .*nms_kind='soft'"),
        ("thresh=2", "from 0 to 1. Received: thresh=2"),
        ("scale_x_y=.5", r"at least 1. Received: scale_x_y=0\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            darknet.load(headed(folder, yolo=wrong))


def test_names_of_the_classes(folder):
    names = folder / "two.names"
    names.write_text("cat\r\ndog\r\n\r\n", "utf-8-sig")
    model = keras_csp.Detector.from_darknet(headed(folder), class_names=names)
    assert keras_csp.image_spec(model).class_names == ("cat", "dog")
    with pytest.raises(ValueError, match=r"\d classes. Received: 2 names"):
        path = folder / "classifier.cfg"
        path.write_text(SMALL)
        darknet.load(path, class_names=names)
    with pytest.raises(ValueError, match=r"Cannot read the names.*none\.names"):
        darknet.load(headed(folder), class_names=folder / "none.names")


def test_a_classifier_is_no_detector(folder):
    path = folder / "a.cfg"
    path.write_text(SMALL)
    with pytest.raises(ValueError, match=r"a\.cfg has no \[yolo\] section"):
        keras_csp.Detector.from_darknet(path)


def test_heads_of_other_numbers_of_classes_are_refused(folder):
    text = HEADED.format(net="", yolo="")
    more = text[text.index("[convolutional]") :]
    more = more.replace("classes=2", "classes=3").replace("rs=14", "rs=16")
    path = folder / "two.cfg"
    path.write_text(text + "[route]\nlayers=0\n" + more)
    with pytest.raises(ValueError, match=r"one number of classes.*=3, and 2"):
        darknet.load(path)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, None), (0, 64, 3), "a"])
def test_wrong_input_shape(shape, folder):
    path = folder / "a.cfg"
    path.write_text(SMALL)
    with pytest.raises(ValueError, match="`input_shape` must be"):
        darknet.load(path, input_shape=shape)


@pytest.mark.parametrize("name", TEXTS)
def test_plan_of_every_cfg(name):
    """At the published size, without a warning and in the file's weights."""
    sections = cfg.parse(TEXTS[name].encode(), name)
    # Their elastic blocks want sides that 64 divides, and [net] has 416.
    shape = (512, 512, 3) if "elastic-panet" in name else None
    if name in REFUSED:
        with pytest.raises(ValueError, match=r"line \d+.*share weights"):
            plan.make_plan(sections)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = plan.make_plan(sections, shape)
    for step in made.steps:
        assert step.shape[-1] > 0
    counts = {step.index: step.weights for step in made.steps if step.weights}
    assert counts == {
        index: np.prod(shape) + shape[0] * (4 if normalized else 1)
        for index, shape, normalized in _convolutions(TEXTS[name])
    }


def _convolutions(text):
    _, sections = reference.parsed(text)
    for index, shape in reference.convolution_shapes(text).items():
        normalized = sections[index][1].get("batch_normalize") == "1"
        yield index, shape, normalized
