"""The exchange's side of an auction: is the answer valid, does it win, what does it pay.

Rivals are a landscape of prices: log-normal by medium and country, drawn from a seed. Pure, but for
the landscape's own counter. Prices are integer micros CPM of the currency of the answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np

from rtb.base.money import MICROS

# Median of the best rival price for a thousand impressions in dollars, by `bid.mtype`.
RIVAL_CPM: Final = {1: 4.8, 2: 24.0, 3: 14.0, 4: 6.0}
RIVAL_SPREAD: Final = 0.65
# Where advertisers pay more than elsewhere, and less.
MARKET: Final = {"USA": 1.3, "GBR": 1.1, "CAN": 1.1, "AUS": 1.1, "BRA": 0.5, "ITA": 0.8, "ESP": 0.8}
# A second-price winner pays this much more than the next.
INCREMENT_MICROS: Final = MICROS // 100
_DRAWS: Final = 1 << 16
# A few units of a currency for a dollar, as the exchange's own books have it.
UNITS: Final = {"USD": 1.0, "EUR": 0.9, "GBP": 0.8}


class Invalid(StrEnum):
    """What is wrong with an answer."""

    NOT_JSON = "not a bid response"
    ID = "id is not the request's"
    CURRENCY = "currency was not offered"
    IMPRESSION = "unknown impid"
    DEAL = "unknown dealid"
    FLOOR = "price below the floor"
    PRICE = "price not positive"
    EMPTY = "neither adm nor nurl"


class Loss(StrEnum):
    """Why a valid bid did not win."""

    OUTBID = "outbid"
    OWN_BID = "own bid was better"
    LATE = "late"


class Bid(msgspec.Struct):
    """The fields of a bid that an auction needs (OpenRTB 2.6 section 4.2.3)."""

    impid: str
    price: float
    dealid: str | None = None
    mtype: int = 1
    adm: str | None = None
    nurl: str | None = None
    dur: int = 0


class SeatBid(msgspec.Struct):
    bid: list[Bid] = []


class Answer(msgspec.Struct):
    """A bid response."""

    id: str | None = None
    seatbid: list[SeatBid] = []
    cur: str = "USD"
    nbr: int | None = None


decode_answer: Final = msgspec.json.Decoder(Answer).decode


@dataclass(frozen=True, slots=True)
class Slot:
    """An impression: its floor, whether it is a pod with several winners, and deals by id."""

    floor_micros: int
    pod: bool
    deals: Mapping[str, tuple[int, int]]  # floor micros, auction type


@dataclass(frozen=True, slots=True)
class Ask:
    """What the exchange must know of a request when the answer comes."""

    id: str
    tmax_ms: int
    at: int
    currencies: Sequence[str]  # none = any
    country: str
    slots: Mapping[str, Slot]


class Won(msgspec.Struct):
    """One sold impression: what it clears at."""

    price_micros: int
    currency: str


@dataclass(slots=True)
class Verdict:
    """What became of one answer."""

    bids: int = 0
    won: list[Won] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    faults: list[Invalid] = field(default_factory=list)


# -- what was asked -------------------------------------------------------------------------------


class _Deal(msgspec.Struct):
    id: str = ""
    bidfloor: float = 0.0
    at: int | None = None


class _Pmp(msgspec.Struct):
    deals: list[_Deal] = []


class _Video(msgspec.Struct):
    poddur: int = 0
    # The floor may hang on the duration: then only the bidder's own check knows it.
    durfloors: list[object] = []
    mincpmpersec: float = 0.0


class _Imp(msgspec.Struct):
    id: str
    bidfloor: float = 0.0
    bidfloorcur: str = "USD"
    pmp: _Pmp | None = None
    video: _Video | None = None
    audio: _Video | None = None


class _Geo(msgspec.Struct):
    country: str = ""


class _Device(msgspec.Struct):
    geo: _Geo | None = None


class _Request(msgspec.Struct):
    id: str
    imp: list[_Imp]
    at: int = 2
    tmax: int = 0
    cur: list[str] = []
    device: _Device | None = None


_decode_request: Final = msgspec.json.Decoder(_Request).decode
TMAX_MS_DEFAULT: Final = 100


def ask_of(body: bytes) -> Ask:
    """What to remember of a request. Raises: msgspec.MsgspecError for what is none."""
    request = _decode_request(body)
    geo = request.device.geo if request.device else None
    return Ask(
        id=request.id,
        tmax_ms=request.tmax or TMAX_MS_DEFAULT,
        at=request.at,
        currencies=request.cur,
        country=geo.country if geo else "",
        slots={imp.id: _slot(imp, request) for imp in request.imp},
    )


def _slot(imp: _Imp, request: _Request) -> Slot:
    timed = [each for each in (imp.video, imp.audio) if each is not None]
    # A floor in a currency that is not the answer's would need rates; ours always match.
    comparable = not request.cur or imp.bidfloorcur in request.cur
    by_duration = any(each.durfloors or each.mincpmpersec for each in timed)
    floor = imp.bidfloor if comparable and not by_duration else 0.0
    return Slot(
        floor_micros=_micros(floor),
        pod=any(each.poddur for each in timed),
        deals={
            deal.id: (_micros(deal.bidfloor if comparable else 0.0), deal.at or request.at)
            for deal in (imp.pmp.deals if imp.pmp else ())
        },
    )


def _micros(amount: float) -> int:
    return round(amount * MICROS)


# -- judging --------------------------------------------------------------------------------------


class Landscape:
    """The best price of all rivals, impression after impression."""

    def __init__(self, seed: int) -> None:
        draws = np.random.default_rng([seed & 0xFFFFFFFF, 1]).standard_normal(_DRAWS)
        self._factors: list[float] = np.exp(RIVAL_SPREAD * draws).tolist()
        self._next = 0

    def rival_micros(self, mtype: int, country: str, currency: str) -> int:
        """The next rival price for an impression of this kind."""
        self._next = self._next + 1 & _DRAWS - 1
        amount = RIVAL_CPM.get(mtype, RIVAL_CPM[1]) * MARKET.get(country, 0.9)
        return round(amount * UNITS.get(currency, 1.0) * self._factors[self._next] * MICROS)


def clearing_micros(price: int, rival: int, floor: int, at: int) -> int | None:
    """What a bid pays against the best rival; None when it loses. Equal prices lose: the rival
    came first.

    First price (at 1) pays its bid, fixed price (3) the floor that was agreed, all other types the
    second price: the rival's or the floor, whichever is more, plus an increment, at most the bid.
    """
    if price < floor or price <= 0 or (price <= rival and at != 3):
        return None
    if at == 3:
        return floor
    if at == 1:
        return price
    return min(price, max(rival + INCREMENT_MICROS, floor))


def judge(ask: Ask, answer: Answer, landscape: Landscape) -> Verdict:
    """Checks and auctions all bids of an answer that came in time."""
    verdict = Verdict()
    if answer.id is not None and answer.id != ask.id:
        verdict.faults.append(Invalid.ID)
        return verdict
    if ask.currencies and answer.cur not in ask.currencies:
        verdict.faults.append(Invalid.CURRENCY)
        return verdict
    bids = [bid for seat in answer.seatbid for bid in seat.bid]
    # Deals first: a deal bid that reaches its floor is preferred to the open market.
    bids.sort(key=lambda bid: (bid.dealid is None, -bid.price))
    sold: set[str] = set()
    for bid in bids:
        fault = _fault(ask, bid)
        if fault is not None:
            verdict.faults.append(fault)
            continue
        verdict.bids += 1
        slot = ask.slots[bid.impid]
        if bid.impid in sold and not slot.pod:
            verdict.losses.append(Loss.OWN_BID)
            continue
        price = _sell(ask, bid, slot, answer.cur, landscape)
        if price is None:
            verdict.losses.append(Loss.OUTBID)
        else:
            sold.add(bid.impid)
            verdict.won.append(Won(price, answer.cur))
    return verdict


def _fault(ask: Ask, bid: Bid) -> Invalid | None:
    slot = ask.slots.get(bid.impid)
    if slot is None:
        return Invalid.IMPRESSION
    if not math.isfinite(bid.price) or bid.price <= 0.0:
        return Invalid.PRICE
    floor = slot.floor_micros
    if bid.dealid is not None:
        if bid.dealid not in slot.deals:
            return Invalid.DEAL
        # A deal without a floor of its own has the impression's (section 7.11).
        floor = slot.deals[bid.dealid][0] or floor
    if _micros(bid.price) < floor:
        return Invalid.FLOOR
    if not (bid.adm or bid.nurl):
        return Invalid.EMPTY
    return None


def _sell(ask: Ask, bid: Bid, slot: Slot, currency: str, landscape: Landscape) -> int | None:
    price = _micros(bid.price)
    if bid.dealid is not None:
        floor, at = slot.deals[bid.dealid]
        return clearing_micros(price, 0, floor or slot.floor_micros, at)
    rival = landscape.rival_micros(bid.mtype, ask.country, currency)
    return clearing_micros(price, rival, slot.floor_micros, ask.at)


def spend_micros(won: Sequence[Won]) -> int:
    """Cost of single impressions in micros of a dollar, rounded up."""
    return sum(math.ceil(each.price_micros / UNITS.get(each.currency, 1.0) / 1000) for each in won)
