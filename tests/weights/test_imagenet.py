"""ImageNet's classes in both orders, beside lists made by others."""

import csv

import pytest

from keras_csp.weights.imagenet import (
    darknet_classes,
    imagenet_classes,
    wordnet_ids,
)


def test_both_orders_have_the_same_classes():
    assert len(imagenet_classes()) == 1000
    assert list(imagenet_classes()) == sorted(darknet_classes())
    assert imagenet_classes() == darknet_classes()


def test_numbers_and_names_are_imagenets(shared_data):
    path = shared_data / "classification" / "imagenet_sample" / "index.csv"
    classes = list(imagenet_classes().items())
    same, rows = 0, 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            wordnet_id, name = classes[int(row["class_index"])]
            assert wordnet_id == row["wnid"]
            same += name.lower() == row["name"].lower()
            rows += 1
    assert same > 0.9 * rows  # some have another of a class's names


def test_ids_and_names_are_timms():
    infos = pytest.importorskip("timm.data")
    info = infos.ImageNetInfo()
    for number, (wordnet_id, name) in enumerate(imagenet_classes().items()):
        assert info.index_to_label_name(number) == wordnet_id
        lemmas = info.label_name_to_description(wordnet_id)
        assert lemmas.split(",")[0] == name


def test_wordnet_ids_are_found_by_all_names_only():
    for classes in (imagenet_classes(), darknet_classes()):
        assert wordnet_ids(list(classes.values())) == tuple(classes)
    assert wordnet_ids(list(imagenet_classes().values())[:10]) is None
    assert wordnet_ids(("cat", "dog")) is None
