"""The keeper's side of the two protocols by which a lease ends (`rtb.stores.board_money`).

A desk is one worker as the keeper sees it. Each turn it may find that leases have ended: then a
`Return` goes into the batch that holds the worker's last records, and once that is committed the
board is settled. Nothing is lent to a worker whose desk is not `open`.

A keeper that starts knows nothing of its predecessor's last steps: it may have been killed between
lending in the books and on the board. So each desk first closes everything once.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from rtb.keeper import publish
from rtb.keeper.leases import Mask
from rtb.keeper.tail import Tail
from rtb.stores.board_money import MoneyBoard

NEVER: Final = -1


class Ended(NamedTuple):
    """Leases of one worker that have ended; to be settled when their return is committed.

    everything: of the worker, whatever the books know of it; admit: the incarnation to let in
    """

    worker: int
    slots: Mask
    everything: bool
    admit: int = NEVER


class Desk:
    """One worker: what it was asked, and whether it may be lent to.

    bury: finds out whether the worker is dead, and makes all of its journal durable if so
    """

    def __init__(
        self, board: MoneyBoard, tail: Tail, bury: Callable[[int], bool], silence_ms: int
    ) -> None:
        self.worker = tail.worker
        self._board, self._tail, self._bury = board, tail, bury
        self._silence_ms = silence_ms
        self._all: Mask = np.ones(board.slots_count, np.bool_)
        self.closing: Mask | None = None
        self._clean = False  # everything was closed once
        self._dead = NEVER  # the incarnation that was buried
        self._waited_ms = 0  # since when it is silent, or was last found alive

    @property
    def incarnation(self) -> int:
        """Of the process that the worker is now; 0 before its first."""
        return int(self._board.worker["incarnation"][self.worker])

    @property
    def open(self) -> bool:
        """May it be lent to?"""
        now = self.incarnation
        admitted = now == int(self._board.keeper["incarnation"][self.worker])
        return admitted and self._clean and now not in (0, self._dead) and not self._tail.fault

    def turn(self, close: Mask, now_ms: int) -> Ended | None:
        """Goes one step further; `close`: slots whose leases shall end."""
        now = self.incarnation
        if now != int(self._board.keeper["incarnation"][self.worker]):
            return self._start(now)
        if now == self._dead:
            return None
        if self.closing is None:
            if self._clean and not close.any():
                return None
            self._ask(close if self._clean else self._all, now_ms)
        return self._wait(now, now_ms)

    def _start(self, incarnation: int) -> Ended | None:
        """A new process: its predecessor is dead, and said how far its journal goes."""
        said = int(self._board.worker["said"][self.worker])
        publish.shut(self._board, self.worker, self._all)
        self.closing = None
        if self._tail.position < said:
            return None
        return Ended(self.worker, self._all, True, incarnation)

    def _ask(self, slots: Mask, now_ms: int) -> None:
        publish.shut(self._board, self.worker, slots)
        publish.ask(self._board, self.worker)
        self.closing = slots
        self._waited_ms = now_ms

    def _wait(self, incarnation: int, now_ms: int) -> Ended | None:
        assert self.closing is not None
        if incarnation and publish.answered(self._board, self.worker):
            if self._tail.position < int(self._board.worker["said"][self.worker]):
                return None
            return Ended(self.worker, self.closing, not self._clean)
        if 0 <= now_ms - self._waited_ms < self._silence_ms:
            return None
        self._waited_ms = now_ms
        if not self._bury(self.worker) or self._tail.position < self._tail.durable_sequence():
            return None
        self._dead = incarnation
        return Ended(self.worker, self._all, True)

    def settled(self, ended: Ended) -> None:
        """The return is in the books: brings the board up to date, in this order."""
        publish.settle(self._board, self.worker, ended.slots)
        if ended.everything:
            self._clean = True
        if ended.admit != NEVER:
            publish.admit(self._board, self.worker, ended.admit)
            self._dead = NEVER
        self.closing = None
