"""What a node borrows from the pool that it shares with others (`rtb.ledger.pool`), and when.

A few times a second the keeper asks for the pots of which it will soon have too little, tells those
it must, and gives back what others want and it does not need. What it needs ahead is what its
workers' leases asked for, and some seconds of what it drew lately. All asks of a time are one
transaction; a pot that its node has whole, or that needs nothing, is not asked for.

The clock is an argument: epoch milliseconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import gt
from typing import Final, NamedTuple

from rtb.ledger.accounts import NO_LIMIT, Balance, Line, Pot, State, scope_keys
from rtb.ledger.calendar import day_of
from rtb.ledger.commands import Repay
from rtb.ledger.pool import (
    NOTHING,
    UNLIMITED,
    Amount,
    Ask,
    Share,
    Wants,
    ask_for,
    budget_of,
    overspent,
)
from rtb.stores.ledger_pool import PooledStore
from rtb.stores.ledger_sql import UTC


@dataclass(frozen=True)
class Limits:
    """Times and counts, each with its reason.

    ask_ms       250: how often to ask; a node that was refused waits so long for what others have
    again_ms     500: a pot that had no more is asked for again
    ahead_ms     6,000: of what was drawn lately a node has ahead, asked for anew when half of it is
                 left; three leases, so that each of them is whole
    pace_ms      1,000: over which it is seen what is drawn
    asks_max     5,000: of one transaction, which holds up the turn; the rest comes next
    let_go_ms    3,600,000: how often pots of old days are forgotten
    """

    ask_ms: int = 250
    again_ms: int = 500
    ahead_ms: int = 6_000
    pace_ms: int = 1_000
    asks_max: int = 5_000
    let_go_ms: int = 3_600_000


class News(NamedTuple):
    """What has changed.

    raised  something may be lent that could not before
    called  of which pots leases shall come back: for MORE those that nobody uses, for ALL all
    """

    raised: bool
    called: Mapping[Pot, Wants]


NO_NEWS: Final = News(False, {})


class _Pace(NamedTuple):
    """What was drawn of a pot at a time, and what is needed ahead by that; None: not known yet."""

    ms: int
    drawn: Amount
    ahead: Amount | None


class _Unmet(NamedTuple):
    """Since when the pool has had no more of a pot, and when it last said so."""

    since_ms: int
    last_ms: int


@dataclass
class _Want:
    """What leases asked for since the last time: the least of them, and all together."""

    least: Amount
    ahead: Amount


@dataclass
class Borrower:
    """A node's end of the pool."""

    books: PooledStore
    limits: Limits = field(default_factory=Limits)
    nodes: Mapping[int, bool] = field(default_factory=dict)  # as `Told.nodes`

    def __post_init__(self) -> None:
        state = self.books.state
        self._wants: dict[Pot, _Want] = {}
        self._unmet: dict[Pot, _Unmet] = {}
        self._paces: dict[Pot, _Pace] = {}
        self._untold: set[Pot] = set()  # to be said, though nothing is needed
        self._budgets: dict[Pot, Amount] = {}  # that the pool was told
        self._beyond: set[Pot] = set()  # more is drawn of them than there is
        # Others said so, and it was not true any more: who said it may be gone.
        self._calm: set[Pot] = set()
        self._wanted: Mapping[Pot, Wants] = {}  # by others
        self._over = {
            number for number, one in state.accounts.items()
            if one.nanos[Balance.OVER] or one.units[Balance.OVER]
        }  # fmt: skip
        self._asked_ms = self._let_go_ms = 0

    @property
    def _state(self) -> State:
        return self.books.state

    # -- what the keeper says ----------------------------------------------------------------------

    def charted(self) -> None:
        """The catalogue has changed: the pool hears of other budgets, and of what was drawn before
        there was one."""
        state = self._state
        lent = state.lent or {}
        from_day = self._booked_from() - 1  # a local day begins at most a day before UTC's
        for pot in lent:
            current = pot[2] == 0 or pot[2] >= from_day
            if current and self._budgets.get(pot) != budget_of(state, pot):
                self._untold.add(pot)
        for pot, drawn in state.drawn.items():
            is_new = (drawn.nanos or drawn.units) and pot not in lent
            if is_new and budget_of(state, pot) != UNLIMITED:
                self._untold.add(pot)

    def overspent(self, account: int) -> None:
        """An account has spent what it was not lent."""
        self._over.add(account)

    def want(self, line: Line, flight: int, day: int, least: Amount, ahead: Amount) -> None:
        """A lease needs some of all pots of a line item."""
        for pot in scope_keys(line, flight, day):
            if self._is_whole(pot):
                continue
            found = self._wants.get(pot)
            if found is None:
                self._wants[pot] = _Want(least, ahead)
                continue
            found.least = Amount(*map(min, found.least, least))
            found.ahead = Amount(*(sum(pair) for pair in zip(found.ahead, ahead, strict=True)))

    def is_spent(self, line: Line, flight: int, day: int, least: Amount) -> bool:
        """Whether there is no more; otherwise it may be worth waiting."""
        for pot in scope_keys(line, flight, day):
            nanos, units = self._state.available(*pot)
            has_less = nanos < least.nanos or units < least.units
            if has_less and (self._has_none(pot) or self._is_whole(pot)):
                return True
        return False

    def _has_none(self, pot: Pot) -> bool:
        """Whether the pool has said so lately, and again after the others had time to give back."""
        found, again_ms = self._unmet.get(pot), self.limits.again_ms
        return (
            found is not None
            and found.last_ms - found.since_ms >= again_ms
            and self._asked_ms - found.last_ms <= 2 * again_ms
        )

    def _is_whole(self, pot: Pot) -> bool:
        """Whether the node has all of a budget, or there is none."""
        return self._state.bound(pot) == budget_of(self._state, pot)

    # -- asking ------------------------------------------------------------------------------------

    def turn(self, now_ms: int) -> News:
        """Asks, when it is time. Raises: StoreError."""
        if 0 <= now_ms - self._asked_ms < self.limits.ask_ms:
            return NO_NEWS
        self._let_go(now_ms)
        over = overspent(self._state, self._over)
        asks = self._asks(over, now_ms)
        before = {ask.pot: self._state.bound(ask.pot) for ask in asks}
        told = self.books.exchange(asks)
        self._asked_ms = now_ms
        self.nodes, self._wanted = told.nodes, told.wanted
        self._wants.clear()
        for ask in asks:
            self._note(ask, told.shares[ask.pot], now_ms)
        lent = self._state.lent or {}
        self._calm &= {pot for pot, wants in told.wanted.items() if wants is Wants.ALL}
        called = {pot: Wants.MORE for pot in told.wanted if pot in lent}
        called |= dict.fromkeys(self._beyond, Wants.ALL)
        return News(
            any(any(map(gt, self._state.bound(pot), bound)) for pot, bound in before.items()),
            called,
        )

    def _note(self, ask: Ask, share: Share, now_ms: int) -> None:
        self._untold.discard(ask.pot)
        self._budgets[ask.pot] = ask.budget
        if share.wants:
            before = self._unmet.get(ask.pot)
            if before is None or abs(now_ms - before.last_ms) > 2 * self.limits.again_ms:
                before = _Unmet(now_ms, now_ms)
            self._unmet[ask.pot] = before._replace(last_ms=now_ms)
        else:
            self._unmet.pop(ask.pot, None)
        if share.wants is Wants.ALL:
            self._beyond.add(ask.pot)
        else:
            self._beyond.discard(ask.pot)
            if self._wanted.get(ask.pot) is Wants.ALL:
                self._calm.add(ask.pot)

    def _let_go(self, now_ms: int) -> None:
        """Forgets pots of days two before any that can be booked: zones differ, and change."""
        if now_ms - self._let_go_ms < self.limits.let_go_ms:
            return
        self._let_go_ms = now_ms
        before_day = self._booked_from() - 2
        self.books.let_go(before_day)
        for kept in (self._paces, self._budgets, self._unmet):
            for pot in [pot for pot in kept if 0 < pot[2] < before_day]:
                del kept[pot]
        self._beyond = {pot for pot in self._beyond if not 0 < pot[2] < before_day}

    def _booked_from(self) -> int:
        """The first day, of UTC, that can be booked. Not by the wall clock: were it days ahead,
        what is drawn of this day would be let go of, and lent to others."""
        return day_of(self._state.forgotten_s, UTC)

    def _asks(self, over: Mapping[Pot, Amount], now_ms: int) -> list[Ask]:
        """One for each pot; what is needed comes first."""
        state, asks = self._state, dict[Pot, Ask]()
        for pot, want in self._wants.items():
            lately = self._ahead(pot, now_ms) or NOTHING
            # Leases are at most one part in two of what there is.
            pairs = zip(want.ahead, lately, strict=True)
            ahead = Amount(*(max(2 * wished, paced) for wished, paced in pairs))
            if self._is_time(pot, now_ms) and self._has_less(pot, want.least, ahead):
                asks[pot] = ask_for(state, pot, over, want.least, ahead)
        for pot in over.keys() | self._beyond:
            if pot not in asks and self._is_time(pot, now_ms):
                asks[pot] = ask_for(state, pot, over)
        for pot, wants in self._wanted.items():
            if pot in asks or pot not in (state.lent or {}):
                continue
            called_back = wants is Wants.ALL and pot not in self._calm
            keep = NOTHING if called_back else self._ahead(pot, now_ms) or self._half(pot)
            if self._has_more(pot, keep):
                asks[pot] = ask_for(state, pot, over, NOTHING, keep)
        for pot in self._untold - asks.keys():
            asks[pot] = ask_for(state, pot, over)
        return list(asks.values())[: self.limits.asks_max]

    def _is_time(self, pot: Pot, now_ms: int) -> bool:
        unmet = self._unmet.get(pot)
        return unmet is None or not 0 <= now_ms - unmet.last_ms < self.limits.again_ms

    def _has_less(self, pot: Pot, least: Amount, ahead: Amount) -> bool:
        """Less than half of what is needed."""
        room = self._state.available(*pot)
        return any(
            amount < max(needed, wished // 2)
            for amount, needed, wished in zip(room, least, ahead, strict=True)
        )

    def _has_more(self, pot: Pot, keep: Amount) -> bool:
        room, bound = self._state.available(*pot), self._state.bound(pot)
        return any(
            limit != NO_LIMIT and amount > kept
            for amount, limit, kept in zip(room, bound, keep, strict=True)
        )

    def _half(self, pot: Pot) -> Amount:
        """What to keep of a pot while it is not known how fast it is drawn on."""
        return Amount(*(max(amount, 0) // 2 for amount in self._state.available(*pot)))

    def _ahead(self, pot: Pot, now_ms: int) -> Amount | None:
        """What is needed ahead by what was drawn lately; None where that is not known yet."""
        found = self._state.drawn.get(pot)
        drawn = Amount(found.nanos, found.units) if found is not None else NOTHING
        before = self._paces.get(pot)
        if before is None:
            self._paces[pot] = _Pace(now_ms, drawn, None)
            return None
        passed_ms = now_ms - before.ms
        if passed_ms < self.limits.pace_ms:
            return before.ahead
        ahead = Amount(
            *(
                max(now - then, 0) * self.limits.ahead_ms // passed_ms
                for now, then in zip(drawn, before.drawn, strict=True)
            )
        )
        self._paces[pot] = _Pace(now_ms, drawn, ahead)
        return ahead

    # -- overspend ---------------------------------------------------------------------------------

    def repays(self, now_s: int) -> Iterable[Repay]:
        """For accounts whose overspend is covered by what was lent meanwhile."""
        accounts = self._state.accounts
        for number in sorted(self._over):
            account = accounts[number]
            nanos, units = account.nanos[Balance.OVER], account.units[Balance.OVER]
            room_nanos, room_units, _ = account.room()
            if not (nanos or units):
                self._over.discard(number)
            elif (nanos and room_nanos > 0) or (units and room_units > 0):
                yield Repay(now_s, number)
