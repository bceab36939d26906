"""The caps board: impressions that the store of counts does not show yet, in one mapped file.

A cap is counted by the keeper, from the journals, into the profile store. Between a bid and that
moment its worker keeps an entry here, which all workers of the node read:

    in flight   from the bid on, until `in_flight_ms` after it
    lost        told by a loss notice to another worker than the one that bid
    shown       from the impression on, with its sequence in that worker's journal, until the
                keeper has counted it and every worker reads a store that has it
    link        of two keys that came together: no bid, and the other one's hash in the place of the
                line item; for as long as something shown, by the sequence of its record

Every word has one writer. Parts of the file, in order:

    header            sizes; `ready`, raised by the keeper once the filter is whole
    keeper[worker]    written by the keeper: identity of a journal, and how far it is counted
    worker[worker]    written by that worker: identity of its journal, and what it could not hold
    seen[worker, w]   written by worker: how far the journal of w is counted in the store it reads
    tags[set, w]      written by w: one byte of a set, bit `person % 8` for each person in it
    filter            written by the keeper: bit `person >> shift` for each person with counts
    sets[w, set]      written by w: entries, WAYS to a set

Nearly all persons have neither a tag nor a bit, and are done after a look at two cache lines.

An entry is read while its owner writes it, without a lock. The owner writes `person` 0, a new
`stamp`, all other fields and `person` last; a reader takes the stamp, then the person, then the
rest, `sequence` first, and begins again when stamp or person are no longer what they were. What
happens to a bid later ends with one store, to `sequence`. An impression is in the board, its tag
last, before its notice is answered. The order of stores is what x86-64 guarantees by itself; the
compiled twin of `Caps` says it to the compiler.

The store and the board are never both blind: the keeper raises the filter's bit, commits, and then
says how far it is; a reader first takes that word and then a view of the store that is newer. And
never both count: counts name the bids that are in them.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from rtb.base.errors import ConfigError, StoreCorrupt
from rtb.base.events import WORKERS_MAX
from rtb.stores.mapped import open_mapped, replace_file

MAGIC: Final = 0x5350_4143_4142_5452  # "RTBACAPS"
VERSION: Final = 1
WAYS: Final = 8
WORD_BITS: Final = 64

# `sequence` of an entry that is not shown.
IN_FLIGHT: Final = 0
LOST: Final = -1

_HEADER: Final = np.dtype(
    [
        ("magic", "u8"),
        ("version", "u4"),
        ("workers", "u4"),
        ("sets", "u8"),
        ("filter_bits", "u8"),
        ("ready", "i8"),
        ("spare", "u8", 3),
    ]
)
_KEEPER: Final = np.dtype([("identity", "u8"), ("counted", "i8"), ("spare", "u8", 6)])
_WORKER: Final = np.dtype(
    [("identity", "u8"), ("given_up", "i8"), ("refused", "i8"), ("spare", "u8", 5)]
)
SET: Final = np.dtype(
    [
        ("person", "u8", WAYS),  # 0: a free entry
        ("stamp", "u8", WAYS),
        ("bid", "u8", WAYS),
        ("line_item", "u8", WAYS),
        ("creative", "u8", WAYS),
        ("time_ms", "i8", WAYS),
        ("sequence", "i8", WAYS),
        ("spare", "u8", WAYS),
    ]
)
assert _HEADER.itemsize == _KEEPER.itemsize == _WORKER.itemsize == 64
assert SET.itemsize == 512


@dataclass(frozen=True)
class Sizes:
    """How much a board holds.

    sets_count   16,384 of WAYS entries a worker, 8 MiB of address space: at 10,000 capped bids a
                 second of which none is told lost, a sixth of it is in use, and one bid in 100,000
                 finds its set full
    filter_bits  2^27, 16 MiB: with a million persons counted one in 130 others is looked up in vain
    """

    sets_count: int = 1 << 14
    filter_bits: int = 1 << 27

    def check(self) -> None:
        """Raises: ConfigError unless both are powers of two, and the filter a word at least."""
        for name, value, least in (
            ("sets_count", self.sets_count, 1),
            ("filter_bits", self.filter_bits, WORD_BITS),
        ):
            if value < least or value & value - 1 or value > 1 << 40:
                raise ConfigError(f"expected a power of two from {least} on - at `{name}`")


class CapsBoard:
    """The file, mapped."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path = path
        self._mapped = mapped
        self.header = np.frombuffer(mapped, _HEADER, 1)
        self.workers_count = workers = int(self.header["workers"][0])
        self.sets_count = sets = int(self.header["sets"][0])
        self.filter_bits = int(self.header["filter_bits"][0])
        if len(mapped) != _size(workers, sets, self.filter_bits):
            raise StoreCorrupt(f"{path}: {len(mapped)} bytes, not what its header says")
        self._at = _HEADER.itemsize
        self.keeper = self._take(_KEEPER, workers)
        self.worker = self._take(_WORKER, workers)
        stride = _stride(workers)
        self.seen = self._take("i8", workers * stride).reshape(workers, stride)
        self.tags = self._take("u1", sets * stride).reshape(sets, stride)
        self.filter = self._take("u8", self.filter_bits // WORD_BITS)
        self.sets = self._take(SET, workers * sets).reshape(workers, sets)

    def _take(self, dtype: Any, count: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = np.frombuffer(self._mapped, dtype, count, self._at)
        self._at += found.nbytes
        return found

    @classmethod
    def create(cls, path: Path, workers_count: int, sizes: Sizes = Sizes()) -> Self:
        """An empty board; replaces an older file whole. No worker may be alive.

        Raises: ConfigError for a size that cannot be.
        """
        sizes.check()
        if not 1 <= workers_count <= WORKERS_MAX:
            raise ConfigError(f"expected 1 to {WORKERS_MAX} workers, got {workers_count}")
        header = np.zeros(1, _HEADER)
        header["magic"], header["version"], header["workers"] = MAGIC, VERSION, workers_count
        header["sets"], header["filter_bits"] = sizes.sets_count, sizes.filter_bits
        replace_file(path, header, _size(workers_count, sizes.sets_count, sizes.filter_bits))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing board. Raises: StoreCorrupt when the file is not one of this version."""
        return cls(path, open_mapped(path, _HEADER, MAGIC, VERSION, "caps board"))

    @property
    def filter_shift(self) -> int:
        """A person's bit is its hash shifted right by so much: the order of keys in the store."""
        return WORD_BITS - (self.filter_bits.bit_length() - 1)

    def set_of(self, person: int) -> int:
        """The set that a person's entries are in."""
        return person >> 3 & self.sets_count - 1


def _stride(workers: int) -> int:
    """Workers rounded up to whole words of tags."""
    return -(-workers // 8) * 8


def _size(workers: int, sets: int, filter_bits: int) -> int:
    stride = _stride(workers)
    each = _KEEPER.itemsize + _WORKER.itemsize + stride * 8 + sets * SET.itemsize
    return _HEADER.itemsize + workers * each + sets * stride + filter_bits // 8


class Filter:
    """The keeper's side of the filter: raised before a commit, lowered by a walk over all keys."""

    def __init__(self, board: CapsBoard) -> None:
        self._board = board
        self._words, self._shift = board.filter, board.filter_shift
        self.words_count = len(self._words)

    def add(self, person: int) -> None:
        """Lets readers look for a person's counts from now on."""
        bit = person >> self._shift
        self._words[bit // WORD_BITS] |= np.uint64(1 << bit % WORD_BITS)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The persons [low, high) whose bits are in the words [first, last)."""
        bits = self._shift + WORD_BITS.bit_length() - 1
        return first << bits, last << bits

    def replace(self, first: int, last: int, persons: npt.NDArray[np.uint64]) -> None:
        """Makes the words [first, last) tell exactly of `persons`, the only ones there with counts.

        Each word is one store: nobody who stays is missed meanwhile.
        """
        bits = persons >> np.uint64(self._shift)
        words = np.zeros(last - first, np.uint64)
        places = (bits // WORD_BITS).astype(np.int64) - first
        np.bitwise_or.at(words, places, np.uint64(1) << bits % np.uint64(WORD_BITS))
        self._words[first:last] = words

    @property
    def ready(self) -> bool:
        """Until then everybody is looked for."""
        return bool(self._board.header["ready"][0])

    def open(self) -> None:
        """The words tell of all persons with counts."""
        self._board.header["ready"] = 1
