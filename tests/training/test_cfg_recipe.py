"""The training that a Darknet cfg asks for."""

import json

import pytest

from keras_csp.training import get_recipe
from keras_csp.training.recipes import from_config

# [net] and the last [yolo] of published cfgs, as facts.
YOLOV4 = (
    "batch=64 subdivisions=8 width=608 height=608 channels=3 momentum=0.949 "
    "decay=0.0005 angle=0 saturation=1.5 exposure=1.5 hue=.1 "
    "learning_rate=0.0013 burn_in=1000 max_batches=500500 policy=steps "
    "steps=400000,450000 scales=.1,.1 mosaic=1",
    "jitter=.3 random=1 ignore_thresh=.7 truth_thresh=1 scale_x_y=1.05 "
    "iou_thresh=0.213 iou_normalizer=0.07 iou_loss=ciou max_delta=5",
)
YOLOV7_TINY = (
    "batch=64 subdivisions=1 width=416 height=416 channels=3 momentum=0.9 "
    "decay=0.0005 saturation=1.5 exposure=1.5 hue=.1 learning_rate=0.00261 "
    "burn_in=1000 max_batches=2000200 policy=steps steps=1600000,1800000 "
    "scales=.1,.1",
    "jitter=.1 resize=1.5 objectness_smooth=1",
)
FACE = (
    "batch=16 width=320 height=256 channels=1 max_batches=1000 "
    "learning_rate=0.1 ema_alpha=0.9998 flip=0 policy=steps "
    "steps=100,400,2000 scales=10,.5,.1",
    "jitter=0",
)


def written(folder, net, head):
    path = folder / "mine.cfg"
    sections = ["[net]", *net.split(), "[convolutional]", "filters=24"]
    sections += ["[yolo]", "classes=3", "jitter=.45", "random=0"]
    sections += ["[yolo]", *head.split()]
    path.write_text("\n".join(sections) + "\n")
    return path


def test_yolov4(tmp_path, caplog):
    recipe = get_recipe(written(tmp_path, *YOLOV4), kind="detection")
    assert (recipe.batch_size, recipe.accumulation) == (8, 8)
    assert (recipe.optimizer, recipe.momentum) == ("sgd", 0.949)
    assert recipe.weight_decay == 0.0005
    assert (recipe.steps, recipe.warmup) == (500500, 1000)
    assert recipe.size == 608
    # round(608 / 1.4 / 32 + 1) and round(608 * 1.4 / 32 + 1) strides.
    assert recipe.sizes == tuple(range(480, 897, 32))
    assert all(side % 32 == 0 for side in recipe.sizes)
    assert recipe.augmentation["mosaic"] == 0.5
    assert recipe.augmentation["jitter"] == 0.3
    assert recipe.augmentation["brightness"] == 1.5
    assert recipe.make_loss().options == {}  # each head has its own
    assert "max_delta=5 (line" in caplog.text
    recipe.check()


def test_the_learning_rate_of_yolov4(tmp_path):
    """By mini-batch: eight make one of Darknet's steps."""
    schedule = get_recipe(written(tmp_path, *YOLOV4)).make_schedule()
    for step, expected in (
        (0, 0),
        (500, 0.0013 * 0.5**4),
        (1000, 0.0013),
        (399_000, 0.0013),
        (401_000, 0.00013),
        (460_000, 0.000013),
    ):
        assert float(schedule(8 * step)) == pytest.approx(expected, rel=1e-4)


def test_yolov7_tiny(tmp_path, caplog):
    recipe = get_recipe(written(tmp_path, *YOLOV7_TINY))
    assert (recipe.size, recipe.sizes) == (416, (416,))
    assert recipe.augmentation["mosaic"] == 0
    assert "not done in training: resize=1.5 (line" in caplog.text
    assert recipe.drops == pytest.approx((0.79992, 0.89991), abs=1e-5)


def test_not_square_and_other_factors(tmp_path, caplog):
    recipe = get_recipe(written(tmp_path, *FACE))
    assert (recipe.size, recipe.sizes) == ((256, 320), ((256, 320),))
    assert recipe.augmentation["flip"] == 0
    assert recipe.ema == 0.9998
    assert caplog.text == ""
    schedule = recipe.make_schedule()
    rates = [float(schedule(step)) for step in (50, 200, 900)]
    assert rates == pytest.approx([0.1, 1.0, 0.5])
    again = from_config(json.loads(json.dumps(recipe.get_config())))
    assert again == recipe
    assert recipe.at_size((512, 640)).sizes == ((512, 640),)


@pytest.mark.parametrize("policy", ["constant", "poly", "sgdr"])
def test_policies(policy, tmp_path):
    net = f"batch=1 width=64 height=64 max_batches=100 policy={policy}"
    schedule = get_recipe(written(tmp_path, net, "")).make_schedule()
    expected = {"constant": 0.001, "poly": 0.001 / 16, "sgdr": 0.0005}[policy]
    assert float(schedule(50)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("policy=exp", "`policy` must be one of constant, steps, poly, sgdr"),
        ("policy=poly power=1", "policy=poly must have power=4"),
        ("policy=steps steps=1,2 scales=.1", "1 for 2 steps"),
        ("learning_rate=-1", "`learning_rate` must be positive"),
        ("subdivisions=0", "`subdivisions` must be an integer of at least 1"),
        ("width=100", "multiples of 32"),
    ],
)
def test_bad_values(net, message, tmp_path):
    defaults = "width=64 height=64 max_batches=100"
    with pytest.raises(ValueError, match=message):
        get_recipe(written(tmp_path, f"{net} {defaults}", ""))


def test_no_steps_and_no_head(tmp_path):
    path = written(tmp_path, "width=64 height=64", "")
    with pytest.raises(ValueError, match="`max_batches` is missing"):
        get_recipe(path)
    path.write_text("[net]\nmax_batches=5\n[convolutional]\nfilters=1\n")
    with pytest.raises(ValueError, match=r"has no \[yolo\] section"):
        get_recipe(path)
