"""Collects what a machine without a network needs in one folder."""

import pathlib
import shutil
import subprocess
import sys

# Beside PyTorch, timm, JAX and Pillow: Keras and what it requires. Pinned, so
# that what was rehearsed is what runs.
WHEELS = (
    "keras==3.15.1",
    "namex==0.1.0",
    "optree==0.20.0",
    "h5py==3.16.0",
    "absl-py==2.4.0",
    "packaging==26.2",
    "rich==15.0.0",
    "markdown-it-py==4.2.0",
    "mdurl==0.1.2",
    "pygments==2.20.0",
)
PYTHON = "3.12"
# The newest first; a wheel of an older one runs on a newer system too.
PLATFORMS = tuple(
    f"manylinux{version}_x86_64"
    for version in ("_2_28", "_2_27", "_2_17", "2014", "1")
)
MOST = 64 * 2**20  # bytes


def carry(folder, data=None):
    """Downloads the wheels, and copies the images, into a folder.

    Args:
        folder: made if it does not exist.
        data: path of CIFAR-10's archive. Default None: wheels alone.

    Returns:
        {name: bytes} of what is there.

    Raises:
        ValueError: a download failed, or all is more than 64 MiB.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet"),
            *("--no-deps", "--only-binary=:all:", "--implementation=cp"),
            *(f"--python-version={PYTHON}", f"--dest={folder}"),
            *platforms,
            *WHEELS,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise ValueError(f"pip download failed: {answer.stderr.strip()}")
    if data is not None:
        shutil.copy(data, folder)
    found = {path.name: path.stat().st_size for path in folder.iterdir()}
    if sum(found.values()) > MOST:
        raise ValueError(
            f"{folder} must be under {MOST >> 20} MiB to be carried along. "
            f"Received: {sum(found.values()) / 2**20:.1f} MiB"
        )
    return found
