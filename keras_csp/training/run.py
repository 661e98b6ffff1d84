"""A training run: its arguments, its folder, its curves, its mistakes."""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
import warnings

from keras_csp._files import atomic_write


def positive_int(text):
    """A positive integer, as `type` of an argument of `argparse`."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return int(text)


@contextlib.contextmanager
def cli_errors(program, resumes=True):
    """Ends the program with its name and the message of an error of the block.

    Of errors that come from what the program was given; others are defects,
    and keep their stack. Keras' warning about data sets whose length is not
    known before they end is not shown.

    Args:
        program: its name.
        resumes: whether the same command goes on where it was stopped, as is
            said where it is. Default True.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your input ran out of data")
            yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{program}: {error}")
    except KeyboardInterrupt:
        hint = "; the same command goes on" if resumes else ""
        sys.exit(f"{program}: stopped{hint}")


def write_json(path, content):
    """Writes `content` to `path` as JSON, whole or not at all."""
    with atomic_write(path) as part:
        text = json.dumps(content, indent=2) + "\n"
        part.write_text(text, encoding="utf-8")


def save_model(path, model):
    """`model.save(path)`, whole or not at all."""
    with atomic_write(path) as part:
        model.save(part)


def save_run_args(folder, arguments, recipe=None, free=()):
    """Writes the arguments of a run to `run.json`, made with its folder.

    Called again it compares them: a run goes on with the arguments that it
    was started with.

    Args:
        folder: of the run.
        arguments: dict of what JSON has.
        recipe: dataclass, kept under "recipe". Default None.
        free: names of arguments that may differ, and are not kept.

    Raises:
        ValueError: the folder has a run of other arguments, or its `run.json`
            is damaged.
    """
    folder = pathlib.Path(folder)
    path = folder / "run.json"
    kept = {key: value for key, value in arguments.items() if key not in free}
    if recipe is not None:
        kept["recipe"] = dataclasses.asdict(recipe)
    kept = json.loads(json.dumps(kept))
    if path.is_file():
        _compare(path, kept)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, kept)


def _compare(path, arguments):
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no readable JSON: {error}") from error
    for key, value in arguments.items():
        if old.get(key) != value:
            raise ValueError(
                f"{path.parent} has a run with {key}={old.get(key)!r}; go on "
                f"with that, or choose another folder. Received: {value!r}"
            )


def draw_curves(path, history, title=""):
    """Draws losses and accuracies by epoch into a PNG.

    Args:
        path: of the PNG.
        history: a dict for each epoch, as `TrainingState.history`: "epoch"
            and the logs of `fit`; those of the validation begin with "val_".
        title: above the picture.

    Raises:
        ValueError: no epochs.
    """
    if not history:
        raise ValueError("There are no epochs to draw")
    from matplotlib.figure import Figure

    names = [n for n in history[0] if n != "epoch" and not _of_validation(n)]
    figure = Figure(figsize=(4.5 * len(names), 3.6), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            rows = [row for row in history if key in row]
            if not rows:
                continue
            axes.plot(
                [row["epoch"] for row in rows],
                [row[key] for row in rows],
                label=label,
                marker="." if len(rows) < 30 else None,
            )
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110)


def draw_accuracies(path, results):
    """Draws trainings of several phases beside each other into a PNG.

    Args:
        path: of the PNG.
        results: name to a dict: "accuracies", one for each epoch, and "ends",
            the epochs with which phases end.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        epochs = range(1, len(result["accuracies"]) + 1)
        axes.plot(epochs, result["accuracies"], marker=".", label=name)
        for end in result["ends"][:-1]:
            axes.axvline(end + 0.5, color="grey", linestyle=":")
    axes.set(xlabel="epoch", ylabel="test accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110)


def _of_validation(name):
    return name.startswith("val_")
