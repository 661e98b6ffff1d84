"""The jobs of inference and training: ours, the peers', the machine's own."""

from peers_lib.jobs import (
    DEFAULT,
    JAX,
    TENSORFLOW,
    THOROUGH,
    TRAINING_BATCH,
    Job,
)
from peers_lib.networks import NETWORKS

BATCHES = (1, 8)
SGEMM_SIDE = 2048

_MODULES = {
    "LiteRT": "ai_edge_litert",
    "onnxruntime": "onnxruntime",
    "OpenVINO": "openvino",
}


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


def ours(request, network):
    """TensorFlow, XLA and JAX; the paper's own variant in TensorFlow."""
    yield _keras(request, network, "keras_csp", "TensorFlow", network.factory)
    # XLA compiles a training step for a minute; grouped, it runs for one too.
    slow = network.title != "CSPPeleeNet"
    levels = _levels(request, training=THOROUGH if slow else DEFAULT)
    for engine, backend, needs in (
        ("XLA", TENSORFLOW, ()),
        ("JAX", JAX, ("jax",)),
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
            levels=_levels(request, training=THOROUGH),
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
        levels = _levels(request, level, THOROUGH)
        yield _torch(
            request, network, "compiled", network.timm, levels, seconds=50
        )
    for name in network.applications:
        framework, levels = "keras.applications", _levels(request)
        yield _keras(
            request, network, framework, "TensorFlow", name, levels=levels
        )
    for name in network.others:
        levels = _levels(request, training=THOROUGH)
        yield _torch(request, network, "eager", name, levels)


def sgemm(request, network):
    """The machine's own speed, in turn with inference."""
    if "inference" not in request.sections:
        return
    for library, python in (("numpy", "this"), ("torch", "timm")):
        yield _job(
            network,
            "sgemm",
            library,
            str(SGEMM_SIDE),
            runs="peers_lib.matmul_runs",
            quantities={
                f"batch {batch}": {"side": SGEMM_SIDE} for batch in BATCHES
            },
            arguments={"library": library, "threads": request.threads},
            needs=(library,),
            python=python,
            seconds=2,
        )


def _levels(request, inference=DEFAULT, training=DEFAULT):
    """{quantity: how thorough a run measures it}."""
    levels = dict.fromkeys(quantities(request), inference)
    return {**levels, "training": training}


def _job(network, framework, engine, model, **rest):
    """Inference and training are of one process, and of one section."""
    return Job("inference", network.title, framework, engine, model, **rest)


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
    return _job(
        network,
        framework,
        engine,
        model,
        runs="peers_lib.keras_runs",
        quantities=quantities(request),
        arguments={
            "framework": framework,
            "model": model,
            "jit_compile": engine in ("XLA", "JAX"),
            "threads": request.threads,
        },
        needs=("keras", *needs),
        environment=environment or TENSORFLOW,
        levels=levels or {},
        seconds=seconds,
    )


def _file(request, network, framework, engine, ending, model=None):
    model = model or network.factory
    path = request.path(model, ending)
    runtime = engine.split()[0]
    asked = quantities(request, training=False)
    return _job(
        network,
        framework,
        engine,
        model,
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
    return _job(
        network,
        "timm",
        mode,
        model,
        runs="peers_lib.torch_runs",
        quantities=quantities(request),
        arguments={"model": model, "mode": mode, "threads": request.threads},
        needs=("timm", "torch"),
        python="timm",
        environment=cache,
        levels=levels or {},
        seconds=seconds,
    )
