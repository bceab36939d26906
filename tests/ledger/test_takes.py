"""Bids that are taken together: the same books as one by one."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.ledger.accounts import Mark, State
from rtb.ledger.changes import Changes, Row
from rtb.ledger.commands import (
    AMOUNT_MAX,
    Command,
    Expire,
    Forget,
    Grant,
    Outcome,
    Return,
    Scope,
    Take,
)  # fmt: skip
from rtb.ledger.machine import apply
from rtb.ledger.pages import Groups
from tests.ledger.books import (
    AUTUMN,
    HATS,
    LATER,
    SHOES,
    Books,
    T,
    bid,
    check_all,
    enrol,
    grant,
    holds_of,
    limit,
    post,
    take,
    together,
    void,
)  # fmt: skip
from tests.ledger.test_oracle import chaos, chaos_start

O = Outcome  # noqa: E741


def alike(one: State, other: State, bids: set[int]) -> None:
    """Whether two states say the same, however they keep their holds and marks."""
    assert one.accounts == other.accounts
    assert one.leases == other.leases
    assert one.drawn == other.drawn
    assert holds_of(one) == holds_of(other)
    assert one.next_due_s() == other.next_due_s()
    for number in bids:
        assert fate(one, number) == fate(other, number), number


def no_old_marks(state: State) -> None:
    """What stores show of marks."""
    settled = state.settled.items()
    state.settled = {key: mark for key, mark in settled if key >> 32 >= state.forgotten_s}


def fate(state: State, number: int) -> tuple[int, bool] | None:
    """Booked nanos, -1 for none, and whether the lease was charged: all that is asked later."""
    found = None if state.held(number) is not None else state.fate(number)
    if found is None:
        return None
    return (found.nanos if found.mark in (Mark.POSTED, Mark.LATE) else -1), found.seen


def test_plain_bids_share_a_page_and_a_movement() -> None:
    """One row for an account and worker; each bid has a hold of its own."""
    books = Books(enrol(), enrol(HATS), grant(100), grant(100, line_item=HATS), grant(9, worker=1))
    before = len(books.rows)
    bids = [take(1), take(3, 7), take(2, line_item=HATS), take(1, 9, worker=1), take(4, 0)]

    assert [O.TAKEN] * 5 == books.take_all(*bids)
    assert [(1, 26, 4), (2, 10, 1)] == [
        (row.account, row.nanos, row.moves) for row in books.rows[before:]
    ]
    assert {} == books.state.holds
    assert {bid(0) >> 16, bid(0, 1) >> 16} == set(books.state.pages)
    assert {one.bid: one.nanos for one in bids} == {
        number: hold.nanos for number, hold in holds_of(books.state).items()
    }
    check_all(books)


def test_what_is_not_plain_is_taken_by_itself() -> None:
    """A lease that is short, a bid that is known, broken, forgotten, of nobody; in order."""
    books = Books(
        enrol(), enrol(HATS), grant(35), grant(20, worker=1), grant(50, line_item=HATS),
        limit(Scope.LINE_ITEM, SHOES, 70), take(1, 5, line_item=HATS), void(2, line_item=HATS),
        post(3, 5, line_item=HATS), Forget(T - 5),
    )  # fmt: skip
    bids = [
        take(4, 10), take(5, 10), take(6, 10), take(7, 10),  # the lease has 35, the budget 15
        take(1, 10, worker=1), take(2, 10, worker=1), take(2, 10, worker=1),
        take(1, line_item=HATS), take(2, 6, line_item=HATS), take(3, line_item=HATS),
        take(8, -1), take(9, AMOUNT_MAX + 1), take(10, line_item=3), take(11, time_s=T - 6),
    ]  # fmt: skip
    outcomes = books.take_all(*bids)

    assert [
        O.TAKEN, O.TAKEN, O.TAKEN, O.TAKEN_UNGRANTED,
        O.TAKEN, O.TAKEN, O.DUPLICATE,
        O.DUPLICATE, O.TAKEN_SETTLED, O.DUPLICATE,
        O.MALFORMED, O.MALFORMED, O.UNKNOWN_LINE_ITEM, O.TOO_OLD,
    ] == outcomes  # fmt: skip
    check_all(books)


def test_every_life_of_a_bid_on_a_page() -> None:
    """Bill, loss, late bill, second bill: as of a bid that was taken alone."""
    books = Books(enrol(), limit(Scope.LINE_ITEM, SHOES, 100), grant(100))
    books.take_all(*(take(number) for number in range(6)))
    steps: list[tuple[Command, Outcome]] = [
        (post(0, 7), O.POSTED),
        (post(0, 7), O.DUPLICATE),
        (post(0, 8), O.DUPLICATE_OTHER_PRICE),
        (void(1), O.VOIDED),
        (void(1), O.DUPLICATE),
        (post(2, 7, line_item=HATS), O.OTHER_LINE_ITEM),
        (void(2, line_item=HATS), O.OTHER_LINE_ITEM),
        (take(2), O.DUPLICATE),
        (Expire(T + 299), O.NOTHING),
        (Expire(T + 300), O.EXPIRED),
        (Expire(T + 900), O.NOTHING),
        (take(2), O.DUPLICATE),
        (void(2), O.DUPLICATE),
        (post(1, 4), O.LATE),
        (post(3, 5), O.LATE),
        (post(3, 5), O.DUPLICATE),
        (void(3), O.ALREADY_POSTED),
        (post(0, 7), O.DUPLICATE),
        (take(9), O.TAKEN),
        (Forget(T + 1), O.FORGOTTEN),
        (take(4), O.TOO_OLD),
        (post(4), O.TOO_OLD),
        (post(3, 5), O.TOO_OLD),
        (void(0), O.TOO_OLD),
        (post(9), O.POSTED),
    ]
    for number, (command, outcome) in enumerate(steps):
        assert (number, outcome) == (number, books(command))
    assert {"granted": 30, "posted": 26} == books.money()
    assert {} == books.state.pages
    assert {} == books.state.spent
    check_all(books)


def test_a_page_with_several_deadlines() -> None:
    """Each is given back in its time; what comes after its own has passed is kept by itself."""
    books = Books(enrol(), grant(100))
    soon, late = Take(bid(1), SHOES, 10, T + 5), Take(bid(2), SHOES, 10, T + 50)
    assert [O.TAKEN, O.TAKEN] == books.take_all(soon, late)
    assert (T + 5, O.EXPIRED, T + 50) == (
        books.state.next_due_s(), books(Expire(T + 6)), books.state.next_due_s(),
    )  # fmt: skip
    after = [Take(bid(3), SHOES, 10, T + 6), Take(bid(4), SHOES, 10, T + 7)]
    assert [O.TAKEN, O.TAKEN] == books.take_all(*after)
    assert {bid(3), bid(4)} == set(books.state.holds)  # of one account: together or not at all
    assert [O.TAKEN] == books.take_all(Take(bid(5), SHOES, 10, T + 7))
    assert {bid(2), bid(3), bid(4), bid(5)} == set(holds_of(books.state))
    assert books(Expire(T + 50)) is O.EXPIRED
    assert {"granted": 50} == books.money()
    assert O.DUPLICATE is books(take(5))
    assert [O.TAKEN] == books.take_all(Take(bid(6), SHOES, 10, T + 50))
    assert {bid(6)} == set(books.state.holds)  # its page is spent
    check_all(books)


def test_a_page_older_than_the_books_remember() -> None:
    """Its open bids are still billed once; those that are closed are too old."""
    books = Books(enrol(), grant(100))
    books.take_all(take(1), take(2), take(3))
    assert [O.POSTED, O.FORGOTTEN] == [books(post(1, 7)), books(Forget(T + 1))]
    assert [O.TOO_OLD, O.TOO_OLD, O.TOO_OLD] == [books(post(1, 7)), books(void(1)), books(take(1))]
    assert books(post(2, 7)) is O.POSTED
    no_old_marks(books.state)
    assert books(post(2, 7)) is O.TOO_OLD
    assert books(Expire(T + 300)) is O.EXPIRED
    assert {} == books.state.spent
    assert books(post(3, 7)) is O.TOO_OLD
    assert {"granted": 70, "posted": 14} == books.money()


def test_days_and_flights_of_their_time() -> None:
    """Bids around midnight and the end of a flight find their own accounts."""
    midnight = T + 86_400 - (16 * 3600 + 13 * 60 + 20)  # in Berlin
    books = Books(enrol(), *(grant(100, at_s=at) for at in (midnight - 1, midnight, AUTUMN.end_s)))
    times = (midnight - 1, midnight, AUTUMN.end_s - 1, AUTUMN.end_s)
    taken = books.take_all(*(take(number, time_s=at) for number, at in enumerate(times)))
    assert [O.TAKEN, O.TAKEN, O.TAKEN_UNGRANTED, O.TAKEN] == taken
    assert [O.TAKEN, O.TAKEN] == books.take_all(
        take(8, time_s=midnight), take(9, time_s=midnight + 1)
    )
    assert [10, 30, 10, 10] == [books.money(number)["pending"] for number in (1, 2, 4, 3)]
    check_all(books)


def test_sums_are_exact() -> None:
    """As many of the greatest amounts as no 64 bits can sum."""
    books = Books(enrol())
    state = state_with_lease(books.state, 300 * AMOUNT_MAX)
    rows = together(*(Take(bid(n), SHOES, AMOUNT_MAX, T + 9, AMOUNT_MAX) for n in range(300)))
    apply(state, rows, changes := Changes())
    assert {} == changes.apart
    assert 300 * AMOUNT_MAX == state.accounts[1].nanos[2]
    assert {} == state.holds
    apply(state, Expire(T + 9), Changes())
    assert 0 == state.accounts[1].nanos[2] == state.accounts[1].units[2]

    groups = Groups(np.array([3, 1, 3], np.int64))
    assert ([1, 3], [5, 1 << 57]) == (
        groups.keys, groups.sums(np.array([1 << 56, 5, 1 << 56], np.int64)),
    )  # fmt: skip


def state_with_lease(state: State, nanos: int) -> State:
    """Lends more than one grant may."""
    for _ in range(nanos // AMOUNT_MAX):
        apply(state, Grant(T, SHOES, 0, T, AMOUNT_MAX, AMOUNT_MAX, T + 60), Changes())
    return state


NUMBERS = st.integers(0, 5)
BIDS = st.lists(
    st.builds(
        lambda number, worker, at, line, nanos, wait, units: Take(
            bid(number, worker, at), line, nanos, at + wait, units
        ),
        NUMBERS, st.integers(0, 1), st.sampled_from((T, T + 1, LATER, AUTUMN.end_s)),
        st.sampled_from((SHOES, HATS, 3)), st.sampled_from((0, 1, 7, 12, -1, AMOUNT_MAX + 1)),
        st.sampled_from((5, 9)), st.integers(0, 2),
    ),
    min_size=1, max_size=12,
)  # fmt: skip
OTHERS = st.one_of(
    st.builds(grant, st.integers(1, 90), st.integers(0, 20), st.integers(0, 1),
              st.sampled_from((SHOES, HATS)), st.sampled_from((T, LATER, AUTUMN.end_s))),
    st.builds(lambda number, at, price, known: post(number, price, 12, time_s=at,
                                                    reserve=12 * known),
              NUMBERS, st.sampled_from((T, T + 1)), st.integers(0, 12), st.booleans()),
    st.builds(lambda number, at: void(number, time_s=at), NUMBERS, st.sampled_from((T, T + 1))),
    st.builds(Expire, st.sampled_from((T + 5, T + 6, T + 9, LATER + 7))),
    st.builds(Forget, st.sampled_from((T + 1, T + 2))),
    st.just(Return(T, 0)),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(BIDS, OTHERS), min_size=3, max_size=14))
def test_together_is_one_by_one(commands: list[list[Take] | Command]) -> None:
    """Outcomes, balances, leases, rows, holds and the fate of every bid."""
    start = (
        enrol(),
        enrol(HATS),
        limit(Scope.CAMPAIGN, 20, 200, 60),
        grant(60),
        grant(40, worker=1),
    )
    one, other = Books(*start), Books(*start)
    bids: set[int] = set()
    for command in commands:
        if isinstance(command, list):
            bids |= {take.bid for take in command}
            counts = len(one.rows), len(other.rows)
            assert [one(take) for take in command] == other.take_all(*command)
            alike(one.state, other.state, bids)
            assert total(one.rows[counts[0] :]) == total(other.rows[counts[1] :])
        else:
            assert one(command) is other(command)
        for books in (one, other):
            no_old_marks(books.state)
    alike(one.state, other.state, bids)
    check_all(other)


def total(rows: list[Row]) -> Counter[tuple[int, ...]]:
    """Rows of several commands as those of one batch."""
    found: Counter[tuple[int, ...]] = Counter()
    for row in rows:
        for what, amount in enumerate((row.nanos, row.units, row.moves)):
            found[what, row.entry, row.account, row.source, row.target] += amount
    return found


@pytest.mark.parametrize("size", [7, 60])
def test_a_bad_day_in_batches(size: int) -> None:
    """Bids of a batch first and together: as the same order one by one."""
    one, other = Books(*chaos_start()), Books(*chaos_start())
    commands = chaos(seed=5, count=6_000)
    bids: set[int] = set()
    while batch := list(islice(commands, size)):
        for books in (one, other):
            no_old_marks(books.state)
        takes = [command for command in batch if isinstance(command, Take)]
        rest = [command for command in batch if not isinstance(command, Take)]
        bids |= {take.bid for take in takes}
        if takes:
            assert [one(take) for take in takes] == other.take_all(*takes)
        assert [one(command) for command in rest] == [other(command) for command in rest]
    alike(one.state, other.state, bids)
    assert total(one.rows) == total(other.rows)
    assert len(other.state.holds) < len(one.state.holds) // 2
    check_all(other)
