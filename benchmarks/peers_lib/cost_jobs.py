"""The jobs of what comes before the first answer, and leaves the files."""

from peers_lib.jobs import TENSORFLOW, Job


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
            environment=TENSORFLOW,
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
    return cost(
        request,
        network.title,
        framework,
        model,
        _steps(request, model, weights, formats),
        needs=("keras", "tensorflow") if formats else ("keras_hub",),
    )


def _timm_costs(request, network, weights):
    return cost(
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


def cost(
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
    """A job whose steps are run once."""
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
        environment=TENSORFLOW,
        once=True,
        levels=levels or {},
        seconds=12 if framework == "keras_csp" else 4,
    )
