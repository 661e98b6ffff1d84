"""The checks of a device find one that computes wrongly."""

import keras
import pytest
from gpu_parts import checks

import keras_csp


@pytest.mark.parametrize(
    "name", ["grouped convolution", "batch normalization", "forward SmallCS3"]
)
def test_a_wrong_device_fails_the_check(name, monkeypatch):
    """One whose products, sums or convolutions are a thousandth off."""
    check = checks.Check(name, jit=False)
    assert checks.run(check)["result"] == "ok"
    layer, method = {
        "grouped convolution": (checks.GroupedConv2D, "convolution_op"),
        "batch normalization": (checks.BatchNormalization, "_normalize"),
    }.get(name, (keras.layers.Conv2D, "convolution_op"))
    right = getattr(layer, method)

    def wrong(*args, **kwargs):
        found = right(*args, **kwargs)
        if method == "_normalize":  # and mean and variance
            return 1.001 * found[0], *found[1:]
        return 1.001 * found

    monkeypatch.setattr(layer, method, wrong)
    assert checks.run(check)["result"] == "failed"


def test_the_checks_ask_for_every_network_in_both_precisions():
    for backend, usual in (("jax", True), ("torch", False)):
        plan = checks.plan(backend)
        assert len(set(plan)) == len(plan)
        for precision in ("float32", "bfloat16"):
            for name in keras_csp.list_models():
                check = checks.Check(f"forward {name}", precision, usual)
                assert check in plan
        assert {check.jit for check in plan} == {True, False}
