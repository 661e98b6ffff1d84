"""ImageNet's classes in both orders, beside lists made by others."""

import csv

import pytest

from keras_csp.weights.class_names import (
    imagenet_classes,
    imagenet_names,
    wordnet_ids,
)


def test_both_orders_have_the_same_classes():
    sorted_classes, darknets = (
        imagenet_classes(order) for order in ("imagenet", "darknet")
    )
    assert len(set(sorted_classes)) == 1000
    assert list(sorted_classes) == sorted(darknets)


def test_numbers_are_those_of_imagenet(shared_data):
    path = shared_data / "classification" / "imagenet_sample" / "index.csv"
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            number = int(row["class_index"])
            assert imagenet_classes()[number][0] == row["wnid"]


def test_ids_and_names_are_timms():
    infos = pytest.importorskip("timm.data")
    info = infos.ImageNetInfo()
    for number, (wordnet_id, name) in enumerate(imagenet_classes()):
        assert info.index_to_label_name(number) == wordnet_id
        lemmas = info.label_name_to_description(wordnet_id)
        assert lemmas.split(",")[0] == name


def test_wordnet_ids_are_found_by_all_names_only():
    for order in ("imagenet", "darknet"):
        ids = [wordnet_id for wordnet_id, _ in imagenet_classes(order)]
        assert list(wordnet_ids(list(imagenet_names(order)))) == ids
    assert wordnet_ids(imagenet_names()[:10]) is None
    assert wordnet_ids(("cat", "dog")) is None
