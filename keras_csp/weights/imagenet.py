"""The 1000 classes of ImageNet, in the two orders that networks have.

imagenet_classes.txt: WordNet ids in sorted order, which Keras, PyTorch and
timm have, and the first of their names; from timm's imagenet_synsets.txt and
imagenet_synset_to_lemma.txt. darknet_classes.txt: the ids in Darknet's order,
from Darknet's data/imagenet.labels.list.
"""

import functools
import pathlib


@functools.cache
def imagenet_classes():
    """{WordNet id: name}, in sorted order."""
    path = pathlib.Path(__file__).with_name("imagenet_classes.txt")
    lines = path.read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


@functools.cache
def darknet_classes():
    """{WordNet id: name}, in Darknet's order."""
    path = pathlib.Path(__file__).with_name("darknet_classes.txt")
    names = imagenet_classes()
    return {
        wordnet_id: names[wordnet_id] for wordnet_id in path.read_text().split()
    }


def wordnet_ids(class_names):
    """The WordNet ids of these names, None where they are not ImageNet's."""
    for classes in (imagenet_classes(), darknet_classes()):
        if tuple(class_names) == tuple(classes.values()):
            return tuple(classes)
    return None
