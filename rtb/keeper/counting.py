"""The count of impressions as a part of the keeper's turn, with the store that it counts into.

A store over the network may be away, hang or lose what it said. Nobody but the counts waits for it:
while it is away it is asked once in a while, and each time not for long. Its journals stay, so all
is counted when it is back. Until then what has caps rests, as no request learns what its person has
seen.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rtb.base.errors import StoreError
from rtb.catalogue.snapshot import Snapshot
from rtb.keeper.caps import COUNTED_KINDS, CapsKeeper, Settings, names_of
from rtb.keeper.tail import Tail, Tails
from rtb.stores.caps_board import CapsBoard
from rtb.stores.caps_table import CapsTable
from rtb.stores.journal import Kernel
from rtb.stores.profiles import CountsWriter

log = logging.getLogger("rtb.keeper")

# A part of all persons each time; all of them within a few hours.
TIDY_EVERY_MS: Final = 20_000
RETRY_MS: Final = 1_000
# A turn that took longer is followed by a rest of twice as long, so that the keeper's other work
# has two thirds of its time: one answer may take a quarter of a second, and a turn needs some.
SLOW_MS: Final = 100


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Counting:
    """What a node counts, and how far.

    fault  why nothing is counted just now; "" when all goes well
    """

    def __init__(
        self,
        store: CountsWriter,
        board: CapsBoard,
        journals: Path,
        kernel: Kernel,
        settings: Settings,
        wall_ms: Callable[[], int] = _wall_ms,
        steady_ms: Callable[[], int] = _steady_ms,
    ) -> None:
        self._store, self._board, self._journals = store, board, journals
        self._kernel, self._settings, self._wall_ms = kernel, settings, wall_ms
        self._steady_ms = steady_ms
        self._table = CapsTable.empty()
        self._keeper: CapsKeeper | None = None
        self._tails: Tails | None = None
        self._tidied_ms, self._not_before_ms = 0, 0
        self.fault = ""

    def serve(self, snapshot: Snapshot) -> None:
        """Puts the caps of a new snapshot in force; to be done before workers bid by it."""
        self._table = CapsTable.of(snapshot.arrays, self._table)
        if self._keeper is not None:
            self._keeper.serve(self._table)

    def turn(self, now_ms: int) -> int:
        """Counts what there is; how many records it went through.

        now_ms: of a clock that nobody sets
        Raises: InvariantError.
        """
        if now_ms < self._not_before_ms:
            return 0
        began_ms = self._steady_ms()
        count = self._turn(now_ms)
        took_ms = self._steady_ms() - began_ms
        if took_ms > SLOW_MS:
            self._not_before_ms = max(self._not_before_ms, now_ms + 3 * took_ms)
        return count

    def _turn(self, now_ms: int) -> int:
        keeper, tails = self._keeper, self._tails
        try:
            if keeper is None or tails is None:
                keeper, tails = self._begin()
            if not keeper.ready or now_ms - self._tidied_ms > TIDY_EVERY_MS:
                self._tidied_ms = now_ms
                keeper.tidy(self._wall_ms() // 1000)
            count = keeper.step(tails, self._wall_ms())
        except StoreError as error:
            self._fails(str(error), now_ms)
            if not error.transient:  # it says otherwise than before: what it says now is true
                self.close()
            return 0
        fault = keeper.fault or "; ".join(tails.faults().values())
        if fault:
            self._fails(fault, now_ms)
        elif self.fault:
            log.info("impressions are counted again")
            self.fault = ""
        return count

    def _fails(self, fault: str, now_ms: int) -> None:
        if not self.fault:
            log.error("impressions are not counted: %s", fault)
        self.fault, self._not_before_ms = fault, now_ms + RETRY_MS

    def _begin(self) -> tuple[CapsKeeper, Tails]:
        """Goes on where the store says. Raises: StoreError."""
        node, journals, kernel = self._settings.node, self._journals, self._kernel
        names = [name for _, name in names_of(journals, node, self._board.workers_count)]
        keeper = CapsKeeper(self._store, self._board, self._table, self._settings, names)
        found = keeper.begin_at(journals)
        tails = Tails(lambda one: Tail(journals, node, one, kernel, found, COUNTED_KINDS))
        for worker in range(self._board.workers_count):
            tails.of(worker)
        self._keeper, self._tails = keeper, tails
        return keeper, tails

    def settle(self, now_ms: int) -> None:
        """Has the store know all that was gone through; to be called before journals are removed.

        now_ms: as of `turn`
        """
        if self._keeper is None or now_ms < self._not_before_ms:
            return
        try:
            self._keeper.settle()
        except StoreError as error:
            self._fails(str(error), now_ms)

    def positions(self) -> Mapping[int, int]:
        """How far the store has counted each worker's journal; nothing where that is not known."""
        if self._keeper is None or self._tails is None:
            return {}
        counted = self._keeper.positions
        return {
            worker: counted.get(self._tails.of(worker).name, 0)
            for worker in range(self._board.workers_count)
        }

    def is_read(self) -> bool:
        """Whether there is nothing to count by now."""
        if self._keeper is None or self._tails is None:
            return False
        return self._keeper.is_idle and self._tails.are_read()

    def close(self) -> None:
        """Lets go of the journals."""
        if self._tails is not None:
            self._tails.close()
        self._keeper = self._tails = None
