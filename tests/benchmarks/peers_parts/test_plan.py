"""The plan: which jobs, in which groups, at which level."""

from harness.networks import NETWORKS, PAIRS
from peers_parts import plan

from keras_csp.analysis.detectors import published_detectors


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


def test_every_engine_is_planned_once(tmp_path):
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
    assert plan.image_quantities(request(tmp_path, ("inference",))) == {
        "batch 1": {"batch": 1, "size": 224},
        "batch 8": {"batch": 8, "size": 224},
    }


def test_every_job_can_be_made():
    """Its class exists, and takes its arguments."""
    import inspect
    import pathlib

    from harness import contenders

    for group in plan.groups(request(pathlib.Path("folder"))):
        for job in group:
            made = getattr(contenders, job.contender)
            inspect.signature(made).bind(job.quantities, **job.arguments)
            for given in job.quantities.values():
                if "step" in given:
                    step = getattr(made, given["step"])
                    inspect.signature(step).bind(made, **given.get("with", {}))
