"""A training run: its arguments, its folder, its errors."""

import argparse
import contextlib
import importlib.util
import json
import pathlib
import sys
import warnings

import keras

from keras_csp._files import atomic_write
from keras_csp.training.recipes import RECIPES

_MISSING = object()


def positive_int(text):
    """A positive integer, as `type` of an argument of `argparse`."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return int(text)


def make_parser(description, output):
    """A parser of an example, with the arguments that every run has.

    Args:
        description: the example's docstring.
        output: the default folder.

    Returns:
        An `argparse.ArgumentParser` with --seed, --verbose and --output.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("the run")
    group.add_argument("--seed", type=int, default=0, help="default 0")
    group.add_argument(
        "--verbose",
        type=int,
        default=1,
        help="0 prints no progress, 1 a bar (default), 2 a line each epoch",
    )
    group.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(output),
        help=f"folder of the results; default {output}",
    )
    return parser


def add_classification_arguments(parser, model, size, default_size=None):
    """Adds --data, --model and --size.

    Args:
        parser: an `argparse.ArgumentParser`.
        model: name of the default network.
        size: what the help says about the default of --size.
        default_size: that default. Default None.
    """
    group = parser.add_argument_group("data and network")
    group.add_argument(
        "--data",
        default="digits",
        help="digits (default), a FOLDER of class folders, or tfds:NAME",
    )
    group.add_argument(
        "--model",
        default=model,
        help=f"a name of keras_csp.list_models(); default {model}",
    )
    group.add_argument(
        "--size",
        type=positive_int,
        default=default_size,
        help=f"side of the images in pixels; default {size}",
    )


def add_recipe_arguments(parser, kind, name, epochs=None):
    """Adds --recipe, --batch and --epochs.

    Args:
        parser: an `argparse.ArgumentParser`.
        kind: of the recipes, "classification" or "detection".
        name: of the default recipe; None where the program chooses one.
        epochs: default of --epochs. Default None: the recipe's.
    """
    names = [key for key, recipe in RECIPES.items() if recipe.kind == kind]
    files = "the run.json of another run"
    if kind == "detection":
        files += ", or a detector's Darknet .cfg"
    shown = name or "chosen by the other arguments"
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--recipe",
        default=name,
        help=f"{', '.join(names)}; or {files}; default {shown}",
    )
    group.add_argument(
        "--batch",
        type=positive_int,
        help="images of a batch; default: the recipe's",
    )
    shown = epochs or "as many as the recipe's steps take"
    group.add_argument(
        "--epochs", type=positive_int, default=epochs, help=f"default {shown}"
    )


def parse_arguments(parser, smoke=None):
    """The arguments of the command line.

    Args:
        parser: an `argparse.ArgumentParser`.
        smoke: other defaults, for a parser that has --smoke, if that is given.
            Default none.
    """
    options = parser.parse_args()
    if smoke and options.smoke:
        parser.set_defaults(**smoke)
        options = parser.parse_args()
    options.output = pathlib.Path(options.output)
    return options


@contextlib.contextmanager
def cli_errors(program, resumes=True):
    """Ends the program with its name and the message of an error of the block.

    ValueError, OSError and ImportError are caused by the program's input;
    other errors are defects and keep their stack. Keras' warning about data
    sets of unknown length is not shown.

    Args:
        program: its name.
        resumes: whether the same command resumes an interrupted run, which the
            message then says. Default True.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your input ran out of data")
            yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{program}: {error}")
    except KeyboardInterrupt:
        hint = "; rerun the same command to resume" if resumes else ""
        sys.exit(f"{program}: interrupted{hint}")


def write_json(path, content):
    """Writes `content` to `path` as JSON, atomically."""
    with atomic_write(path) as part:
        text = json.dumps(content, indent=2) + "\n"
        part.write_text(text, encoding="utf-8")


def save_model(path, model):
    """`model.save(path)`, atomically."""
    with atomic_write(path) as part:
        model.save(part)


def save_run(folder, recipe, arguments, free=()):
    """Writes a run's recipe and arguments to `run.json` in its folder.

    Called again for the same folder it compares them first: a run is resumed
    with the recipe and arguments it was started with.

    Args:
        folder: of the run; created if it does not exist.
        recipe: a `Recipe`, written under "recipe";
            `keras_csp.recipes.get_recipe` reads it there.
        arguments: a dict of JSON values.
        free: names that may differ when the run is resumed, such as "epochs"
            or "recipe.steps".

    Raises:
        ValueError: the folder has a run with another recipe or arguments, its
            `run.json` is not valid, or the recipe is not.
    """
    recipe.check()
    path = pathlib.Path(folder) / "run.json"
    content = {**arguments, "recipe": recipe.get_config()}
    content = json.loads(json.dumps(content))
    if path.is_file():
        _check_same(path, content, free)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def _check_same(path, content, free):
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is not the file of a run")
    old, new = _flat(saved), _flat(content)
    for name in [*new, *(name for name in old if name not in new)]:
        if name in free or old.get(name, _MISSING) == new.get(name, _MISSING):
            continue
        raise ValueError(
            f"{path.parent} has a run with {name}={old.get(name)!r}; resume it "
            "with that, or choose another folder. Received: "
            f"{new.get(name)!r}"
        )


def _flat(content, prefix=""):
    """{"recipe.batch_size": ...} from {"recipe": {"batch_size": ...}}."""
    found = {}
    for key, value in content.items():
        inside = isinstance(value, dict)
        name = f"{prefix}{key}"
        found.update(_flat(value, f"{name}.") if inside else {name: value})
    return found


def tensorboard(folder):
    """[`keras.callbacks.TensorBoard`], or [] and a line where it is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        print("no logs for TensorBoard: pip install tensorboard")
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False)]
