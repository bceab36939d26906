"""What the keeper needs of a generation of the catalogue, read aside while it goes on booking.

Reading ten thousand line items takes some 200 ms, in which records would wait for the books. So a
thread reads them, and the turn in which it is done only puts them in force. The first generation of
a process is waited for: before it nothing is lent.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from rtb.base import memory
from rtb.catalogue.snapshot import Snapshot
from rtb.keeper.chart import Plan, chart_of, plans_of
from rtb.keeper.pace_budgets import Aimed, aimed_in
from rtb.ledger.chart import Chart
from rtb.stores import artifacts
from rtb.stores.serving import StatePaths, read_serving, stamp

# After a generation that cannot be read, or whose budgets the books cannot take now.
RETRY_MS: Final = 1_000
_NOTHING: Final = (0, 0, 0)

Weights = Mapping[str, Sequence[int]]


class Budgets(NamedTuple):
    """All of a generation that has to do with money.

    costs: the most that an impression of each line item costs, in nanos
    """

    generation: int
    plans: dict[int, Plan]
    chart: Chart
    costs: dict[int, int]
    aimed: Aimed


def read_budgets(generation: int, snapshot: Snapshot, weights: Weights, now_s: int) -> Budgets:
    """Reads a snapshot; weights: as `pace_budgets.aim_of` has them."""
    items = snapshot["line_items"]
    with memory.building():
        # One impression at a CPM of n micros costs n nanos.
        costs = dict(zip(items["key"].tolist(), items["max_cpm_micros"].tolist(), strict=True))
        plans = plans_of(snapshot)
        aimed = aimed_in(snapshot, plans, weights, now_s)
        return Budgets(generation, plans, chart_of(snapshot, plans), costs, aimed)


class Follower:
    """Looks for new generations, and reads one at a time.

    opened   called with a snapshot as soon as it is seen
    weights  asked for those of the moment
    """

    def __init__(
        self,
        paths: StatePaths,
        opened: Callable[[Snapshot], None],
        weights: Callable[[], Weights],
    ) -> None:
        self._paths, self._opened, self._weights = paths, opened, weights
        self._thread = ThreadPoolExecutor(1, "budgets")
        self._stamp: tuple[int, int, int] = _NOTHING  # of what was opened last
        self._tried: tuple[int, int, int] = _NOTHING
        self._newest: tuple[int, Snapshot] | None = None
        self._is_due = False  # its budgets are to be read
        self._reading: Future[Budgets] | None = None
        self._again_ms = 0
        self._is_first = True

    def look(self, now_ms: int) -> Budgets | None:
        """Budgets that are to be put in force now; None for nothing new, or not yet.

        now_ms: monotonic
        Raises: StoreError, StoreCorrupt, CatalogueError; then call `try_again`.
        """
        self._begin(now_ms)
        if self._reading is None or not (self._is_first or self._reading.done()):
            return None
        reading, self._reading = self._reading, None
        found = reading.result()
        self._is_first = False
        return found

    def try_again(self, now_ms: int) -> None:
        """What was seen last could not be read, or not be put in force: in a while, anew."""
        self._is_due, self._again_ms = self._newest is not None, now_ms + RETRY_MS

    def close(self) -> None:
        """Waits for what is being read."""
        self._thread.shutdown()

    def _begin(self, now_ms: int) -> None:
        changed = stamp(self._paths.serving)
        waits = now_ms < self._again_ms
        if changed != self._stamp and not (waits and changed == self._tried):
            # Workers serve it by now: its caps cannot wait for budgets that are being read.
            self._open(changed)
        if self._newest is None or not self._is_due or self._reading is not None or waits:
            return
        self._is_due = False
        self._reading = self._thread.submit(
            read_budgets, *self._newest, self._weights(), int(time.time())
        )

    def _open(self, changed: tuple[int, int, int]) -> None:
        self._tried = changed
        file = read_serving(self._paths)
        if file is not None:
            path = self._paths.root.joinpath(file.snapshot)
            snapshot = artifacts.open_snapshot(path, verify=False)
            self._opened(snapshot)
            self._newest, self._is_due = (file.generation, snapshot), True
        self._stamp = changed
