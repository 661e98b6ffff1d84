"""What the README shows is run."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import darknet_reference
import pytest
import timm_weights
from fake_hub import fake_hub
from safetensors.numpy import save_file
from support import EXAMPLES, check_quickstart_outputs, run_python
from timm_weights import tensors

import keras_csp

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PRETRAINED = re.findall(r"```python pretrained\n(.*?)```", README, re.DOTALL)
TRAINING = re.findall(r"```python training\n(.*?)```", README, re.DOTALL)
DETECTOR = re.findall(r"```python detector\n(.*?)```", README, re.DOTALL)
DEPLOYMENT = re.findall(r"```python deployment\n(.*?)```", README, re.DOTALL)
DARKNET = re.findall(r"```python darknet\n(.*?)```", README, re.DOTALL)
PUBLISHED = re.findall(r"```python published\n(.*?)```", README, re.DOTALL)
BOXES = re.findall(r"```python boxes\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks_run(code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.slow
def test_detector_block_runs():
    (code,) = DETECTOR
    run_python(code)


@pytest.mark.slow
def test_quickstart_and_deployment_block_run(tmp_path):
    """At least 97 % of the digits; 8 bits keep its answers, in a quarter of
    the size: at least 99 % of them, and 0.28 of the float file."""
    run = functools.partial(
        subprocess.run, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    said = run([sys.executable, EXAMPLES / "quickstart.py"]).stdout
    accuracy = re.search(r"test accuracy: ([\d.]+) %", said)
    assert float(accuracy[1]) >= 97
    folder = tmp_path / "runs" / "quickstart"
    check_quickstart_outputs(folder)
    (code,) = DEPLOYMENT
    said = run([sys.executable, "-c", code]).stdout
    rate = float(re.search(r"([\d.]+) % of 360 samples match", said)[1])
    assert rate >= 99
    small = tmp_path / "digits_int8.tflite"
    exact = folder / "model.tflite"
    assert small.stat().st_size <= 0.28 * exact.stat().st_size


@pytest.mark.slow
def test_training_block_runs(tmp_path):
    """Twice: the second finds both epochs done, and measures the same."""
    (code,) = TRAINING
    code = f"import os; os.chdir({str(tmp_path)!r})\n" + code
    first, second = (run_python(code).splitlines()[-1] for _ in range(2))
    assert first == second and "'accuracy': " in first
    assert list((tmp_path / "runs" / "mine").glob("*.weights.h5"))


@pytest.mark.slow
def test_pretrained_block_runs(tmp_path):
    """With a hub and files of the names it has, random numbers in them."""
    (code,) = PRETRAINED
    name = "cspresnext50"
    path = tmp_path / "model.safetensors"
    save_file(timm_weights.state_dict(tensors()[name]), path)
    darknet = keras_csp.darknet
    darknet.save_weights(
        keras_csp.CSPResNeXt50(), tmp_path / "csresnext50.weights"
    )
    repository = keras_csp.weights.find_record(name).hub_id
    with fake_hub({repository: path}) as server:
        run_python(
            f"import os; os.chdir({str(tmp_path)!r})\n" + code,
            HF_ENDPOINT=server.url,
            HF_HOME=str(tmp_path / "home"),
        )
    assert (tmp_path / "mine.weights").read_bytes() == (
        tmp_path / "csresnext50.weights"
    ).read_bytes()


@pytest.mark.slow
def test_darknet_block_runs(tmp_path):
    """With random numbers for weights."""
    (code,) = DARKNET
    text = darknet_reference.author_cfgs()["darknet/cfg/yolov4-tiny.cfg"]
    cfg = tmp_path / "yolov4-tiny.cfg"
    cfg.write_text(text)
    darknet = keras_csp.darknet
    darknet.save_weights(darknet.load(cfg), tmp_path / "yolov4-tiny.weights")
    names = [f"class {number}" for number in range(80)]
    (tmp_path / "coco.names").write_text("\n".join(names))
    run_python(f"import os; os.chdir({str(tmp_path)!r})\n" + code)
    assert (tmp_path / "yolov4-tiny.keras").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    "KERAS_CSP_DATA" not in os.environ, reason="KERAS_CSP_DATA is not set"
)
def test_boxes_block_runs(tmp_path):
    """On the first images of a real set, under the names of the README."""
    (code,) = BOXES
    write_boxes(tmp_path)
    run_python(f"import os; os.chdir({str(tmp_path)!r})\n" + code)
    assert (tmp_path / "detector.tflite").stat().st_size > 1e7


@pytest.mark.slow
@pytest.mark.skipif(
    "KERAS_CSP_DATA" not in os.environ, reason="KERAS_CSP_DATA is not set"
)
def test_published_block_runs(tmp_path):
    """At a small size and for two epochs, from random weights."""
    (code,) = PUBLISHED
    write_boxes(tmp_path)
    text = darknet_reference.author_cfgs()["darknet/cfg/yolov4-tiny.cfg"]
    cfg = tmp_path / "yolov4-tiny.cfg"
    cfg.write_text(darknet_reference.resized(text, 96, 96))
    darknet = keras_csp.darknet
    darknet.save_weights(darknet.load(cfg), tmp_path / "yolov4-tiny.weights")
    code = code.replace("416", "96").replace("epochs=20", "epochs=2")
    run_python(f"import os; os.chdir({str(tmp_path)!r})\n" + code)
    mine = darknet.load(tmp_path / "mine.cfg", tmp_path / "mine.weights")
    assert mine.classes == 3


def write_boxes(tmp_path):
    """Eight images each of a real set, under the names of the README."""
    source = pathlib.Path(os.environ["KERAS_CSP_DATA"]) / "detection/bccd"
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        name = f"annotations/instances_{split}.json"
        content = json.loads((source / name).read_text())
        content["images"] = content["images"][:8]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [
            annotation
            for annotation in content["annotations"]
            if annotation["image_id"] in kept
        ]
        (tmp_path / name).write_text(json.dumps(content))
        (tmp_path / split).symlink_to(source / split)


def test_the_weights_table_is_what_the_command_prints(capsys):
    keras_csp.list_weights(markdown=True)
    start, end = "<!-- weights -->\n", "<!-- /weights -->"
    shown = README[README.index(start) + len(start) : README.index(end)]
    assert shown.strip() == capsys.readouterr().out.strip()


def test_the_two_commands():
    assert "pip install -e . && python examples/quickstart.py" in README
    assert '\npip install -e ".[test]" && pytest\n' in README


def test_files_that_the_readme_names_exist():
    root = pathlib.Path(__file__).parents[1]
    for path in re.findall(r"\]\(([^):]+)\)", README):
        assert (root / path).exists(), path


def result_table(name, section=None):
    """The lines of the table of a result, or of one of its sections."""
    results = pathlib.Path(__file__).parents[1] / "benchmarks" / "results"
    text = (results / f"{name}.md").read_text()
    if section:
        (text,) = re.findall(
            rf"^## {section}$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
        )
    return [line for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize(
    ("marker", "name", "section", "rows"),
    [
        ("benchmark", "grouped_convolution", None, ""),
        ("loading", "loading", None, ""),
        ("necks", "necks", None, ""),
        ("ablation", "ablation", None, ""),
        ("pipeline", "pipeline", None, ""),
        ("quantization", "quantization", None, ""),
        ("peers", "peers", "Targets", ""),
        ("savings", "peers", "What a CSP stage saves", "(paper's)"),
    ],
)
def test_benchmark_tables_are_the_files(marker, name, section, rows):
    header, rule, *body = result_table(name, section)
    table = [header, rule, *(line for line in body if rows in line)]
    start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    shown = README[README.index(start) + len(start) : README.index(end)]
    assert shown.strip().splitlines() == table
