"""Pictures of trainings have the lines they should."""

import numpy as np
import pytest
from PIL import Image

from keras_csp.training.curves import draw_accuracies, draw_curves


def history(epochs, validated=lambda epoch: True):
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "accuracy": epoch / epochs, "loss": 1 / epoch}
        if validated(epoch):
            row.update(val_accuracy=epoch / (epochs + 1), val_loss=2 / epoch)
        yield row


def drawn(path):
    """Fractions of the picture in the first and the second line's colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"), int)
    colours = ((31, 119, 180), (255, 127, 14))  # matplotlib's C0 and C1
    return [
        (np.abs(pixels - colour).sum(axis=-1) < 60).mean() for colour in colours
    ]


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_the_curves_are_drawn(tmp_path, epochs):
    path = tmp_path / "curves.png"
    draw_curves(path, list(history(epochs)), "A network")
    assert all(part > 2e-4 for part in drawn(path))
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_the_curves_of_some_epochs_and_none_validated(tmp_path):
    rare = list(history(9, lambda epoch: epoch % 3 == 0))
    draw_curves(tmp_path / "rare.png", rare)
    assert all(part > 2e-4 for part in drawn(tmp_path / "rare.png"))
    never = list(history(9, lambda epoch: False))
    draw_curves(tmp_path / "never.png", never)
    first, second = drawn(tmp_path / "never.png")
    assert first > 2e-4 and second == 0


def test_accuracies_are_drawn_beside_each_other(tmp_path):
    results = {
        "fine-tuned": {"accuracies": [0.2, 0.6, 0.9], "ends": [1, 3]},
        "from scratch": {"accuracies": [0.1, 0.3, 0.5], "ends": [3]},
    }
    draw_accuracies(tmp_path / "both.png", results)
    assert all(part > 2e-4 for part in drawn(tmp_path / "both.png"))
    del results["from scratch"]
    draw_accuracies(tmp_path / "one.png", results)
    first, second = drawn(tmp_path / "one.png")
    assert first > 2e-4 and second == 0


def test_no_epochs_no_curves(tmp_path):
    with pytest.raises(ValueError, match="no epochs"):
        draw_curves(tmp_path / "curves.png", [])
    assert not list(tmp_path.iterdir())
