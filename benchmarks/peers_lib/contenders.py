"""The contenders of each section, as jobs."""

from peers_lib.jobs import Job
from peers_lib.networks import NETWORKS

BATCHES = (1, 8)
TRAINING_BATCH = 8
SGEMM_SIDE = 2048
DETECTOR_SIZE = 416
QUICK, DEFAULT, THOROUGH = range(3)

_MODULES = {
    "LiteRT": "ai_edge_litert",
    "onnxruntime": "onnxruntime",
    "OpenVINO": "openvino",
}
_TENSORFLOW = {"KERAS_BACKEND": "tensorflow"}
_JAX = {"KERAS_BACKEND": "jax"}


def quantities(request, training=True):
    """{name: batch, size, training} of inference and training."""
    asked = {}
    if "inference" in request.sections:
        for batch in BATCHES:
            asked[f"batch {batch}"] = {"batch": batch, "size": request.size}
    if training and "training" in request.sections:
        asked["training"] = {
            "batch": TRAINING_BATCH,
            "size": request.size,
            "training": True,
        }
    return asked


# Inference and training.


def ours(request, network):
    """TensorFlow, XLA and JAX; the paper's own variant in TensorFlow."""
    yield _keras(request, network, "keras_csp", "TensorFlow", network.factory)
    # XLA compiles a training step for a minute; grouped, it runs for one too.
    slow = network.title != "CSPPeleeNet"
    levels = {"training": THOROUGH if slow else DEFAULT}
    for engine, backend, needs in (
        ("XLA", _TENSORFLOW, ()),
        ("JAX", _JAX, ("jax",)),
    ):
        yield _keras(
            request,
            network,
            "keras_csp",
            engine,
            network.factory,
            needs=needs,
            environment=backend,
            levels=levels,
            seconds=14,
        )
    if network.paper:
        yield _keras(
            request,
            network,
            "keras_csp",
            "TensorFlow",
            network.paper,
            levels={"training": THOROUGH},
        )


def files(request, network):
    """The exported files, ours and timm's, in their runtimes."""
    for engine, ending in (
        ("LiteRT", "tflite"),
        ("LiteRT int8", "int8.tflite"),
        ("onnxruntime", "onnx"),
        ("OpenVINO", "onnx"),
    ):
        yield _file(request, network, "keras_csp", engine, ending)
    if network.paper:
        yield _file(
            request, network, "keras_csp", "LiteRT", "tflite", network.paper
        )
    if network.timm:
        yield _file(
            request, network, "timm", "onnxruntime", "onnx", network.timm
        )


def peers(request, network):
    """keras-hub, timm and keras.applications in their own frameworks."""
    if network.timm:
        yield _keras(
            request,
            network,
            "keras-hub",
            "TensorFlow",
            network.timm,
            needs=("keras_hub",),
            levels={"training": DEFAULT} if network.grouped else {},
            seconds=50 if network.grouped else 10,
        )
        yield _torch(request, network, "eager", network.timm)
        yield _torch(request, network, "channels_last", network.timm)
        # Compiling takes minutes: one network shows what it brings.
        level = DEFAULT if network == NETWORKS[0] else THOROUGH
        levels = dict.fromkeys(quantities(request), level)
        levels["training"] = THOROUGH
        yield _torch(
            request, network, "compiled", network.timm, levels, seconds=50
        )
    for name in network.applications:
        framework, levels = "keras.applications", {"training": DEFAULT}
        yield _keras(
            request, network, framework, "TensorFlow", name, levels=levels
        )
    for name in network.others:
        levels = {"training": THOROUGH}
        yield _torch(request, network, "eager", name, levels)


def sgemm(request, network):
    """The machine's own speed, in turn with inference."""
    if "inference" not in request.sections:
        return
    for library, python in (("numpy", "this"), ("torch", "timm")):
        yield Job(
            section="inference",
            network=network.title,
            framework="sgemm",
            engine=library,
            model=str(SGEMM_SIDE),
            runs="peers_lib.matmul_runs",
            quantities={
                f"batch {batch}": {"side": SGEMM_SIDE} for batch in BATCHES
            },
            arguments={"library": library, "threads": request.threads},
            needs=(library,),
            python=python,
            seconds=2,
        )


def _keras(
    request,
    network,
    framework,
    engine,
    model,
    needs=(),
    environment=None,
    levels=None,
    seconds=8,
):
    return Job(
        section="inference",
        network=network.title,
        framework=framework,
        engine=engine,
        model=model,
        runs="peers_lib.keras_runs",
        quantities=quantities(request),
        arguments={
            "framework": framework,
            "model": model,
            "jit_compile": engine in ("XLA", "JAX"),
            "threads": request.threads,
        },
        needs=("keras", *needs),
        environment=environment or _TENSORFLOW,
        levels=levels or {},
        seconds=seconds,
    )


def _file(request, network, framework, engine, ending, model=None):
    model = model or network.factory
    path = request.path(model, ending)
    runtime = engine.split()[0]
    asked = quantities(request, training=False)
    return Job(
        section="inference",
        network=network.title,
        framework=framework,
        engine=engine,
        model=model,
        runs="peers_lib.file_runs",
        quantities=asked,
        arguments={
            "runtime": runtime,
            "paths": {request.size: path},
            "layout": "NCHW" if framework == "timm" else "NHWC",
            "threads": request.threads,
        },
        needs=(_MODULES[runtime],),
        files=dict.fromkeys(asked, path),
        seconds=2,
    )


def _torch(request, network, mode, model, levels=None, seconds=5):
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(request.folder / "inductor")}
    return Job(
        section="inference",
        network=network.title,
        framework="timm",
        engine=mode,
        model=model,
        runs="peers_lib.torch_runs",
        quantities=quantities(request),
        arguments={"model": model, "mode": mode, "threads": request.threads},
        needs=("timm", "torch"),
        python="timm",
        environment=cache,
        levels=levels or {},
        seconds=seconds,
    )


# What comes before the first answer, and the files that it leaves.


def imports():
    for framework, module, python in (
        ("keras_csp", "keras_csp", "this"),
        ("keras", "keras", "this"),
        ("keras-hub", "keras_hub", "this"),
        ("timm", "timm", "timm"),
    ):
        yield Job(
            section="imports",
            network="imports",
            framework=framework,
            engine="",
            model="",
            runs="peers_lib.import_runs",
            quantities={"import": {"module": module}},
            needs=("keras" if module == "keras_csp" else module,),
            python=python,
            environment=_TENSORFLOW,
            once=True,
            seconds=10,
        )


def costs(request, network, weights):
    """Building, exporting and, if asked for, the files of weights."""
    formats = ("LiteRT", "LiteRT int8", "ONNX")
    yield _keras_costs(request, network, network.factory, weights, formats)
    if network.paper and "inference" in request.sections:
        model = network.paper
        yield _keras_costs(request, network, model, False, ("LiteRT",))
    if network.timm and weights:
        yield _keras_costs(request, network, network.timm, True, ())
    if network.timm:
        yield _timm_costs(request, network, weights)


_ENDINGS = {"LiteRT": "tflite", "LiteRT int8": "int8.tflite", "ONNX": "onnx"}


def _keras_costs(request, network, model, weights, formats):
    """Of this package if it writes files, else of keras-hub."""
    framework = "keras_csp" if formats else "keras-hub"
    return _cost(
        request,
        network.title,
        framework,
        model,
        _steps(request, model, weights, formats),
        needs=("keras", "tensorflow") if formats else ("keras_hub",),
    )


def _timm_costs(request, network, weights):
    return _cost(
        request,
        network.title,
        "timm",
        network.timm,
        _steps(request, network.timm, weights, ("ONNX",)),
        needs=("timm", "torch", "safetensors", "onnxscript"),
    )


def _steps(request, model, weights, formats):
    """{name: the method and its arguments}, in order."""
    steps = {"build": {"step": "build"}}
    if weights:
        steps["save weights"] = {"step": "save_weights"}
        steps["load weights"] = {"step": "load_weights"}
    for name in formats:
        path = request.path(model, _ENDINGS[name])
        step = f"export {name}".lower().replace(" ", "_")
        steps[f"export {name}"] = {"step": step, "with": {"path": path}}
    return steps


def _cost(
    request,
    title,
    framework,
    model,
    steps,
    needs,
    section="costs",
    size=None,
    levels=None,
):
    arguments = {
        "model": model,
        "size": size or request.size,
        "folder": str(request.folder),
        "threads": request.threads,
    }
    timm = framework == "timm"
    if not timm:
        arguments["framework"] = framework
    return Job(
        section=section,
        network=title,
        framework=framework,
        engine="PyTorch" if timm else "TensorFlow",
        model=model,
        runs="peers_lib.torch_costs" if timm else "peers_lib.keras_costs",
        quantities=steps,
        arguments=arguments,
        needs=needs,
        python="timm" if timm else "this",
        environment=_TENSORFLOW,
        once=True,
        levels=levels or {},
        seconds=12 if framework == "keras_csp" else 4,
    )


# Pairs of a base network and its CSP network.


def pair_files(request, pair, model, sizes, published):
    """One export, or one for each size where a file has a fixed one."""
    steps, levels = {}, {}
    for size, path in _pair_paths(request, pair, model, sizes).items():
        asked = {"path": path, "size": size}
        name = f"export {size} px"
        steps[name] = {"step": "export_litert", "with": asked}
        levels[name] = THOROUGH if size > published else QUICK
        if not pair.fixed:
            break
    return _cost(
        request,
        _pair_title(pair),
        "keras_csp",
        model,
        steps,
        needs=("keras", "tensorflow"),
        section="savings files",
        size=sizes[0],
        levels=levels,
    )


def pair_litert(request, pair, model, sizes, published):
    """With one image."""
    paths = _pair_paths(request, pair, model, sizes)
    return Job(
        **_pair_common(pair, model, "LiteRT", sizes, 1),
        runs="peers_lib.file_runs",
        arguments={
            "runtime": "LiteRT",
            "paths": paths,
            "threads": request.threads,
        },
        needs=("ai_edge_litert",),
        files={f"{size} px": path for size, path in paths.items()},
        levels=_late(sizes, published) if pair.fixed else {},
        seconds=1,
    )


def pair_tensorflow(request, pair, model, sizes, published):
    """With a batch, whose time is the network's and not the call's."""
    return Job(
        **_pair_common(pair, model, "TensorFlow", sizes, TRAINING_BATCH),
        runs="peers_lib.keras_runs",
        arguments={
            "framework": "keras_csp",
            "model": model,
            "jit_compile": False,
            "threads": request.threads,
        },
        needs=("keras", "tensorflow"),
        environment=_TENSORFLOW,
        levels=_late(sizes, published),
        seconds=7,
    )


def _pair_title(pair):
    return f"{pair.csp} / {pair.base}"


def _late(sizes, published):
    """Images larger than the paper's, with what takes long there."""
    return {f"{size} px": THOROUGH for size in sizes if size > published}


def _pair_paths(request, pair, model, sizes):
    """{size: path}: all the same where a file takes every size."""
    ending = "pair.tflite"
    return {
        size: request.path(model, ending, size if pair.fixed else sizes[0])
        for size in sizes
    }


def _pair_common(pair, model, engine, sizes, batch):
    return {
        "section": "savings",
        "network": _pair_title(pair),
        "framework": "keras_csp",
        "engine": engine,
        "model": model,
        "quantities": {
            f"{size} px": {"batch": batch, "size": size} for size in sizes
        },
    }


def detector(request, row):
    """One of Table 2, as `published_detectors()` gives it."""
    return Job(
        section="detectors",
        network="detectors",
        framework="keras_csp",
        engine="TensorFlow",
        model=row.head,
        runs="peers_lib.detector_runs",
        quantities={"frame": {"size": DETECTOR_SIZE}},
        arguments={"detector": row.arguments, "threads": request.threads},
        needs=("keras", "tensorflow", "sklearn"),
        environment=_TENSORFLOW,
        seconds=12,
    )
