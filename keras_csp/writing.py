"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import secrets


@contextlib.contextmanager
def replacing(path):
    """Writes beside `path`, then renames: never half a file under its name.

        with replacing("run.json") as part:
            part.write_text(text)

    What was under `path` stays if the block raises, or the process dies.

    Args:
        path: of the file; its folder must exist.

    Yields:
        A `pathlib.Path` in the same folder and with the same ending (Keras
        chooses the format by it), to be written in the block. It takes the
        place of `path` at the end of the block, and is removed if it raises.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(path.parent)!r} to write to. Received: "
            f"{str(path)!r}"
        )
    part = path.with_name(f"part-{secrets.token_hex(4)}-{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
