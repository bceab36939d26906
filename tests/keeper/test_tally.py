"""What became of notices, as the keeper remembers them."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.events import ClaimFlag, Kind, PriceState, VideoEvent, bid_id
from rtb.exchanges.settings import Exchange
from rtb.keeper.batch import Batch
from rtb.keeper.letters import Letter, Reason
from rtb.keeper.tally import (
    AGAIN,
    LATE,
    NEW,
    PAGE_SHIFT,
    REMEMBER_S,
    SLACK_S,
    Recent,
    Seen,
    Tally,
)
from rtb.ledger.commands import Outcome, Post, Take, Void
from rtb.stores.board import NoticeResult
from rtb.stores.journal import Record
from rtb.stores.ledger_sql import Applied
from tests.keeper.records import ADX, EXCHANGES, WINS, claims, conversion_body, notice_body

T = 1_790_000_000
EVENTS = st.tuples(
    st.integers(-REMEMBER_S - 2, 2),  # when the bid was made, of the batch's first arrival
    st.integers(0, 3),  # worker
    st.sampled_from((0, 1, 255, 256, 65_535)),  # number within the second
    st.integers(0, 13),  # event
    st.integers(0, 3),  # arrival, after the batch's first one
)
BATCHES = st.lists(
    st.tuples(st.integers(0, REMEMBER_S // 2), st.lists(EVENTS, max_size=12)), max_size=12
)


def look(seen: Seen, events: list[tuple[int, int, int]]) -> list[int]:
    """The verdicts on events: bid, bit, arrival."""
    bids, bits, arrived_s = np.array(events, np.int64).reshape(-1, 3).T
    return seen.look(bids, bits, arrived_s).tolist()


@given(BATCHES)
def test_the_bitmaps_are_a_set(batches: list[tuple[int, list[tuple[int, ...]]]]) -> None:
    """As long as there is room, an event is new, repeated or late just as a plain set has it."""
    seen, plain, now_s = Seen(256), set[tuple[int, int]](), T
    for wait_s, drawn in batches:
        now_s += min(wait_s, SLACK_S)
        events = [
            (bid_id(now_s + made, 0, worker, number), bit, now_s + after)
            for made, worker, number, bit, after in drawn
        ]
        expected = []
        for bid, bit, arrived_s in events:
            if arrived_s - (bid >> 32) > REMEMBER_S:
                expected.append(LATE)
            else:
                expected.append(AGAIN if (bid, bit) in plain else NEW)
                plain.add((bid, bit))

        assert expected == look(seen, events)


def test_bits_of_a_bid_are_each_their_own() -> None:
    """All sixteen, of the last bid of a page and the first of the next."""
    seen = Seen(2)
    bids = [bid_id(T, 0, 0, (1 << PAGE_SHIFT) - 1), bid_id(T, 0, 0, 1 << PAGE_SHIFT)]
    events = [(bid, bit, T) for bid in bids for bit in range(16)]

    assert [NEW] * 32 == look(seen, events)
    assert [AGAIN] * 32 == look(seen, events)


def test_without_room_the_oldest_second_goes() -> None:
    """Its bids are late from then on, never counted twice; a page that came free is empty."""
    seen = Seen(3)
    old, new, newest = (bid_id(T + second, 0, 0, 7) for second in (0, 1, 2))

    assert [NEW, NEW] == look(seen, [(old, 0, T), (bid_id(T, 0, 1, 7), 0, T)])
    assert [NEW, NEW] == look(seen, [(new, 1, T), (newest, 0, T)])
    assert [LATE, AGAIN, AGAIN] == look(seen, [(old, 0, T), (new, 1, T), (newest, 0, T)])
    assert [NEW, NEW] == look(seen, [(new, 0, T), (bid_id(T + 2, 0, 1, 7), 0, T)])
    assert [LATE] == look(seen, [(bid_id(T, 0, 2, 7), 0, T)])


def test_one_batch_of_more_than_there_is_room_for() -> None:
    """The newest are told apart, those that are left out are late; no two share a page."""
    seen = Seen(8)
    chance = random.Random(5)
    events = [(bid_id(T + second, 0, 0, 3), 0, T) for second in range(20)]
    chance.shuffle(events)
    verdicts = dict(zip([bid >> 32 for bid, _, _ in events], look(seen, events), strict=True))

    assert [LATE] * 12 + [NEW] * 8 == [verdicts[T + second] for second in range(20)]
    assert [AGAIN] * 8 == look(
        seen, [(bid_id(T + second, 0, 0, 3), 0, T) for second in range(12, 20)]
    )


def test_what_was_forgotten_leaves_no_trace() -> None:
    """Seconds that nobody may ask for any more give their pages back."""
    seen = Seen(4)
    for hour in range(50):
        now_s = T + hour * 3600
        events = [(bid_id(now_s, 0, worker, 1), 0, now_s) for worker in range(4)]

        assert [NEW] * 4 == look(seen, events)


def test_conversions_are_remembered_by_their_order() -> None:
    """As many as there is room for, the newest."""
    recent = Recent(2)

    assert [NEW, NEW, AGAIN] == [recent.look(1, order) for order in (0, 5, 0)]
    assert [NEW, NEW, AGAIN] == [recent.look(2, 0), recent.look(1, 0), recent.look(2, 0)]


# -- what is counted -------------------------------------------------------------------------------


def notice(
    kind: Kind, number: int = 0, age_s: int = 1, state: int = PriceState.NONE, detail: int = 0,
    flags: int = 0, exchange: Exchange = ADX,
) -> Record:  # fmt: skip
    """A notice that comes `age_s` after its bid."""
    body = bytearray(
        notice_body(
            claims(bid_id(T, 0, 1, number), 7, flags=flags, exchange=exchange),
            (T + age_s) * 1000,
            state=state,
        )
    )
    body[103] = detail
    return (1, kind, bytes(body))


def counted(tally: Tally) -> dict[tuple[str, str], int]:
    """Its counts by name."""
    return {
        (Kind(kind).name.lower(), NoticeResult(result).name.lower()): int(
            tally.counts[kind, result]
        )
        for kind, result in np.argwhere(tally.counts).tolist()
    }


def idle(*records: Record) -> Batch:
    """A batch that moves no money."""
    return Batch(idle=[*records])


def test_each_kind_is_counted_for_itself() -> None:
    """A bid may be won, shown and clicked once, and each video event happens once."""
    tally, plain = Tally(EXCHANGES.keys()), Counter[tuple[str, str]]()
    kinds = (Kind.WIN, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK, Kind.VIEW)
    records = [notice(kind, number) for kind in kinds for number in range(3)]
    records += [notice(Kind.VIDEO, 0, detail=one) for one in VideoEvent]
    for times in (1, 2):
        tally.add(idle(*records), Applied([], []))
        for _, kind, _ in records:
            plain[Kind(kind).name.lower(), "ok" if times == 1 else "duplicate"] += 1
    tally.add(idle(notice(Kind.CLICK, age_s=REMEMBER_S + 1)), Applied([], []))

    assert plain | {("click", "late"): 1} == counted(tally)
    assert 3 == tally.wins


def test_what_workers_counted_is_not_counted_again() -> None:
    """Of prices and exchanges that are none, of tests and audits; but a win is won at any price."""
    tally = Tally(EXCHANGES.keys())
    stranger = Exchange(name="stranger", path="stranger")
    tally.add(
        idle(
            notice(Kind.WIN, 1, state=PriceState.GARBAGE),
            notice(Kind.WIN, 1, state=PriceState.EMPTY),
            notice(Kind.WIN, 2, state=PriceState.AUDIT),
            notice(Kind.WIN, 3, flags=ClaimFlag.TEST),
            notice(Kind.VIEW, 4, exchange=stranger),
            (1, Kind.CLICK, b"short"),
            (1, Kind.EVENT, b""),
            (1, Kind.ORDER, b"short"),
        ),
        Applied([], []),
    )

    assert ({}, 1) == (counted(tally), tally.wins)


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (Outcome.POSTED, "ok"),
        (Outcome.POSTED_OVER, "ok"),
        (Outcome.POSTED_UNSEEN, "ok"),
        (Outcome.LATE, "late"),
        (Outcome.LATE_OVER, "late"),
        (Outcome.TOO_OLD, "late"),
        (Outcome.DUPLICATE, "duplicate"),
        (Outcome.DUPLICATE_OTHER_PRICE, "duplicate"),
        (Outcome.OTHER_LINE_ITEM, "unbooked"),
    ],
)
def test_the_books_say_what_became_of_a_bill(outcome: Outcome, result: str) -> None:
    """Behind the bids of its batch, and before what the keeper itself does."""
    tally = Tally(EXCHANGES.keys())
    bill = notice(Kind.BILL, state=PriceState.OK)
    owed = notice(Kind.BILL, state=PriceState.EMPTY)
    bid: Record = (1, Kind.BID, b"")
    batch = Batch(
        commands=[Take(1, 7, 0, T), Post(T, 1, 7, 0, 0, 0), Post(T, 1, 7, 0, 0, 0)],
        places=[("a", bid), ("a", bill), ("a", owed)],
    )
    tally.add(batch, Applied([Outcome.TAKEN, outcome, outcome, Outcome.NOTHING], []))

    assert {("bill", result): 1} == counted(tally)


def test_a_win_that_is_a_bill_is_won_once() -> None:
    """Where it settles the books say whether it counts; with a price in doubt it is a win, too."""
    tally = Tally(EXCHANGES.keys())
    win = notice(Kind.WIN, 1, state=PriceState.OK, exchange=WINS)
    doubt = notice(Kind.WIN, 2, state=PriceState.GARBAGE, exchange=WINS)
    batch = Batch(
        commands=[Post(T, 1, 7, 0, 0, 0)] * 2,
        places=[("a", win)] * 2,
        dead=[Letter("a", 1, Kind.WIN, Reason.PRICE_IN_DOUBT, doubt[2])] * 2,
    )
    tally.add(batch, Applied([Outcome.POSTED, Outcome.DUPLICATE], []))

    assert {("win", "ok"): 1, ("win", "duplicate"): 1} == counted(tally)
    assert 2 == tally.wins


def test_losses_are_counted_whatever_they_free() -> None:
    """Only one that the books refuse is none."""
    tally = Tally(EXCHANGES.keys())
    batch = Batch(
        commands=[Void(T, 1, 7)] * 3,
        places=[
            ("a", notice(Kind.LOSS, 1)),
            ("a", notice(Kind.LOSS, 1)),
            ("a", notice(Kind.LOSS, 2)),
        ],
    )
    tally.add(batch, Applied([Outcome.VOIDED, Outcome.NOTHING, Outcome.OTHER_LINE_ITEM], []))

    assert {("loss", "ok"): 1, ("loss", "duplicate"): 1, ("loss", "unbooked"): 1} == counted(tally)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.TOO_OLD, {("bill", "late"): 1}),
        (Reason.UNKNOWN_LINE_ITEM, {("bill", "unbooked"): 1}),
        (Reason.PRICE_IN_DOUBT, {}),
        (Reason.UNKNOWN_EXCHANGE, {}),
    ],
)
def test_dead_letters_are_counted_once(
    reason: Reason, expected: dict[tuple[str, str], int]
) -> None:
    """Here, or where the notice came in; bids among them are no notices."""
    tally = Tally(EXCHANGES.keys())
    dead = [Letter("a", 1, kind, reason, b"") for kind in (Kind.BILL, Kind.BID)]
    tally.add(Batch(dead=dead), Applied([], []))

    assert expected == counted(tally)


def test_conversions_are_counted_by_their_order() -> None:
    """A value that cannot be read was counted where it came in; tests count nothing."""
    tally = Tally(EXCHANGES.keys())
    said = claims(bid_id(T, 0, 0, 1), 7)
    test = claims(bid_id(T, 0, 0, 2), 7, flags=ClaimFlag.TEST)
    records = [
        (1, kind, conversion_body(one, T * 1000, order, 5))
        for kind, one, order in (
            (Kind.CONVERSION, said, 0), (Kind.CONVERSION, said, 0), (Kind.ORDER, said, 1),
            (Kind.ORDER, said, 2), (Kind.ORDER, test, 3),
        )
    ]  # fmt: skip
    garbage = bytearray(conversion_body(said, T * 1000, 4, 5))
    garbage[100] = PriceState.GARBAGE
    tally.add(idle(*records, (1, Kind.ORDER, bytes(garbage))), Applied([], []))

    assert {
        ("conversion", "ok"): 1, ("conversion", "duplicate"): 1, ("order", "ok"): 2,
    } == counted(tally)  # fmt: skip
