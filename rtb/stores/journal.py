"""The journal's bytes: segments of framed, checksummed records, the pen that writes, what reads.

A worker's journal is a row of segment files named by the first sequence they hold, and a mark:

    <worker>/00000000000000000001.seg   full
    <worker>/00000000000000596524.seg   being written, allocated whole, mapped
    <worker>/spare.seg                  the next one, allocated
    <worker>/again.seg                  what it resumes with after a flush failed
    <worker>/durable                    the last sequence that a power cut cannot take, identity

    segment   header | the same header again at 512 | frames from 1,024 on | zeros
    header    magic, version, worker, created_ms, bytes, salt, CRC-32C
    frame     head u64 | sequence u64 | body | zeros to a multiple of 8
    head      CRC-32C in bits 0-31, body bytes in 32-47, kind in 48-55, FRAME_MARK in 56-63

Sequences are dense: one more a record, over all segments, so a sequence is a position. The checksum
covers the whole frame and starts from the segment's salt, so neither a left-over of another file
nor an event's body that looks like a frame is taken for a record. The head is written last, in one
store: a worker that is killed leaves a whole frame or zeros where its head would be.

`Pen`, `scan` and `find` have compiled twins in `ext/journal.pyx`.
"""

import contextlib
import mmap
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from rtb.base.errors import InvariantError, StoreCorrupt, StoreError

MAGIC: Final = b"RTBJOURN"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sIIqQI24xI")
assert HEADER.size == 64
HEADER_COPIES: Final = (0, 512)  # the salt reads everything, so it lies in two sectors
FRAMES_AT: Final = 1024
FRAME_HEAD: Final = struct.Struct("<QQ")
FRAME_MARK: Final = 0xB5
# Fits the 16 bits of the head; a record that needs more is a bug or an attack.
BODY_BYTES_MAX: Final = 65_535
FRAME_BYTES_MAX: Final = FRAME_HEAD.size + BODY_BYTES_MAX + 1
KIND_MAX: Final = 255

PAGE_BYTES: Final = mmap.PAGESIZE
POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, Linux 5.14; Python has no name for it

Segment = bytearray | mmap.mmap
Record = tuple[int, int, bytes]  # sequence, kind (`rtb.base.events.Kind`), body

_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C (Castagnoli), reflected


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = tuple(_table_entry(value) for value in range(256))


def crc32c(data: bytes | memoryview, start: int = 0) -> int:
    """The CRC-32C of `data`, gone on with from `start`.

    Spec: RFC 3720 appendix B.4.
    """
    state = start ^ 0xFFFF_FFFF
    for byte in bytes(data):
        state = state >> 8 ^ _TABLE[(state ^ byte) & 0xFF]
    return state ^ 0xFFFF_FFFF


# -- segments --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What a segment says about itself."""

    worker: int
    created_ms: int
    size: int
    salt: int


def encode_header(header: Header) -> bytes:
    """The first `FRAMES_AT` bytes of a segment."""
    plain = HEADER.pack(
        MAGIC, VERSION, header.worker, header.created_ms, header.size, header.salt, 0
    )
    one = plain[:-4] + crc32c(plain[:-4]).to_bytes(4, "little")
    return b"".join(one.ljust(512, b"\0") for _ in HEADER_COPIES)


def decode_header(data: bytes, place: str) -> Header:
    """The header of a segment, from whichever copy is whole.

    Raises: StoreCorrupt when none is, or when the format is one that we do not know.
    """
    for at in HEADER_COPIES:
        one = data[at : at + HEADER.size]
        if len(one) < HEADER.size or crc32c(one[:-4]) != int.from_bytes(one[-4:], "little"):
            continue
        magic, version, worker, created_ms, size, salt, _ = HEADER.unpack(one)
        if magic == MAGIC and version == VERSION:
            return Header(worker, created_ms, size, salt)
    raise StoreCorrupt(f"{place}: not a journal segment of version {VERSION} - at byte 0")


# -- frames ----------------------------------------------------------------------------------------


def frame_bytes(body_bytes: int) -> int:
    """What a record takes in a segment."""
    return FRAME_HEAD.size + (body_bytes + 7 & -8)


def encode_frame(sequence: int, kind: int, body: bytes, salt: int) -> bytes:
    """One framed record."""
    head = len(body) << 32 | kind << 48 | FRAME_MARK << 56
    plain = FRAME_HEAD.pack(head, sequence) + body
    plain = plain.ljust(frame_bytes(len(body)), b"\0")
    return crc32c(plain, salt).to_bytes(4, "little") + plain[4:]


def decode_frame(data: bytes | memoryview, at: int, salt: int) -> Record | None:
    """The record whose frame starts at `at`; None when no whole and unharmed one does."""
    if at + FRAME_HEAD.size > len(data):
        return None
    head, sequence = FRAME_HEAD.unpack_from(data, at)
    length, kind = head >> 32 & 0xFFFF, head >> 48 & 0xFF
    end = at + frame_bytes(length)
    if head >> 56 != FRAME_MARK or kind == 0 or end > len(data):
        return None
    if crc32c(b"\0\0\0\0" + data[at + 4 : end], salt) != head & 0xFFFF_FFFF:
        return None
    start = at + FRAME_HEAD.size
    return sequence, kind, bytes(data[start : start + length])


def kinds_of(*kinds: int) -> bytes:
    """A choice of kinds: a byte for each that there could be, 1 where it is wanted."""
    return bytes(kind in kinds for kind in range(KIND_MAX + 1))


ALL_KINDS: Final = kinds_of(*range(KIND_MAX + 1))


def scan(
    data: bytes | memoryview,
    at: int,
    salt: int,
    expected: int,
    last: int,
    after: int,
    records_max: int,
    kinds: bytes = ALL_KINDS,
) -> tuple[list[Record], int, int]:
    """Walks frames from `at` on as long as they are whole and their sequences follow.

    expected     sequence of the frame at `at`; last: the highest one to read
    after        records up to this one are walked over, not returned
    records_max  so many are looked at after that one, at most
    kinds        which are returned: see `kinds_of`

    Returns: records, where the walk ended, and the sequence expected there.
    """
    records: list[Record] = []
    while expected <= last and records_max > 0:
        found = decode_frame(data, at, salt)
        if found is None or found[0] != expected:
            break
        if expected > after:
            records_max -= 1
            if kinds[found[1]]:
                records.append(found)
        at += frame_bytes(len(found[2]))
        expected += 1
    return records, at, expected


def find(data: bytes | memoryview, at: int, salt: int, low: int, high: int) -> int:
    """Where the next whole frame with a sequence from `low` to `high` starts, -1 if nowhere."""
    for place in range(at, len(data) - FRAME_HEAD.size + 1, 8):
        if data[place + 7] != FRAME_MARK:
            continue
        found = decode_frame(data, place, salt)
        if found is not None and low <= found[0] <= high:
            return place
    return -1


# -- the pen ---------------------------------------------------------------------------------------


class Pen:
    """Writes frames into mapped segments, and keeps a copy of each until the disk has it.

    A disk that fails to flush may have dropped any page, so what is written again comes from the
    copies, never from the mapping. There are two buffers: `cut` hands what was written so far to
    the commit under way and starts the other one, `release` empties it when the commit is through.

    One thread appends; another one may call everything else. backlog_bytes: of one buffer
    """

    def __init__(self, backlog_bytes: int, last: int) -> None:
        self.last = last  # sequence of the newest record
        self.has_spare = False
        self._backlog_bytes = backlog_bytes
        self._fresh, self._held = bytearray(), bytearray()
        self._view, self._next_view = memoryview(bytearray()), memoryview(bytearray())
        self._salt = self._next_salt = 0
        self._at = FRAMES_AT
        self._first = last + 1  # sequence that the segment starts with
        self._rolls = 0
        self._stopped, self._has_segment = True, False
        self._lock = threading.Lock()

    def append(self, kind: int, body: bytes) -> int:
        """Writes a record, which outlives this process from here on; returns its sequence.

        Raises: StoreError, transient, when there is no room or the journal is stopped;
                InvariantError for a kind or body that no frame can hold.
        """
        body = bytes(body)
        need = frame_bytes(len(body))
        with self._lock:
            if not 0 < kind <= KIND_MAX or len(body) > BODY_BYTES_MAX:
                raise InvariantError(f"a record of kind {kind} with {len(body)} bytes")
            if self._stopped:
                raise StoreError("the journal is stopped")
            if len(self._fresh) + need > self._backlog_bytes:
                raise StoreError("the journal's disk is behind")
            if self._at + need > len(self._view):
                self._roll()
            frame = encode_frame(self.last + 1, kind, body, self._salt)
            self._fresh += frame
            self._write(frame)
            self.last += 1
            return self.last

    def _roll(self) -> None:
        if not self.has_spare:
            raise StoreError("the journal has no next segment")
        self._view.release()
        self._view, self._salt, self._at = self._next_view, self._next_salt, FRAMES_AT
        self._first = self.last + 1
        self._rolls += 1
        self.has_spare = False

    def _write(self, frame: bytes) -> None:
        at, end = self._at, self._at + len(frame)
        self._view[at + 8 : end] = frame[8:]
        self._view[at : at + 8] = frame[:8]  # last: until then there is no record
        self._at = end

    def spare(self, segment: Segment, salt: int) -> None:
        """Gives the segment to go on in. Any writable buffer will do."""
        with self._lock:
            if self.has_spare:
                raise InvariantError("a second spare segment")
            if len(segment) < FRAMES_AT + self._backlog_bytes:
                raise InvariantError("a spare segment too small for any record")
            self._next_view, self._next_salt, self.has_spare = memoryview(segment), salt, True

    def cut(self) -> tuple[int, int, int]:
        """Begins a commit: (newest sequence, segments left so far, first sequence of this one)."""
        with self._lock:
            if not self._held:
                self._held, self._fresh = self._fresh, self._held
            return self.last, self._rolls, self._first

    def ahead(self) -> None:
        """Has pages ready for as much as this commit took, so that `append` waits for none.

        A hint: a system that does not know it lets `append` find its pages one by one.
        """
        start = self._at & -PAGE_BYTES
        end = self._at + len(self._held) + PAGE_BYTES & -PAGE_BYTES
        if self._has_segment and isinstance(self._view.obj, mmap.mmap):
            with contextlib.suppress(OSError):
                self._view.obj.madvise(POPULATE_WRITE, start, min(end, len(self._view)) - start)

    def release(self) -> None:
        """The commit is through: copies of what was cut are no longer needed."""
        self._held.clear()

    def stop(self) -> None:
        """No more appends; lets go of all segments."""
        with self._lock:
            self._stopped, self._has_segment = True, False
            self._view.release()
            if self.has_spare:
                self._next_view.release()
            self.has_spare = False

    def begin(self, segment: Segment, salt: int) -> None:
        """Goes over to an empty segment and writes there again what is not durable yet.

        Appends stay refused until `go`.
        """
        with self._lock:
            need = FRAMES_AT + len(self._held) + len(self._fresh)
            if self._has_segment:
                raise InvariantError("a segment begun before the last one was left")
            if need > len(segment):
                raise InvariantError(f"a segment too small for {need} bytes")
            self._has_segment = True
            self._view, self._salt, self._at = memoryview(segment), salt, FRAMES_AT
            self._first = self.last + 1
            for buffer in (self._held, self._fresh):
                self._again(bytes(buffer))

    def _again(self, frames: bytes) -> None:
        at = 0
        while at < len(frames):
            head, sequence = FRAME_HEAD.unpack_from(frames, at)
            length, kind = head >> 32 & 0xFFFF, head >> 48 & 0xFF
            body = frames[at + FRAME_HEAD.size :][:length]
            self._first = min(self._first, sequence)
            self._write(encode_frame(sequence, kind, body, self._salt))
            at += frame_bytes(length)

    def go(self) -> None:
        """All that was written is durable; appends are welcome."""
        with self._lock:
            if not self._has_segment:
                raise InvariantError("a pen without a segment")
            self._held.clear()
            self._fresh.clear()
            self._stopped = False


class AnyPen(Protocol):
    """`Pen`, or its compiled twin."""

    @property
    def last(self) -> int: ...
    @property
    def has_spare(self) -> bool: ...
    def append(self, kind: int, body: bytes) -> int: ...
    def spare(self, segment: Segment, salt: int) -> None: ...
    def cut(self) -> tuple[int, int, int]: ...
    def ahead(self) -> None: ...
    def release(self) -> None: ...
    def stop(self) -> None: ...
    def begin(self, segment: Segment, salt: int) -> None: ...
    def go(self) -> None: ...


class Scan(Protocol):
    """`scan`, or its compiled twin."""

    def __call__(
        self,
        data: bytes | memoryview,
        at: int,
        salt: int,
        expected: int,
        last: int,
        after: int,
        records_max: int,
        kinds: bytes = ...,
    ) -> tuple[list[Record], int, int]: ...


@dataclass(frozen=True)
class Kernel:
    """The functions that have two twins; `rtb._ext.journal` has the other ones."""

    pen: Callable[[int, int], AnyPen]
    scan: Scan
    find: Callable[[bytes | memoryview, int, int, int, int], int]


READABLE: Final = Kernel(Pen, scan, find)
