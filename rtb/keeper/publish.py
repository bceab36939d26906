"""What the keeper writes on the money board, in the order that `rtb.stores.board_money` proves.

Nothing here happens before the books have committed it, but for closing, which only takes away.
"""

from collections.abc import Iterable

import numpy as np

from rtb.base.records import MULTIPLIER_E6_ONE, PARTICIPATION_E4_ALL, Overlay
from rtb.keeper.leases import Lent, Mask
from rtb.stores.board_money import RESERVE_E6_ALL, MoneyBoard


def shut(board: MoneyBoard, worker: int, slots: Mask) -> None:
    """No new bids on these slots once the worker looks again."""
    board.until_ms[worker, slots] = 0


def ask(board: MoneyBoard, worker: int) -> None:
    """Asks the worker to say how far its journal goes; it answers when it is at rest."""
    board.keeper["asked"][worker] += 1


def answered(board: MoneyBoard, worker: int) -> bool:
    """Whether the worker has answered all that it was asked; read it before `said`."""
    return bool(board.worker["answered"][worker] == board.keeper["asked"][worker])


def settle(board: MoneyBoard, worker: int, slots: Mask) -> None:
    """Nothing is lent on these slots; their worker is at rest, dead, or not admitted."""
    board.until_ms[worker, slots] = 0
    board.from_ms[worker, slots] = 0
    board.granted[worker, slots] = board.taken[worker, slots]
    board.granted_units[worker, slots] = board.taken_units[worker, slots]


def admit(board: MoneyBoard, worker: int, incarnation: int) -> None:
    """Lets a process take what it will be lent."""
    board.keeper["incarnation"][worker] = incarnation


def raise_grant(
    board: MoneyBoard, worker: int, slot: int, lent: Lent, span_ms: tuple[int, int]
) -> None:
    """Lends; the end of the time opens the slot, so it is written last."""
    board.from_ms[worker, slot] = span_ms[0]
    board.granted[worker, slot] += lent.nanos
    board.granted_units[worker, slot] += lent.units
    board.until_ms[worker, slot] = span_ms[1]


def overlay(board: MoneyBoard, slot: int, bits: Overlay, *, on: bool) -> None:
    """Sets or clears bits of a slot."""
    before = int(board.overlay[slot])
    after = before | int(bits) if on else before & ~int(bits)
    if after != before:
        board.overlay[slot] = after
        board.header["changes"] += 1


def forget_exhausted(board: MoneyBoard) -> None:
    """Lets all line items ask again: who said that they are exhausted is no more.

    Nobody would look whether they still are, and whoever is marked is not asked for, and so never
    refused again. Those that are get their mark back with the first bid that is refused.
    """
    for slot in np.flatnonzero(board.overlay & int(Overlay.EXHAUSTED)):
        overlay(board, int(slot), Overlay.EXHAUSTED, on=False)


def pace(board: MoneyBoard, slot: int, multiplier_e6: int, participation_e4: int) -> None:
    """Sets how a slot's line item is paced."""
    board.multiplier_e6[slot] = multiplier_e6
    board.participation_e4[slot] = participation_e4
    board.header["changes"] += 1


class Slots:
    """Which line item stands where.

    leaving: line items that are not offered any more; they keep their place until it is freed
    """

    def __init__(self, board: MoneyBoard) -> None:
        self._board = board
        self.slot = {int(key): slot for slot, key in enumerate(board.keys.tolist()) if key}
        self.key = {slot: key for key, slot in self.slot.items()}
        self.leaving: set[int] = set()

    def assign(self, keys: Iterable[int]) -> int:
        """Gives line items a free slot; returns how many found none."""
        new = [key for key in keys if key not in self.slot]
        free = [int(slot) for slot in np.flatnonzero(self._board.keys == 0)[: len(new)]]
        for key, slot in zip(new, free, strict=False):
            self.slot[key], self.key[slot] = slot, key
            self._board.overlay[slot] = 0
            self._board.multiplier_e6[slot] = MULTIPLIER_E6_ONE
            self._board.participation_e4[slot] = PARTICIPATION_E4_ALL
            self._board.reserve_e6[slot] = RESERVE_E6_ALL
            self._board.keys[slot] = key
        if free:
            self._board.header["generation"] += 1
        return len(new) - len(free)

    def free(self, slots: Iterable[int]) -> None:
        """Takes slots back on which nothing is lent to anybody."""
        for slot in slots:
            self._board.keys[slot] = 0
            key = self.key.pop(slot)
            del self.slot[key]
            self.leaving.discard(key)
        self._board.header["generation"] += 1
