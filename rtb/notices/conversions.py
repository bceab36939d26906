"""Conversions: what an advertiser says of somebody who clicked, and how often each counts.

    GET /n/conversion/<token>?order=A-1001&value=59.90&currency=EUR

The token came with the click, in the landing page. Everything behind it is the advertiser's word,
unsigned and optional: who holds a token can say what he likes of his own click, and of no other.
It is written as forms are (application/x-www-form-urlencoded), in the query and in a body alike.

An order is counted once by its id, a conversion without one once a click. Of two that say different
values the first stands, and a value that cannot be read is left out: the conversion is no less one.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import Final

from rtb.base.errors import InvariantError
from rtb.base.events import CONVERSION, NO_PRICE, ClaimFlag, Kind, PriceState, bid_time_s
from rtb.base.money import MICROS, currency_code
from rtb.notices.notice import Claims, Notice, Order

_ORDER, _VALUE, _CURRENCY = b"order", b"value", b"currency"
FIELDS: Final = (_ORDER, _VALUE, _CURRENCY)
ORDER_CHARS_MAX: Final = 64
# A point, no thousands: 1,234 means two things. Twelve digits are worth more than any order.
_DECIMAL = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?", re.ASCII)
# Braces are those of a template that nobody filled in.
_ID = re.compile(rf"[^\x00-\x1f\x7f{{}}]{{1,{ORDER_CHARS_MAX}}}")
# Orders of one click: who reports more is trying out his token.
ORDERS_OF_BID_MAX: Final = 32


# -- one -------------------------------------------------------------------------------------------


def notice(signed: bytes, claims: Claims, fields: Mapping[bytes, str], now_ms: int) -> Notice:
    """The conversion that a genuine token reports; an order when it says which."""
    order_id, known_id = _order_id(fields.get(_ORDER, ""))
    value_micros, currency, state = _value(fields.get(_VALUE, ""), fields.get(_CURRENCY, ""))
    return Notice(
        Kind.ORDER if order_id else Kind.CONVERSION, signed, claims, now_ms,
        price_state=state if known_id else PriceState.GARBAGE,
        order=Order(order_id, value_micros, currency),
    )  # fmt: skip


def _order_id(text: str) -> tuple[int, bool]:
    """The hash of an order's id, 0 for none; and False where what was said cannot be one."""
    text = text.strip()
    if not text:
        return 0, True
    if not _ID.fullmatch(text):
        return 0, False
    # Only repeated ids must be found again: what is not stored cannot be lost to anybody.
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1, True


def _value(text: str, currency: str) -> tuple[int, int, PriceState]:
    """Micros, currency and state of a value; NO_PRICE and 0 unless OK."""
    text = text.strip()
    if not text:
        return NO_PRICE, 0, PriceState.NONE
    said = _DECIMAL.fullmatch(text)
    try:
        code = currency_code(currency.strip())
    except ValueError:
        code = 0
    if said is None or not code:
        return NO_PRICE, 0, PriceState.GARBAGE
    whole, part = said.groups()
    return int(whole) * MICROS + int((part or "").ljust(6, "0")), code, PriceState.OK


# -- all together ----------------------------------------------------------------------------------

_RECORD: Final = Struct("<4BI6QqQqqQIB3x")
assert _RECORD.size == CONVERSION.itemsize


@dataclass
class Total:
    """Conversions of one line item; `orders` are those of them that had an id.

    value_micros  by currency code
    """

    conversions: int = 0
    orders: int = 0
    value_micros: Counter[int] = field(default_factory=Counter)


@dataclass
class Conversions:
    """What the records of journals add up to, each conversion once.

    since_s      bids before this are left out
    left_out     how many records were not counted, by why
    """

    since_s: int = 0
    by_line_item: dict[int, Total] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    _seen: dict[int, set[int]] = field(default_factory=dict)

    def add(self, body: bytes) -> None:
        """One record, in the order written. Shapes: body of dtype events.CONVERSION."""
        if len(body) != _RECORD.size:
            raise InvariantError(f"a conversion of {len(body)} bytes")
        (_, _, flags, _, _, bid, line_item, _, _, _, _, _, _, _, value_micros, order, currency,
         state) = _RECORD.unpack(body)  # fmt: skip
        if bid_time_s(bid) < self.since_s:
            return
        if flags & ClaimFlag.TEST:
            self.left_out["test"] += 1
        elif not self._is_new(bid, order):
            self.left_out["duplicate conversion"] += 1
        else:
            total = self.by_line_item.setdefault(line_item, Total())
            total.conversions += 1
            total.orders += order != 0
            if state == PriceState.OK:
                total.value_micros[currency] += value_micros

    def _is_new(self, bid: int, order: int) -> bool:
        seen = self._seen.setdefault(bid, set())
        if order in seen or len(seen) >= ORDERS_OF_BID_MAX:
            return False
        seen.add(order)
        return True
