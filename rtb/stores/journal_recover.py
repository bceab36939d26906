"""What a worker that was killed, or a power cut, left of its journal: where it ends.

Everything up to the first frame that is not whole is kept, flushed and marked as durable; what
follows was never acknowledged and is cut off. No record is mended or guessed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtb.base.errors import StoreCorrupt
from rtb.stores import journal
from rtb.stores.journal import FRAMES_AT, Kernel
from rtb.stores.journal_read import AGAIN, SPARE, Mark, segment_path, segments

_NONE: Final = 1 << 62  # a sequence above all others
# A mark that is further ahead is damaged itself: no segment holds so many records.
LOST_MAX: Final = 1 << 26
_PIECE_BYTES: Final = 1 << 20
assert _PIECE_BYTES > journal.FRAME_BYTES_MAX


@dataclass(frozen=True)
class Recovery:
    """How a journal was found.

    last       sequence of its newest record; the next one gets the one after
    cut_bytes  of records that were never whole, now cut off; those behind a megabyte of zeros,
               which only a power cut leaves, are cut off but not counted
    lost       records that were durable and are damaged now; readers stop and raise at them
    """

    last: int
    cut_bytes: int = 0
    lost: int = 0


@dataclass(frozen=True)
class _End:
    """Where the whole frames of a segment end.

    fresh  the frames that no commit is known to have flushed, up to `at`
    size   of the file
    """

    last: int
    at: int
    size: int
    torn_bytes: int
    fresh: bytes = b""


def recover(
    folder: Path, mark: Mark, kernel: Kernel, sync: Callable[[int], None], directory_file: int
) -> Recovery:
    """Finds the end of the journal in `folder`, which no writer may have open.

    Raises: OSError when the disk fails.
    """
    known = segments(folder)
    if not known:
        return Recovery(mark.sequence)
    first, path = known[-1]
    end = _end_of(path, first, mark, kernel)
    _flush(path, end, sync)
    adopted = _adopt_spare(folder, end.last, mark, kernel)
    if adopted is not None:
        path, end = adopted
        _flush(path, end, sync)
        sync(directory_file)
    resumed = _adopt_again(folder, end.last, mark, kernel, lambda: sync(directory_file))
    if resumed is not None:
        path, end = resumed
        _flush(path, end, sync)
    return _settle(path, end, mark)


def _settle(path: Path, end: _End, mark: Mark) -> Recovery:
    """Brings mark and file to where the records end."""
    lost = mark.sequence - end.last
    if 0 < lost <= LOST_MAX:
        return Recovery(mark.sequence, lost=lost)
    if end.at < end.size:
        os.truncate(path, end.at)
    mark.sequence = end.last
    return Recovery(end.last, end.torn_bytes)


def _end_of(path: Path, first: int, mark: Mark, kernel: Kernel) -> _End:
    data, size = _used(path), path.stat().st_size
    try:
        salt = journal.decode_header(data, str(path)).salt
    except StoreCorrupt:
        return _End(first - 1, size, size, len(data.strip(b"\0")))
    _, start, expected = kernel.scan(data, FRAMES_AT, salt, first, mark.sequence, _NONE, 1)
    _, at, expected = kernel.scan(data, start, salt, expected, _NONE, _NONE, 1)
    return _End(expected - 1, at, size, len(data[at:].rstrip(b"\0")), data[start:at])


def _used(path: Path) -> bytes:
    """A segment as far as it is written: no frame is as long as the first stretch of zeros."""
    pieces = []
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            pieces.append(piece)
            if piece.count(0) == len(piece):
                break
    return b"".join(pieces)


def _adopt_spare(folder: Path, last: int, mark: Mark, kernel: Kernel) -> tuple[Path, _End] | None:
    """The next segment, if its writer went over to it and ended before it gave it its name."""
    spare = folder / SPARE
    if not spare.exists():
        return None
    end = _end_of(spare, last + 1, mark, kernel)
    if end.last == last:
        return None
    return spare.rename(segment_path(folder, last + 1)), end


def _adopt_again(
    folder: Path, last: int, mark: Mark, kernel: Kernel, sync_names: Callable[[], None]
) -> tuple[Path, _End] | None:
    """What a failed journal was about to resume with, if it reaches as far as what was given up."""
    again = folder / AGAIN
    if not again.exists():
        return None
    first = _first_of(again)
    end = _end_of(again, first, mark, kernel)
    if end.last < max(first, last):
        again.unlink()
        return None
    forget_after(folder, first)
    sync_names()
    path = again.rename(segment_path(folder, first))
    sync_names()
    return path, end


def _first_of(path: Path) -> int:
    """The sequence that the first frame claims; 0 when there is none."""
    with path.open("rb") as file:
        file.seek(FRAMES_AT)
        head = file.read(journal.FRAME_HEAD.size)
    return int(journal.FRAME_HEAD.unpack(head)[1]) if len(head) == journal.FRAME_HEAD.size else 0


def forget_after(folder: Path, first_kept: int) -> None:
    """Removes segments after one that holds all that they hold."""
    (folder / SPARE).unlink(missing_ok=True)
    for first, path in segments(folder):
        if first > first_kept:
            path.unlink()


def _flush(path: Path, end: _End, sync: Callable[[int], None]) -> None:
    """Writes again what may never have reached the disk, then flushes.

    After a flush that failed, pages count as clean though the disk has them not: a second flush
    alone would report success and do nothing.
    """
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), end.fresh, end.at - len(end.fresh))
        sync(file.fileno())
