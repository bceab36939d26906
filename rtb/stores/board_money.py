"""The money board: what each worker may take of each line item, in one memory-mapped file.

A grant costs the bid path two comparisons and no system call. Every word has one writer, the keeper
or one worker, and is an aligned 8-byte store: a reader sees the old value or the new.

    keeper writes   keys, generation, granted, from_ms, until_ms, incarnation, asked, overlay, ...
    worker writes   taken, wanted, refusals, and its own incarnation, answered, said

`granted` and `taken` only grow while a lease is open. A bid is paid from a lease when, in this
order: the incarnations agree, the slot is still the line item's, `from_ms <= now < until_ms`, and
`taken + cost <= granted`. The worker then appends the bid to its journal and raises `taken`, all in
one turn of its loop: between two turns it is *at rest*. From that follow the two protocols by which
a lease ends; neither goes by a clock, so no pause of a process, however long, spends money twice.

Closing (a live worker). The keeper (1) sets `until_ms` of the slots to 0, (2) raises `asked`. The
worker, at rest, (3) writes the sequence of its last record to `said`, (4) copies `asked` to
`answered`. Whatever was taken from those slots was appended before (3), and nothing can be taken
after it, for the next look sees (1). When the keeper has applied the journal up to `said`, what is
left of the lease is free: it books the return, then (5) sets `granted = taken`, and may lend again.

Starting (a worker that died). It holds its journal's lock, so its predecessor is dead, and the
journal was recovered. It (1) sets its `taken` to 0, (2) writes the journal's last sequence to
`said`, (3) raises its `incarnation`: as long as the keeper's differs it takes nothing. The keeper
(4) applies the journal up to `said`, books the return of all leases, (5) sets `granted = taken`,
(6) copies the incarnation that it read before `said`. Had another start come in between, the copy
is an old number, and all begins again. A keeper killed anywhere begins again at (4): to return
twice returns nothing.

The order of stores is what x86-64 guarantees by itself; the compiled twin of `Purse` for a weaker
machine needs acquire and release.
"""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from rtb.base.errors import ConfigError, StoreCorrupt
from rtb.stores.mapped import open_mapped, replace_file

MAGIC: Final = 0x4559_4E4F_4D42_5452  # "RTBMONEY"
VERSION: Final = 1
# Rows of eight words: no two workers write to one cache line.
SLOTS_STEP: Final = 8
NO_SLOT: Final = -1
MULTIPLIER_ONE: Final = 1_000_000
# Cumulative sums stay far below 63 bits: nothing is lent beyond this.
GRANTED_MAX: Final = 1 << 62

Words = npt.NDArray[np.int64]


_HEADER: Final = np.dtype(
    [
        ("magic", "u8"),
        ("version", "u4"),
        ("workers", "u4"),
        ("slots", "u8"),
        ("generation", "i8"),  # raised after every change of `keys`
        ("beat_ms", "i8"),  # when the keeper was last seen
        ("spare", "u8", 3),
    ]
)
_KEEPER: Final = np.dtype([("incarnation", "i8"), ("asked", "i8"), ("spare", "u8", 6)])
_WORKER: Final = np.dtype(
    [("incarnation", "i8"), ("answered", "i8"), ("said", "i8"), ("spare", "u8", 5)]
)
assert _HEADER.itemsize == _KEEPER.itemsize == _WORKER.itemsize == 64

KEEPER_WORDS: Final = ("granted", "granted_units", "from_ms", "until_ms")
WORKER_WORDS: Final = ("taken", "taken_units", "wanted", "refusals")


class MoneyBoard:
    """The file, mapped. Arrays of (workers, slots) by the names of the words.

    wanted    nanos of the last bid that was refused; refusals: how many were
    """

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path = path
        self._mapped = mapped
        self.header = np.frombuffer(mapped, _HEADER, 1)
        self.workers_count = int(self.header["workers"][0])
        self.slots_count = slots = int(self.header["slots"][0])
        if len(mapped) != _size(self.workers_count, slots):
            raise StoreCorrupt(f"{path}: {len(mapped)} bytes, not what its header says")
        at = _HEADER.itemsize
        self.keeper = np.frombuffer(mapped, _KEEPER, self.workers_count, at)
        at += self.keeper.nbytes
        self.worker = np.frombuffer(mapped, _WORKER, self.workers_count, at)
        at += self.worker.nbytes
        self.keys = np.frombuffer(mapped, "u8", slots, at)
        at += self.keys.nbytes
        self.multiplier_e6 = np.frombuffer(mapped, "u4", slots, at)
        at += self.multiplier_e6.nbytes
        self.overlay = np.frombuffer(mapped, "u1", slots, at)
        at += self.overlay.nbytes
        words = {}
        for name in (*KEEPER_WORDS, *WORKER_WORDS):
            flat: Words = np.frombuffer(mapped, np.int64, self.workers_count * slots, at)
            words[name] = flat.reshape(self.workers_count, slots)
            at += flat.nbytes
        self.granted, self.granted_units = words["granted"], words["granted_units"]
        self.from_ms, self.until_ms = words["from_ms"], words["until_ms"]
        self.taken, self.taken_units = words["taken"], words["taken_units"]
        self.wanted, self.refusals = words["wanted"], words["refusals"]

    @classmethod
    def create(cls, path: Path, workers_count: int, slots_count: int) -> Self:
        """A fresh board, nothing lent; replaces an older file whole. No worker may be alive.

        Raises: ConfigError for a size that cannot be.
        """
        if workers_count < 1 or slots_count < 1 or slots_count % SLOTS_STEP:
            raise ConfigError(f"expected workers and slots in steps of {SLOTS_STEP} - at `{path}`")
        header = np.zeros(1, _HEADER)
        header["magic"], header["version"] = MAGIC, VERSION
        header["workers"], header["slots"] = workers_count, slots_count
        replace_file(path, header, _size(workers_count, slots_count))
        board = cls.open(path)
        board.multiplier_e6[:] = MULTIPLIER_ONE
        return board

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing board. Raises: StoreCorrupt when the file is not one of this version."""
        return cls(path, open_mapped(path, _HEADER, MAGIC, VERSION, "money board"))


def _size(workers: int, slots: int) -> int:
    words = len(KEEPER_WORDS) + len(WORKER_WORDS)
    each = _KEEPER.itemsize + _WORKER.itemsize + words * slots * 8
    return _HEADER.itemsize + workers * each + slots * (8 + 4 + 1)


class Purse:
    """One worker's side of the board. One thread, the loop's, calls all methods.

    sequence: of the newest record of the worker's journal, which this process has locked.
    """

    def __init__(self, board: MoneyBoard, worker: int, sequence: Callable[[], int]) -> None:
        self._keep = board
        self._sequence = sequence
        self._slots: dict[int, int] = {}
        self._generation = -1
        self._keeper, self._mine = board.keeper[worker], board.worker[worker]
        self._granted, self._granted_units = board.granted[worker], board.granted_units[worker]
        self._from_ms, self._until_ms = board.from_ms[worker], board.until_ms[worker]
        self._taken, self._taken_units = board.taken[worker], board.taken_units[worker]
        self._wanted, self._refusals = board.wanted[worker], board.refusals[worker]
        self._start()

    def _start(self) -> None:
        """See "Starting" above."""
        self._taken[:] = 0
        self._taken_units[:] = 0
        self._mine["said"] = self._sequence()
        self.incarnation = int(self._mine["incarnation"]) + 1
        self._mine["incarnation"] = self.incarnation

    @property
    def ready(self) -> bool:
        """Whether the keeper has settled what the worker before this one left."""
        return bool(self._keeper["incarnation"] == self.incarnation)

    def slot_of(self, line_item: int) -> int:
        """Where a line item stands, or NO_SLOT."""
        generation = int(self._keep.header["generation"][0])
        if generation != self._generation:
            keys = self._keep.keys.tolist()
            self._slots = {key: slot for slot, key in enumerate(keys) if key}
            self._generation = generation
        return self._slots.get(line_item, NO_SLOT)

    def affords(self, slot: int, line_item: int, nanos: int, now_ms: int) -> bool:
        """May a bid of this cost go out? If so: append it to the journal, then call `take`, with
        nothing else in between.

        now_ms: the time whose seconds are in the bid's id.
        """
        if self._may(slot, line_item, now_ms) and (
            self._taken[slot] + nanos <= self._granted[slot]
            and self._taken_units[slot] < self._granted_units[slot]
        ):
            return True
        self._wanted[slot] = nanos
        self._refusals[slot] += 1
        return False

    def _may(self, slot: int, line_item: int, now_ms: int) -> bool:
        """Is the lease open? `until_ms` is read before what it opens."""
        return bool(
            self._keeper["incarnation"] == self.incarnation
            and self._keep.keys[slot] == line_item
            and now_ms < self._until_ms[slot]
            and self._from_ms[slot] <= now_ms
        )

    def take(self, slot: int, nanos: int) -> None:
        """Counts a bid that was appended."""
        self._taken[slot] += nanos
        self._taken_units[slot] += 1

    def rest(self) -> None:
        """Answers the keeper; to be called between bids, several times a second."""
        asked = int(self._keeper["asked"])
        if asked != self._mine["answered"]:
            self._mine["said"] = self._sequence()
            self._mine["answered"] = asked
