"""Files from the Hugging Face hub: checked, or an error and nothing else.

A model there has the address hf://user/name, hf://user/name@revision or
hf://user/name/FILE. `find_model` gives what Keras loads as a model,
`find_weights` what fills one; the factories, `Detector` and the commands all
use these.
"""

import contextlib
import hashlib
import os
import pathlib
import re

import huggingface_hub
from huggingface_hub import errors

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 22
_PREFIX = "hf://"
_ADDRESS = re.compile(
    _PREFIX + r"([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?(?:/(\S+))?"
)
KERAS_WEIGHTS = (".keras", ".weights.h5")
TIMM_FILE = "model.safetensors"
# What `model.save("hf://user/name")` writes, and files of whole models.
_MODEL_FILES = (
    "*.keras",
    "config.json",
    "metadata.json",
    "*.weights.h5",
    "*.weights.json",
    "assets/*",
)


class DownloadError(OSError):
    """A file could not be downloaded from the hub; nothing was loaded."""


def is_address(name):
    """Whether it names a model of the hub."""
    return str(name).startswith(_PREFIX)


def parse_address(address, suffixes):
    """(repository, revision or None, file or None) of an address.

    Args:
        address: e.g. "hf://user/name@main/best.keras".
        suffixes: that the file may have.

    Raises:
        ValueError: another form, or a file of another suffix.
    """
    found = _ADDRESS.fullmatch(address)
    file = found and found[3]
    if not found or (file and not file.endswith(tuple(suffixes))):
        files = " or ".join(f"{_PREFIX}user/name/FILE{s}" for s in suffixes)
        raise ValueError(
            f"A model of the hub must be {_PREFIX}user/name or {files}, with "
            f"@revision after the name for another one. Received: {address}"
        )
    return found.groups()


def find_model(address):
    """The local path of a whole model: a .keras file, or a folder of Keras'.

    Raises:
        ValueError: an address of another form, or a repository without a
            model, or with several; the message lists them.
        DownloadError: as of `download`.
    """
    repository, revision, file = parse_address(address, (".keras",))
    if file:
        return _download_one(repository, file, revision)
    folder = pathlib.Path(download_folder(repository, _MODEL_FILES, revision))
    if (folder / "metadata.json").is_file():
        return str(folder)
    return _only_file(folder, (".keras",), address)


def find_weights(address, suffixes=KERAS_WEIGHTS):
    """The local path of a file that fills a model.

    Of a repository that `model.save("hf://user/name")` made its
    model.weights.h5, of one of timm's its model.safetensors, else its only
    file.

    Args:
        address: as of `find_model`, or with a file of one of the suffixes.
        suffixes: of the files that the model can take.

    Raises:
        ValueError, DownloadError: as of `find_model`.
    """
    repository, revision, file = parse_address(address, suffixes)
    if file:
        return _download_one(repository, file, revision)
    wanted = (*_MODEL_FILES, TIMM_FILE)
    if not TIMM_FILE.endswith(suffixes):
        wanted = _MODEL_FILES
    folder = pathlib.Path(download_folder(repository, wanted, revision))
    for name in ("model.weights.h5", TIMM_FILE):
        if name.endswith(suffixes) and (folder / name).is_file():
            return str(folder / name)
    return _only_file(folder, suffixes, address)


def _download_one(repository, file, revision):
    """One file, and the settings that lie beside it in the repository."""
    wanted = (file, *_beside(file))
    path = pathlib.Path(download_folder(repository, wanted, revision)) / file
    if not path.is_file():
        raise DownloadError(
            f"Could not get {file} of {repository} (revision "
            f"{revision or 'main'}) from {_endpoint()}: the repository has no "
            "such file. Nothing was loaded."
        )
    return str(path)


def _beside(file):
    folder = file.rpartition("/")[0]
    names = ("config.json", "metadata.json")
    return [f"{folder}/{name}" if folder else name for name in names]


def _only_file(folder, suffixes, address):
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.endswith(tuple(suffixes))
    ]
    if len(found) != 1:
        listed = [path.relative_to(folder).as_posix() for path in found]
        raise ValueError(
            f"{address} must hold one {' or '.join(suffixes)} file, or what "
            f'`model.save("{_PREFIX}user/name")` writes; or name its file. '
            f"Found: {', '.join(listed) or 'none'}"
        )
    return str(found[0])


def download(hub_id, filename, revision=None):
    """The local path of one file of a hub repository.

    The download, its cache (HF_HOME), mirrors (HF_ENDPOINT), resumption and
    offline mode (HF_HUB_OFFLINE) are huggingface_hub's. The content is then
    compared with the SHA-256 that the hub announces, and a file that differs
    is removed from the cache.

    Args:
        hub_id: "organisation/name".
        filename: within the repository.
        revision: branch, tag or commit. Default the main branch.

    Raises:
        DownloadError: no network and not in the cache, no such repository,
            revision or file, an interrupted transfer, a full disk, a wrong
            checksum.
        ValueError: `hub_id` is not of that form.
    """
    what = f"{filename} of {hub_id} (revision {revision or 'main'})"
    with _hub_errors(hub_id, what):
        path = huggingface_hub.hf_hub_download(
            hub_id, filename, revision=revision
        )
    _verify(path, what)
    return path


def download_folder(hub_id, patterns, revision=None):
    """The local folder of those files of a repository that match a pattern.

    Args:
        hub_id: "organisation/name".
        patterns: of the names of its files, e.g. ("*.keras",).
        revision: branch, tag or commit. Default the main branch.

    Raises:
        DownloadError, ValueError: as `download`.
    """
    what = f"{hub_id} (revision {revision or 'main'})"
    with _hub_errors(hub_id, what):
        folder = huggingface_hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=list(patterns)
        )
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            _verify(str(path), what)
    return folder


@contextlib.contextmanager
def _hub_errors(hub_id, what):
    """Turns what huggingface_hub raises into the errors of this module."""
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(
            'A hub id must be of the form "organisation/name". Received: '
            f"{hub_id!r}"
        ) from error
    except Exception as error:
        raise DownloadError(
            f"Could not get {what} from {_endpoint()}: {_reason(error)} "
            "Nothing was loaded."
        ) from error


def _endpoint():
    return huggingface_hub.constants.ENDPOINT


def _reason(error):
    """The error of huggingface_hub or below, as one helpful sentence."""
    if isinstance(error, errors.GatedRepoError):
        return "access is restricted; log in with `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private."
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the repository has no such file."
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "no connection (or HF_HUB_OFFLINE is set), and it is not in the "
            f"cache {huggingface_hub.constants.HF_HUB_CACHE!r}. Connect once, "
            "set HF_ENDPOINT to a mirror, or give the path of a local "
            ".safetensors file."
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}."


def _verify(path, what):
    """Compares the content with the SHA-256 that its cache entry is named by.

    Files that the hub keeps in git itself are small and carry no SHA-256.
    """
    if not os.path.islink(path):
        return
    blob = os.path.join(os.path.dirname(path), os.readlink(path))
    expected = os.path.basename(blob)
    if not _SHA256.fullmatch(expected):
        return
    found = _sha256(path)
    if found == expected:
        return
    for entry in (path, blob):
        os.unlink(entry)
    raise DownloadError(
        f"The content of {what} is damaged: SHA-256 {found}, announced "
        f"{expected}. It was removed from the cache, so that the next call "
        "downloads it again. Nothing was loaded."
    )


def _sha256(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
