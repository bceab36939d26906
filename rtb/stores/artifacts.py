"""Artefacts: snapshots and models as one file each, hashed whole, mapped read-only.

    preamble   80 bytes   magic, format version, bytes of header and file, content hash
    header     JSON       kind, meta, and for each array its name, dtype, shape, offset
    arrays                each at a multiple of 64 bytes, little-endian, zeros between

The hash (BLAKE2b) covers everything but itself, so a cut or a flipped bit anywhere is found. A file
is named after its hash and never changes: `write` makes a temporary file, flushes it to disk,
renames it, and only then swaps `current`, a small file that holds the name. A reader sees the old
artefact or the new, never part of one; deleting an old file leaves those who mapped it unharmed.
"""

import hashlib
import json
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtb.base.errors import CatalogueError, StoreCorrupt, StoreError
from rtb.catalogue import bounds
from rtb.catalogue.snapshot import Snapshot

Array = npt.NDArray[Any]
Meta = dict[str, Any]

MAGIC: Final = b"RTBARTEF"
FORMAT_VERSION: Final = 1
HASH_BYTES: Final = 32
PREAMBLE: Final = struct.Struct(f"<8sIIQ24x{HASH_BYTES}s")
HASHED_BYTES: Final = PREAMBLE.size - HASH_BYTES  # of the preamble
ALIGN: Final = 64
SUFFIX: Final = ".rtb"
CURRENT: Final = "current"
# The one served, one to go back to, and one that a slow worker may still be opening.
KEEP: Final = 3
SNAPSHOT: Final = "snapshot"
# Numbers, bytes and gaps; numpy would evaluate more, and more than we want.
_PLAIN_TYPE: Final = re.compile(r"[<|][biufSV][0-9]{1,4}")


def write(directory: Path, kind: str, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Path:
    """Stores an artefact, makes it the current one of its directory, and deletes old ones.

    Raises: StoreError when the disk refuses; nothing is then swapped.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = _write_file(directory, kind, arrays, meta)
        _swap(directory, path.name)
        _forget(directory, kind)
    except OSError as error:
        raise StoreError(f"cannot write {kind} to {directory}: {error}") from error
    return path


def open_artifact(
    path: Path, kind: str, *, verify: bool = True
) -> tuple[dict[str, Array], Meta, str]:
    """Maps an artefact: its arrays (read-only views), its meta table, its content hash (hex).

    Raises: StoreCorrupt when the file is not whole, not of this kind, or not as it was written;
        StoreError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < PREAMBLE.size:
                raise StoreCorrupt(f"{path}: shorter than its preamble")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    header_bytes, digest = _read_preamble(path, data)
    if not verify:
        _map_pages(data)
    elif _digest(data) != digest:
        raise StoreCorrupt(f"{path}: content hash differs")
    header = _read_header(path, data, header_bytes)
    if header["kind"] != kind:
        raise StoreCorrupt(f"{path}: a {header['kind']}, not a {kind}")
    base = PREAMBLE.size + header_bytes
    arrays = dict(_read_array(path, data, entry, base) for entry in header["arrays"])
    return arrays, header["meta"], digest.hex()


def _map_pages(data: mmap.mmap) -> None:
    """Touches every page, or the first requests would; numpy lets other threads run meanwhile."""
    np.frombuffer(data, np.uint8)[:: mmap.PAGESIZE].sum()


def current(directory: Path, kind: str) -> Path | None:
    """The artefact that `directory` serves; None before the first.

    Raises: StoreCorrupt when the pointer names no artefact of this kind.
    """
    try:
        name = (directory / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {directory / CURRENT}: {error}") from error
    if not (name.startswith(f"{kind}-") and name.endswith(SUFFIX)) or "/" in name or "\0" in name:
        raise StoreCorrupt(f"{directory / CURRENT} names {name!r}")
    return directory / name


def write_snapshot(directory: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Path:
    """Checks and stores a snapshot, and makes it current.

    Raises: CatalogueError when it could lead the engine astray; StoreError as `write`.
    """
    bounds.check_arrays(arrays, meta)
    return write(directory, SNAPSHOT, arrays, meta)


def open_snapshot(path: Path, verify: bool = True) -> Snapshot:
    """Maps a snapshot, after proof that it is whole and that no index in it points outside.

    `verify=False` takes that proof from another process, which then must have verified this very
    file: nothing of it is read but its header. Raises: StoreCorrupt, StoreError as `open_artifact`.
    """
    arrays, meta, content_hash = open_artifact(path, SNAPSHOT, verify=verify)
    try:
        if verify:
            bounds.check_arrays(arrays, meta)
        return Snapshot(arrays, meta, content_hash)
    except (CatalogueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path}: {error}") from error


# -- writing --------------------------------------------------------------------------------------


def _write_file(
    directory: Path, kind: str, arrays: Mapping[str, Array], meta: Mapping[str, Any]
) -> Path:
    """The file under its final name, safe on disk."""
    flat = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = _header(kind, flat, meta)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            file.write(b"\0" * PREAMBLE.size)
            file.write(header)
            for array in flat.values():
                file.write(b"\0" * _padding(file.tell()))
                file.write(array.reshape(-1).view(np.uint8).data)
            size = file.tell()
            file.seek(0)
            fixed = (MAGIC, FORMAT_VERSION, len(header), size)
            file.write(PREAMBLE.pack(*fixed, bytes(HASH_BYTES)))
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                digest = _digest(data)
            file.seek(0)
            file.write(PREAMBLE.pack(*fixed, digest))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        path = directory / f"{kind}-{digest.hex()[:32]}{SUFFIX}"
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(directory)
    return path


def _header(kind: str, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> bytes:
    """The header, padded so that the arrays begin aligned. Offsets count from its end."""
    entries = []
    offset = 0
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise StoreError(f"array {name} holds Python objects", transient=False)
        offset += _padding(offset)
        descr = np.lib.format.dtype_to_descr(array.dtype)
        entries.append({"name": name, "dtype": descr, "shape": array.shape, "offset": offset})
        offset += array.nbytes
    content = {"kind": kind, "meta": dict(meta), "arrays": entries}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return text + b" " * _padding(PREAMBLE.size + len(text))


def _padding(offset: int) -> int:
    return -offset % ALIGN


def _swap(directory: Path, name: str) -> None:
    """Points `current` at a file, atomically and durably."""
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{name}\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, directory / CURRENT)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(directory)


def sync(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a power cut. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(directory: Path, kind: str) -> None:
    """Deletes all but the newest `KEEP` artefacts of a kind; never the current one."""
    served = current(directory, kind)
    files = sorted(
        directory.glob(f"{kind}-*{SUFFIX}"),
        key=lambda path: (path != served, -path.stat().st_mtime_ns),
    )
    for path in files[KEEP:]:
        path.unlink(missing_ok=True)


# -- reading --------------------------------------------------------------------------------------


def _digest(data: mmap.mmap) -> bytes:
    view = memoryview(data)
    try:
        state = hashlib.blake2b(view[:HASHED_BYTES], digest_size=HASH_BYTES)
        state.update(view[PREAMBLE.size :])
        return state.digest()
    finally:
        view.release()


def _read_preamble(path: Path, data: mmap.mmap) -> tuple[int, bytes]:
    """Bytes of the header, and the hash that the file claims."""
    magic, version, header_bytes, size, digest = PREAMBLE.unpack(data[: PREAMBLE.size])
    if magic != MAGIC:
        raise StoreCorrupt(f"{path}: not an artefact")
    if version != FORMAT_VERSION:
        raise StoreCorrupt(f"{path}: format {version}, this program reads {FORMAT_VERSION}")
    if size != len(data) or PREAMBLE.size + header_bytes > size:
        raise StoreCorrupt(f"{path}: {len(data)} bytes instead of {size}")
    return header_bytes, digest


def _read_header(path: Path, data: mmap.mmap, header_bytes: int) -> Meta:
    try:
        header = json.loads(data[PREAMBLE.size : PREAMBLE.size + header_bytes])
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{path}: header is no JSON") from error
    kinds = {"kind": str, "meta": dict, "arrays": list}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(name), kind) for name, kind in kinds.items()
    ):
        raise StoreCorrupt(f"{path}: header lacks {', '.join(kinds)}")
    return header


def _read_array(path: Path, data: mmap.mmap, entry: Any, base: int) -> tuple[str, Array]:
    """The name of an array and a read-only view of it, which must lie inside the file."""
    try:
        name = str(entry["name"])
        dtype = np.lib.format.descr_to_dtype(_descr(entry["dtype"]))
        shape = tuple(int(length) for length in entry["shape"])
        start = base + int(entry["offset"])
        if dtype.hasobject or min(shape, default=0) < 0 or not base <= start <= len(data):
            raise ValueError(f"array {name} lies outside")
        flat: Array = np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=start)
        return name, flat.reshape(shape)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise StoreCorrupt(f"{path}: {error}") from error


def _descr(descr: Any) -> Any:
    """JSON made lists of numpy's tuples; this makes them tuples again."""
    if isinstance(descr, str):
        if not _PLAIN_TYPE.fullmatch(descr):
            raise ValueError(f"no type of an array: {descr!r}")
        return descr
    return [(name, _descr(kind), *(tuple(shape) for shape in rest)) for name, kind, *rest in descr]
