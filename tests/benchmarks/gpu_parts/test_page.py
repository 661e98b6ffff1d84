"""The page of results."""

import numpy as np
from gpu_parts import page
from gpu_parts.rows import FOLDER, Tables
from PIL import Image

import keras_csp


def filled(folder):
    tables = Tables(folder)
    check = {"device": "D", "backend": "jax", "precision": "float32"}
    tables.add("checks", {**check, "check": "forward A", "result": "ok"})
    failed = {"result": "failed", "difference": 0.5, "tolerance": 0.25}
    tables.add("checks", {**check, "check": "step A", **failed})
    speed = {
        "device": "D",
        "quantity": "training",
        "batch": 2,
        "size": 32,
        "precision": "bfloat16",
        "steps": 10,
    }
    for engine, network, rate in (
        ("keras_csp, JAX", "PeleeNet", 100),
        ("keras_csp, JAX", "CSPPeleeNet", 125),
        ("timm, eager", "CSPPeleeNet", 50),
    ):
        rates = {"images_per_second": rate, "fastest": rate, "slowest": rate}
        row = {**speed, "engine": engine, "network": network, **rates}
        tables.add("speed", row)
    failed = {"network": "PeleeNet", "detail": "out of memory"}
    tables.add("speed", {**speed, "engine": "timm, compiled", **failed})
    rate = {"device": "D", "engine": "keras_csp, JAX", "rate": 800}
    tables.add("rates", rate)
    for network, seed, accuracy in (
        ("PeleeNet", 0, 0.75),
        ("CSPPeleeNet", 0, 0.5),
        ("CSPPeleeNet", 1, 0.6),
        ("CSPResNet10_reduced2", 0, 0.5),  # its base is not there yet
    ):
        cell = {"network": network, "seed": seed}
        trained = {
            "accuracy": accuracy,
            "params": 2_000_000,
            "bflops": 0.08,
            "device": "D",
            "seconds": 60 + 60 * seed,
            "backend": "jax",
            "recipe": "recipe R",
        }
        tables.add("ablation", {**cell, **trained})
        for epoch in (5, 10):
            tested = {"epoch": epoch, "test_accuracy": accuracy * epoch / 10}
            tables.add("ablation_epochs", {**cell, **tested})
    return tables


def test_the_page_compares_and_names_what_failed(tmp_path, monkeypatch):
    counts = {("PeleeNet", 32): 4.0, ("CSPPeleeNet", 32): 3.0}
    monkeypatch.setattr(page, "_bflops", lambda networks: counts)
    page.write(tmp_path, filled(tmp_path))
    text = (tmp_path / "README.md").read_text()
    lines = text.splitlines()
    assert "| D | jax | float32 | 1 | 1 | 0 |" in lines
    assert any("step A" in line and "0.25" in line for line in lines)
    (ours,) = [
        line
        for line in lines
        if line.startswith("| CSPPeleeNet | training | 2 | keras_csp, JAX")
    ]
    # By timm, eager; 125 images of 3 x 3 BFLOPs, by 800 TFLOP/s.
    assert "| 125 | 0 % | 2.50 |  | 0.1 % |" in ours
    (pair,) = [x for x in lines if x.startswith("| CSPPeleeNet / PeleeNet")]
    assert pair.endswith("| -20.0 % | -25.0 % |")
    assert (
        "| timm, compiled | PeleeNet | training | 2 | out of memory |" in text
    )
    assert "4 of 28 cells" in text
    assert "A cell took 1.2 minutes on D" in text  # 60, 60, 120 and 60 s
    assert "24 like it would take 0.5 hours" in text
    (csp,) = [x for x in lines if x.startswith("| CSPPeleeNet, gamma 0.5 |")]
    assert "| 55.00 | 7.07 | -20.00 |" in csp
    (alone,) = [x for x in lines if x.startswith("| CSPResNet-10, 1/2 width")]
    assert alone.endswith("| 50.00 |  |  |  |")
    for name in (page.SPEED, page.ABLATION, page.CURVES):
        with Image.open(tmp_path / name) as image:
            assert np.asarray(image.convert("L")).std() > 1


def test_a_page_of_nothing_says_so(tmp_path):
    page.write(tmp_path / "new", Tables(tmp_path / "new"))
    text = (tmp_path / "new" / "README.md").read_text()
    assert "No device has been checked yet." in text
    assert "No device has been timed yet." in text
    assert "0 of 28 cells" in text


def test_the_committed_page_is_made_from_the_committed_rows(tmp_path):
    page.write(tmp_path, Tables(FOLDER))
    expected = (FOLDER / "README.md").read_text()
    assert (tmp_path / "README.md").read_text() == expected


def test_operations_of_a_network_are_counted():
    (key,) = wanted = {("ResNet-10", 32)}
    network = keras_csp.ResNet10(input_shape=(32, 32, 3))
    counted = keras_csp.count(network, "darknet-original")
    assert page._bflops(wanted) == {key: counted.bflops}
