"""Pictures of trainings: losses and accuracies by epoch."""

from keras_csp._files import atomic_write


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

    names = [
        name
        for name in history[0]
        if name != "epoch" and not name.startswith("val_")
    ]
    figure = Figure(figsize=(4.5 * len(names), 3.6), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            rows = [row for row in history if key in row]
            if rows:
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
    """Draws the accuracies of several trainings into one PNG.

    Args:
        path: of the PNG.
        results: name to a dict: "accuracies", one for each epoch, and "ends",
            the last epoch of each phase.
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
