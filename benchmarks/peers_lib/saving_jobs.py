"""The jobs of pairs: a base network and its CSP network, at several sizes."""

from peers_lib.cost_jobs import cost
from peers_lib.jobs import (
    CLOSE,
    DEFAULT,
    TENSORFLOW,
    THOROUGH,
    TRAINING_BATCH,
    Job,
)


def files(request, pair, model, sizes, published):
    """One export, or one for each size where a file has a fixed one."""
    steps = {}
    for size, path in _pair_paths(request, pair, model, sizes).items():
        asked = {"path": path, "size": size}
        name = f"export {size} px"
        steps[name] = {"step": "export_litert", "with": asked}
        if not pair.fixed:
            break
    return cost(
        request,
        _pair_title(pair),
        "keras_csp",
        model,
        steps,
        needs=("keras", "tensorflow"),
        section="savings files",
        size=sizes[0],
        levels=_levels(pair, sizes, published, "export {} px"),
    )


def litert(request, pair, model, sizes, published):
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
        levels=_levels(pair, sizes, published),
        seconds=1,
    )


def tensorflow(request, pair, model, sizes, published):
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
        environment=TENSORFLOW,
        levels=_levels(pair, sizes, published),
        seconds=7,
    )


def _pair_title(pair):
    return f"{pair.csp} / {pair.base}"


def _levels(pair, sizes, published, name="{} px"):
    """A pair that is exported anew for each size takes long at large ones."""
    if not pair.fixed:
        return {}
    return {
        name.format(size): THOROUGH if size > published else DEFAULT
        for size in sizes
    }


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
        "repeats": CLOSE,
    }
