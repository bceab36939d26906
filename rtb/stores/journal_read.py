"""Reading a worker's journal: a cursor that follows the writer, and what deletes old segments.

A reader returns durable records only, those up to the writer's mark. So it never meets half a
record, and a sequence that it has seen is never given to another record, even after a power cut.
"""

import itertools
import mmap
import os
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.stores import journal
from rtb.stores.journal import ALL_KINDS, FRAMES_AT, READABLE, Kernel, Record

SUFFIX: Final = ".seg"
SPARE: Final = "spare.seg"
AGAIN: Final = "again.seg"
MARK: Final = "durable"
GIVEN_UP: Final = "given-up"
_MARK: Final = struct.Struct("<QQ")
_NAME_DIGITS: Final = 20
# One read of the file: a poll that finds a commit's worth, and a reader that has to catch up.
_POLL_BYTES: Final = 16 << 10
_CHUNK_BYTES: Final = 512 << 10
_POLL_RECORDS: Final = 100
assert _CHUNK_BYTES > journal.FRAME_BYTES_MAX


def folder_of(directory: Path, worker: int) -> Path:
    """Where the journal of one worker lies."""
    return directory / str(worker)


def segment_path(folder: Path, first_sequence: int) -> Path:
    """The segment that begins with a record."""
    return folder / f"{first_sequence:0{_NAME_DIGITS}d}{SUFFIX}"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """First sequence and file of each segment in use, in order."""
    found = [path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal()]
    return sorted((int(path.stem), path) for path in found)


def is_marked(folder: Path) -> bool:
    """Whether a journal has a whole mark."""
    try:
        return (folder / MARK).stat().st_size >= _MARK.size
    except FileNotFoundError:
        return False


class Mark:
    """Two words that all processes see: the last sequence that a power cut cannot take, and the
    journal's identity, given by chance when it was made.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        with path.open("r+b" if write else "rb") as file:
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._mapped = mmap.mmap(file.fileno(), _MARK.size, access=access)
        self._words = memoryview(self._mapped).cast("Q")

    @classmethod
    def create(cls, folder: Path, identity: int) -> Self:
        """The mark for its writer; made, with this identity, where there is no whole one.

        Of one that was cut off the sequence is taken, if it is there: recovery holds it against the
        records. Without it they say themselves where they end.
        """
        path = folder / MARK
        if not is_marked(folder):
            left = path.read_bytes() if path.exists() else b""
            sequence = int.from_bytes(left[:8], "little") if len(left) >= 8 else 0
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(_MARK.pack(sequence, identity))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        return cls(path, write=True)

    @property
    def identity(self) -> int:
        return self._words[1]

    @property
    def sequence(self) -> int:
        return self._words[0]

    @sequence.setter
    def sequence(self, value: int) -> None:
        self._words[0] = value  # one aligned store: a reader sees the old value or the new

    def close(self) -> None:
        self._words.release()
        self._mapped.close()


class Span(NamedTuple):
    """Records `first` to `last`."""

    first: int
    last: int


def given_up(folder: Path, identity: int) -> list[Span]:
    """Records of a journal that an operator has given up (`rtb.stores.journal_damage`).

    Raises: StoreError when the list cannot be read.
    """
    path = folder / GIVEN_UP
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        return [Span(int(a), int(b)) for name, a, b in rows if int(name, 16) == identity]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error


class Reader:
    """A cursor in one worker's journal. Follows a writer in another process by being polled.

    Keep `position` and `identity` together: a journal that was deleted counts from 1 again, and
    its new records must not pass for old ones.

    Damage that an operator has given up is stepped over, no further than he was told; `given_up`
    counts those records.

    position        sequence of the last record returned
    after_sequence  where to go on; identity: of the journal that this sequence is from, 0 for any
    kinds           of the records to return; the position passes the others as well
    strict          damage that was given up stops it, too
    """

    def __init__(
        self,
        directory: Path,
        worker: int,
        after_sequence: int = 0,
        kernel: Kernel = READABLE,
        identity: int = 0,
        kinds: bytes = ALL_KINDS,
        *,
        strict: bool = False,
    ) -> None:
        self.position = after_sequence
        self.given_up = 0
        self._strict = strict
        self.identity = identity  # 0 until the journal is there
        self._folder = folder_of(directory, worker)
        self._kernel, self._kinds = kernel, kinds
        self._mark: Mark | None = None
        self._path, self._file, self._inode = Path(), -1, -1
        self._salt, self._at, self._expected = 0, FRAMES_AT, 0

    def durable_sequence(self) -> int:
        """How far there is something to read; 0 before the journal exists.

        Raises: StoreCorrupt when it is not the journal that was read before.
        """
        if self._mark is None and not self._find_mark():
            return 0
        assert self._mark is not None
        return self._mark.sequence

    def _find_mark(self) -> bool:
        try:
            mark = Mark(self._folder / MARK, write=False)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise StoreCorrupt(
                f"{self._folder / MARK}: {error}; the next start of the node makes it anew"
            ) from error
        if self.identity not in (0, mark.identity):
            mark.close()
            raise StoreCorrupt(f"{self._folder}: another journal than the one that was read")
        self._mark, self.identity = mark, mark.identity
        return True

    def read(self, records_max: int) -> list[Record]:
        """Those of the next `records_max` records that are wanted, in order; an empty list when
        there are none yet.

        Raises: StoreCorrupt with the place at a record that is damaged or missing: what stands
                before it is returned first, and every later call raises until `skip_damage`;
                StoreError when the disk fails.
        """
        last = self.durable_sequence()
        end = min(last, self.position + records_max)
        records: list[Record] = []
        while self.position < end:
            try:
                records += self._step(last, end - self.position)
            except StoreError:
                if not records:
                    raise
                break  # what was read is past the cursor: it goes out first
        return records

    def _step(self, last: int, records_max: int) -> list[Record]:
        try:
            walked = self._walk(last, records_max)
            if walked is None and not self._go_on():
                raise StoreCorrupt(self._damage())
        except OSError as error:
            raise StoreError(f"cannot read the journal: {error}") from error
        return walked or []

    def _walk(self, last: int, records_max: int) -> list[Record] | None:
        """Records from here on in this segment; None when no whole one follows here."""
        if self._file < 0:
            return None
        few = last - self.position < _POLL_RECORDS
        for size in (_POLL_BYTES, _CHUNK_BYTES) if few else (_CHUNK_BYTES,):
            data = os.pread(self._file, size, self._at)
            records, walked, expected = self._kernel.scan(
                data, 0, self._salt, self._expected, last, self.position, records_max,
                self._kinds,
            )  # fmt: skip
            if walked:
                self._at, self._expected = self._at + walked, expected
                self.position = max(self.position, expected - 1)
                return records
        return None

    def _go_on(self) -> bool:
        """Finds the next record elsewhere; False where it is lost."""
        try:
            return self._move() or self._step_over()
        except StoreCorrupt:  # the head of a segment
            if not self._step_over():
                raise
            return True

    def _step_over(self) -> bool:
        """Leaves out what was given up, if all that is lost here was."""
        before = self.position
        spans = [] if self._strict else given_up(self._folder, self.identity)
        known = [span.last for span in spans if span.first <= before + 1 <= span.last]
        if not known:
            return False
        if self.skip_damage() > 0 and self.position <= max(known):
            self.given_up += self.position - before
            return True
        self._leave()
        self.position = before
        return False

    def _move(self) -> bool:
        """Opens the segment of the next record, unless it is the one that is open.

        A segment may have been replaced under its name: after a failed flush, when nothing of
        it was durable, or by a worker that started again before it had written.
        """
        at_or_before = [found for found in segments(self._folder) if found[0] <= self.position + 1]
        if not at_or_before:
            return False
        first, path = at_or_before[-1]
        if path == self._path and path.stat().st_ino == self._inode:
            return False
        self._open(first, path)
        return True

    def _open(self, first: int, path: Path) -> None:
        self._leave()
        file = os.open(path, os.O_RDONLY)
        try:
            header = journal.decode_header(os.pread(file, FRAMES_AT, 0), str(path))
        except BaseException:
            os.close(file)
            raise
        self._path, self._file, self._inode = path, file, os.fstat(file).st_ino
        self._salt, self._at, self._expected = header.salt, FRAMES_AT, first

    def _damage(self) -> str:
        """What is wrong where the cursor stands."""
        record = self.position + 1
        if self._file < 0:
            return f"{self._folder}: record {record} is in no segment"
        return f"{self._path}: record {record} is damaged or missing - at byte {self._at}"

    def skip_damage(self) -> int:
        """Goes over to the next whole record, for an operator who accepts the loss.

        Returns: how many records are given up.
        """
        before, last = self.position, self.durable_sequence()
        if not self._skip_inside(last):
            self._skip_segment(last)
        return self.position - before

    def _skip_inside(self, last: int) -> bool:
        if self._file < 0:
            return False
        data = os.pread(self._file, os.fstat(self._file).st_size - self._at, self._at)
        at = self._kernel.find(data, 0, self._salt, self.position + 2, last)
        if at < 0:
            return False
        self._at += at
        self._expected = journal.FRAME_HEAD.unpack_from(data, at)[1]
        self.position = self._expected - 1
        return True

    def _skip_segment(self, last: int) -> None:
        later = [first for first, _ in segments(self._folder) if first > self.position + 1]
        self._leave()
        self.position = min([last, *(first - 1 for first in later)])

    def _leave(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._path, self._file, self._inode = Path(), -1, -1

    def close(self) -> None:
        """Lets go of the files."""
        self._leave()
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def first_sequence(directory: Path, worker: int) -> int:
    """The oldest record that is still kept, or the first one that there will be."""
    found = segments(folder_of(directory, worker))
    return found[0][0] if found else 1


def retire(
    directory: Path, worker: int, before_sequence: int, older_than_s: int, now_s: int
) -> list[int]:
    """Deletes segments that hold only records before `before_sequence` and rest long enough.

    The last segment always stays: it says which sequence comes next. now_s: epoch seconds, held
    against when a segment was last written to.

    Returns: the first sequences of what was deleted.
    """
    found = segments(folder_of(directory, worker))
    gone = []
    for (first, path), (next_first, _) in itertools.pairwise(found):
        if next_first > before_sequence or now_s - path.stat().st_mtime < older_than_s:
            break
        path.unlink()
        gone.append(first)
    return gone
