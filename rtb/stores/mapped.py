"""Files of fixed arrays that several processes map: how they are made, opened and recognised.

The first two fields of a header are `magic` and `version`.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtb.base.errors import StoreCorrupt


def replace_file(path: Path, header: npt.NDArray[np.void], size: int) -> None:
    """Writes a header and zeros up to `size` bytes; replaces an older file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(header.tobytes())
        file.truncate(size)
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
