"""What a running node would pay for just now, tried on copies of its boards.

A decision is half of an answer: budgets, pacing and what a person has seen lately lie on boards
that a node's processes share. `rtb explain` copies them and takes the same steps on the copies, by
the readable twins of what workers run. The node does not notice.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from rtb.base.links import Sheets
from rtb.base.reasons import NoBid
from rtb.base.records import OVERLAY, Decision, Flag, Opportunity
from rtb.notices.tokens import Keyring, Signer
from rtb.server.claim import is_claimed
from rtb.server.commit import Commit, FallsBack, Payment
from rtb.stores.board_money import NO_SLOT, MoneyBoard, Purse
from rtb.stores.caps import Caps
from rtb.stores.caps_board import CapsBoard
from rtb.stores.caps_table import CapsTable
from rtb.stores.profiles import Record
from rtb.stores.serving import StatePaths

T = TypeVar("T")
# Nothing that is signed with it leaves the process.
_NO_SECRET = Keyring(1, {1: bytes(16)})


class Boards(NamedTuple):
    """Copies of what a node's processes share. To be made before profiles are read: what is counted
    on them is then in the store, too.
    """

    money: MoneyBoard
    caps: CapsBoard

    @classmethod
    def copied(cls, paths: StatePaths) -> Self | None:
        """None where no node runs: its leases have ended, and nothing would be paid.

        Raises: ConfigError, StoreError.
        """
        if not is_claimed(paths) or not paths.money_board.exists():
            return None
        return cls(
            _copy(paths.money_board, MoneyBoard.open), _copy(paths.caps_board, CapsBoard.open)
        )


def _copy(path: Path, opened: Callable[[Path], T]) -> T:
    """A board that nobody else sees, and that ends with this process."""
    with tempfile.TemporaryDirectory() as folder:
        return opened(Path(shutil.copyfile(path, Path(folder) / path.name)))


class _Hand(Purse):
    """A worker's purse as it is, not begun anew."""

    def _start(self) -> None:
        self.incarnation = int(self._mine["incarnation"])


class Rehearsal:
    """One request, on copies of the boards.

    arrays: of the snapshot that is served; stored: counts of a person where the store has them
    apart, as of `Caps`.
    """

    def __init__(
        self,
        boards: Boards,
        arrays: Mapping[str, Any],
        now_ms: int,
        stored: Callable[[int], Record | None] | None,
    ) -> None:
        self._money, self._arrays, self._now_ms = boards.money, arrays, now_ms
        mine = boards.caps.worker[0]
        self._caps = Caps(boards.caps, 0, 0, int(mine["identity"]), stored=stored)
        self._caps.serve(CapsTable.of(arrays))
        self._caps.refresh(now_ms)
        self._caps.refresh(now_ms)  # what is read from now on is newer than both

    def view(
        self,
        keys: Sequence[bytes],
        key: bytes | None,
        record: Record | None,
        counts: Sequence[Record | None] = (),
    ) -> Record | None:
        """As `Caps.view`; nobody is linked."""
        return self._caps.view(keys, key, record, self._now_ms, counts, is_test=True)

    def overlay(self) -> npt.NDArray[np.void]:
        """What the keeper says of the line items of the snapshot."""
        rows = np.zeros(len(self._arrays["line_items"]), OVERLAY)
        self._purse(0).hold_back(rows)
        return rows

    def pay(
        self,
        opportunity: Opportunity,
        decision: Decision,
        engine: FallsBack,
        payment: Payment,
    ) -> None:
        """Takes from the decision what the worker with the most money would not pay for."""
        head = decision.data["head"][0]
        if head["nobid"]:
            return
        flags = int(opportunity.facts["head"]["flags"][0]) & Flag.TEST
        bids = decision.data["bids"][0][: int(head["bids_count"])]
        chosen = bids["line_item"][bids["chosen"] != 0]
        purse = max(map(self._purse, range(self._money.workers_count)), key=self._left(chosen))
        commit = Commit(
            purse, lambda kind, body: 0, Signer(_NO_SECRET), _NO_SECRET, 0, purse.worker,
            caps=self._caps,
        )  # fmt: skip
        commit.serve(self._arrays)
        paid = commit.pay(
            opportunity, decision, engine, payment, self._caps.person, flags, self._now_ms, Sheets()
        )
        if not paid:
            head["nobid"] = NoBid.NO_CANDIDATE

    def _purse(self, worker: int) -> _Hand:
        purse = _Hand(self._money, worker, lambda: 0)
        purse.bind(np.ascontiguousarray(self._arrays["line_items"]["key"], np.uint64))
        return purse

    def _left(self, line_items: npt.NDArray[np.int32]) -> Callable[[_Hand], int]:
        """What a worker has left for some line items."""

        def left(purse: _Hand) -> int:
            board, slots = purse.board, purse.slots()[line_items]
            at = (purse.worker, slots[slots != NO_SLOT])
            is_open = board.until_ms[at] > self._now_ms
            return int(((board.granted[at] - board.taken[at]) * is_open).sum())

        return left
