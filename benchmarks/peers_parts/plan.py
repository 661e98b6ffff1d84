"""What is measured: sections, as groups of jobs.

Jobs of a group take turns. A quantity of a higher level than the run's is
left out, and the report says so.
"""

import dataclasses
import pathlib

from harness.networks import NETWORKS

from keras_csp.analysis.published import published

SECTIONS = ("inference", "training", "costs", "savings", "detectors")
SAVING_SIZES = (128, 320)
BATCH, TRAINING_BATCH = 8, 8
# The quantities of inference and training.
BATCH_1, BATCH_8, TRAINING = "batch 1", f"batch {BATCH}", "training"
SGEMM_SIDE, DETECTOR_SIZE = 2048, 416
# Rounds for networks that differ by little, for each round of others.
CLOSE = 3
# How thorough a run is: with --quick, by default, with --thorough.
QUICK, DEFAULT, THOROUGH = range(3)
_OPTION = {DEFAULT: "without --quick", THOROUGH: "with --thorough"}
_TENSORFLOW = {"KERAS_BACKEND": "tensorflow"}
_JAX = {"KERAS_BACKEND": "jax"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A process of one contender, as data.

    Attributes:
        section: "inference" (with the training step, in the same process),
            "costs", "savings", "savings files", "detectors" or "imports".
        network: the heading that it is listed under.
        framework, engine: what computes it, e.g. "timm", "eager".
        model: the network as its framework calls it.
        contender: the class in `harness.contenders`.
        quantities: {name: its dict of batch, size, training ...}, in the
            order in which they are measured.
        arguments: of the class, besides the quantities.
        needs: modules that its interpreter must have.
        python: "this" or "timm": the interpreter that is preferred.
        environment: variables of the process.
        files: {quantity: path} of what an earlier job must have exported.
        once: whether each quantity is run once, without warming up.
        repeats: rounds for each round of others: more where a few percent
            must be told apart.
        levels: {quantity: how thorough a run measures it}; QUICK if it is
            not named.
    """

    section: str
    network: str
    framework: str
    engine: str
    model: str
    contender: str
    quantities: dict
    arguments: dict = dataclasses.field(default_factory=dict)
    needs: tuple = ()
    python: str = "this"
    environment: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    once: bool = False
    repeats: int = 1
    levels: dict = dataclasses.field(default_factory=dict)

    @property
    def key(self):
        """What tells it from every other job."""
        return (
            self.section,
            self.network,
            self.framework,
            self.engine,
            self.model,
        )

    @property
    def title(self):
        return f"{self.framework} {self.engine}, {self.model}"

    def only(self, quantities):
        """The same job with these of its quantities."""
        kept = {k: v for k, v in self.quantities.items() if k in quantities}
        return dataclasses.replace(self, quantities=kept)


@dataclasses.dataclass(frozen=True)
class Request:
    """What a run is asked for.

    Attributes:
        sections: of `SECTIONS`.
        size: of the images of inference and training.
        saving_sizes: of the pairs, besides the published one.
        networks, pairs: of `NETWORKS` and `PAIRS`.
        detectors: of `keras_csp.analysis.detectors.published_detectors()`.
        threads: of every contender.
        folder: for exported files.
    """

    sections: tuple
    size: int
    saving_sizes: tuple
    networks: tuple
    pairs: tuple
    detectors: tuple
    threads: int
    folder: pathlib.Path

    def path(self, model, suffix, size=None):
        """Of an exported file, as text."""
        return str(self.folder / f"{model}-{size or self.size}.{suffix}")


def groups(request):
    """Lists of jobs, in the order in which they are measured."""
    wanted, found = set(request.sections), []
    if "costs" in wanted:
        found.append(list(_imports()))
    if wanted & {"inference", "training", "costs"}:
        for network in request.networks:
            found += _network(request, network)
    if "savings" in wanted:
        for pair in request.pairs:
            found += _pair(request, pair)
    if "detectors" in wanted:
        found.append([_detector(request, d) for d in request.detectors])
    return [group for group in found if group]


def split(found, level):
    """Groups as `level` measures them, and what it leaves out.

    Returns:
        Lists of jobs, and {(key of a job, quantity): reason}.
    """
    left_out, kept = {}, []
    for group in found:
        kept.append([])
        for job in group:
            late = {q: n for q, n in job.levels.items() if n > level}
            for quantity in job.quantities:
                if quantity in late:
                    reason = f"measured only {_OPTION[late[quantity]]}"
                    left_out[job.key, quantity] = reason
            remaining = job.only(job.quantities.keys() - late.keys())
            if remaining.quantities:
                kept[-1].append(remaining)
    return [group for group in kept if group], left_out


def _network(request, network):
    """The costs, each alone, which leave the files; then all in turns."""
    sections = set(request.sections)
    alone = []
    if sections & {"inference", "costs"}:
        alone = [[job] for job in _costs(request, network)]
    together = [
        *_our_engines(request, network),
        *_exported_files(request, network),
        *_peers(request, network),
    ]
    if "inference" in sections:
        together += _matrix_products(request, network)
    return [*alone, [job for job in together if job.quantities]]


# Inference and the training step.


def image_quantities(request, training=True):
    """{name: batch, size, training} of inference and training."""
    found = {}
    if "inference" in request.sections:
        for name, batch in ((BATCH_1, 1), (BATCH_8, BATCH)):
            found[name] = {"batch": batch, "size": request.size}
    if training and "training" in request.sections:
        found[TRAINING] = {
            "batch": TRAINING_BATCH,
            "size": request.size,
            "training": True,
        }
    return found


def _our_engines(request, network):
    """TensorFlow, XLA and JAX; the paper's own variant in TensorFlow."""
    yield _keras(request, network, "keras_csp", "TensorFlow", network.factory)
    # XLA compiles a training step for a minute; grouped, it runs for one too.
    slow = network.title != "CSPPeleeNet"
    levels = _levels(training=THOROUGH if slow else DEFAULT)
    for engine in ("XLA", "JAX"):
        yield _keras(
            request,
            network,
            "keras_csp",
            engine,
            network.factory,
            levels=levels,
        )
    if network.paper:
        yield _keras(
            request,
            network,
            "keras_csp",
            "TensorFlow",
            network.paper,
            levels=_levels(training=THOROUGH),
        )


def _exported_files(request, network):
    """Ours and timm's, in their runtimes."""
    ours = [
        ("LiteRT", "tflite", network.factory),
        ("LiteRT int8", "int8.tflite", network.factory),
        ("onnxruntime", "onnx", network.factory),
        ("OpenVINO", "onnx", network.factory),
    ]
    if network.paper:
        ours.append(("LiteRT", "tflite", network.paper))
    for engine, suffix, model in ours:
        yield _file(request, network, "keras_csp", engine, suffix, model)
    if network.timm:
        yield _file(
            request, network, "timm", "onnxruntime", "onnx", network.timm
        )


def _peers(request, network):
    """keras-hub, timm and keras.applications in their own frameworks."""
    if network.timm:
        yield _keras(
            request,
            network,
            "keras-hub",
            "TensorFlow",
            network.timm,
            levels={TRAINING: DEFAULT} if network.grouped else {},
        )
        yield _torch(request, network, "eager", network.timm)
        yield _torch(request, network, "channels_last", network.timm)
        # It compiles for minutes: one network shows what that gains.
        level = DEFAULT if network == NETWORKS[0] else THOROUGH
        levels = _levels(level, THOROUGH)
        yield _torch(request, network, "compiled", network.timm, levels)
    for name in network.applications:
        yield _keras(
            request,
            network,
            "keras.applications",
            "TensorFlow",
            name,
            levels=_levels(),
        )
    for name in network.others:
        levels = _levels(training=THOROUGH)
        yield _torch(request, network, "eager", name, levels)


def _matrix_products(request, network):
    """The machine's own speed, measured in turns with inference."""
    for library, python in (("numpy", "this"), ("torch", "timm")):
        yield Job(
            "inference",
            network.title,
            "sgemm",
            library,
            str(SGEMM_SIDE),
            contender="MatrixProduct",
            quantities={
                name: {"side": SGEMM_SIDE} for name in (BATCH_1, BATCH_8)
            },
            arguments={"library": library, "threads": request.threads},
            needs=(library,),
            python=python,
        )


def _levels(inference=DEFAULT, training=DEFAULT):
    return {BATCH_1: inference, BATCH_8: inference, TRAINING: training}


def _keras(request, network, framework, engine, model, levels=None):
    needs = {"JAX": ("jax",)}.get(engine, ())
    if framework == "keras-hub":
        needs = ("keras_hub",)
    return Job(
        "inference",
        network.title,
        framework,
        engine,
        model,
        contender="KerasNetwork",
        quantities=image_quantities(request),
        arguments={
            "framework": framework,
            "model": model,
            "jit_compile": engine in ("XLA", "JAX"),
            "threads": request.threads,
        },
        needs=("keras", *needs),
        environment=_JAX if engine == "JAX" else _TENSORFLOW,
        levels=levels or {},
    )


def _torch(request, network, engine, model, levels=None):
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(request.folder / "inductor")}
    return Job(
        "inference",
        network.title,
        "timm",
        engine,
        model,
        contender="TorchNetwork",
        quantities=image_quantities(request),
        arguments={
            "model": model,
            "channels_last": engine == "channels_last",
            "compiled": engine == "compiled",
            "threads": request.threads,
        },
        needs=("timm", "torch"),
        python="timm",
        environment=cache,
        levels=levels or {},
    )


def _file(request, network, framework, engine, suffix, model):
    path = request.path(model, suffix)
    quantities = image_quantities(request, training=False)
    return Job(
        "inference",
        network.title,
        framework,
        engine,
        model,
        quantities=quantities,
        files=dict.fromkeys(quantities, path),
        **_runtime(
            request,
            engine.removesuffix(" int8"),
            {request.size: path},
            "NCHW" if framework == "timm" else "NHWC",
        ),
    )


def _runtime(request, runtime, paths, layout="NHWC"):
    """The fields of a job that runs exported files."""
    modules = {
        "LiteRT": "ai_edge_litert",
        "onnxruntime": "onnxruntime",
        "OpenVINO": "openvino",
    }
    return {
        "contender": "ExportedFile",
        "arguments": {
            "runtime": runtime,
            "paths": paths,
            "layout": layout,
            "threads": request.threads,
        },
        "needs": (modules[runtime],),
    }


# What comes before the first answer.


def _imports():
    for framework, module, python in (
        ("keras_csp", "keras_csp", "this"),
        ("keras", "keras", "this"),
        ("keras-hub", "keras_hub", "this"),
        ("timm", "timm", "timm"),
    ):
        yield Job(
            "imports",
            "imports",
            framework,
            engine="",
            model="",
            contender="Import",
            quantities={"import": {"module": module}},
            needs=("keras" if module == "keras_csp" else module,),
            python=python,
            environment=_TENSORFLOW,
            once=True,
        )


def _costs(request, network):
    """Building, exporting and, if asked for, the files of weights."""
    weights = "costs" in request.sections
    formats = ("LiteRT", "LiteRT int8", "ONNX")
    models = [("keras_csp", network.factory, weights, formats)]
    if network.paper and "inference" in request.sections:
        models.append(("keras_csp", network.paper, False, ("LiteRT",)))
    if network.timm and weights:
        models.append(("keras-hub", network.timm, True, ()))
    if network.timm:
        models.append(("timm", network.timm, weights, ("ONNX",)))
    for framework, model, with_weights, exports in models:
        steps = {"build": {"step": "build"}}
        if with_weights:
            steps["save weights"] = {"step": "save_weights"}
            steps["load weights"] = {"step": "load_weights"}
        for name in exports:
            steps[f"export {name}"] = _export(request, model, name)
        yield _steps(request, "costs", network.title, framework, model, steps)


def _export(request, model, name):
    suffix = {"LiteRT": "tflite", "LiteRT int8": "int8.tflite", "ONNX": "onnx"}
    step = f"export {name}".lower().replace(" ", "_")
    return {"step": step, "with": {"path": request.path(model, suffix[name])}}


def _steps(
    request, section, title, framework, model, steps, size=None, levels=None
):
    """A job whose steps are run once."""
    timm = framework == "timm"
    needs = {
        "keras_csp": ("keras", "tensorflow"),
        "keras-hub": ("keras_hub",),
        "timm": ("timm", "torch", "safetensors", "onnxscript"),
    }
    arguments = {
        "model": model,
        "size": size or request.size,
        "folder": str(request.folder),
        "threads": request.threads,
    }
    if not timm:
        arguments["framework"] = framework
    return Job(
        section,
        title,
        framework,
        "PyTorch" if timm else "TensorFlow",
        model,
        contender="TorchSteps" if timm else "KerasSteps",
        quantities=steps,
        arguments=arguments,
        needs=needs[framework],
        python="timm" if timm else "this",
        environment=_TENSORFLOW,
        once=True,
        levels=levels or {},
    )


# Pairs of a base network and its CSP network, and detectors.


def _pair(request, pair):
    """The exports of both; then both in both engines, in turns."""
    published_size = published(pair.base).input_size
    sizes = sorted({published_size, *request.saving_sizes})
    alone, together = [], []
    for model in (pair.base, pair.csp):
        # One file for all sizes, or one for each.
        paths = {
            size: request.path(
                model, "pair.tflite", size if pair.fixed_size else sizes[0]
            )
            for size in sizes
        }
        alone.append([_pair_files(request, pair, model, paths, published_size)])
        common = {
            "section": "savings",
            "network": pair.title,
            "framework": "keras_csp",
            "model": model,
            "repeats": CLOSE,
            "levels": _pair_levels(pair, sizes, published_size, "{} px"),
        }
        together += [
            Job(
                **common,
                engine="LiteRT",
                quantities=_pair_quantities(sizes, 1),
                files={f"{size} px": path for size, path in paths.items()},
                **_runtime(request, "LiteRT", paths),
            ),
            # A batch, whose time is the network's and not the call's.
            Job(
                **common,
                engine="TensorFlow",
                contender="KerasNetwork",
                quantities=_pair_quantities(sizes, BATCH),
                arguments={
                    "framework": "keras_csp",
                    "model": model,
                    "jit_compile": False,
                    "threads": request.threads,
                },
                needs=("keras", "tensorflow"),
                environment=_TENSORFLOW,
            ),
        ]
    return [*alone, together]


def _pair_files(request, pair, model, paths, published_size):
    steps, exported = {}, set()
    for size, path in paths.items():
        if path not in exported:
            exported.add(path)
            steps[f"export {size} px"] = {
                "step": "export_litert",
                "with": {"path": path, "size": size},
            }
    return _steps(
        request,
        "savings files",
        pair.title,
        "keras_csp",
        model,
        steps,
        size=min(paths),
        levels=_pair_levels(pair, paths, published_size, "export {} px"),
    )


def _pair_quantities(sizes, batch):
    return {f"{size} px": {"batch": batch, "size": size} for size in sizes}


def _pair_levels(pair, sizes, published_size, name):
    """A pair that is exported anew for each size takes long at large ones."""
    if not pair.fixed_size:
        return {}
    return {
        name.format(size): THOROUGH if size > published_size else DEFAULT
        for size in sizes
    }


def _detector(request, row):
    """One of Table 2, a `published_detectors()`."""
    return Job(
        "detectors",
        "detectors",
        "keras_csp",
        "TensorFlow",
        row.head,
        contender="DetectorFrames",
        quantities={"frame": {"size": DETECTOR_SIZE}},
        arguments={"detector": row.arguments, "threads": request.threads},
        needs=("keras", "tensorflow", "sklearn"),
        environment=_TENSORFLOW,
        repeats=CLOSE,
    )
