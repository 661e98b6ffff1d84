"""The trainings of the ablation."""

import ablation_study as networks
import keras
import numpy as np
import pytest
from gpu_parts import ablation, cifar


def test_every_network_of_the_ablation_is_in_the_order_once():
    order = ablation.order(2)
    assert len(set(order)) == len(order)
    assert set(order) == {(n, s) for n in networks.entries() for s in (0, 1)}
    first = [name for name, _seed in order[:8]]
    assert first == [*ablation.TIERS[0], *ablation.TIERS[0]]
    assert all("ResNeXt" in name for name, _seed in order[-4:])
    assert ablation.order(1, ["PeleeNet"]) == [("PeleeNet", 0)]
    with pytest.raises(ValueError, match="PeleeNett"):
        ablation.order(1, ["PeleeNett"])


def layer_of(images, size, shift=0):
    return ablation.ImagesOnDevice(images, size, shift)


def test_images_are_enlarged_as_keras_does(rng):
    images = rng.integers(0, 256, (5, 8, 8, 3), "uint8")
    found = layer_of(images, 20, shift=3)(np.array([4, 1, 1]))
    given = images[[4, 1, 1]].astype("float32") / 255
    expected = keras.ops.image.resize(given, (20, 20), "bilinear")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_training_image_is_shifted_and_mirrored(rng):
    """Each is one of all shifts and mirrorings, and every kind occurs."""
    image = rng.integers(0, 256, (8, 8, 3), "uint8")
    numbers = np.zeros(64, "int32")
    found = np.asarray(layer_of(image[None], 8, 1)(numbers, training=True))
    padded = np.pad(image / 255.0, [(1, 1), (1, 1), (0, 0)], mode="edge")
    seen = set()
    for one in found:
        kinds = [
            (top, left, mirrored)
            for top in range(3)
            for left in range(3)
            for mirrored in (False, True)
            if np.allclose(
                one[:, ::-1] if mirrored else one,
                padded[top : top + 8, left : left + 8],
                atol=1e-6,
            )
        ]
        assert len(kinds) == 1
        seen.add(kinds[0])
    assert len(seen) > 9
    assert {kind[2] for kind in seen} == {False, True}


def test_the_images_are_not_saved_with_a_training(rng, tmp_path):
    images = rng.integers(0, 256, (50, 32, 32, 3), "uint8")
    numbers = keras.Input((), dtype="int32")
    model = keras.Model(numbers, layer_of(images, 32)(numbers))
    model.save_weights(tmp_path / "model.weights.h5")
    assert (tmp_path / "model.weights.h5").stat().st_size < images.size / 2


@pytest.mark.slow
def test_a_stopped_cell_goes_on_as_if_it_had_not_been(pictures, tmp_path):
    data = cifar.read(pictures)
    plan = ablation.Plan(epochs=3, size=32, batch_size=8, test_batch=5)
    rows = {}
    for name, stops in (("whole", ()), ("stopped", (0, 0))):
        reported = rows[name] = []
        for until in (*stops, float("inf")):
            cell = ablation.Cell(
                "CSPResNet10_reduced2", 3, data, plan, tmp_path / name, False
            )
            row = cell.run(until, reported.append)
            assert (row is None) == (until == 0)
        reported.append(row)
        assert not list((tmp_path / name).rglob("*.h5"))
    whole, stopped = rows["whole"], rows["stopped"]
    assert [row.get("epoch") for row in stopped] == [1, 2, 3, None]
    for ours, theirs in zip(whole, stopped):
        assert float(ours["loss"]) == pytest.approx(
            float(theirs["loss"]), rel=1e-4
        )
