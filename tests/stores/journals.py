"""What the tests of the journal share: small limits, failing disks, and the compiled kernel."""

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtb._ext import journal as compiled
from rtb.stores.journal import FRAMES_AT, READABLE, Kernel, Record
from rtb.stores.journal_read import Reader, folder_of, segments
from rtb.stores.journal_write import Journal, Limits, State, World

COMPILED = Kernel(compiled.Pen, compiled.scan, compiled.find)
KERNELS = {"readable": READABLE, "compiled": COMPILED}
WORKER = 3
# Segments of 8 KiB, so that a test rolls over often.
SMALL = Limits(segment_bytes=8192, backlog_bytes=3000, retry_ms=0)


class Killed(BaseException):
    """The process ends where it stands."""


@dataclass
class Disk:
    """A disk that fails on demand; counts what it is asked.

    fail_syncs: numbers of the calls to fail, or None to fail all of them
    kill_at: number of the call that does not return
    """

    fail_syncs: set[int] | None = field(default_factory=set)
    kill_at: int = 0
    full: bool = False
    syncs: int = 0
    salt: int = 1
    now_s: float = 100.0

    def world(self) -> World:
        """Asks this disk instead of the real one; nothing is really flushed, so it is fast."""
        return World(self._sync, self._allocate, lambda: 1_700_000_000_000, self._ticks, self._salt)

    def _sync(self, file: int) -> None:
        self.syncs += 1
        os.fstat(file)  # a closed file is a bug of ours
        if self.syncs == self.kill_at:
            raise Killed
        if self.fail_syncs is None or self.syncs in self.fail_syncs:
            raise OSError(errno.EIO, "injected")

    def _allocate(self, file: int, offset: int, size: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "injected")
        os.posix_fallocate(file, offset, size)

    def _ticks(self) -> float:
        return self.now_s

    def _salt(self) -> int:
        self.salt += 1
        return self.salt


def body_of(sequence: int, bytes_max: int = 200) -> bytes:
    """The body that a test gives to a record: size and bytes follow from its sequence."""
    chance = random.Random(sequence)
    return chance.randbytes(chance.randrange(bytes_max))


def record_of(sequence: int) -> Record:
    """The whole record that a test writes at a sequence."""
    return sequence, 1 + sequence % 11, body_of(sequence)


def fill(journal: Journal, count: int) -> list[Record]:
    """Appends records as `record_of` tells them."""
    made = []
    for _ in range(count):
        record = record_of(journal.last_sequence + 1)
        assert record[0] == journal.append(record[1], record[2])
        made.append(record)
    return made


@contextmanager
def opened(
    directory: Path,
    disk: Disk | None = None,
    limits: Limits = SMALL,
    kernel: Kernel = COMPILED,
    **changes: int,
) -> Iterator[Journal]:
    """A journal on a disk that the test may fail."""
    world = (disk or Disk()).world()
    with Journal.open(directory, WORKER, replace(limits, **changes), kernel, world) as journal:
        yield journal


def crash(journal: Journal) -> None:
    """Ends a journal as `kill -9` does: nothing is committed or tidied up, the lock is free."""
    journal._pen.stop()
    journal._close_segments()
    journal._mark.close()
    os.close(journal._lock_file)
    journal.state = State.CLOSED


def read_all(directory: Path, after: int = 0, kernel: Kernel = COMPILED) -> list[Record]:
    """All that a reader is given."""
    with Reader(directory, WORKER, after, kernel) as reader:
        return reader.read(1 << 30)


def last_segment(directory: Path) -> Path:
    """The file that the journal wrote to last."""
    return segments(folder_of(directory, WORKER))[-1][1]


def used_bytes(path: Path) -> int:
    """How far a segment is written."""
    return max(len(path.read_bytes().rstrip(b"\0")), FRAMES_AT)
