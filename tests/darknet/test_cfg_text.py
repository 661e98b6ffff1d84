"""A cfg's text keeps every byte that is not changed."""

import pytest
from support import cfg_for_classes

from keras_csp.darknet import cfg, plan
from keras_csp.darknet.cfg_text import CfgText, number_text

TEXT = (
    "\ufeff# mine\r\n"
    "[net]  # sizes\r\n"
    "width = 32   # pixels\n"
    "\theight=\t32\r\n"
    "ch annels=3\n"
    "note=a=b\n"
    "\n"
    "; about\n"
    "[convolutional]\n"
    "filters=7\n"
    "fil ters = 7\n"
    "activation=linear\r\n"
    "\n"
    "[yolo]\n"
    "[avgpool]"
)


def changed(*puts):
    text = CfgText(TEXT)
    for section, key, value in puts:
        text.put(text.sections[section], key, value)
    return text.render()


def test_nothing_changed():
    assert changed() == TEXT


@pytest.mark.parametrize(
    ("put", "before", "after"),
    [
        ((0, "width", 64), "width = 32   # p", "width = 64   # p"),
        ((0, "height", 64), "\theight=\t32\r\n", "\theight=\t64\r\n"),
        ((0, "channels", 1), "ch annels=3", "ch annels=1"),
        ((0, "note", "c"), "note=a=b\n\n;", "note=c\n\n;"),
        ((0, "letter_box", 1), "note=a=b\n\n", "note=a=b\nletter_box=1\n\n"),
        ((1, "filters", 9), "rs=7\nfil ters = 7", "rs=9\nfil ters = 9"),
        ((1, "size", 1), "linear\r\n\n", "linear\r\nsize=1\r\n\n"),
        ((2, "classes", 3), "[yolo]\n[", "[yolo]\nclasses=3\n["),
        ((3, "x", 3), "[avgpool]", "[avgpool]\nx=3"),
    ],
)
def test_one_option(put, before, after):
    assert TEXT.count(before) == 1
    assert changed(put) == TEXT.replace(before, after)


def test_the_last_value_holds():
    puts = [(0, "width", 1), (0, "letter_box", 1), (0, "letter_box", 0)]
    text = changed(*puts, (0, "width", 2))
    (net, *_) = cfg.parse(text.encode())
    assert (net.integer("width", 0), net.integer("letter_box", 2)) == (2, 0)


def test_an_option_is_taken_out():
    text = CfgText(TEXT)
    text.remove(text.sections[1], "filters")
    text.remove(text.sections[1], "none")
    expected = TEXT.replace("filters=7\nfil ters = 7\n", "")
    assert text.render() == expected


@pytest.mark.parametrize("value", [10, 10.0, 0.1, 1 / 3, 1e-7, 12345678.9])
def test_numbers_come_back(value):
    text = changed((0, "note", number_text(value)))
    assert cfg.parse(text.encode())[0].number("note", 0) == value


# Two heads of one convolution's weights, seen through a [route].
SHARED = """[net]
height=16
width=16
channels=3
[convolutional]
filters=14
activation=linear
[route]
layers=-1
[yolo]
anchors=1,2,3,4
num=2
classes=2
counters_per_class=5,6
[route]
layers=0
[convolutional]
filters=3
activation=linear
[convolutional]
share_index=0
filters=14
activation=linear
[yolo]
anchors=1,2,3,4
mask=0,1
num=2
classes=2
"""


def test_another_number_of_classes():
    text = SHARED
    other = cfg_for_classes(text, 5)
    expected = text.replace("filters=14", "filters=20")
    expected = expected.replace("classes=2\n", "classes=5\n")
    assert other == expected.replace("counters_per_class=5,6\n", "")
    assert cfg_for_classes(text, 2) == text
    made = plan.make_plan(cfg.parse(other.encode()))
    assert {s.shape[2] for s in made.steps if s.kind == "yolo"} == {20}


@pytest.mark.parametrize(
    ("between", "words"),
    [("[dropout]\n", r"line 9, \[yolo\].*\[dropout\]"), (None, "the image")],
)
def test_a_head_without_a_convolution(between, words):
    net = "[net]\nheight=16\nwidth=16\nchannels=14\n"
    head = "[yolo]\nanchors=1,2,3,4\nnum=2\nclasses=2\n"
    text = net + head
    if between:
        convolution = "[convolutional]\nfilters=14\nactivation=linear\n"
        text = net + convolution + between + head
    with pytest.raises(ValueError, match=words):
        cfg_for_classes(text, 5)
