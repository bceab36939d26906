"""Leases that end: which are asked for, and what the books hear of those that are over.

A lease is to end when it is not its time (it is over, or a clock was set back to before it), when
its line item has left, or when somebody else needs what it has. It has ended when its worker's desk
says so, and is settled on the board only once the books have committed its return
(`rtb.keeper.desks`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rtb.keeper.desks import Desk, Ended
from rtb.keeper.leases import Mask
from rtb.keeper.publish import Slots
from rtb.keeper.tail import Tails
from rtb.ledger.commands import Return
from rtb.stores.board_money import MoneyBoard

_NODE_SHIFT: Final = 8  # of a lease's worker, see `ledger.commands.worker_of`


@dataclass
class Over:
    """Leases that have ended, and what the books are told of them.

    ghosts: workers that are no more, of which everything is returned
    """

    ended: list[Ended] = field(default_factory=list)
    ghosts: list[int] = field(default_factory=list)
    commands: list[Return] = field(default_factory=list)


class Returns:
    """The leases of one node, until they have ended.

    called: (workers, slots) leases that are wanted back, whatever their time
    """

    def __init__(
        self,
        board: MoneyBoard,
        slots: Slots,
        tails: Tails,
        bury: Callable[[int], bool],
        node: int,
        silence_ms: int,
        holders: Iterable[int],
    ) -> None:
        """bury: as of a `Desk`; holders: of all leases in the books, as `worker_of` has them."""
        self._board, self._slots, self._tails, self._bury = board, slots, tails, bury
        self._node, self._silence_ms = node, silence_ms
        self._desks = [
            Desk(board, tails.of(worker), bury, silence_ms) for worker in range(board.workers_count)
        ]
        self._ghosts = self._absent(holders)
        self._buried_ms = 0
        self.called: Mask = np.zeros(board.taken.shape, np.bool_)

    def _absent(self, holders: Iterable[int]) -> set[int]:
        """Workers with leases in the books that this board never saw: a larger node, or a board
        that is younger than they are."""
        ours = {holder & 255 for holder in holders if holder >> _NODE_SHIFT == self._node}
        found = {one for one in ours if one >= len(self._desks)}
        for worker in found:
            self._tails.of(worker)
        return found

    def holder(self, worker: int) -> int:
        """What the books call a worker of this node."""
        return self._node << _NODE_SHIFT | worker

    # -- who may be lent to ------------------------------------------------------------------------

    def open_workers(self) -> list[int]:
        """Workers that may be lent to."""
        return [desk.worker for desk in self._desks if desk.open]

    def may_lend(self, worker: int, slot: int) -> bool:
        """Whether a worker may be lent of a slot: not while what it has there is to end."""
        desk = self._desks[worker]
        if not desk.open or self.called[worker, slot]:
            return False
        return desk.closing is None or not desk.closing[slot]

    # -- a turn ------------------------------------------------------------------------------------

    def turn(self, now_ms: int) -> Over:
        """Asks for what is to end; returns what has ended."""
        board, leaving = self._board, self._slots.leaving
        due = (board.until_ms <= now_ms) | (board.from_ms > now_ms)
        due &= board.until_ms > 0
        gone = [self._slots.slot[key] for key in leaving]
        due[:, gone] |= board.until_ms[:, gone] > 0
        over = Over()
        for desk in self._desks:
            waiting = desk.closing
            ended = desk.turn(due[desk.worker] | self.called[desk.worker], now_ms)
            if desk.closing is not waiting:
                self.called[desk.worker] = False
            if ended is not None:
                over.ended.append(ended)
                over.commands.extend(self._returns(ended, now_ms // 1000))
        self._lay_ghosts(over, now_ms)
        return over

    def _returns(self, ended: Ended, now_s: int) -> list[Return]:
        holder = self.holder(ended.worker)
        if ended.everything:
            return [Return(now_s, holder)]
        keys = [self._slots.key.get(int(slot)) for slot in np.flatnonzero(ended.slots)]
        return [Return(now_s, holder, key) for key in keys if key is not None]

    def _lay_ghosts(self, over: Over, now_ms: int) -> None:
        """Returns what workers hold that are no more."""
        if not self._ghosts or 0 <= now_ms - self._buried_ms < self._silence_ms:
            return
        self._buried_ms = now_ms
        for worker in sorted(self._ghosts):
            tail = self._tails.of(worker)
            if self._bury(worker) and tail.position >= tail.durable_sequence():
                over.commands.append(Return(now_ms // 1000, self.holder(worker)))
                over.ghosts.append(worker)

    # -- after the commit --------------------------------------------------------------------------

    def settled(self, ended: Ended) -> None:
        """The return of a worker's leases is in the books."""
        self._desks[ended.worker].settled(ended)

    def laid(self, ghosts: Iterable[int]) -> None:
        """So is what these workers had."""
        self._ghosts.difference_update(ghosts)

    def free_slots(self) -> bool:
        """Frees the places of line items that left, once no worker can have any of them; returns
        whether there were some."""
        board = self._board
        free = []
        for key in self._slots.leaving:
            slot = self._slots.slot[key]
            unlent = (board.granted[:, slot] == board.taken[:, slot]) & (
                board.granted_units[:, slot] == board.taken_units[:, slot]
            )
            closing = any(one.closing is not None and one.closing[slot] for one in self._desks)
            if unlent.all() and not board.until_ms[:, slot].any() and not closing:
                free.append(slot)
        if free:
            self._slots.free(free)
        return bool(free)
