"""The money board: what each worker may take of each line item, in one memory-mapped file.

A grant costs the bid path two comparisons and no system call. Every word has one writer, the keeper
or one worker, and is an aligned 8-byte store: a reader sees the old value or the new.

    keeper writes   keys, generation, granted, from_ms, until_ms, incarnation, asked, and what holds
                    line items back: overlay bits, pacing, `changes` after any of these
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
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rtb.base.errors import ConfigError, StoreCorrupt
from rtb.base.records import MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL
from rtb.stores.mapped import open_mapped, replace_file

MAGIC: Final = 0x4559_4E4F_4D42_5452  # "RTBMONEY"
VERSION: Final = 2
# Rows of eight words: no two workers write to one cache line.
SLOTS_STEP: Final = 8
NO_SLOT: Final = -1
# What of a bid's cost is taken: all of it, but for budgets that reserve what they expect to pay.
RESERVE_E6_ALL: Final = 1_000_000
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
        ("changes", "i8"),  # raised after every change of bits, multiplier or participation
        ("spare", "u8", 2),
    ]
)
_KEEPER: Final = np.dtype(
    [
        ("incarnation", "i8"),
        ("asked", "i8"),
        ("served", "i8"),  # the incarnation that was lent all that can be lent ahead of bids
        ("spare", "u8", 5),
    ]
)
_WORKER: Final = np.dtype(
    [("incarnation", "i8"), ("answered", "i8"), ("said", "i8"), ("spare", "u8", 5)]
)
assert _HEADER.itemsize == _KEEPER.itemsize == _WORKER.itemsize == 64

KEEPER_WORDS: Final = ("granted", "granted_units", "from_ms", "until_ms")
WORKER_WORDS: Final = ("taken", "taken_units", "wanted", "refusals")


class MoneyBoard:
    """The file, mapped. Arrays of (workers, slots) by the names of the words.

    wanted      nanos of the last bid that was refused; refusals: how many were
    reserve_e6  of a bid's cost so many millionths are taken
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
        self.reserve_e6 = np.frombuffer(mapped, "u4", slots, at)
        at += self.reserve_e6.nbytes
        self.participation_e4 = np.frombuffer(mapped, "u2", slots, at)
        at += self.participation_e4.nbytes
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
        board.multiplier_e6[:] = MULTIPLIER_E6_ONE
        board.participation_e4[:] = PARTICIPATION_E4_ALL
        board.reserve_e6[:] = RESERVE_E6_ALL
        return board

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing board. Raises: StoreCorrupt when the file is not one of this version."""
        return cls(path, open_mapped(path, _HEADER, MAGIC, VERSION, "money board"))


def _size(workers: int, slots: int) -> int:
    words = len(KEEPER_WORDS) + len(WORKER_WORDS)
    each = _KEEPER.itemsize + _WORKER.itemsize + words * slots * 8
    return _HEADER.itemsize + workers * each + slots * (8 + 4 + 4 + 2 + 1)


class _Told(NamedTuple):
    """What `Purse.hold_back` said last, and to whom: only what differs has to be said again."""

    rows: npt.NDArray[np.void]
    slots: npt.NDArray[np.int32]
    multiplier_e6: npt.NDArray[np.uint32]
    participation_e4: npt.NDArray[np.uint16]
    overlay: npt.NDArray[np.uint8]

    @classmethod
    def of(
        cls, board: MoneyBoard, rows: npt.NDArray[np.void], slots: npt.NDArray[np.int32]
    ) -> Self:
        """As the board is now."""
        words = (board.multiplier_e6, board.participation_e4, board.overlay)
        return cls(rows, slots, *(word.copy() for word in words))

    def different(self, before: Self) -> npt.NDArray[np.intp]:
        """The slots of which something else is said than before."""
        changed = self.multiplier_e6 != before.multiplier_e6
        changed |= self.participation_e4 != before.participation_e4
        changed |= self.overlay != before.overlay
        return np.flatnonzero(changed)


class Purse:
    """One worker's side of the board. One thread, the loop's, calls all methods.

    sequence: of the newest record of the worker's journal, which this process has locked.
    """

    def __init__(self, board: MoneyBoard, worker: int, sequence: Callable[[], int]) -> None:
        self.board, self.worker = board, worker
        self._sequence = sequence
        self._line_items: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._slots: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._bound = -1  # the generation of slots that `_slots` is of
        self._told: _Told | None = None
        self._rows_of: npt.NDArray[np.int32] = np.zeros(0, np.int32)  # by slot, for `hold_back`
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

    def reserve_e6(self, slot: int) -> int:
        """What of a bid's cost is taken, in millionths."""
        return int(self.board.reserve_e6[slot])

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
            and self.board.keys[slot] == line_item
            and now_ms < self._until_ms[slot]
            and self._from_ms[slot] <= now_ms
        )

    def take(self, slot: int, nanos: int) -> None:
        """Counts a bid that was appended."""
        self._taken[slot] += nanos
        self._taken_units[slot] += 1

    @property
    def served(self) -> bool:
        """Whether the keeper has lent this process what can be lent ahead of the first bid."""
        return bool(self._keeper["served"] == self.incarnation)

    def bind(self, line_items: npt.NDArray[np.uint64]) -> None:
        """Serves a snapshot with these line items, by their keys."""
        self._line_items = line_items
        self._bound = -1

    def slots(self) -> npt.NDArray[np.int32]:
        """Where the line items of the snapshot stand, or NO_SLOT; the same array until that
        changes."""
        generation = int(self.board.header["generation"][0])
        if generation != self._bound:
            keys = self.board.keys.copy()
            order = np.argsort(keys)
            found = np.searchsorted(keys, self._line_items, sorter=order)
            slots = order[np.minimum(found, len(keys) - 1)]
            self._slots = np.where(keys[slots] == self._line_items, slots, NO_SLOT).astype(np.int32)
            self._bound = generation
        return self._slots

    def changes(self) -> int:
        """Another number than before when `hold_back` has something new to say."""
        header = self.board.header
        return int(header["changes"][0]) + int(header["generation"][0])

    def hold_back(self, rows: npt.NDArray[np.void]) -> None:
        """Brings `rows` (dtype OVERLAY, one a line item) up to what the keeper says of them.

        Line items without a slot are not held back: without a lease they cannot bid anyway.
        """
        slots = self.slots()
        told, now = self._told, _Told.of(self.board, rows, slots)
        if told is None or told.rows is not rows or told.slots is not slots:
            rows["multiplier_e6"] = MULTIPLIER_E6_ONE
            rows["participation_e4"], rows["bits"] = PARTICIPATION_E4_ALL, 0
            changed = slots[slots != NO_SLOT]
            self._rows_of = np.full(self.board.slots_count, NO_SLOT, np.int32)
            self._rows_of[changed] = np.flatnonzero(slots != NO_SLOT)
        else:
            changed = now.different(told)
        self._told = now
        at = self._rows_of[changed]
        changed, at = changed[at != NO_SLOT], at[at != NO_SLOT]
        rows["multiplier_e6"][at] = now.multiplier_e6[changed]
        rows["participation_e4"][at] = now.participation_e4[changed]
        rows["bits"][at] = now.overlay[changed]

    def rest(self) -> None:
        """Answers the keeper; to be called between bids, several times a second."""
        asked = int(self._keeper["asked"])
        if asked != self._mine["answered"]:
            self._mine["said"] = self._sequence()
            self._mine["answered"] = asked
