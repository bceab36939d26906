"""Files of fixed arrays that several processes map: how they are made, opened and recognised.

The first two fields of a header are `magic` and `version`.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtb.base.errors import StoreCorrupt, StoreError


def replace_file(path: Path, header: npt.NDArray[np.void], size: int) -> None:
    """Writes a header and zeros up to `size` bytes; replaces an older file whole.

    The bytes are really there: a disk that is full later must not kill who writes to the map.
    Raises: StoreError when there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            file.write(header.tobytes())
            file.flush()
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise StoreError(f"no room for {size:,} bytes: {error} - at `{fresh}`") from error
    fresh.replace(path)


def open_mapped(
    path: Path, header: np.dtype[Any], magic: int, version: int, what: str
) -> mmap.mmap:
    """The file, mapped for reading and writing; `what` names its kind in messages.

    Raises: StoreCorrupt when it does not begin with a header of this magic and version.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        mapped = mmap.mmap(descriptor, 0)
    except ValueError as error:
        raise StoreCorrupt(f"{path}: empty") from error
    finally:
        os.close(descriptor)
    if len(mapped) < header.itemsize:
        raise StoreCorrupt(f"{path}: too short for a {what}")
    found = np.frombuffer(mapped, header, 1)[0]
    if found["magic"] != magic or found["version"] != version:
        raise StoreCorrupt(f"{path}: not a {what} of version {version}")
    return mapped
