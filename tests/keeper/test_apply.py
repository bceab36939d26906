"""What each record of a journal does to the books."""

import pytest

from rtb.base.events import RATE_ONE, ClaimFlag, Kind, PriceState, bid_id, record_time_ms
from rtb.keeper.apply import booking, reserve_nanos
from rtb.keeper.letters import Reason
from rtb.ledger.accounts import Hold, Line, State
from rtb.ledger.commands import Post, Take, Void
from tests.keeper.records import EXCHANGES, PIXEL, bid_body, claims, notice_body

T = 1_790_000_000
MS = T * 1000
SHOES = (1 << 64) - 5
BID = bid_id(T, 0, 1, 7)


def _state() -> State:
    state = State()
    state.lines[SHOES] = Line(SHOES, 1, 2, "UTC", 0x555344, (), "shoes")
    return state


def _booking(kind: int, body: bytes) -> object:
    return booking(kind, body, EXCHANGES, _state())


def test_a_bid_is_taken_until_its_exchange_gives_up() -> None:
    """Nanos as reserved, one unit, and the deadline counted from the bid's own time."""
    body = bid_body(claims(BID, SHOES), 1000, MS)

    assert Take(BID, SHOES, 1000, T + 60, 1) == _booking(Kind.BID, body)


def test_a_bill_is_posted_at_its_price() -> None:
    """One impression at n CPM micros costs n nanos; the bid's own record reserved its price."""
    body = notice_body(claims(BID, SHOES, 1000), MS + 5000, 700)

    assert Post(T + 5, BID, SHOES, 700, 1000, 1000, 1) == _booking(Kind.BILL, body)


def test_a_bill_in_another_currency_is_rounded_against_us() -> None:
    """The rate in the claims turns the bid's currency into the line item's."""
    body = notice_body(claims(BID, SHOES, 1000, rate_e9=RATE_ONE // 3), MS, 500)

    assert Post(T, BID, SHOES, 167, 334, 334, 1) == _booking(Kind.BILL, body)


def test_expected_bids_leave_their_reservation_to_their_record() -> None:
    """What was reserved is not known from the claims."""
    body = notice_body(claims(BID, SHOES, 1000, ClaimFlag.EXPECTED), MS, 700)

    assert Post(T, BID, SHOES, 700, 1000, 0, 1) == _booking(Kind.BILL, body)
    assert 4000 == reserve_nanos(1000, RATE_ONE, 4)


def test_a_loss_frees() -> None:
    """Whatever price it says."""
    body = notice_body(claims(BID, SHOES), MS, state=PriceState.NONE)

    assert Void(T, BID, SHOES) == _booking(Kind.LOSS, body)


def test_only_the_settling_kind_books() -> None:
    """Wins and impressions are counted elsewhere where a burl settles; by contract, otherwise."""
    won = notice_body(claims(BID, SHOES), MS, 700)
    seen = notice_body(claims(BID, SHOES, 900, exchange=PIXEL), MS, state=PriceState.EMPTY)

    assert _booking(Kind.WIN, won) is None
    assert _booking(Kind.IMPRESSION, won) is None
    assert Post(T, BID, SHOES, 900, 900, 900, 1) == _booking(Kind.IMPRESSION, seen)


@pytest.mark.parametrize(
    "kind", [Kind.CLICK, Kind.VIEW, Kind.VIDEO, Kind.ORDER, Kind.EVENT, Kind.LINK]
)
def test_other_kinds_move_no_money(kind: Kind) -> None:
    """Not even read."""
    assert _booking(kind, b"anything") is None


def test_tests_and_audits_count_nothing() -> None:
    """Neither reserved nor billed."""
    said = claims(BID, SHOES, flags=ClaimFlag.TEST)

    assert _booking(Kind.BID, bid_body(said, 1000, MS)) is None
    assert _booking(Kind.BILL, notice_body(said, MS, 5)) is None
    audit = notice_body(claims(BID, SHOES), MS, state=PriceState.AUDIT)
    assert _booking(Kind.BILL, audit) is None


_OK = claims(BID, SHOES)


@pytest.mark.parametrize(
    ("reason", "kind", "body"),
    [
        (Reason.UNKNOWN_KIND, 99, b""),
        (Reason.BROKEN_BODY, Kind.BID, b"short"),
        (Reason.BROKEN_BODY, Kind.BILL, bid_body(_OK, 1, MS)),
        (Reason.BROKEN_BODY, Kind.BID, bid_body(claims(BID, SHOES, version=9), 1, MS)),
        (Reason.BROKEN_BODY, Kind.LOSS, notice_body(claims(BID, SHOES, version=9), MS)),
        (Reason.BROKEN_BODY, Kind.BILL, notice_body(_OK, MS, 1, state=77)),
        (Reason.UNKNOWN_LINE_ITEM, Kind.BID, bid_body(claims(BID, 6), 1, MS)),
        (Reason.UNKNOWN_LINE_ITEM, Kind.BILL, notice_body(claims(BID, 6), MS, 1)),
        (Reason.OUT_OF_RANGE, Kind.BID, bid_body(_OK, -1, MS)),
        (Reason.OUT_OF_RANGE, Kind.BID, bid_body(claims(1 << 63, SHOES), 1, MS)),
        (Reason.OUT_OF_RANGE, Kind.LOSS, notice_body(claims(0, SHOES), MS)),
        (Reason.OUT_OF_RANGE, Kind.BILL, notice_body(_OK, MS, -5)),
        (Reason.TOO_OLD, Kind.BID, bid_body(claims(5 << 32, SHOES), 1, MS)),
        (Reason.TOO_OLD, Kind.BILL, notice_body(claims(5 << 32, SHOES), MS, 1)),
        (Reason.ABOVE_BID, Kind.BILL, notice_body(_OK, MS, 1001)),
        (Reason.PRICE_IN_DOUBT, Kind.BILL, notice_body(_OK, MS, state=PriceState.GARBAGE)),
    ],
)  # fmt: skip
def test_what_cannot_be_booked_has_a_reason(reason: Reason, kind: int, body: bytes) -> None:
    """The record becomes a dead letter and the next one is read."""
    state = _state()
    state.forgotten_s = 6

    assert reason == booking(kind, body, EXCHANGES, state)


def test_an_exchange_without_settings() -> None:
    """What its notices mean is not known."""
    bodies = (Kind.BID, bid_body(_OK, 1, MS)), (Kind.BILL, notice_body(_OK, MS, 1))
    for kind, body in bodies:
        assert Reason.UNKNOWN_EXCHANGE == booking(kind, body, {}, _state())


def test_a_bid_in_flight_is_never_too_old() -> None:
    """However long ago it was made, its hold is there to be paid from."""
    state = _state()
    state.forgotten_s = T + 1
    state.holds[BID] = Hold(1, 1000, 1, T + 60)

    assert isinstance(booking(Kind.BILL, notice_body(_OK, MS, 9), EXCHANGES, state), Post)


def test_records_say_when_they_were_written() -> None:
    """Bids and notices do; a broken body or an unknown kind does not."""
    assert MS + 1 == record_time_ms(Kind.BID, bid_body(_OK, 1, MS + 1))
    assert MS + 2 == record_time_ms(Kind.CLICK, notice_body(_OK, MS + 2))
    assert (None, None) == (record_time_ms(Kind.BID, b"x"), record_time_ms(99, b"x" * 200))
