"""Any commands in any order: the books and a dumb oracle agree, and every prefix replays."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rtb.ledger.accounts import Balance
from rtb.ledger.changes import Changes
from rtb.ledger.commands import (
    Adjust,
    Command,
    Expire,
    Forget,
    Outcome,
    Post,
    Reason,
    Return,
    Scope,
    SetLimit,
    Take,
    Void,
)  # fmt: skip
from rtb.ledger.machine import apply
from tests.ledger.books import (
    ADVERTISER,
    AUTUMN,
    CAMPAIGN,
    HATS,
    LATER,
    SHOES,
    Books,
    T,
    adjust,
    bid,
    check_all,
    check_touched,
    enrol,
    grant,
    limit,
    together,
)  # fmt: skip
from tests.ledger.oracle import Oracle

MOMENTS = st.sampled_from((T, T + 7, LATER, AUTUMN.end_s))
LINES = st.sampled_from((SHOES, SHOES, HATS))
WORKERS = st.sampled_from((0, 1))
NUMBERS = st.integers(0, 3)
NANOS = st.integers(0, 12)
SCOPES = st.sampled_from([
    (Scope.LINE_ITEM, SHOES), (Scope.LINE_ITEM, HATS), (Scope.LINE_ITEM_DAY, SHOES),
    (Scope.FLIGHT, AUTUMN.key), (Scope.CAMPAIGN, CAMPAIGN), (Scope.CAMPAIGN_DAY, CAMPAIGN),
    (Scope.ADVERTISER, ADVERTISER),
])  # fmt: skip
SHOWN = (Balance.GRANTED, Balance.PENDING, Balance.POSTED, Balance.OVER)


class Agreement(RuleBasedStateMachine):
    """Plays every command to both; what was kept of the past must come again."""

    def __init__(self) -> None:
        super().__init__()
        self.start = (enrol(), enrol(HATS))
        self.books, self.oracle = Books(*self.start), Oracle()
        self.done: list[Command] = []
        self.kept: list[tuple[int, Books]] = []
        self.lowered: set[tuple[Scope, int]] = set()

    def play(self, command: Command) -> Outcome:
        outcome = self.books(command)
        assert self.oracle(command) is outcome, command
        self.done.append(command)
        if len(self.done) % 16 == 5:
            self.kept.append((len(self.done), self.books.copy()))
        return outcome

    @rule(where=SCOPES, nanos=st.none() | st.integers(0, 80), units=st.none() | st.integers(0, 9))
    def bound(self, where: tuple[Scope, int], nanos: int | None, units: int | None) -> None:
        if self.play(limit(*where, nanos, units)) is Outcome.LIMIT_BELOW:
            self.lowered.add(where)

    @rule(nanos=st.integers(0, 40), units=st.integers(0, 8), worker=WORKERS, line=LINES, at=MOMENTS,
          least=st.integers(0, 20))  # fmt: skip
    def grant(self, nanos: int, units: int, worker: int, line: int, at: int, least: int) -> None:
        if nanos or units:
            self.play(grant(nanos, units, worker, line, at, min(least, nanos)))

    @rule(worker=WORKERS, line=LINES | st.just(0))
    def give(self, worker: int, line: int) -> None:
        self.play(Return(T, worker, line))

    @rule(number=NUMBERS, worker=WORKERS, line=LINES, at=MOMENTS, nanos=NANOS,
          units=st.integers(0, 2))  # fmt: skip
    def take(self, number: int, worker: int, line: int, at: int, nanos: int, units: int) -> None:
        self.play(Take(bid(number, worker, at), line, nanos, at + 100 + number, units))

    @rule(bids=st.lists(st.tuples(NUMBERS, WORKERS, MOMENTS, LINES, NANOS, st.integers(0, 2)),
                        min_size=1, max_size=6))  # fmt: skip
    def take_all(self, bids: list[tuple[int, int, int, int, int, int]]) -> None:
        takes = [Take(bid(number, worker, at), line, nanos, at + 100 + number, units)
                 for number, worker, at, line, nanos, units in bids]  # fmt: skip
        assert [self.oracle(one) for one in takes] == self.books.take_all(*takes), takes
        self.done.append(together(*takes))

    @rule(number=NUMBERS, worker=WORKERS, line=LINES, at=MOMENTS, nanos=NANOS, top=NANOS,
          known=st.booleans(), units=st.integers(0, 2))  # fmt: skip
    def post(self, number: int, worker: int, line: int, at: int, nanos: int, top: int,
             known: bool, units: int) -> None:  # fmt: skip
        reserve = top if known else 0
        self.play(Post(at, bid(number, worker, at), line, nanos, top, reserve, units))

    @rule(number=NUMBERS, worker=WORKERS, line=LINES, at=MOMENTS)
    def void(self, number: int, worker: int, line: int, at: int) -> None:
        self.play(Void(at, bid(number, worker, at), line))

    @rule(at=MOMENTS, more_s=st.integers(99, 104))
    def expire(self, at: int, more_s: int) -> None:
        self.play(Expire(at + more_s))

    @rule(reference=st.sampled_from("abcdef"), nanos=st.integers(-9, 9), at=MOMENTS)
    def adjust(self, reference: str, nanos: int, at: int) -> None:
        self.play(adjust(reference, nanos, (nanos > 4) - (nanos < -4), at))

    @precondition(lambda self: len(self.done) > 20)
    @rule(before_s=st.sampled_from((T + 1, LATER)))
    def forget(self, before_s: int) -> None:
        self.play(Forget(before_s))

    @invariant()
    def agree(self) -> None:
        accounts = {(one.line_item, one.flight, one.day): one
                    for one in self.books.state.accounts.values()}  # fmt: skip
        ours = {place: [(one.nanos[balance], one.units[balance]) for balance in SHOWN]
                for place, one in accounts.items()}  # fmt: skip
        assert self.oracle.figures(accounts) == ours
        check_all(self.books, self.lowered)

    def teardown(self) -> None:
        for count, kept in self.kept:
            again = Books(*self.start, *self.done[:count])
            assert kept.state == again.state
            assert kept.rows == again.rows


Agreement.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_agreement = pytest.mark.filterwarnings("default")(Agreement.TestCase)


def chaos(seed: int, count: int) -> Iterator[Command]:
    """Commands as a bad day brings them: bids, bills and losses lost, late, twice, out of order."""
    chance = random.Random(seed)
    recent: list[Take] = []
    for number in range(count):
        time_s = T + number // 50
        dice = chance.random()
        old = recent[chance.randrange(len(recent))] if recent else Take(bid(0), SHOES, 1, T)
        top = max(old.nanos, 1)
        if dice < 0.45:
            line_item = SHOES if chance.random() < 0.7 else HATS
            name = bid(number % 60_000, chance.randrange(3), time_s)
            recent.append(Take(name, line_item, chance.randrange(1, 5_000), time_s + 30))
            del recent[:-400]
            if chance.random() < 0.9:  # some records are lost, and some come later
                yield recent[-1]
        elif dice < 0.72:
            price = chance.randrange(top + 2)
            yield Post(time_s, old.bid, old.line_item, price, top, top)
        elif dice < 0.815:
            yield Void(time_s, old.bid, old.line_item)
        elif dice < 0.82:
            yield Post(time_s, bid(number % 60_000, 0, time_s - 150), old.line_item, 1, 1, 1)
        elif dice < 0.84:
            yield old
        elif dice < 0.94:
            worker = chance.randrange(3)
            yield grant(chance.randrange(1, 90_000), chance.randrange(40), worker, old.line_item,
                        time_s)  # fmt: skip
        elif dice < 0.96:
            yield Return(time_s, chance.randrange(3), old.line_item)
        elif dice < 0.98:
            yield Expire(time_s)
        elif dice < 0.985:
            yield Forget(time_s - 120)
        else:
            yield Adjust(time_s, str(number), old.line_item, time_s, chance.randrange(-500, 500), 0,
                         Reason.INVOICE)  # fmt: skip


def chaos_start() -> list[Command]:
    """Two line items whose budgets last for about half of a long bad day."""
    return [
        enrol(), enrol(HATS), limit(Scope.LINE_ITEM, SHOES, 20_000_000, 12_000),
        limit(Scope.CAMPAIGN, CAMPAIGN, 25_000_000), SetLimit(T, Scope.LINE_ITEM_DAY, HATS, 10**7),
    ]  # fmt: skip


def test_a_hundred_thousand_commands() -> None:
    """After each, what it touched adds up and no limit is passed; all of it now and then."""
    books = Books(*chaos_start())
    outcomes: Counter[Outcome] = Counter()
    for number, command in enumerate(chaos(seed=4, count=104_000)):
        changes = Changes()
        outcomes[apply(books.state, command, changes)] += 1
        check_touched(books.state, changes)
        for account in changes.accounts:
            room = books.state.accounts[account].room()
            assert room[0] >= 0
            assert room[1] >= 0
        books.rows += changes.all_rows()
        if number % 50_000 == 0:
            check_all(books)
    check_all(books)
    assert 99_000 < outcomes.total()
    missing = {Outcome.TAKEN_SHORT, Outcome.LATE_OVER, Outcome.POSTED_OVER, Outcome.POSTED_UNSEEN,
               Outcome.TAKEN_SETTLED, Outcome.EXHAUSTED_CAMPAIGN, Outcome.TOO_OLD}  # fmt: skip
    assert set() == missing - outcomes.keys()
