"""The names of ImageNet's 1000 classes, in the two orders of their numbers.

imagenet_classes.txt: a WordNet id and the first of its words a line, sorted
by id, the order of Keras, PyTorch and timm. Source: WordNet 3.0, as timm's
data/_info/imagenet_synsets.txt and imagenet_synset_to_lemma.txt have it.
darknet_classes.txt: the ids in Darknet's order. Source: Darknet,
data/imagenet.labels.list.
"""

import functools
import pathlib

_FOLDER = pathlib.Path(__file__).parent


@functools.cache
def imagenet_classes(order="imagenet"):
    """((WordNet id, name), ...) of the classes 0 to 999.

    Args:
        order: "imagenet" (default): sorted by id; "darknet": that of networks
            trained by Darknet.
    """
    lines = (_FOLDER / "imagenet_classes.txt").read_text().splitlines()
    names = dict(line.split(" ", 1) for line in lines)
    if order == "darknet":
        ids = (_FOLDER / "darknet_classes.txt").read_text().split()
        return tuple((wordnet_id, names[wordnet_id]) for wordnet_id in ids)
    return tuple(names.items())


@functools.cache
def imagenet_names(order="imagenet"):
    """The names alone, as `ImageSpec.class_names`."""
    return tuple(name for _, name in imagenet_classes(order))


def wordnet_ids(names):
    """The WordNet ids of these classes, None unless they are ImageNet's."""
    for order in ("imagenet", "darknet"):
        if tuple(names) == imagenet_names(order):
            return tuple(
                wordnet_id for wordnet_id, _ in imagenet_classes(order)
            )
    return None
