"""Writing a worker's journal: records survive `kill -9` at once, and a power cut after a commit.

`append` copies a record into a mapped segment. A thread commits every few milliseconds: it flushes
the segment, moves the mark that readers follow, and wakes those who wait, once a commit. The same
thread prepares the next segment as soon as the last one began to fill.

Rules of failing, all of them closed:

- A flush that fails says nothing about what reached the disk, and the next one would report
  success all the same. So the segment is given up: appends are refused, waiters are told no, and
  what is not durable is written again, from memory, to a new segment, until one is flushed.
- Without a next segment, or while the disk holds the thread for too long, `writable` is false: no
  new bids. Notices still find the room that is left, because bids stopped while there was some.
"""

import asyncio
import contextlib
import fcntl
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self

from rtb.base.errors import ConfigError, StoreError
from rtb.stores import journal
from rtb.stores.journal import FRAMES_AT, READABLE, Header, Kernel
from rtb.stores.journal_read import AGAIN, SPARE, Mark, folder_of, segment_path
from rtb.stores.journal_recover import forget_after, recover

# Between two times that pages are let go: some 4 MB, which takes a tenth of a millisecond.
LET_GO_RECORDS: Final = 30_000


class State(IntEnum):
    """What a journal can do at the moment."""

    OPEN = 0
    FAILED = 1  # the disk refused a flush; tries to resume by itself
    CLOSED = 2


@dataclass(frozen=True)
class Limits:
    """Sizes and times, each with its reason.

    segment_bytes  64 MiB: a minute at 10,000 records a second; also the room that is left for
                   notices when the disk is full
    backlog_bytes  4 MiB of records that one commit may be behind by: seconds of full load
    commit_ms      5: what a notice's answer waits for, at most, before the flush itself
    retry_ms       250: a disk that failed is tried again this often
    stall_ms       600: a disk that answers later is as good as failed; with `watch_ms` this
                   stops paid bidding within a second
    watch_ms       200: how often that is looked at
    """

    segment_bytes: int = 64 << 20
    backlog_bytes: int = 4 << 20
    commit_ms: int = 5
    retry_ms: int = 250
    stall_ms: int = 600
    watch_ms: int = 200

    def check(self) -> None:
        """Raises: ConfigError when a new segment could not take what is not durable."""
        need = FRAMES_AT + 2 * self.backlog_bytes
        if self.segment_bytes < need or self.segment_bytes % mmap.PAGESIZE:
            raise ConfigError(
                f"expected `segment_bytes` of at least {need} in whole pages, got "
                f"{self.segment_bytes}"
            )


@dataclass(frozen=True)
class World:
    """What the journal asks of the system; tests let it fail.

    sync      flushes a file or directory; allocate: (file, offset, bytes), raises when full
    now_ms    epoch; ticks_s: monotonic
    salt      32 bits by chance
    """

    sync: Callable[[int], None] = os.fdatasync
    allocate: Callable[[int, int, int], None] = os.posix_fallocate
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ticks_s: Callable[[], float] = time.monotonic
    salt: Callable[[], int] = lambda: int.from_bytes(os.urandom(4), "little")


class _Segment:
    """A file that is allocated whole, mapped, and has its header flushed."""

    def __init__(self, path: Path, worker: int, size: int, world: World) -> None:
        self.salt = world.salt()
        path.unlink(missing_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self.path = path
        try:
            world.allocate(self.file, 0, size)
            header = Header(worker, world.now_ms(), size, self.salt)
            os.pwrite(self.file, journal.encode_header(header), 0)
            world.sync(self.file)
            self.map = mmap.mmap(self.file, size)
        except BaseException:
            os.close(self.file)
            path.unlink(missing_ok=True)
            raise

    def rename(self, path: Path) -> None:
        self.path = self.path.rename(path)

    def close(self) -> None:
        if self.file >= 0:
            self.map.close()
            os.close(self.file)
            self.file = -1


class Journal:
    """The one writer of one worker's journal. One thread, the loop's, calls all methods.

    append            (kind, body) -> sequence; see `rtb.stores.journal.Pen.append`
    writable          new bids may be made; read it before each
    durable_sequence  records up to this one survive a power cut
    recovery          how the journal was found when it was opened
    fault             why it is not writable, for logs and status; "" when it is
    """

    def __init__(
        self, directory: Path, worker: int, limits: Limits, kernel: Kernel, world: World
    ) -> None:
        limits.check()
        self._worker, self._limits, self._world = worker, limits, world
        self._folder = folder_of(directory, worker)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = self._lock()
        try:
            identity = world.salt() << 32 | world.salt() | 1  # never 0
            self._mark = Mark.create(self._folder, identity)
            self.recovery = recover(self._folder, self._mark, kernel, world.sync, self._lock_file)
            self._segment = self._create(SPARE)
            self._name(self._segment, self.recovery.last + 1)
        except BaseException:
            os.close(self._lock_file)
            raise
        self.durable_sequence = self._let_go = self.recovery.last
        self.state, self.writable, self.fault = State.OPEN, False, ""
        self._pen = kernel.pen(limits.backlog_bytes, self.recovery.last)
        self._pen.begin(self._segment.map, self._segment.salt)
        self._pen.go()
        self.append: Callable[[int, bytes], int] = self._pen.append
        self._rolls = 0
        self._spare: _Segment | None = None
        self._refused_spare = False  # the last attempt to allocate the next segment failed
        self._retry_s = 0.0
        self._busy_since_s: float | None = None  # the thread is at the disk
        self._stalled = False
        self._waiting: deque[tuple[int, Callable[[bool], object]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name=f"journal-{worker}", daemon=True)
        self._going = threading.Lock()  # held until the thread shall end
        self._going.acquire()
        self._prepare()

    @classmethod
    def open(
        cls,
        directory: Path,
        worker: int,
        limits: Limits = Limits(),
        kernel: Kernel = READABLE,
        world: World = World(),
    ) -> Self:
        """Recovers what is there, and goes on in a new segment.

        Raises: StoreError, transient, when the disk fails or another process writes this journal;
                ConfigError for limits that do not fit each other.
        """
        try:
            return cls(directory, worker, limits, kernel, world)
        except OSError as error:
            raise StoreError(f"{folder_of(directory, worker)}: {error}") from error

    def _lock(self) -> int:
        file = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        return file

    @property
    def last_sequence(self) -> int:
        """Of the newest record."""
        return self._pen.last

    # -- durability ----------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the commits; answers to `when_durable` come by this loop."""
        self._loop = loop
        self._look()
        self._thread.start()

    def when_durable(self, sequence: int, callback: Callable[[bool], object]) -> None:
        """Calls back on the loop, in order: True once the record is durable, False if the disk
        failed or stalled meanwhile. After False the record may still become durable: the sender
        asks again, and its notice is booked once all the same.
        """
        if self.state != State.OPEN or self._stalled:
            self._later(callback, sequence <= self.durable_sequence)
            return
        self._waiting.append((sequence, callback))
        if sequence <= self.durable_sequence or self.state != State.OPEN:
            self._answer()  # the thread may have looked before there was somebody waiting

    def _answer(self, refused_until: int = 0) -> None:
        """On the loop: tells all whose record is durable, and those up to `refused_until` no."""
        durable = self.durable_sequence
        if self.state != State.OPEN:
            refused_until = self._pen.last
        while self._waiting and self._waiting[0][0] <= max(durable, refused_until):
            sequence, callback = self._waiting.popleft()
            self._later(callback, sequence <= durable)

    def _later(self, callback: Callable[[bool], object], durable: bool) -> None:
        if self._loop is None:
            raise StoreError("the journal is not started", transient=False)
        self._loop.call_soon(callback, durable)

    def _wake(self, refused_until: int = 0) -> None:
        """From the thread: one wake-up of the loop a commit, none when nobody's record is in it."""
        until = max(self.durable_sequence, refused_until)
        # No first one: the loop has answered it meanwhile. A closed loop: nobody waits any more.
        with contextlib.suppress(IndexError, RuntimeError):
            if self._loop is not None and self._waiting[0][0] <= until:
                self._loop.call_soon_threadsafe(self._answer, refused_until)

    def _look(self) -> None:
        """On the loop, a few times a second: does the disk hold the thread for too long?"""
        assert self._loop is not None
        since = self._busy_since_s
        limit_s = self._limits.stall_ms / 1000
        stalled = since is not None and self._world.ticks_s() - since > limit_s
        self._stalled = stalled
        self._update()
        if stalled:
            self._answer(self._pen.last)
        self._watch = self._loop.call_later(self._limits.watch_ms / 1000, self._look)

    def _let_pages_go(self, last: int) -> None:
        """What was written stays in the system's cache, where others read it, but is not ours any
        more: a segment would add all of its size to the worker's memory.
        """
        if last - self._let_go >= LET_GO_RECORDS:
            self._let_go = last
            with contextlib.suppress(OSError):  # a hint, and of a shared file: nothing is lost
                self._segment.map.madvise(mmap.MADV_DONTNEED)

    def _update(self) -> None:
        self.writable = self.state == State.OPEN and not self._refused_spare and not self._stalled
        if self.writable:
            self.fault = ""
        elif self._stalled:
            self.fault = f"the disk has not answered for {self._limits.stall_ms} ms"

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        # An Event would do the same for twice the CPU.
        while not self._going.acquire(timeout=self._limits.commit_ms / 1000):
            self.turn()

    def turn(self) -> None:
        """One round of the thread: commits or resumes, and sees to a next segment.

        For the thread, and before `start` for whoever wants to commit by hand.
        """
        self._busy_since_s = self._world.ticks_s()
        try:
            if self.state == State.OPEN:
                self._commit()
            elif self._due():
                self._resume()
        except Exception as error:  # whatever it is, nothing may pass for durable
            self._fail(error)
        if self.state == State.OPEN and not self._pen.has_spare and self._due():
            self._prepare()
        self._busy_since_s = None

    def _due(self) -> bool:
        return self._world.ticks_s() >= self._retry_s

    def _put_off(self) -> None:
        self._retry_s = self._world.ticks_s() + self._limits.retry_ms / 1000

    def _commit(self) -> None:
        last, rolls, first = self._pen.cut()
        if last == self.durable_sequence:
            return
        self._world.sync(self._segment.file)
        if rolls != self._rolls:
            self._follow(first, rolls)
        self._done(last)
        self._let_pages_go(last)
        self._pen.ahead()
        self._pen.release()

    def _follow(self, first: int, rolls: int) -> None:
        """The pen went over to the spare segment: names it, flushes it, leaves the full one."""
        assert self._spare is not None
        full, self._segment, self._spare = self._segment, self._spare, None
        self._rolls = rolls
        full.close()
        self._name(self._segment, first)
        self._world.sync(self._segment.file)

    def _done(self, last: int) -> None:
        self._mark.sequence = last
        self.durable_sequence = last
        self._wake()

    def _prepare(self) -> None:
        """Allocates the next segment; without one there are no new bids."""
        try:
            self._spare = self._create(SPARE)
            self._pen.spare(self._spare.map, self._spare.salt)
            self._refused_spare = False
        except OSError as error:
            self._refused_spare = True
            self.fault = f"no next segment: {error}"
            self._put_off()
        self._update()

    def _create(self, name: str) -> _Segment:
        return _Segment(self._folder / name, self._worker, self._limits.segment_bytes, self._world)

    def _name(self, segment: _Segment, first: int) -> None:
        segment.rename(segment_path(self._folder, first))
        self._world.sync(self._lock_file)

    # -- failing and resuming ------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        self.state, self.fault = State.FAILED, f"cannot flush: {error}"
        self._update()
        self._pen.stop()
        self._close_segments()
        self._put_off()
        self._wake(self._pen.last)

    def _close_segments(self) -> None:
        for segment in (self._segment, self._spare):
            if segment is not None:
                segment.close()
        self._spare = None

    def _resume(self) -> None:
        """Writes what is not durable to a new segment. Only when that is flushed does it count.

        What was given up stays until then, so at any moment a kill or a power cut leaves one
        file at least that `recover` can go on with.
        """
        self._segment = self._create(AGAIN)
        self._pen.begin(self._segment.map, self._segment.salt)
        self._world.sync(self._segment.file)
        forget_after(self._folder, self.durable_sequence + 1)
        self._world.sync(self._lock_file)
        self._name(self._segment, self.durable_sequence + 1)
        self._rolls = self._pen.cut()[1]
        self._done(self._pen.last)
        self._pen.go()
        self.state = State.OPEN
        self._prepare()

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Commits what is left and lets go; waiters are answered first."""
        if self.state == State.CLOSED:
            return
        self._going.release()
        if self._thread.is_alive():
            self._thread.join()
        self.turn()
        self._pen.stop()
        if self.state == State.OPEN:
            self._close_segments()
            (self._folder / SPARE).unlink(missing_ok=True)
        self.state, self.writable = State.CLOSED, False
        if self._watch is not None:
            self._watch.cancel()
        self._mark.close()
        os.close(self._lock_file)
        if self._loop is not None and not self._loop.is_closed():
            self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
