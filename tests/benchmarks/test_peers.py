"""The benchmark's bookkeeping, with contenders that compute nothing."""

import csv
import importlib.util
import sys

import pytest
from peers_lib import machine, plan, targets
from peers_lib.coordinator import Coordinator, Rules
from peers_lib.inference_jobs import quantities as image_quantities
from peers_lib.jobs import Job
from peers_lib.machine import Interpreter, Machine
from peers_lib.networks import NETWORKS, PAIRS
from peers_lib.picture import draw_savings, draw_speeds
from peers_lib.progress import guessed
from peers_lib.report import Report, ranked
from peers_lib.store import Record, Store
from peers_lib.summary import Summary
from support import TESTS

import keras_csp
from keras_csp.analysis.detectors import published_detectors

HERE = Interpreter(sys.executable, {"keras": "3", "numpy": "2"})
RULES = Rules(rounds=3, seconds=0.0, patience=20.0)


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where the fakes note their runs, which the processes can import."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    return tmp_path / "log"


def fake(log, name, times, **arguments):
    fields = {"once": arguments.pop("once", False)}
    fields["needs"] = arguments.pop("needs", ())
    fields["files"] = arguments.pop("files", {})
    return Job(
        section="inference",
        network="CSPPeleeNet",
        framework="fake",
        engine=name,
        model="none",
        runs="peers_fakes",
        quantities={q: {"times": values} for q, values in times.items()},
        arguments={"name": name, "log": str(log), **arguments},
        **fields,
    )


def coordinator(tmp_path, rules=RULES, settings=None):
    cores = machine.allowed_cores()
    return Coordinator(
        Machine(HERE, HERE, cores),
        Store(tmp_path / "values.csv", settings or {"size": 8}),
        rules,
        tmp_path / "logs",
        lambda *_progress: None,
    )


def lines(log):
    return log.read_text().split("\n")[:-1]


def test_contenders_take_turns(tmp_path, log):
    """Both warm up; a round is one uncounted run and one that counts."""
    jobs = [fake(log, name, {"batch 1": [1.0]}) for name in "ab"]
    coordinator(tmp_path).measure(jobs)
    a, b = 2 * ["a batch 1"], 2 * ["b batch 1"]
    assert lines(log) == a + b + 3 * (a + b)


def test_quantities_come_one_after_the_other(tmp_path, log):
    """For all contenders: no training is measured among inferences."""
    both = {"batch 1": [1.0], "training": [1.0]}
    jobs = [fake(log, "a", both), fake(log, "b", {"training": [1.0]})]
    coordinator(tmp_path).measure(jobs)
    assert [line.split(" ", 1)[1] for line in lines(log)] == (
        8 * ["batch 1"] + 16 * ["training"]
    )


def test_medians_and_spread(tmp_path, log):
    """Of the rounds 2, 4 and 3, neither warm-up nor uncounted runs."""
    times = [9.0, 8.0, 7.0, 2.0, 7.0, 4.0, 7.0, 3.0]
    job = fake(log, "a", {"batch 8": times}, costs={"bflops": 6.0})
    measured = coordinator(tmp_path)
    measured.measure([job])
    (row,) = Summary(measured.store.records).rows
    assert (row.seconds, row.low, row.high, row.rounds) == (3.0, 2.0, 4.0, 3)
    assert row.first == 9.0
    assert row.spread == pytest.approx(2 / 3)
    assert row.images_per_second == pytest.approx(8 / 3)
    assert row.gflops == pytest.approx(16.0)
    assert row.peak_mb > 1


def test_a_turn_lasts_as_long_as_asked_for(tmp_path, log):
    job = fake(log, "a", {"batch 1": [0.25]})
    coordinator(tmp_path, Rules(1, 1.0, 20.0)).measure([job])
    assert len(lines(log)) == 2 + 1 + 4


def test_a_slow_contender_is_measured_once(tmp_path, log):
    job = fake(log, "a", {"batch 1": [99.0, 63.0, 1.0]})
    measured = coordinator(tmp_path)
    measured.measure([job])
    (row,) = Summary(measured.store.records).rows
    assert (row.seconds, row.rounds, row.first) == (63.0, 1, 99.0)


def test_steps_that_happen_once(tmp_path, log):
    times = {"build": [2.0], "export": [5.0]}
    job = fake(log, "a", times, once=True)
    measured = coordinator(tmp_path)
    measured.measure([job])
    assert lines(log) == ["a build", "a export"]
    rows = Summary(measured.store.records).rows
    assert [(r.quantity, r.seconds) for r in rows] == [
        ("build", 2.0),
        ("export", 5.0),
    ]


@pytest.mark.parametrize(
    ("fate", "patience", "reason"),
    [
        ("dies", 20.0, "its process ended (3): out of ideas"),
        ("refuses", 20.0, "ValueError: not this one"),
        ("hangs", 1.0, "no answer in 1 s"),
    ],
)
def test_a_contender_that_fails_is_left_out(
    tmp_path, log, fate, patience, reason
):
    both = {"batch 1": [1.0], "batch 8": [1.0]}
    bad = fake(log, "bad", both, fate={"batch 1": fate})
    good = fake(log, "good", both)
    measured = coordinator(tmp_path, Rules(2, 0.0, patience))
    measured.measure([bad, good])
    # One that only refused is asked for the next quantity.
    lost = ["batch 1"] if fate == "refuses" else ["batch 1", "batch 8"]
    assert measured.skipped == {(bad.key, q): reason for q in lost}
    summary = Summary(measured.store.records)
    assert len(summary.find(engine="good")) == 2
    assert len(summary.find(engine="bad")) == 2 - len(lost)


def test_what_cannot_start_is_left_out_with_the_reason(tmp_path, log):
    times = {"batch 1": [1.0]}
    jobs = [
        fake(log, "a", times, fate="does not load"),
        fake(log, "b", times, needs=("keras", "openvino")),
        fake(
            log, "c", times, files={"batch 1": str(tmp_path / "net-8.tflite")}
        ),
    ]
    measured = coordinator(tmp_path)
    measured.measure(jobs)
    assert list(measured.skipped.values()) == [
        "ImportError: no such engine",
        "openvino is not installed: pip install openvino",
        "net-8.tflite was not exported",
    ]
    assert measured.store.records == []


def test_a_killed_run_goes_on(tmp_path, log):
    """Without its last values, and half a line: those alone are measured."""
    both = {"batch 1": [1.0], "batch 8": [1.0]}
    job = fake(log, "a", both)
    coordinator(tmp_path).measure([job])
    path = tmp_path / "values.csv"
    kept = path.read_text().split("\n")
    # Of batch 8, the last round, the memory and "complete" are lost.
    path.write_text("\n".join(kept[:-4]) + "\ninference,CSPPele")
    log.unlink()
    again = coordinator(tmp_path)
    assert again.guessed([job]) == guessed(job.only(["batch 8"]), RULES)
    again.measure([job])
    # Warming up, and one round.
    assert lines(log) == 4 * ["a batch 8"]
    rows = Summary(again.store.records).rows
    assert [(r.quantity, r.rounds) for r in rows] == [
        ("batch 1", 3),
        ("batch 8", 3),
    ]
    assert again.store.starts == 2
    log.unlink()
    coordinator(tmp_path).measure([job])
    assert not log.exists()


def test_values_of_another_run_are_refused(tmp_path):
    coordinator(tmp_path, settings={"size": 8, "timm": "1"})
    coordinator(tmp_path, settings={"size": 8})
    with pytest.raises(ValueError, match="whose timm was '1'; it is '2'"):
        coordinator(tmp_path, settings={"timm": "2"})


# Tables and targets, from values made up.


def records():
    """{contender: seconds}, and counts: 2 BFLOPs for one image."""

    def add(key, quantity, seconds, **counts):
        for number, factor in enumerate((0.9, 1.0, 1.2), 1):
            yield Record(key, quantity, "seconds", number, factor * seconds)
        for what, value in counts.items():
            yield Record(key, quantity, what, 0, value)

    network, factory, timm = "CSPResNet-50", "CSPResNet50Timm", "cspresnet50"
    for framework, engine, model, quantity, seconds, counts in (
        ("keras_csp", "TensorFlow", factory, "batch 8", 0.4, {"bflops": 2.0}),
        ("keras_csp", "TensorFlow", factory, "batch 1", 0.1, {"bflops": 2.0}),
        ("keras_csp", "TensorFlow", factory, "training", 2.0, {"peak_mb": 900}),
        ("keras_csp", "LiteRT", factory, "batch 1", 0.02, {}),
        ("keras_csp", "LiteRT int8", factory, "batch 1", 0.025, {}),
        ("timm", "eager", timm, "batch 8", 0.5, {}),
        ("timm", "eager", timm, "training", 1.5, {}),
        ("timm", "onnxruntime", timm, "batch 1", 0.03, {}),
        ("keras-hub", "TensorFlow", timm, "training", 3.0, {}),
        ("sgemm", "numpy", "2048", "batch 1", 2 * 2048**3 / 80e9, {}),
        ("sgemm", "torch", "2048", "batch 1", 2 * 2048**3 / 90e9, {}),
    ):
        key = ("inference", network, framework, engine, model)
        yield from add(key, quantity, seconds, **counts)
    for pair, times in zip(PAIRS, (0.80, 0.80, 0.70, 0.95)):
        title = f"{pair.csp} / {pair.base}"
        size = keras_csp.published(pair.base).input_size
        for model, seconds, bflops, cio in (
            (pair.base, 1.0, 4.0, 10.0),
            (pair.csp, times, 3.4, 11.0),
        ):
            counts = {"bflops": bflops, "cio": cio}
            key = ("savings", title, "keras_csp", "LiteRT", model)
            yield from add(key, f"{size} px", seconds, **counts)
    for head, seconds in (("PRN", 0.1), ("EFM", 0.2), ("CEM", 0.4)):
        key = ("detectors", "detectors", "keras_csp", "TensorFlow", head)
        yield from add(key, "frame", seconds, bflops=3.0)
    key = ("costs", network, "keras_csp", "TensorFlow", factory)
    yield Record(key, "build", "seconds", 1, 1.25)
    yield Record(key, "build", "peak_mb", 0, 321.0)
    key = ("imports", "imports", "keras_csp", "", "")
    yield from add(key, "import", 4.0)


def published_size(name):
    return keras_csp.published(name).input_size


def test_targets_by_hand():
    found = {
        target.text: (target.ratio, target.verdict)
        for target in targets.targets(Summary(records()), published_size)
    }
    expected = {
        "CSPResNet-50, training step: TensorFlow / timm eager": (
            1.5 / 2.0,
            "not reached",
        ),
        "CSPResNet-50, predict, batch 8: TensorFlow / timm eager": (
            0.5 / 0.4,
            "reached",
        ),
        "CSPResNet-50, float32, batch 1: LiteRT / timm onnxruntime": (
            0.03 / 0.02,
            "reached",
        ),
        "CSPResNet-50, training step: TensorFlow / keras-hub": (
            3.0 / 2.0,
            "reached",
        ),
        # 2 BFLOPs in 0.02 s, by 90 GFLOP/s: torch's product is the faster.
        "CSPResNet-50, GFLOP/s: LiteRT, batch 1 (CSPResNet50Timm) / sgemm": (
            100 / 90,
            "reached",
        ),
        "CSPResNet-50, batch 1: LiteRT int8 / float32": (
            0.02 / 0.025,
            "not reached",
        ),
        # 0.80, 0.80 and 0.70 are at most 3.4 / 4; 0.95 is not.
        "Pairs whose time in LiteRT falls at least as their BFLOPs do, at "
        "the paper's size: 3 of 4 measured": (3.0, "reached"),
    }
    for text, (ratio, verdict) in expected.items():
        assert found[text][0] == pytest.approx(ratio), text
        assert found[text][1] == verdict, text
    others = {k: v for k, v in found.items() if k not in expected}
    assert set(others.values()) == {(None, "not measured")}


def test_report(tmp_path):
    key = ("inference", "CSPPeleeNet", "timm", "eager", "none")
    skipped = {(key, "batch 1"): "no timm", (key, "batch 8"): "no timm"}
    report = Report(
        Summary(records()),
        skipped,
        ["A machine."],
        published_size,
        {row.head: row.fps for row in published_detectors()},
    )
    report.write(tmp_path / "peers")
    text = (tmp_path / "peers.md").read_text()
    assert (
        "| keras_csp TensorFlow | CSPResNet50Timm | 2.00 | 10.00 | 20.00 | "
        "4.00 | 0.44 |  |  | 900 | 30% |"
    ) in text
    assert "sgemm beside it: 90 GFLOP/s." in text
    assert (
        "| CSPPeleeNet / PeleeNet | 224 px (paper's) | LiteRT | -20.0 % | "
        "-15.0 % | +10.0 % | -13 % | yes |"
    ) in text
    # Ours are 10, 5 and 2.5; the paper's 169, 132 and 148.
    assert "| EFM | 3.000 | 5.0 | 2 | 132 | 3 | 30% |" in text
    assert "Spearman's correlation: 0.50." in text
    assert (
        "| keras_csp | CSPResNet50Timm | 4.00 | 1.25 |  |  |  |  |  | 321 |"
    ) in text
    assert (
        "- no timm:\n    - CSPPeleeNet, timm eager, none: batch 1, batch 8"
    ) in text
    with (tmp_path / "peers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report.summary.rows)
    assert rows[0]["seconds"] == "0.4" and rows[0]["rounds"] == "3"


def test_equal_values_share_a_rank():
    assert ranked([5, 7, 7, 1]) == [3, 1, 1, 4]


def test_pictures(tmp_path):
    summary = Summary(records())
    draw_speeds(summary, tmp_path / "a.png", "note")
    draw_savings(summary, tmp_path / "b.png", published_size, "note")
    for name in "ab":
        content = (tmp_path / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10000


# The plan and the command line.


def request(tmp_path, sections=plan.SECTIONS):
    return plan.Request(
        sections,
        size=224,
        saving_sizes=(128,),
        networks=NETWORKS,
        pairs=PAIRS,
        detectors=published_detectors(),
        threads=2,
        folder=tmp_path,
    )


def test_the_plan_is_what_the_issue_names(tmp_path):
    groups = plan.groups(request(tmp_path))
    keys = [job.key for group in groups for job in group]
    assert len(keys) == len(set(keys))
    engines = {key[2:4] for key in keys if key[0] == "inference"}
    assert engines == {
        ("keras_csp", "TensorFlow"),
        ("keras_csp", "XLA"),
        ("keras_csp", "JAX"),
        ("keras_csp", "LiteRT"),
        ("keras_csp", "LiteRT int8"),
        ("keras_csp", "onnxruntime"),
        ("keras_csp", "OpenVINO"),
        ("keras-hub", "TensorFlow"),
        ("keras.applications", "TensorFlow"),
        ("timm", "eager"),
        ("timm", "channels_last"),
        ("timm", "compiled"),
        ("timm", "onnxruntime"),
        ("sgemm", "numpy"),
        ("sgemm", "torch"),
    }


def test_levels_leave_out_visibly(tmp_path):
    groups = plan.groups(request(tmp_path))
    counted = {}
    for level in (plan.QUICK, plan.DEFAULT, plan.THOROUGH):
        kept, left_out = plan.split(groups, level)
        asked = sum(len(job.quantities) for group in kept for job in group)
        counted[level] = asked + len(left_out)
        hub = ("inference", "CSPResNeXt-50", "keras-hub", "TensorFlow")
        left = (*hub, "cspresnext50"), "training"
        assert (left in left_out) == (level == plan.QUICK)
    assert len(set(counted.values())) == 1
    assert left_out == {}


def test_files_are_made_before_they_are_needed(tmp_path):
    made = set()
    for group in plan.groups(request(tmp_path)):
        for job in group:
            assert set(job.files.values()) <= made, job.title
        for job in group:
            for step in job.quantities.values():
                made.update({step.get("with", {}).get("path")} - {None})


def test_only_the_sections_asked_for(tmp_path):
    groups = plan.groups(request(tmp_path, ("training",)))
    names = {q for group in groups for job in group for q in job.quantities}
    assert names == {"training"}
    assert image_quantities(request(tmp_path, ("inference",))) == {
        "batch 1": {"batch": 1, "size": 224},
        "batch 8": {"batch": 8, "size": 224},
    }


@pytest.fixture
def peers():
    path = TESTS.parent / "benchmarks" / "peers.py"
    spec = importlib.util.spec_from_file_location("peers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_writes_everything(peers, tmp_path, log, monkeypatch, capsys):
    job = fake(log, "a", {"batch 1": [0.5]})
    monkeypatch.setattr(peers.plan, "groups", lambda request: [[job]])
    output = tmp_path / "results"
    command = ["peers.py", "--output", str(output)]
    command += ["--scratch", str(tmp_path / "scratch"), "--seconds", "0"]
    command += ["--rounds", "1", "--timm-python", sys.executable]
    monkeypatch.setattr(sys, "argv", command)
    peers.main()
    told = capsys.readouterr()
    assert "min left] CSPPeleeNet, batch 1: round 1, 1 contenders" in told.err
    assert "| fake a | none |  | 2.00 |" in told.out
    # Where somebody's timm is stands in no file.
    assert "--timm-python PYTHON" in told.out
    assert {path.name for path in output.iterdir()} >= {
        "peers.csv",
        "peers.md",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "4096"], "--threads must be 1 to"),
        (["--timm-python", "/nowhere/python"], "not a Python: /nowhere"),
    ],
)
def test_bad_arguments_are_one_line(peers, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments])
    with pytest.raises(SystemExit) as error:
        peers.main()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_help_teaches(peers, capsys):
    with pytest.raises(SystemExit):
        peers.parse(["--help"])
    told = capsys.readouterr().out
    for word in (
        "--timm-python",
        "--quick",
        "goes on where it was",
        "openvino",
    ):
        assert word in told.lower(), word


def test_the_machine_is_named():
    assert machine.cpu()
    found = machine.find_machine(None, 1)
    assert found.versions["keras"]
    assert len(found.cores) == 1


def test_onednn_is_each_packages_own_doing(monkeypatch):
    """keras_csp, which this process has imported, switches it on for itself."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setenv("HERE", "yes")
    for chosen in (None, "0"):
        monkeypatch.setattr(machine, "_CHOSEN", chosen)
        made = machine.environment(2)
        assert made.get("TF_ENABLE_ONEDNN_OPTS") == chosen
        assert made["OMP_NUM_THREADS"] == "2" and made["HERE"] == "yes"
