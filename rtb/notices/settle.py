"""What a notice does to money: the rule that one kind books, a loss frees, and nothing books twice.

    settles_on      kinds that book, by the exchange's `settle_on`: exactly one
    no price        empty: the bid is owed where the contract says so, else quarantine
    a wrong price   a macro, garbage, more than the bid: quarantine; a person looks at it
    an audit, or test=1    nothing, ever

Whether the same notice came before is not known here: the keeper tells by (bid, kind).
"""

from enum import IntEnum
from typing import Final, NamedTuple

from rtb.base.events import NO_PRICE, ClaimFlag, Kind, PriceState
from rtb.notices.notice import Settings

_SETTLING: Final = {"burl": Kind.BILL, "impression": Kind.IMPRESSION, "nurl": Kind.WIN}
_TEST: Final = int(ClaimFlag.TEST)
_WINS: Final = (Kind.WIN, Kind.BILL)


class Settlement(IntEnum):
    """What the ledger is told."""

    NOTHING = 0  # it may be counted; no money moves
    POST = 1  # the exposure is owed at `price_micros`
    VOID = 2  # what was reserved for the bid is free again
    QUARANTINE = 3  # money is owed but how much is in doubt: kept aside, counted, alarmed


class Settled(NamedTuple):
    """A settlement and its CPM micros in the bid's currency; NO_PRICE unless posted."""

    settlement: Settlement
    price_micros: int = NO_PRICE


def settles(kind: Kind, settings: Settings) -> bool:
    """Whether this kind of notice books money on an exchange."""
    return kind == _SETTLING[settings.settle_on]


def is_priced(kind: Kind, settings: Settings) -> bool:
    """Whether this kind of notice brings a price on an exchange."""
    return kind in _WINS or (kind == Kind.IMPRESSION and settles(kind, settings))


def counts(flags: int, state: PriceState) -> bool:
    """Whether a notice counts for anything: neither of a test, nor of an audit."""
    return not flags & _TEST and state != PriceState.AUDIT


def settle(
    kind: Kind,
    flags: int,
    state: PriceState,
    price_micros: int,
    bid_micros: int,
    settings: Settings,
) -> Settled:
    """What a notice does, from the fields of its record.

    Units: price_micros, bid_micros CPM micros of the bid's currency.
    """
    if not counts(flags, state):
        return Settled(Settlement.NOTHING)
    if kind == Kind.LOSS:
        return Settled(Settlement.VOID)
    if not settles(kind, settings):
        return Settled(Settlement.NOTHING)
    if state == PriceState.OK:
        return Settled(Settlement.POST, price_micros)
    if state == PriceState.EMPTY and settings.empty_price == "bid":
        return Settled(Settlement.POST, bid_micros)
    return Settled(Settlement.QUARANTINE)
