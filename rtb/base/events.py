"""A bid as records: the claims that every notice carries, and the bodies of the journal.

A bid makes *claims* (who bid what, for whom, at which price). They travel to the exchange and back
inside every notice URL, signed (`rtb.notices.tokens`), so a notice says all that is needed to book
it, on any worker of any node, even when the record of the bid itself was lost. The same bytes stand
in the journal (`rtb.stores.journal`), where the keeper reads them.

Money: prices are CPM micros of the bid's currency. Inside the ledger the unit is the *nano* of the
line item's currency: one impression at a CPM of n micros costs exactly n nanos of the same
currency, so sums are exact and nothing is rounded but a change of currency (`cost_nanos`).
"""

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

import numpy as np

from rtb.base.money import ceil_div

CLAIMS_VERSION: Final = 1
RATE_ONE: Final = 1_000_000_000  # `rate_e9` of two equal currencies
NO_PRICE: Final = -1


class Kind(IntEnum):
    """The type of a journal record. Numbers are stored: they never change."""

    BID = 1
    WIN = 2  # nurl
    BILL = 3  # burl
    LOSS = 4  # lurl
    IMPRESSION = 5  # our pixel, or the VAST impression
    CLICK = 6
    VIEW = 7  # viewability measured
    VIDEO = 8  # a VAST tracking event, `NOTICE.detail` says which
    CONVERSION = 9  # the advertiser says that a click led to something
    ORDER = 10  # the same, with the id of an order
    EVENT = 11
    LINK = 12  # ids without a record that came together in one request


_KINDS: Final = frozenset(Kind)


class ClaimFlag(IntFlag):
    """Bits of `CLAIMS.flags`."""

    TEST = 1  # test=1: answered, never counted
    EXPECTED = 2  # the budget was reserved at price times win probability


class PriceState(IntEnum):
    """What the price in a notice was worth; anything but OK and NONE keeps `price_micros` at -1."""

    NONE = 0  # this kind of notice has no price
    OK = 1
    EMPTY = 2  # the macro was substituted by nothing
    AUDIT = 3  # a creative audit: counts nothing
    UNSUBSTITUTED = 4  # the macro itself arrived
    GARBAGE = 5  # no finite, non-negative decimal, or a cipher text that does not verify
    ABOVE_BID = 6  # more than was bid: quarantined, counted, alarmed


class VideoEvent(IntEnum):
    """VAST tracking events that we count (VAST 4.2 section 3.14)."""

    START = 0
    FIRST_QUARTILE = 1
    MIDPOINT = 2
    THIRD_QUARTILE = 3
    COMPLETE = 4
    MUTE = 5
    PAUSE = 6
    SKIP = 7


# Their names in VAST, in notice URLs and in documents.
VIDEO_NAMES: Final[Mapping[VideoEvent, str]] = {
    VideoEvent.START: "start",
    VideoEvent.FIRST_QUARTILE: "firstQuartile",
    VideoEvent.MIDPOINT: "midpoint",
    VideoEvent.THIRD_QUARTILE: "thirdQuartile",
    VideoEvent.COMPLETE: "complete",
    VideoEvent.MUTE: "mute",
    VideoEvent.PAUSE: "pause",
    VideoEvent.SKIP: "skip",
}


# Keys are hashes of ids, which outlive snapshots and their indices: line item, creative and product
# as the snapshot stores them, the person as the profile store keys it, the exchange by name.
CLAIMS: Final = np.dtype(
    [
        ("version", "u1"),
        ("key", "u1"),  # which secret signed it: they rotate
        ("flags", "u1"),  # ClaimFlag
        ("media", "u1"),
        ("exchange", "u4"),
        ("bid", "u8"),  # see `bid_id`
        ("line_item", "u8"),
        ("creative", "u8"),
        ("product", "u8"),  # 0: none
        ("person", "u8"),  # 0: unknown, or not to be used
        ("target", "u8"),  # keyed hash of the landing page that a click may go to; 0: none
        ("price_micros", "i8"),  # CPM, in the bid's currency
        ("rate_e9", "u8"),  # units of the line item's currency for one of the bid's, times 1e9
    ]
)
assert CLAIMS.itemsize == 72

BID: Final = np.dtype(
    [
        ("claims", CLAIMS),
        ("reserve_nanos", "i8"),  # taken from the grant, in the line item's currency
        ("time_ms", "i8"),
        ("worker", "u2"),
        ("at", "u2"),  # auction type, as the answer was priced for
        ("spare", "u4"),
    ]
)
assert BID.itemsize == 96

NOTICE: Final = np.dtype(
    [
        ("claims", CLAIMS),
        ("time_ms", "i8"),  # when it arrived
        ("price_micros", "i8"),  # cleared CPM in the bid's currency; NO_PRICE
        ("min_to_win_micros", "i8"),  # NO_PRICE where not said
        ("multiplier_e6", "u4"),  # impressions of one exposure (dooh), times 1e6
        ("loss", "u2"),  # OpenRTB 2.6 section 5.25; 0 where not said
        ("price_state", "u1"),  # PriceState
        ("detail", "u1"),  # VideoEvent
        ("discount_micros", "i8"),  # CPM that the seller took off, of which the price is net
        ("shown_ms", "i8"),  # when the exchange says that the ad was shown; 0 where it does not
    ]
)
assert NOTICE.itemsize == 120

# Of CONVERSION and ORDER.
CONVERSION: Final = np.dtype(
    [
        ("claims", CLAIMS),
        ("time_ms", "i8"),  # when it arrived
        ("value_micros", "i8"),  # of `currency`; NO_PRICE where not said
        ("order", "u8"),  # hash of the order's id; 0: none
        ("currency", "u4"),  # `money.currency_code`; 0: none
        ("value_state", "u1"),  # PriceState: NONE, OK or GARBAGE
        ("spare", "u1", 3),
    ]
)
assert CONVERSION.itemsize == 104

LINK_VERSION: Final = 1
LINK_OTHERS_MAX: Final = 7  # of one request: eight ids are looked at


class Way(IntFlag):
    """Bits of `LINK.ways`: who is to look at whose counts."""

    TO_PERSON = 1  # the other one at the person's
    FROM_PERSON = 2  # the person at the other one's


LINK: Final = np.dtype(
    [
        ("version", "u1"),
        ("count", "u1"),  # of the others
        ("spare", "u2"),
        ("spare2", "u4"),
        ("time_ms", "i8"),
        ("person", "u8"),  # who is counted from now on
        ("others", "u8", LINK_OTHERS_MAX),
        ("ways", "u1", LINK_OTHERS_MAX + 1),  # Way, one to each of the others
    ]
)
assert LINK.itemsize == 88

MULTIPLIER_ONE: Final = 1_000_000

_TIME: Final = Struct("<q")
_TIME_AT: Final = {
    Kind.BID: CLAIMS.itemsize + 8,
    Kind.LINK: 8,
    **{kind: CLAIMS.itemsize for kind in Kind if Kind.BID < kind < Kind.EVENT},
}


def record_time_ms(kind: int, body: bytes) -> int | None:
    """When a journal record was written, epoch; None where it does not say."""
    at = _TIME_AT.get(Kind(kind)) if kind in _KINDS else None
    if at is None or len(body) < at + _TIME.size:
        return None
    found: int = _TIME.unpack_from(body, at)[0]
    return found


# -- bid ids ---------------------------------------------------------------------------------------

BID_SECOND_SHIFT: Final = 32  # id >> 32 is when it was made, epoch seconds
_NODE_SHIFT: Final = 24
_WORKER_SHIFT: Final = 16
BIDS_PER_SECOND_MAX: Final = 1 << _WORKER_SHIFT
NODES_MAX: Final = 256
WORKERS_MAX: Final = 256


def bid_id(time_s: int, node: int, worker: int, number: int) -> int:
    """The id of a bid: unique over nodes, workers and restarts, and it tells the time.

    number: 0 to 65,535, counted within the second. A worker that starts waits for the second after
    the last one that its journal names, so no id is given twice.
    """
    return time_s << BID_SECOND_SHIFT | node << _NODE_SHIFT | worker << _WORKER_SHIFT | number


def bid_time_s(bid: int) -> int:
    """When a bid was made, epoch seconds."""
    return bid >> BID_SECOND_SHIFT


def bid_node(bid: int) -> int:
    """The number of the node that made a bid."""
    return bid >> _NODE_SHIFT & NODES_MAX - 1


# -- money of one impression -----------------------------------------------------------------------


def cost_nanos(price_micros: int, rate_e9: int, multiplier_e6: int = MULTIPLIER_ONE) -> int:
    """What one exposure at a CPM costs, in nanos of the line item's currency, rounded up.

    Exact where the currencies are the same and the multiplier is one.
    """
    return ceil_div(price_micros * rate_e9 * multiplier_e6, RATE_ONE * MULTIPLIER_ONE)
