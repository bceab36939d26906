"""What a batch of records tells the books, all bids of it together."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.base.events import ClaimFlag, Kind, bid_id
from rtb.exchanges.settings import Exchange
from rtb.keeper.apply import booking
from rtb.keeper.batch import batch_of
from rtb.keeper.letters import Letter, Reason
from rtb.keeper.tail import Read, Tail
from rtb.ledger.accounts import Line, State
from rtb.ledger.commands import AMOUNT_MAX, Enrol, Expire, Grant, Outcome, Post, Take, Takes
from rtb.stores.ledger_sql import Applied, LedgerStore
from tests.keeper.records import ADX, EXCHANGES, PIXEL, bid_body, claims, notice_body
from tests.stores.journals import COMPILED

T = 1_790_000_000
MS = T * 1000
SHOES, HATS = (1 << 64) - 5, 7
STRANGER = Exchange(name="stranger", path="stranger")


def tail(name: str, folder: Path = Path("nowhere")) -> Tail:
    found = Tail(folder, 0, 0, COMPILED, {})
    found.name = name
    return found


def state() -> State:
    found = State(forgotten_s=T - 5)
    found.lines = {key: Line(key, 1, 2, "UTC", 0x555344, (), "x") for key in (SHOES, HATS)}
    return found


def bid(number: int, time_s: int = T) -> int:
    return bid_id(time_s, 0, 1, number)


def reads(*bodies: tuple[int, bytes]) -> list[Read]:
    """The records of two journals, in turns."""
    numbered = [(number, kind, body) for number, (kind, body) in enumerate(bodies, 1)]
    one, other = numbered[::2], numbered[1::2]
    return [Read(tail("a"), one, 0, len(one)), Read(tail("b"), other, 0, len(other))]


def test_bids_come_first_and_together() -> None:
    """Of all journals in one command, each to its exchange's deadline; then the others in order."""
    found = batch_of(
        reads(
            (Kind.BILL, notice_body(claims(bid(1), SHOES), MS, 700)),
            (Kind.BID, bid_body(claims(bid(1), SHOES), 1000, MS)),
            (Kind.BID, bid_body(claims(bid(2), HATS, exchange=PIXEL), 2000, MS)),
            (Kind.CLICK, b"not read"),
        ),
        EXCHANGES,
        state(),
    )
    takes, bill = found.commands

    assert isinstance(takes, Takes)
    assert [
        (bid(2), HATS, 2000, T + PIXEL.reservation_ttl_s, 1), (bid(1), SHOES, 1000, T + 60, 1),
    ] == takes.takes.tolist()  # fmt: skip
    assert bill == Post(T, bid(1), SHOES, 700, 1000, 1000)
    assert [("a", 3), ("b", 2)] == [(name, record[0]) for name, record in found.taken]
    assert [("a", 1)] == [(name, record[0]) for name, record in found.places]
    assert ([], 3) == (found.dead, len(found))


CLAIMED = st.builds(
    claims,
    st.sampled_from((bid(0), bid(1), bid(2, T - 6), 0, 1 << 63)),
    st.sampled_from((SHOES, HATS, 3)),
    flags=st.sampled_from((0, ClaimFlag.TEST, ClaimFlag.EXPECTED)),
    exchange=st.sampled_from((ADX, PIXEL, STRANGER)),
    version=st.sampled_from((1, 1, 1, 9)),
)
RECORDS = st.one_of(
    st.tuples(
        st.just(int(Kind.BID)),
        st.builds(
            bid_body, CLAIMED, st.sampled_from((0, 1, AMOUNT_MAX, -1, AMOUNT_MAX + 1)), st.just(MS)
        ),
    ),
    st.tuples(
        st.sampled_from((int(Kind.BILL), int(Kind.LOSS), int(Kind.BID), 99)),
        st.builds(notice_body, CLAIMED, st.just(MS), st.just(5)),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(RECORDS, max_size=12))
def test_it_judges_as_one_by_one(bodies: list[tuple[int, bytes]]) -> None:
    """Every bid that is taken together would have been taken alone; every other one is as alone."""
    found = batch_of(reads(*bodies), EXCHANGES, state())
    expected: list[Any] = [
        (one.name, *record, booking(record[1], record[2], EXCHANGES, state()))
        for one, records, *_ in reads(*bodies)
        for record in records
    ]
    commands = list(found.commands)
    takes = commands.pop(0).takes.tolist() if found.taken else []  # type: ignore[union-attr]
    assert [one[4] for one in expected if isinstance(one[4], Take)] == [Take(*one) for one in takes]
    others = [one for one in expected if not isinstance(one[4], Take | Reason | None)]
    assert [one[4] for one in others] == commands
    assert [(one[0], one[1:4]) for one in others] == found.places
    assert found.dead == [
        Letter(*one[:3], one[4], one[3]) for one in expected if isinstance(one[4], Reason)
    ]


def test_what_the_books_refuse_is_found_again(tmp_path: Path) -> None:
    """Of bids together as of others; and each outcome is counted once."""
    with LedgerStore.open(f"sqlite:///{tmp_path}/ledger.db") as books:
        books.load()
        holder = bid(0) >> 16 & 0xFFFF
        books.apply([
            Enrol(T, SHOES, 1, 2, "UTC", 0x555344, "shoes"), Grant(T, SHOES, holder, T, 5000, 9, T),
            Enrol(T, HATS, 1, 2, "UTC", 0x555344, "hats"),
        ])  # fmt: skip
        found = batch_of(
            reads(
                (Kind.BID, bid_body(claims(bid(1), SHOES), 1000, MS)),
                (Kind.BID, bid_body(claims(bid(2), SHOES), 1000, MS)),
                (Kind.BID, bid_body(claims(bid(1), HATS), 1000, MS)),
                (Kind.BILL, notice_body(claims(bid(2), HATS), MS, 700)),
            ),
            EXCHANGES,
            books.state,
        )
        applied = books.apply([*found.commands, Expire(T)])

    counted = {Outcome.TAKEN: 2, Outcome.DUPLICATE: 1, Outcome.OTHER_LINE_ITEM: 1,
               Outcome.NOTHING: 1}  # fmt: skip
    assert counted == found.count(applied)
    assert [("b", 4, Reason.OTHER_LINE_ITEM)] == [
        (one.journal, one.sequence, one.reason) for one in found.refused(applied)
    ]
    refused = Applied([Outcome.TAKEN], [], {1: Outcome.UNKNOWN_LINE_ITEM, 0: Outcome.DUPLICATE})
    assert [("a", 3, Reason.UNKNOWN_LINE_ITEM)] == [
        (one.journal, one.sequence, one.reason) for one in found.refused(refused)
    ]
