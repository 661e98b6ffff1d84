"""The parser of .cfg files: what it understands, and what it refuses."""

import re
import warnings

import darknet_reference as reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_csp.darknet import cfg, options, plan

NET = "[net]\nheight=32\nwidth=32\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
YOLO = "[yolo]\nnum=2\nmask=0,1\nanchors=1,2,3,4\nclasses=3\n"


def planned(text):
    return plan.make_plan(cfg.parse(text.encode(), "some.cfg"))


def test_sections_options_and_lines():
    net, conv = cfg.parse(
        b"\xef\xbb\xbf[net]\r\n# no\r\n;no\r\n\r\n"
        b" height = 3 2 # 64\r\n[conv]\tstride\t=2\n".replace(b"]\t", b"]\n")
    )
    assert (net.kind, net.line) == ("net", 1)
    assert net.options == {"height": cfg.Option("32", 5)}
    assert (conv.kind, conv.line) == ("conv", 6)
    assert conv.integer("stride", 1) == 2
    assert conv.integer("size", 7) == 7


def test_the_first_of_a_key_given_twice_holds():
    """option_find of src/option_list.c returns the first one it meets."""
    (section,) = cfg.parse(b"[net]\nheight=1\nheight=2\n")
    assert section.integer("height", 0) == 1


def test_lists_of_numbers():
    (section,) = cfg.parse(b"[a]\nlayers = -1, +61\nanchors=1.5, 2,.5\n")
    assert section.integers("layers") == (-1, 61)
    assert section.numbers("anchors") == (1.5, 2.0, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "some.cfg holds no section. A Darknet .cfg starts with [net]"),
        (b"\n# only\n", "some.cfg holds no section"),
        (b"height=3\n[net]\n", "some.cfg, line 1: text before the first"),
        (b"[net]\nheight\n", "some.cfg, line 2, [net]: an option is key=value"),
        (b"[net]\n=3\n", "line 2, [net]: an option is key=value"),
        (b"[net]\nheight=\n", "line 2, [net]: an option is key=value"),
        (b"[net\nheight=3\n", "line 1: a section is [name]. Received: '[net'"),
        (b"[]\n", "line 1: a section is [name]"),
        (b"[net] a=3\n", "line 1: a section is [name]"),
        (b"[net]\n\xff\xfe=3", "some.cfg is not UTF-8 text, so not a .cfg"),
        (b"[net]\n\n\0", "some.cfg, line 3: a NUL byte"),
        (b"PK\x03\x04\x9c", "some.cfg is not UTF-8 text"),
        (b"#" * (cfg.MAX_BYTES + 1), "some.cfg is longer than the"),
        (b"[a]\n" * (cfg.MAX_SECTIONS + 1), "more than 10000 sections"),
    ],
)
def test_text_that_is_no_cfg(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cfg.parse(text, "some.cfg")


@pytest.mark.parametrize(
    "value", ["x", "1.5", "1e400", "9" * 5000, "--1", "0x10", "1,2", "٣", "1_0"]
)
def test_bad_integers(value):
    text = f"{NET}[convolutional]\n\nfilters={value}\n"
    with pytest.raises(ValueError) as caught:
        planned(text)
    message = str(caught.value)
    assert message.startswith("some.cfg, line 7, [convolutional]: `filters`")
    assert len(message) < 250


@pytest.mark.parametrize("value", ["x", "nan", "inf", "1e400", "1,2", "1_0"])
def test_bad_numbers(value):
    text = f"{NET}{CONV}[upsample]\nscale={value}\n"
    with pytest.raises(ValueError, match=r"line 11, \[upsample\]: `scale` mus"):
        planned(text)


# What follows NET in a cfg, the line that the error names, and its words.
FAULTS = {
    "no layer": ("", 1, "[net]: no layer follows this section"),
    "unknown section": ("[what]\n", 5, "[what]: unknown or unsupported"),
    "old detector": ("[region]\n", 5, "[region]: unknown or unsupported"),
    "second net": (f"{CONV}[net]\n", 10, "[net]: a cfg starts with [net]"),
    "route nowhere": (f"{CONV}[route]\n", 10, "[route]: `layers` is missing"),
    "route to itself": (
        f"{CONV}[route]\nlayers=1\n",
        11,
        "[route]: `layers` must name layers before this one, which is layer 1",
    ),
    "route ahead": (f"{CONV}[route]\nlayers=7\n", 11, "Received: 7"),
    "route too far back": (f"{CONV}[route]\nlayers=-2\n", 11, "Received: -2"),
    "route of two sizes": (
        f"{CONV}{CONV}stride=2\n[route]\nlayers=0,1\n",
        17,
        "same height and width. Received: 32x32 (layer 0) and 16x16 (layer 1)",
    ),
    "route group": (
        f"{CONV}[route]\nlayers=0\ngroups=2\ngroup_id=2\n",
        13,
        "`group_id` must be below groups=2",
    ),
    "route groups": (
        f"{CONV}[route]\nlayers=0\ngroups=3\n",
        12,
        "`groups` must divide the 8 channels. Received: groups=3",
    ),
    "shortcut nowhere": (f"{CONV}[shortcut]\n", 10, "`from` is missing"),
    "shortcut ahead": (f"{CONV}[shortcut]\nfrom=1\n", 11, "Received: 1"),
    "shortcut of odd sizes": (
        f"{CONV}{CONV}[maxpool]\nsize=2\npadding=0\n[shortcut]\nfrom=0\n",
        19,
        "must be a multiple of the other's. Received: 31x31 and 32x32",
    ),
    "sam of two widths": (
        f"{CONV}[convolutional]\nfilters=4\n[sam]\nfrom=0\n",
        13,
        "[sam]: layer 0 must have the shape of the layer before",
    ),
    "sam of two": (f"{CONV}{CONV}[sam]\nfrom=0,0\n", 16, "must name one layer"),
    "scale_channels of maps": (
        f"{CONV}{CONV}[scale_channels]\nfrom=0\n",
        15,
        "[scale_channels]: the layer before must be 1x1",
    ),
    "shared with another kernel": (
        f"{CONV}{CONV}share_index=0\n",
        15,
        "layer 0 must be a [convolutional] with the options and the input",
    ),
    "shared with no convolution": (
        f"{CONV}[dropout]\n{CONV}share_index=-1\n",
        16,
        "layer 1 must be a [convolutional]",
    ),
    "shared ahead": (f"{CONV}share_index=0\n", 10, "before this one"),
    "misspelt filters": ("[convolutional]\nfliters=9\n", 5, "is missing"),
    "no filters": ("[convolutional]\nfilters=0\n", 6, "at least 1. Received"),
    "negative size": ("[convolutional]\nsize=-3\n", 6, "`size` must be an int"),
    "no stride": ("[convolutional]\nstride=0\n", 6, "`stride` must be an int"),
    "groups of input": (
        "[convolutional]\nfilters=8\ngroups=2\n",
        7,
        "`groups` must divide the 3 input channels. Received: groups=2",
    ),
    "groups of output": (
        "[convolutional]\nfilters=8\ngroups=3\n",
        7,
        "`groups` must divide the 8 filters",
    ),
    "activation": (
        "[convolutional]\nfilters=1\nactivation=plse\n",
        7,
        "activation. Supported: leaky, linear, logistic, mish, relu, relu6",
    ),
    "nothing left": (
        "[convolutional]\nfilters=1\nsize=33\n",
        5,
        "a map of side 32 is too small for size=33",
    ),
    "pooled to nothing": (
        f"{CONV}[maxpool]\nsize=40\npadding=0\n",
        10,
        "a map of side 32 is too small for size=40",
    ),
    "pooling beside": (
        f"{CONV}[maxpool]\nsize=2\npadding=3\n",
        12,
        "`padding` must be at most 2 for size=2",
    ),
    "maxout": (
        f"{CONV}[maxpool]\nmaxpool_depth=1\nout_channels=3\n",
        12,
        "`out_channels` must divide the 8 channels",
    ),
    "huge stride": (f"{CONV}[upsample]\nstride=99999\n", 11, "side of 3199968"),
    "probability": (f"{CONV}[dropout]\nprobability=1\n", 11, "below 1"),
    "softmax of a map": (f"{CONV}[softmax]\n", 10, "1x1 map is supported"),
    "softmax groups": (
        f"{CONV}[avgpool]\n[softmax]\ngroups=3\n",
        12,
        "`groups` must divide",
    ),
    "temperature": (
        f"{CONV}[avgpool]\n[softmax]\ntemperature=0\n",
        12,
        "`temperature` must be positive",
    ),
    "after softmax": (
        f"{CONV}[avgpool]\n[softmax]\n{CONV}",
        12,
        "layer 2, a [softmax], is not a map",
    ),
    "yolo filters": (f"{CONV}{YOLO}", 10, "need 16 filters in the convolution"),
    "yolo anchors": (
        f"{CONV}[yolo]\nanchors=1,2,3\nnum=2\n",
        11,
        "`anchors` must be num=2 pairs of width and height. Received: 3",
    ),
    "yolo mask": (
        f"{CONV}[yolo]\nanchors=1,2,3,4\nmask=2\nnum=2\n",
        12,
        "`mask` must hold numbers from 0 to num - 1 = 1",
    ),
    "yolo zero anchors": (
        f"{CONV}[yolo]\nanchors=0,2\n",
        11,
        "`anchors` must be positive",
    ),
    "unused": (
        f"{CONV.replace('8', '16')}{YOLO}{CONV.replace('8', '4')}",
        15,
        "is not a map",
    ),
    "unused branch": (
        f"{CONV}[route]\nlayers=0\n{CONV}[route]\nlayers=0\n",
        12,
        "no output of the network depends on layer 2",
    ),
    "weights": (
        "[convolutional]\nfilters=99999999\nsize=1001\npad=1\n",
        5,
        "weights. At most 1,073,741,824 are allowed",
    ),
    "activations": (
        "[upsample]\nstride=2000\n[convolutional]\nfilters=9\n",
        7,
        "of one image are",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name):
    text, line, words = FAULTS[name]
    with pytest.raises(ValueError) as caught:
        planned(NET + text)
    assert str(caught.value).startswith(f"some.cfg, line {line}, [")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("net", "line", "words"),
    [
        ("[convolutional]\n", 1, "a cfg starts with [net] or [network]"),
        ("[net]\nwidth=3\nchannels=3\n[avg]", 1, "`height` is missing"),
        ("[net]\nheight=0\n[avg]", 2, "`height` must be an integer of at"),
        (
            "[net]\nheight=999999999\nwidth=1\nchannels=1\n[avg]",
            2,
            "most 65536",
        ),
    ],
)
def test_faults_of_net(net, line, words):
    with pytest.raises(ValueError) as caught:
        planned(net)
    assert str(caught.value).startswith(f"some.cfg, line {line}, [")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *(("convolutional", f"{key}=1") for key in options._VARIANTS),
        ("convolutional", "dilation=2"),
        ("convolutional", "dontload=1"),
        ("maxpool", "antialiasing=1"),
        ("maxpool", "stride_y=3"),
        ("shortcut", "weights_type=per_channel"),
        ("scale_channels", "scale_wh=1"),
        ("softmax", "tree=a.tree"),
    ],
)
def test_options_that_change_what_is_computed(kind, option):
    key = option.split("=")[0]
    text = f"{NET}{CONV}[{kind}]\n{option}\nfrom=-1\n"
    with pytest.raises(ValueError, match=rf"line 11, \[{kind}\]: `{key}` must"):
        planned(text)


def test_options_that_are_off_are_fine():
    off = "xnor=0\ndilation=1\nstride_x=1\nstride_y=1\nantialiasing=0\n"
    shortcut = "[shortcut]\nfrom=-2\nweights_type=none\nactivation=leaky\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = planned(
            f"{NET}burn_in=3\n{CONV}{off}{CONV}dont_update=1\n{shortcut}"
        )
    assert made.steps[-1].shape == (32, 32, 8)


def test_unknown_options_are_named_once():
    text = f"{NET}heigth=3\n{CONV}{CONV}paddding=2\n"
    with pytest.warns(UserWarning) as caught:
        planned(text)
    (warning,) = caught
    assert str(warning.message) == (
        "some.cfg: unknown options are ignored: heigth (line 5), "
        "paddding (line 16)"
    )


def test_aliases_of_sections():
    text = NET.replace("net", "network") + (
        "[conv]\nfilters=8\n[max]\nstride=2\n[local_avg]\nstride=2\n"
        "[avg]\n[soft]\n"
    )
    kinds = [step.kind for step in planned(text).steps]
    assert kinds == [
        "convolutional",
        "maxpool",
        "local_avgpool",
        "avgpool",
        "softmax",
    ]


def test_shapes_weights_and_references():
    made = planned(
        f"{NET}{CONV}stride=2\nbatch_normalize=1\n{CONV}groups=4\n"
        "[route]\nlayers=-1,0\n[maxpool]\nstride=2\nsize=3\n"
    )
    assert [step.shape for step in made.steps] == [
        (16, 16, 8),
        (16, 16, 8),
        (16, 16, 16),
        (8, 8, 16),
    ]
    assert [step.weights for step in made.steps] == [
        4 * 8 + 8 * 27,
        8 + 8 * 2 * 9,
        0,
        0,
    ]
    assert made.steps[2].inputs == (1, 0)
    assert made.outputs == (3,)


def test_outputs_of_a_detector():
    head = CONV.replace("8", "16")
    made = planned(f"{NET}{head}{YOLO}[route]\nlayers=-2\n{head}{YOLO}")
    assert made.is_detector
    assert made.outputs == (1, 4)
    assert made.steps[1].shape == (32, 32, 16)
    assert made.steps[1].arguments["stride"] == (1, 1)
    assert made.steps[1].arguments["anchors"] == ((1, 2), (3, 4))


def answered(data):
    """The plan or a ValueError that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            plan.make_plan(cfg.parse(data, "some.cfg"))
        except ValueError as error:
            assert "some.cfg" in str(error)
            assert len(str(error)) < 1000


FUZZ = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes(data):
    answered(data)


KEYS = sorted(set(" ".join(options.USED.values()).split()))
VALUES = st.integers(-3, 9) | st.sampled_from(
    ["leaky", "linear", "", "1.5", "9" * 30, "x", "#", "0,0"]
)
LINES = (
    st.sampled_from(sorted(options.USED)).map("[{}]".format)
    | st.builds("{}={}".format, st.sampled_from(KEYS), VALUES)
    | st.builds(
        "{}={},{}".format, st.sampled_from(["layers", "from"]), VALUES, VALUES
    )
    | st.text(max_size=4)
)


@FUZZ
@given(st.lists(LINES, max_size=40))
def test_any_lines(lines):
    answered((NET + "\n".join(lines)).encode("utf-8", "surrogatepass"))


TEXTS = reference.author_cfgs()
MUTATED = [
    TEXTS[f"cfg/{name}.cfg"].splitlines()
    for name in ("csmobilenet-v2", "resnet10", "enetb0", "csresnet50-elastic")
] + [TEXTS["darknet/cfg/yolov4-tiny.cfg"].splitlines()]


@st.composite
def mutated(draw):
    """A real cfg with up to five lines deleted, doubled, swapped, changed."""
    lines = list(draw(st.sampled_from(MUTATED)))
    for _ in range(draw(st.integers(1, 5))):
        here = draw(st.integers(0, len(lines) - 1))
        there = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["delete", "double", "swap", "change"]))
        if kind == "delete" and len(lines) > 1:
            del lines[here]
        elif kind == "double":
            lines.insert(there, lines[here])
        elif kind == "swap":
            lines[here], lines[there] = lines[there], lines[here]
        else:
            number = draw(st.integers() | st.floats() | st.text(max_size=4))
            key = lines[here].split("=")[0]
            lines[here] = f"{key}={number}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@FUZZ
@given(mutated())
def test_mutated_cfgs(data):
    answered(data)


def test_fuzz_finds_what_raises(monkeypatch):
    """The fuzz can fail: another exception in a planner gets out."""

    def broken(section, builder):
        return (builder.index - 1,), (1 / section.integer("size", 1),), {}, 0

    monkeypatch.setitem(plan._PLANNERS, "maxpool", broken)
    with pytest.raises((ZeroDivisionError, AssertionError)):
        test_mutated_cfgs()
        answered(f"{NET}[maxpool]\nsize=0\n".encode())
