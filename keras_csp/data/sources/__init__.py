"""What a data set is read from: folders, COCO's JSON, TFDS, your own."""


def find_reader(source, readers, default):
    """(reader, the source without its prefix, the prefix or "").

    Args:
        source: a path, or a text such as "tfds:NAME" or "digits".
        readers: {prefix: reader}. A prefix that ends with a colon is followed
            by what the reader is given; any other is the whole source.
        default: the reader of a source without a prefix of the table.
    """
    text = str(source)
    for prefix, reader in readers.items():
        if text == prefix or (prefix[-1:] == ":" and text.startswith(prefix)):
            return reader, text.removeprefix(prefix), prefix
    return default, text, ""
