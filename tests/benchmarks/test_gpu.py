"""benchmarks/gpu.py: its bookkeeping, its references, and the whole script."""

import concurrent.futures
import csv
import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile

import ablation_study as networks
import keras
import numpy as np
import pytest
from gpu_parts import (
    ablation,
    carry,
    checks,
    cifar,
    driver,
    jobs,
    page,
    references,
)
from gpu_parts.rows import COLUMNS, Tables
from PIL import Image
from support import TESTS

import keras_csp

ROOT = TESTS.parent
SCRIPT = ROOT / "benchmarks" / "gpu.py"
MACHINE_HAS = {"numpy", "ml-dtypes"}  # JAX requires them


# --- the images ---------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten classes, two pictures each for training and one for testing."""
    root = tmp_path_factory.mktemp("pictures") / "cifar"
    rng = np.random.default_rng(0)
    for split, number in (("train", 2), ("test", 1)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 256, (32, 32, 3), "uint8")
                Image.fromarray(pixels).save(folder / f"{index:04}.jpg")
    return root


def test_a_folder_and_an_archive_give_the_same_images(pictures, tmp_path):
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(pictures, "deep/cifar")
    found = cifar.read(pictures)
    packed = cifar.read(archive)
    assert found["train"].labels.tolist() == sorted([*range(10)] * 2)
    assert found["test"].labels.tolist() == list(range(10))
    with Image.open(pictures / "train" / "class3" / "0001.jpg") as image:
        np.testing.assert_array_equal(found["train"].images[7], image)
    for split in cifar.SPLITS:
        for ours, theirs in zip(found[split], packed[split]):
            np.testing.assert_array_equal(ours, theirs)


def test_what_is_not_cifar_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"folder or a \.tar.*nothing"):
        cifar.read(tmp_path / "nothing")
    shutil.copytree(pictures, tmp_path / "nine")
    shutil.rmtree(tmp_path / "nine" / "test" / "class4")
    with pytest.raises(ValueError, match=r"10 class folders in `test`.*9"):
        cifar.read(tmp_path / "nine")


# --- the tables ---------------------------------------------------------


def test_a_row_is_in_its_file_at_once_and_replaces_its_like(tmp_path):
    tables = Tables(tmp_path)
    row = {"network": "PeleeNet", "seed": 1, "accuracy": 0.5}
    tables.add("ablation", row)
    tables.add("ablation", {**row, "seed": 2})
    tables.add("ablation", {**row, "accuracy": 0.75})
    with (tmp_path / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["seed"], r["accuracy"]) for r in rows] == [
        ("2", "0.5"),
        ("1", "0.75"),
    ]
    again = Tables(tmp_path)
    assert again.has("ablation", network="PeleeNet", seed=2)
    assert not again.has("ablation", network="PeleeNet", seed=3)


def test_rows_of_another_folder_are_taken_over(tmp_path):
    known, output = tmp_path / "known", tmp_path / "output"
    Tables(known).add("ablation", {"network": "PeleeNet", "seed": 0})
    tables = Tables(output, known)
    assert tables.has("ablation", network="PeleeNet")
    tables.add("ablation", {"network": "CSPPeleeNet", "seed": 0})
    assert len(Tables(output).rows("ablation")) == 2
    assert len(Tables(known).rows("ablation")) == 1


def test_committed_rows_have_the_columns():
    for name, columns in COLUMNS.items():
        path = ROOT / "benchmarks" / "results" / "gpu" / f"{name}.csv"
        if path.is_file():
            with path.open() as file:
                assert tuple(next(csv.reader(file))) == columns


# --- the references -----------------------------------------------------


@pytest.mark.parametrize("groups, stride, padding", [(1, 1, 1), (4, 2, 0)])
def test_the_convolution_and_its_gradient(groups, stride, padding, rng):
    """Against Keras' convolution, group by group, and finite differences."""
    x = rng.normal(size=(2, 7, 7, 8))
    kernel = rng.normal(size=(3, 3, 8 // groups, 12))
    sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]

    def convolved(x, kernel):
        parts = zip(
            np.split(np.pad(x, sides), groups, -1), np.split(kernel, groups, -1)
        )
        return np.concatenate(
            [keras.ops.conv(a, b, stride, "valid") for a, b in parts], -1
        )

    expected = convolved(x, kernel)
    upstream = rng.normal(size=expected.shape)
    y, d_x, d_kernel = references.grouped_convolution(
        x, kernel, upstream, groups, stride, padding
    )
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for value, gradient, place in ((x, d_x, 0), (kernel, d_kernel, 1)):
        direction = rng.normal(size=value.shape)
        ends = []
        for sign in (1, -1):
            arguments = [x, kernel]
            arguments[place] = value + sign * 1e-2 * direction
            ends.append(np.sum(upstream * convolved(*arguments)))
        slope = (ends[0] - ends[1]) / 2e-2
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-3)


def test_the_normalisation_and_its_gradient(rng):
    x, upstream = rng.normal(2, 3, (2, 4, 4, 3, 3)).reshape(2, 4, 4, 3, 3)[0:2]
    x, upstream = x.reshape(4, 4, 3, 3), upstream.reshape(4, 4, 3, 3)
    gamma, beta = rng.uniform(1, 2, 3), rng.normal(size=3)

    def total(x, gamma, beta):
        centred = x - x.mean((0, 1, 2))
        normal = centred / np.sqrt((centred**2).mean((0, 1, 2)) + 1e-3)
        return np.sum(upstream * (gamma * normal + beta))

    values = [x, gamma, beta]
    y, *gradients = references.batch_normalization(*values, upstream, 1e-3)
    assert np.sum(upstream * y) == pytest.approx(total(*values))
    for place, gradient in enumerate(gradients):
        direction = rng.normal(size=values[place].shape)
        ends = []
        for sign in (1, -1):
            moved = list(values)
            moved[place] = values[place] + sign * 1e-5 * direction
            ends.append(total(*moved))
        slope = (ends[0] - ends[1]) / 2e-5
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-5)


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


# --- the ablation -------------------------------------------------------


def test_every_network_of_the_ablation_is_in_the_order_once():
    order = ablation.order(2)
    assert len(set(order)) == len(order)
    assert set(order) == {(n, s) for n in networks.entries() for s in (0, 1)}
    first = [name for name, _seed in order[:8]]
    assert first == [*ablation.TIERS[0], *ablation.TIERS[0]]
    assert all("ResNeXt" in name for name, _seed in order[-4:])
    assert ablation.order(1, ["PeleeNet"]) == [("PeleeNet", 0)]
    with pytest.raises(ValueError, match="PeleeNett"):
        ablation.order(1, ["PeleeNett"])


def layer_of(images, size, shift=0):
    return ablation.ImagesOnDevice(images, size, shift)


def test_images_are_enlarged_as_keras_does(rng):
    images = rng.integers(0, 256, (5, 8, 8, 3), "uint8")
    found = layer_of(images, 20, shift=3)(np.array([4, 1, 1]))
    given = images[[4, 1, 1]].astype("float32") / 255
    expected = keras.ops.image.resize(given, (20, 20), "bilinear")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_training_image_is_shifted_and_mirrored(rng):
    """Each is one of all shifts and mirrorings, and every kind occurs."""
    image = rng.integers(0, 256, (8, 8, 3), "uint8")
    numbers = np.zeros(64, "int32")
    found = np.asarray(layer_of(image[None], 8, 1)(numbers, training=True))
    padded = np.pad(image / 255.0, [(1, 1), (1, 1), (0, 0)], mode="edge")
    seen = set()
    for one in found:
        kinds = [
            (top, left, mirrored)
            for top in range(3)
            for left in range(3)
            for mirrored in (False, True)
            if np.allclose(
                one[:, ::-1] if mirrored else one,
                padded[top : top + 8, left : left + 8],
                atol=1e-6,
            )
        ]
        assert len(kinds) == 1
        seen.add(kinds[0])
    assert len(seen) > 9
    assert {kind[2] for kind in seen} == {False, True}


def test_the_images_are_not_saved_with_a_training(rng, tmp_path):
    images = rng.integers(0, 256, (50, 32, 32, 3), "uint8")
    numbers = keras.Input((), dtype="int32")
    model = keras.Model(numbers, layer_of(images, 32)(numbers))
    model.save_weights(tmp_path / "model.weights.h5")
    assert (tmp_path / "model.weights.h5").stat().st_size < images.size / 2


@pytest.mark.slow
def test_a_stopped_cell_goes_on_as_if_it_had_not_been(pictures, tmp_path):
    data = cifar.read(pictures)
    plan = ablation.Plan(epochs=3, size=32, batch_size=8, test_batch=5)
    rows = {}
    for name, stops in (("whole", ()), ("stopped", (0, 0))):
        reported = rows[name] = []
        for until in (*stops, float("inf")):
            cell = ablation.Cell(
                "CSPResNet10_reduced2", 3, data, plan, tmp_path / name, False
            )
            row = cell.run(until, reported.append)
            assert (row is None) == (until == 0)
        reported.append(row)
        assert not list((tmp_path / name).rglob("*.h5"))
    whole, stopped = rows["whole"], rows["stopped"]
    assert [row.get("epoch") for row in stopped] == [1, 2, 3, None]
    for ours, theirs in zip(whole, stopped):
        assert float(ours["loss"]) == pytest.approx(
            float(theirs["loss"]), rel=1e-4
        )


# --- the driver ---------------------------------------------------------


def question(name):
    return {"name": name, "precision": "float32", "jit": True}


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Runs the driver with workers that compute nothing; their log."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setattr(
        driver, "COMMAND", (sys.executable, str(TESTS / "gpu_fakes.py"))
    )
    monkeypatch.setenv("GPU_FAKES_LOG", str(log))

    def asked(*names):
        tasks = json.dumps([question(name) for name in names])
        monkeypatch.setenv("GPU_FAKES_CHECKS", tasks)

    asked()
    fakes_ = dataclasses.make_dataclass("Fakes", ["asked", "lines", "runner"])
    runner = driver.Runner(
        Tables(tmp_path / "rows"), tmp_path / "work", say=lambda line: None
    )
    return fakes_(asked, lambda: log.read_text().splitlines(), runner)


def results(fakes):
    rows = fakes.runner.tables.rows("checks")
    return {row["check"]: row["result"] for row in rows}


def test_a_crash_is_a_row_and_the_rest_is_checked(fakes):
    fakes.asked("ok 1", "crashes 2", "ok 3", "failed 4")
    fakes.runner.checks("jax", 60, 1)
    assert results(fakes) == {
        "ok 1": "ok",
        "crashes 2": "error",
        "ok 3": "ok",
        "failed 4": "failed",
    }
    (row,) = [
        row
        for row in fakes.runner.tables.rows("checks")
        if row["result"] == "error"
    ]
    assert row["detail"] == "the process ended with 3: out of ideas"


def test_only_what_was_not_passed_is_checked_again(fakes):
    fakes.asked("ok 1", "failed 2")
    fakes.runner.checks("jax", 60, 2)
    fakes.runner.checks("jax", 60, 2)
    assert sorted(fakes.lines()) == ["failed 2", "failed 2", "ok 1"]
    fakes.runner.checks("torch", 60, 1)  # another backend, another row
    assert fakes.lines().count("ok 1") == 2


def test_a_part_ends_at_its_limit_and_keeps_its_rows(fakes, monkeypatch):
    """The limit comes when the second check hangs, however long that takes."""
    made = []

    class Watched(driver.Deadline):
        def __enter__(self):
            made.append(self)
            return super().__enter__()

    monkeypatch.setattr(driver, "Deadline", Watched)
    fakes.asked("ok 1", "hangs 2", "ok 3")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(fakes.runner.checks, "jax", 3600, 1)
        while "hangs 2" not in fakes.lines():
            time.sleep(0.05)
        made[0].ring()
        running.result()
    assert results(fakes) == {"ok 1": "ok"}
    assert "ok 3" not in fakes.lines()


def test_a_limit_comes_by_itself(fakes):
    fakes.asked("hangs 1")
    fakes.runner.checks("jax", 0.5, 1)  # ends, where it else hung
    assert results(fakes) == {}


def test_all_compile_before_the_first_is_timed(fakes):
    plan = dataclasses.replace(
        jobs.SMALLEST,
        engines=jobs.ENGINES[:1],
        networks=tuple(
            jobs.Network(title, "ResNet10")
            for title in ("a", "too large b", "c")
        ),
    )
    fakes.runner.speed(60, 3, plan)
    lines = fakes.lines()
    assert sorted(lines[:3]) == [
        "compiles a",
        "compiles c",
        "compiles too large b",
    ]
    assert lines[3:] == ["times a", "times too large b", "times c"]
    rows = fakes.runner.tables.rows("speed")
    assert len([r for r in rows if r["images_per_second"] == "7"]) == 4
    (failed,) = [row for row in rows if row["detail"]]
    assert failed["detail"] == "out of memory"
    fakes.runner.speed(60, 3, plan)  # what has no rate yet is tried again
    assert fakes.lines()[6:] == ["compiles too large b", "times too large b"]


def test_a_cell_that_was_trained_is_not_trained_again(fakes):
    """And the seeds of one network are one process's: it compiles once."""
    fakes.runner.tables.add("ablation", {"network": "A", "seed": 0})
    for _ in range(2):
        fakes.runner.ablation("jax", 60, "data", {}, {}, 2)
    assert sorted(fakes.lines()) == [
        "0 of 2 trains B 0",
        "0 of 2 trains B 1",
        "1 of 2 trains A 1",
    ]


def test_a_cpu_is_refused_where_it_is_not_meant(tmp_path):
    """Rather than spend the minutes of a GPU on it."""
    runner = driver.Runner(Tables(tmp_path), tmp_path, say=lambda line: None)
    runner._described["jax"] = {"device": "a CPU", "gpu": False, "checks": []}
    with pytest.raises(ValueError, match=r"needs a GPU.*jax found a CPU"):
        runner.checks("jax", 60, 1)
    with pytest.raises(ValueError, match=r"needs a GPU.*jax found a CPU"):
        runner.speed(60, 1, jobs.GPU)


def test_a_backend_that_does_not_start_is_named(fakes, monkeypatch):
    monkeypatch.setenv("GPU_FAKES_CHECKS", "nothing like JSON")
    with pytest.raises(OSError, match=r"jax does not start.*JSON"):
        fakes.runner.checks("jax", 60, 1)


# --- the page -----------------------------------------------------------


def filled(folder):
    tables = Tables(folder)
    check = {"device": "D", "backend": "jax", "precision": "float32"}
    tables.add("checks", {**check, "check": "forward A", "result": "ok"})
    tables.add(
        "checks", {**check, "check": "step A", "result": "failed",
                   "difference": 0.5, "allowed": 0.25}
    )  # fmt: skip
    speed = {"device": "D", "quantity": "training", "batch": 2, "size": 64,
             "precision": "bfloat16", "steps": 10}  # fmt: skip
    for engine, network, rate in (
        ("keras_csp, JAX", "ResNet-50", 100),
        ("keras_csp, JAX", "CSPResNet-50", 125),
        ("timm, eager", "CSPResNet-50", 50),
    ):
        rates = {"images_per_second": rate, "fastest": rate, "slowest": rate}
        row = {**speed, "engine": engine, "network": network, **rates}
        tables.add("speed", row)
    tables.add(
        "speed", {**speed, "engine": "timm, compiled", "network": "ResNet-50",
                  "detail": "out of memory"}
    )  # fmt: skip
    rate = {"device": "D", "engine": "keras_csp, JAX", "rate": 800}
    tables.add("rates", rate)
    for network, seed, accuracy in (
        ("PeleeNet", 0, 0.75),
        ("CSPPeleeNet", 0, 0.5),
        ("CSPPeleeNet", 1, 0.6),
        ("CSPResNet10_reduced2", 0, 0.5),  # its base is not there yet
    ):
        row = {"network": network, "seed": seed, "accuracy": accuracy,
               "params": 2_000_000, "bflops": 0.08, "device": "D",
               "seconds": 60 + 60 * seed,
               "backend": "jax", "recipe": "recipe R"}  # fmt: skip
        tables.add("ablation", row)
        for epoch in (5, 10):
            row = {"network": network, "seed": seed, "epoch": epoch,
                   "test_accuracy": accuracy * epoch / 10}  # fmt: skip
            tables.add("ablation_epochs", row)
    return tables


def test_the_page_compares_and_names_what_failed(tmp_path):
    page.write(tmp_path, filled(tmp_path))
    text = (tmp_path / "README.md").read_text()
    lines = text.splitlines()
    assert "| D | jax | float32 | 1 | 1 | 0 |" in lines
    assert any("step A" in line and "0.25" in line for line in lines)
    (ours,) = [
        line
        for line in lines
        if line.startswith("| CSPResNet-50 | training | 2 | keras_csp, JAX")
    ]
    assert "| 125 | 0 % | 2.50 |" in ours  # by timm, eager
    (pair,) = [x for x in lines if x.startswith("| CSPResNet-50 / ResNet-50")]
    assert "| -20.0 % |" in pair
    assert (
        "| timm, compiled | ResNet-50 | training | 2 | out of memory |" in text
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
    folder = ROOT / "benchmarks" / "results" / "gpu"
    page.write(tmp_path, Tables(folder))
    expected = (folder / "README.md").read_text()
    assert (tmp_path / "README.md").read_text() == expected


# --- the whole script ---------------------------------------------------


def run_script(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_mistakes_are_one_line(tmp_path):
    answer = run_script("ablation", "--output", tmp_path, "--work", tmp_path)
    assert answer.returncode == 1
    assert (
        answer.stderr.strip()
        .splitlines()[-1]
        .startswith("gpu: the ablation needs CIFAR-10 as JPEG files")
    )


@pytest.mark.slow
def test_the_whole_script_without_tensorflow(tmp_path, pictures):
    """Killed among the checks, and gone on with, on every backend there is."""
    backends = [
        name
        for name in ("jax", "torch")
        if importlib.util.find_spec(name) is not None
    ]
    arguments = [
        *("--smallest", "--output", tmp_path / "rows"),
        *("--work", tmp_path / "work", "--data", pictures),
        *("--processes", 1, "--minutes", 15, "--backends", *backends),
    ]
    path = os.pathsep.join([str(TESTS / "no_tensorflow"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "checks", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    first = [process.stdout.readline() for _ in range(3)]
    process.kill()
    process.wait()
    assert "Keras on jax uses" in first[0]
    assert all(" ok " in line for line in first[1:]), first
    before = (tmp_path / "rows" / "checks.csv").read_text().splitlines()
    answer = run_script(
        "checks", "speed", "ablation", "page", *arguments, "--cells", 2,
        PYTHONPATH=path,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    tables = Tables(tmp_path / "rows")
    with (tmp_path / "rows" / "checks.csv").open() as file:
        assert file.read().splitlines()[: len(before)] == before
    for backend in backends:
        rows = [r for r in tables.rows("checks") if r["backend"] == backend]
        assert len(rows) == len(checks.plan(backend, smallest=True))
        assert {row["result"] for row in rows} == {"ok"}, rows
    ours = [e.name for e in jobs.ENGINES if e.backend in backends]
    ours = [name for name in ours if name.startswith("keras_csp")]
    rated = {r["engine"] for r in tables.rows("speed") if not r["detail"]}
    assert rated >= set(ours)
    assert {row["engine"] for row in tables.rows("rates")} >= set(ours)
    trained = [(r["network"], r["seed"]) for r in tables.rows("ablation")]
    assert trained == [("PeleeNet", "0"), ("CSPPeleeNet", "0")]
    assert len(tables.rows("ablation_epochs")) == 4
    assert "2 of 28 cells" in (tmp_path / "rows" / "README.md").read_text()


# --- what is carried along ----------------------------------------------


def python_3_12():
    """A Python 3.12, wherever it is; None without."""
    places = [shutil.which("python3.12") or "", *map(
        str, pathlib.Path.home().glob(".pyenv/versions/3.12*/bin/python3.12")
    )]  # fmt: skip
    for place in places:
        code = "import sys; print(sys.version_info[:2])"
        try:
            answer = subprocess.run(
                [place, "-c", code], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if answer.stdout.strip() == "(3, 12)":
            return place
    return None


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carried")
    data = os.environ.get("KERAS_CSP_DATA")
    name = "classification/cifar10/cifar10_jpeg.tar.gz"
    carry.carry(folder, pathlib.Path(data) / name if data else None)
    return folder


@pytest.mark.slow
def test_what_is_carried_is_small_and_complete(carried):
    """Each requirement is carried, or of the machine's own packages."""
    from packaging.requirements import Requirement

    files = list(carried.iterdir())
    assert sum(path.stat().st_size for path in files) < 64 * 2**20
    has = {wheel.split("==")[0] for wheel in carry.WHEELS} | MACHINE_HAS
    for path in carried.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            (name,) = [n for n in wheel.namelist() if n.endswith("/METADATA")]
            lines = io.StringIO(wheel.read(name).decode())
        needs = [
            Requirement(line.removeprefix("Requires-Dist: ").strip())
            for line in lines
            if line.startswith("Requires-Dist: ")
        ]
        for need in needs:
            if need.marker and not need.marker.evaluate(
                {"python_version": "3.12", "extra": ""}
            ):
                continue
            normal = need.name.lower().replace("_", "-")
            known = has | {"typing-extensions"}  # PyTorch requires it
            assert normal in known, f"{path.name} requires {need}"


@pytest.mark.slow
def test_what_is_carried_runs_on_a_python_3_12(carried, tmp_path):
    """Beside JAX, Pillow and what timm brings; PyTorch is too large here."""
    python = python_3_12()
    if python is None:
        pytest.skip("there is no Python 3.12")
    there = tmp_path / "venv" / "bin" / "python"

    def run(*command, **environment):
        answer = subprocess.run(
            list(map(str, command)),
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr[-2000:]

    run(python, "-m", "venv", tmp_path / "venv")
    own = ("jax", "pillow", "huggingface_hub", "safetensors")
    run(there, "-m", "pip", "install", "-q", *own, "pytest")
    wheels = sorted(carried.glob("*.whl"))
    site = tmp_path / "site"
    run(
        *(there, "-m", "pip", "install", "-q", "--no-index", "--no-deps"),
        *("--target", site, *wheels),
    )
    run(
        *(there, SCRIPT, "checks", "--smallest", "--backends", "jax"),
        *("--output", tmp_path / "rows", "--work", tmp_path / "work"),
        *("--minutes", 10),
        PYTHONPATH=os.pathsep.join([str(site), str(ROOT)]),
    )
    rows = Tables(tmp_path / "rows").rows("checks")
    assert {row["result"] for row in rows} == {"ok"}
    assert len(rows) == len(checks.plan("jax", smallest=True))
