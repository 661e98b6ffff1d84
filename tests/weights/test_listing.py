"""The catalog as tables."""

import pytest

import keras_csp
from keras_csp.weights import darknet_files, detector_records, records

OF_TASK = {
    "classification": records() + darknet_files(),
    "detection": detector_records(),
}


def lines(printed):
    """{first cell: line} of the aligned tables."""
    return {line.split(" ")[0]: line for line in printed.splitlines()}


@pytest.mark.parametrize("task", OF_TASK)
def test_tasks_are_listed_alone(task, capsys):
    found = keras_csp.list_weights(task)
    assert found == OF_TASK[task]
    assert {record.task for record in found} == {task}
    printed = lines(capsys.readouterr().out)
    for others in OF_TASK.values():
        for record in others:
            assert (record.name in printed) == (record in found)


def test_default_lists_all(capsys):
    found = keras_csp.list_weights()
    assert found == sum(OF_TASK.values(), ())
    printed = capsys.readouterr().out
    for record in found:
        assert record.name in printed
        assert record.licence in printed
    keras_csp.list_weights(show=False)
    assert not capsys.readouterr().out


def test_accuracies_of_both_sizes(capsys):
    """Those of the training's size and of the larger one, where there is."""
    keras_csp.list_weights("classification")
    printed = lines(capsys.readouterr().out.partition("Darknet's")[0])
    for record in records():
        larger = f"{record.test_top1:.2f} at {record.test_input_size}"
        assert (
            f"{record.top1:.2f} at {record.input_size}" in printed[record.name]
        )
        assert larger in printed[record.name]
        both = record.test_input_size != record.input_size
        assert printed[record.name].count(" at ") == 1 + both
        assert len(record.accuracies) == 1 + both


def test_images_keep_the_size_of_the_training():
    record = keras_csp.weights.find_record("cs3darknet_focus_s")
    assert record.test_input_size > record.input_size
    model = keras_csp.CS3DarkNetFocusS(include_top=False)
    spec = keras_csp.image_spec(model)
    assert spec.size == (record.input_size, record.input_size)
    assert spec.crop == record.crop


def test_average_precision_at_each_size(capsys):
    keras_csp.list_weights("detection", markdown=True)
    printed = {
        line.split(" | ")[0].removeprefix("| "): line
        for line in capsys.readouterr().out.splitlines()
    }
    for record in detector_records():
        cells = printed[record.name].split(" | ")
        assert len(cells) == 10
        results = [text for text in cells[1].split(", ") if text]
        assert len(results) == len(record.results)
        for text, result in zip(results, record.results):
            ap = "-" if result.ap is None else str(result.ap)
            assert text.split(" / ")[0] == ap
            assert text.endswith(f" at {result.size}")
        assert cells[9].startswith(f"[file]({record.weights})") == bool(
            record.weights
        )


def test_unknown_task():
    with pytest.raises(ValueError, match="'classification', 'detection'"):
        keras_csp.list_weights("segmentation")
