"""What a batch of commands did: rows for the books, and which of the state must be kept.

Every movement of money goes through `Changes.move`, which takes from one balance and gives to
another: double entry cannot be got wrong elsewhere. What concerns one bid's bill, a grant or a
correction is a row of its own. What happens to every bid (take, void, expire, the rest of a hold)
is summed into one row for each account, kind and pair of balances in the batch: the sums are the
same to the nano, and the journals hold the single bids.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from rtb.ledger.accounts import Account, Balance, Hold, Lease, Line, Mark, Settled, State
from rtb.ledger.commands import Outcome, SetLimit
from rtb.ledger.pages import Page, Rows, number_of, page_of

NO_WORKER: Final = -1
_OPEN: Final = Balance.OPEN


class Entry(IntEnum):
    """What a row is about. Numbers are stored."""

    GRANT = 1
    RETURN = 2
    TAKE = 3
    POST = 4
    VOID = 5
    EXPIRE = 6
    LATE = 7
    ADJUST = 8
    REPAY = 9  # money that came back paid for overspend


class Row(NamedTuple):
    """One movement, or the sum of `moves` like ones; 0, NO_WORKER and "" where none is named."""

    time_s: int
    entry: Entry
    account: int
    source: Balance
    target: Balance
    nanos: int
    units: int
    moves: int
    bid: int
    worker: int
    reference: str


SumKey = tuple[Entry, int, Balance, Balance]  # account, source, target


class Changes:
    """The trace of a batch; a store writes it in one transaction."""

    __slots__ = (
        "accounts", "apart", "expired", "forgotten", "held", "leases", "limits", "lines", "lost",
        "opened", "packs", "references", "released", "rows", "settled", "spent", "sums", "taken",
        "time_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.sums: dict[SumKey, list[int]] = {}
        self.time_s = 0  # of the youngest command
        self.accounts: set[int] = set()
        self.opened: list[Account] = []
        self.leases: dict[tuple[int, int], Lease | None] = {}
        self.held: dict[int, Hold] = {}
        self.released: list[int] = []
        self.packs: dict[int, list[Rows]] = {}  # page -> what was written on it
        self.lost: dict[int, list[int]] = {}  # page -> numbers of bids that were closed on it
        self.expired: dict[int, int] = {}  # page -> `Page.expired_s`
        self.spent: dict[int, bytes] = {}  # page -> `Page.bitmap`, b"" if it is forgotten
        self.taken = 0  # bids of `Takes`
        self.apart: dict[int, Outcome] = {}  # those of them that were not simply TAKEN
        self.settled: dict[int, Settled] = {}
        self.lines: dict[int, Line] = {}
        self.limits: list[SetLimit] = []
        self.references: list[str] = []
        self.forgotten = False

    def move(
        self,
        account: Account,
        entry: Entry,
        source: Balance,
        target: Balance,
        nanos: int,
        units: int,
        bid: int = 0,
        worker: int = NO_WORKER,
        reference: str = "",
        moves: int = 1,
    ) -> None:
        """Moves an amount between two balances of an account; a row of its own if it names
        a bid, a worker or a reference. moves: of how many bids it is the sum."""
        if nanos == 0 and units == 0:
            return
        account.nanos[source] -= nanos
        account.nanos[target] += nanos
        account.units[source] -= units
        account.units[target] += units
        if source is _OPEN:
            _draw(account, nanos, units)
        elif target is _OPEN:
            _draw(account, -nanos, -units)
        number = account.number
        self.accounts.add(number)
        if bid or worker != NO_WORKER or reference:
            what = (number, source, target, nanos, units, 1, bid, worker, reference)
            self.rows.append(Row(self.time_s, entry, *what))
            return
        self._sum((entry, number, source, target), nanos, units, moves)

    def move_all(
        self,
        accounts: Mapping[int, Account],
        entry: Entry,
        between: tuple[Balance, Balance],
        amounts: Iterable[tuple[int, int, int, int]],
    ) -> None:
        """The same as `move` for each (account, nanos, units, moves), between two balances of which
        none is OPEN."""
        source, target = between
        for number, nanos, units, moves in amounts:
            if nanos == 0 and units == 0:
                continue
            account = accounts[number]
            account.nanos[source] -= nanos
            account.nanos[target] += nanos
            account.units[source] -= units
            account.units[target] += units
            self.accounts.add(number)
            self._sum((entry, number, source, target), nanos, units, moves)

    def _sum(self, key: SumKey, nanos: int, units: int, moves: int) -> None:
        found = self.sums.get(key)
        if found is None:
            self.sums[key] = [nanos, units, moves]
        else:
            found[0] += nanos
            found[1] += units
            found[2] += moves

    def hold(self, state: State, bid: int, hold: Hold) -> None:
        """Keeps the money of a bid in flight."""
        state.holds[bid] = self.held[bid] = hold
        due = state.due.get(hold.deadline_s)
        if due is None:
            state.due[hold.deadline_s] = [bid]
        else:
            due.append(bid)

    def write(self, state: State, key: int, rows: Rows) -> None:
        """Keeps the money of bids that were taken together on their page."""
        page = state.pages.get(key)
        if page is None:
            page = state.pages[key] = Page()
        for deadline_s in page.add(rows):
            state.pages_due.setdefault(deadline_s, []).append(key)
        self.packs.setdefault(key, []).append(rows)

    def release(self, state: State, bid: int) -> None:
        """Lets go of the money of a bid in flight.

        Its mark says so to its page, wherever that is read; a hold of this batch was never stored.
        """
        if state.holds.pop(bid, None) is None:
            state.pages[page_of(bid)].close(number_of(bid))
            return
        if self.held.pop(bid, None) is None:
            self.released.append(bid)

    def lose(self, state: State, bid: int) -> None:
        """Ends a bid in flight that cost nothing. That a page says by itself, without a mark."""
        if bid in state.holds:
            self.release(state, bid)
            self.settle(state, bid, Mark.VOIDED, 0, seen=True)
            return
        key, number = page_of(bid), number_of(bid)
        state.pages[key].close(number)
        self.lost.setdefault(key, []).append(number)

    def settle(self, state: State, bid: int, mark: Mark, nanos: int, *, seen: bool) -> None:
        """Remembers what became of a bid."""
        state.settled[bid] = self.settled[bid] = Settled(mark, nanos, seen)

    def all_rows(self) -> list[Row]:
        """Rows of their own first, then the sums, in the order in which they began."""
        sums = [
            Row(self.time_s, entry, account, source, target, nanos, units, moves, 0, NO_WORKER, "")
            for (entry, account, source, target), (nanos, units, moves) in self.sums.items()
        ]
        return self.rows + sums


def _draw(account: Account, nanos: int, units: int) -> None:
    for drawn in account.scopes:
        drawn.nanos += nanos
        drawn.units += units
