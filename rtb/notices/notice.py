"""The words of this package: claims as values, a notice as read, and why one is refused."""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, Protocol

from rtb.base.events import (
    CLAIMS,
    CLAIMS_VERSION,
    CONVERSION,
    MULTIPLIER_ONE,
    NO_PRICE,
    NOTICE,
    ClaimFlag,
    Kind,
    PriceState,
)
from rtb.base.records import Media

# Twins of the record layouts, which tests hold against them: one notice is read far more quickly
# by `struct` than through an array of one row.
_CLAIMS: Final = Struct("<4BI6QqQ")
_NOTICE: Final = Struct("<72sqqqIHBBqq")
_CONVERSION: Final = Struct("<72sqqQIB3x")
assert _CLAIMS.size == CLAIMS.itemsize
assert _NOTICE.size == NOTICE.itemsize
assert _CONVERSION.size == CONVERSION.itemsize
CONVERSIONS: Final = (Kind.CONVERSION, Kind.ORDER)


class Refusal(IntEnum):
    """Why a notice is not counted. Metrics carry the names."""

    MALFORMED = 1  # no path, token or version of ours
    FORGED = 2  # nobody with a secret of ours signed this
    WRONG_KIND = 3  # signed, for another kind of notice
    UNKNOWN_EXCHANGE = 4  # signed, for an exchange that has no settings any more
    EXPIRED = 5  # signed, for a bid too long ago
    TARGET = 6  # a click to somewhere else than where the bid promised


class Claims(NamedTuple):
    """`rtb.base.events.CLAIMS` as values; what the fields mean is said there."""

    version: int = CLAIMS_VERSION
    key: int = 0
    flags: int = 0
    media: int = Media.NONE
    exchange: int = 0
    bid: int = 0
    line_item: int = 0
    creative: int = 0
    product: int = 0
    person: int = 0
    target: int = 0
    price_micros: int = 0
    rate_e9: int = 0

    def pack(self) -> bytes:
        """The 72 bytes that are signed."""
        return _CLAIMS.pack(*self)

    @staticmethod
    def unpack(data: bytes) -> "Claims":
        """The values of 72 bytes."""
        return Claims._make(_CLAIMS.unpack(data))


class Order(NamedTuple):
    """What an advertiser says of a conversion: a hash of the order's id, its value and currency."""

    id: int = 0
    value_micros: int = NO_PRICE
    currency: int = 0


class Notice(NamedTuple):
    """A genuine notice, read.

    Units: prices are CPM micros of the bid's currency, NO_PRICE where not said.
    """

    kind: Kind
    signed: bytes  # the claims, as they were signed
    claims: Claims
    time_ms: int
    price_micros: int = NO_PRICE
    min_to_win_micros: int = NO_PRICE
    multiplier_e6: int = MULTIPLIER_ONE
    loss: int = 0
    price_state: PriceState = PriceState.NONE
    detail: int = 0
    discount_micros: int = NO_PRICE
    shown_ms: int = 0
    target: str = ""  # where a click goes; the record has no room for it, the claims have its hash
    order: Order = Order()  # of conversions, whose `price_state` is that of the value

    @property
    def is_test(self) -> bool:
        """Whether the bid was only a test: nothing of it counts."""
        return bool(self.claims.flags & ClaimFlag.TEST)

    def record(self) -> bytes:
        """The body of its journal record, of dtype NOTICE or, for conversions, CONVERSION."""
        if self.kind in CONVERSIONS:
            order = self.order
            return _CONVERSION.pack(
                self.signed, self.time_ms, order.value_micros, order.id, order.currency,
                self.price_state,
            )  # fmt: skip
        return _NOTICE.pack(
            self.signed,
            self.time_ms,
            self.price_micros,
            self.min_to_win_micros,
            self.multiplier_e6,
            self.loss,
            self.price_state,
            self.detail,
            self.discount_micros,
            self.shown_ms,
        )


class Refused(NamedTuple):
    """A notice that is not counted; with what it says where it is genuine, for the dead letters."""

    reason: Refusal
    notice: Notice | None = None


class Prices(Protocol):
    """How an exchange writes numbers: `rtb.exchanges.prices.PriceReader`."""

    def price(self, text: str, now_ms: int, /) -> tuple[PriceState, int]:
        """State and CPM micros of a price; -1 unless OK."""

    def decimal_e6(self, text: str, /) -> int | None:
        """A plain decimal times 1e6; None when it is none."""


class Settings(Protocol):
    """What notices need of `rtb.exchanges.settings.Exchange`, whose reference explains the keys."""

    @property
    def settle_on(self) -> str: ...
    @property
    def notice_macros(self) -> Sequence[str]: ...
    @property
    def price_macro(self) -> str: ...
    @property
    def price_above_bid_tolerance_e6(self) -> int: ...
    @property
    def empty_price(self) -> str: ...
    @property
    def multiplier_max(self) -> int: ...
    @property
    def markup_macros(self) -> bool: ...
    @property
    def click_macro(self) -> str: ...
    @property
    def click_url_encoded(self) -> bool: ...


class Terms(NamedTuple):
    """How the notices of one exchange are read."""

    settings: Settings
    prices: Prices
