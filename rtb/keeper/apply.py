"""From a record of a journal to the command that books it. Pure.

    BID                     Take, until the exchange's `reservation_ttl_s` after the bid
    WIN, BILL, IMPRESSION   Post, for the one kind that settles on the exchange
    LOSS                    Void
    others                  nothing: they move no money

What the books would refuse is told here, before the batch, so that it can be kept as a dead letter
on the disk before the journal's position moves past it. Units are exposures: one a bid, whatever
the multiplier, which only raises the price.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from rtb.base.events import (
    BID,
    CLAIMS,
    CLAIMS_VERSION,
    MULTIPLIER_ONE,
    NOTICE,
    ClaimFlag,
    Kind,
    PriceState,
    bid_time_s,
    cost_nanos,
)  # fmt: skip
from rtb.keeper.letters import Reason
from rtb.ledger.accounts import State
from rtb.ledger.commands import AMOUNT_MAX, BID_MAX, Outcome, Post, Take, Void
from rtb.notices.notice import Settings
from rtb.notices.settle import Settlement, settle, settles

_CLAIMS: Final = "<BBBBIQQQQQQqQ"
_BID: Final = struct.Struct(_CLAIMS + "qqHHI")
_NOTICE: Final = struct.Struct(_CLAIMS + "qqqIHBBqq")
assert struct.calcsize(_CLAIMS) == CLAIMS.itemsize
assert _BID.size == BID.itemsize
assert _NOTICE.size == NOTICE.itemsize
_MONEY: Final = {int(one): one for one in (Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION)}
_KINDS: Final = frozenset(Kind)
_TEST: Final = int(ClaimFlag.TEST)
_EXPECTED: Final = int(ClaimFlag.EXPECTED)
_BID_KIND: Final = int(Kind.BID)

# Refusals of the books that only the books can know.
REFUSED: Final = {
    Outcome.OTHER_LINE_ITEM: Reason.OTHER_LINE_ITEM,
    Outcome.DUPLICATE_OTHER_PRICE: Reason.OTHER_PRICE,
    Outcome.UNKNOWN_LINE_ITEM: Reason.UNKNOWN_LINE_ITEM,
    Outcome.MALFORMED: Reason.OUT_OF_RANGE,
    Outcome.TOO_OLD: Reason.TOO_OLD,
    Outcome.ABOVE_BID: Reason.ABOVE_BID,
}


class Exchange(Settings, Protocol):
    """What the keeper needs of `rtb.exchanges.settings.Exchange`."""

    @property
    def reservation_ttl_s(self) -> int: ...


class Claims(NamedTuple):
    """What a record says, as far as money goes."""

    flags: int
    exchange: int
    bid: int
    line_item: int
    price_micros: int
    rate_e9: int


Booking = Take | Post | Void | Reason | None


def booking(kind: int, body: bytes, exchanges: Mapping[int, Exchange], state: State) -> Booking:
    """The command of a record; a reason if it is a dead letter; None if it moves no money.

    exchanges: by `claim_key`; state: the books before the batch, only looked at.
    """
    if kind == _BID_KIND:
        return _take(body, exchanges, state)
    known = _MONEY.get(kind)
    if known is not None:
        return _notice(known, body, exchanges, state)
    return None if kind in _KINDS else Reason.UNKNOWN_KIND


def _take(body: bytes, exchanges: Mapping[int, Exchange], state: State) -> Booking:
    if len(body) != _BID.size:
        return Reason.BROKEN_BODY
    (version, _, flags, _, exchange, bid, line_item, _, _, _, _, _, _, nanos, *_) = _BID.unpack(
        body
    )
    if version != CLAIMS_VERSION:
        return Reason.BROKEN_BODY
    if flags & _TEST:
        return None
    settings = exchanges.get(exchange)
    if settings is None:
        return Reason.UNKNOWN_EXCHANGE
    if line_item not in state.lines:
        return Reason.UNKNOWN_LINE_ITEM
    if not (0 < bid < BID_MAX and 0 <= nanos <= AMOUNT_MAX):
        return Reason.OUT_OF_RANGE
    time_s = bid_time_s(bid)
    if time_s < state.forgotten_s and state.held(bid) is None:
        return Reason.TOO_OLD
    return Take(bid, line_item, nanos, time_s + settings.reservation_ttl_s)


def _notice(kind: Kind, body: bytes, exchanges: Mapping[int, Exchange], state: State) -> Booking:
    if len(body) != _NOTICE.size:
        return Reason.BROKEN_BODY
    (version, _, flags, _, exchange, bid, line_item, _, _, _, _, bid_micros, rate_e9, time_ms,
     price_micros, _, multiplier_e6, _, price_state, _, _, _) = _NOTICE.unpack(body)  # fmt: skip
    worth = _STATES.get(price_state)
    if version != CLAIMS_VERSION or worth is None:
        return Reason.BROKEN_BODY
    settings = exchanges.get(exchange)
    if settings is None:
        return Reason.UNKNOWN_EXCHANGE
    if kind != Kind.LOSS and not settles(kind, settings):
        return None  # most of all notices
    settled = settle(kind, flags, worth, price_micros, bid_micros, settings)
    if settled.settlement == Settlement.NOTHING:
        return None
    if settled.settlement == Settlement.QUARANTINE:
        return Reason.PRICE_IN_DOUBT
    wrong = _wrong(bid, line_item, state)
    if wrong is not None:
        return wrong
    if settled.settlement == Settlement.VOID:
        return Void(time_ms // 1000, bid, line_item)
    claims = Claims(flags, exchange, bid, line_item, bid_micros, rate_e9)
    return _post(claims, settled.price_micros, multiplier_e6, time_ms // 1000, settings)


_STATES: Final = {int(one): one for one in PriceState}


def _wrong(bid: int, line_item: int, state: State) -> Reason | None:
    if not 0 < bid < BID_MAX:
        return Reason.OUT_OF_RANGE
    if line_item not in state.lines:
        return Reason.UNKNOWN_LINE_ITEM
    if bid_time_s(bid) < state.forgotten_s and state.held(bid) is None:
        return Reason.TOO_OLD
    return None


def _post(
    claims: Claims, price_micros: int, multiplier_e6: int, time_s: int, settings: Exchange
) -> Booking:
    nanos = cost_nanos(price_micros, claims.rate_e9, multiplier_e6)
    bid_nanos = cost_nanos(claims.price_micros, claims.rate_e9, multiplier_e6)
    if not 0 <= nanos <= AMOUNT_MAX:
        return Reason.OUT_OF_RANGE
    if nanos > bid_nanos:
        return Reason.ABOVE_BID
    # Known where the worker must have reserved just this; otherwise the bid's record will tell.
    known = settings.multiplier_max == 1 and not claims.flags & _EXPECTED
    reserve = bid_nanos if known else 0
    return Post(time_s, claims.bid, claims.line_item, nanos, bid_nanos, reserve)


def reserve_nanos(price_micros: int, rate_e9: int, multiplier_max: int) -> int:
    """What a worker reserves for a bid in strict mode: the most that its bill can say."""
    return cost_nanos(price_micros, rate_e9, multiplier_max * MULTIPLIER_ONE)
