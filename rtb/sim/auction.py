"""The exchange's side of an auction: is the answer valid, does it win, what does it pay.

Rivals are a landscape of prices: log-normal by medium and country, drawn from a seed. Pure, but for
the landscape's own counter. Prices are integer micros CPM of the currency of the answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
import numpy as np

from rtb.base.hashing import mix64
from rtb.base.money import MICROS
from rtb.sim.currencies import units

# Median of the best rival price for a thousand impressions in dollars, by `bid.mtype`.
RIVAL_CPM: Final = {1: 4.8, 2: 24.0, 3: 14.0, 4: 6.0}
RIVAL_SPREAD: Final = 0.65
# Where advertisers pay more than elsewhere, and less.
MARKET: Final = {"USA": 1.3, "GBR": 1.1, "CAN": 1.1, "AUS": 1.1, "BRA": 0.5, "ITA": 0.8, "ESP": 0.8}
# A second-price winner pays this much more than the next.
INCREMENT_MICROS: Final = MICROS // 100
_DRAWS: Final = 1 << 16


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


# What the bidder is told (OpenRTB 2.6 section 5.25).
LOSS_CODES: Final[Mapping[Loss | Invalid, int]] = {
    Loss.OUTBID: 102,
    Loss.OWN_BID: 102,
    Loss.LATE: 2,
    Invalid.NOT_JSON: 3,
    Invalid.ID: 5,
    Invalid.CURRENCY: 3,
    Invalid.IMPRESSION: 3,
    Invalid.DEAL: 4,
    Invalid.FLOOR: 100,
    Invalid.PRICE: 9,
    Invalid.EMPTY: 7,
}
BELOW_DEAL_FLOOR: Final = 101


class Bid(msgspec.Struct):
    """The fields of a bid that an exchange needs (OpenRTB 2.6 section 4.2.3)."""

    impid: str
    price: float
    id: str = ""
    dealid: str | None = None
    mtype: int = 1
    adid: str = ""
    crid: str = ""
    adm: str | None = None
    nurl: str | None = None
    burl: str | None = None
    lurl: str | None = None
    dur: int = 0


class SeatBid(msgspec.Struct):
    bid: list[Bid] = []
    seat: str = ""


class Answer(msgspec.Struct):
    """A bid response."""

    id: str | None = None
    seatbid: list[SeatBid] = []
    bidid: str = ""
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


class Offer(NamedTuple):
    """A bid and the seat that made it."""

    bid: Bid
    seat: str = ""


class Won(NamedTuple):
    """One sold impression: what it clears at, and what would have been enough to win it."""

    price_micros: int
    currency: str
    min_to_win_micros: int
    offer: Offer


class Lost(NamedTuple):
    """A bid that is not sold; `min_to_win_micros` is 0 where no price would have won."""

    why: Loss | Invalid
    min_to_win_micros: int
    offer: Offer

    @property
    def code(self) -> int:
        """The loss reason as the bidder is told."""
        if self.why is Invalid.FLOOR and self.offer.bid.dealid is not None:
            return BELOW_DEAL_FLOOR
        return LOSS_CODES[self.why]


@dataclass(slots=True)
class Verdict:
    """What became of one answer. `faults` are of the whole answer or of single bids."""

    bids: int = 0
    won: list[Won] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    faults: list[Invalid] = field(default_factory=list)

    @property
    def losses(self) -> list[Loss]:
        """Why valid bids did not win."""
        return [each.why for each in self.lost if isinstance(each.why, Loss)]


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
    """The best price of all rivals, impression after impression of an auction."""

    def __init__(self, seed: int) -> None:
        draws = np.random.default_rng([seed & 0xFFFFFFFF, 1]).standard_normal(_DRAWS)
        self._factors: list[float] = np.exp(RIVAL_SPREAD * draws).tolist()
        self._next = 0

    def begin(self, serial: int) -> None:
        """The rivals of an auction are its own, in whatever order answers come."""
        self._next = mix64(serial) & _DRAWS - 1

    def rival_micros(self, mtype: int, country: str, currency: str) -> int:
        """The next rival price for an impression of this kind; in a currency that nobody has a rate
        for, as many of its units as dollars."""
        self._next = self._next + 1 & _DRAWS - 1
        amount = RIVAL_CPM.get(mtype, RIVAL_CPM[1]) * MARKET.get(country, 0.9)
        return round(amount * units().get(currency, 1.0) * self._factors[self._next] * MICROS)


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


def judge(ask: Ask, answer: Answer, landscape: Landscape, sent_id: str) -> Verdict:
    """Checks and auctions all bids of an answer that came in time.

    sent_id: the id that the request went out with.
    """
    verdict = Verdict()
    offers = [Offer(bid, seat.seat) for seat in answer.seatbid for bid in seat.bid]
    whole = _whole(ask, answer, sent_id)
    if whole is not None:
        verdict.faults.append(whole)
        verdict.lost += [Lost(whole, 0, offer) for offer in offers]
        return verdict
    # Deals first: a deal bid that reaches its floor is preferred to the open market.
    offers.sort(key=lambda offer: (offer.bid.dealid is None, -offer.bid.price))
    sold: dict[str, int] = {}
    for offer in offers:
        fault = _fault(ask, offer.bid)
        if fault is None:
            verdict.bids += 1
            _settle(ask, offer, answer.cur, landscape, sold, verdict)
        else:
            verdict.faults.append(fault)
            verdict.lost.append(Lost(fault, _floor(ask, offer.bid), offer))
    return verdict


def too_late(answer: Answer) -> Verdict:
    """An answer that came when the auction was over: its bids are lost, none is judged."""
    offers = [Offer(bid, seat.seat) for seat in answer.seatbid for bid in seat.bid]
    return Verdict(lost=[Lost(Loss.LATE, 0, offer) for offer in offers])


def _whole(ask: Ask, answer: Answer, sent_id: str) -> Invalid | None:
    """What is wrong with an answer as a whole."""
    if answer.id is not None and answer.id != sent_id:
        return Invalid.ID
    if ask.currencies and answer.cur not in ask.currencies:
        return Invalid.CURRENCY
    return None


def _fault(ask: Ask, bid: Bid) -> Invalid | None:
    slot = ask.slots.get(bid.impid)
    if slot is None:
        return Invalid.IMPRESSION
    if not math.isfinite(bid.price) or bid.price <= 0.0:
        return Invalid.PRICE
    if bid.dealid is not None and bid.dealid not in slot.deals:
        return Invalid.DEAL
    if _micros(bid.price) < _floor(ask, bid):
        return Invalid.FLOOR
    if not (bid.adm or bid.nurl):
        return Invalid.EMPTY
    return None


def _floor(ask: Ask, bid: Bid) -> int:
    """What a bid must reach: a deal without a floor of its own has the impression's (7.11)."""
    slot = ask.slots.get(bid.impid)
    if slot is None:
        return 0
    return (slot.deals.get(bid.dealid or "", (0, 0))[0]) or slot.floor_micros


def _settle(
    ask: Ask,
    offer: Offer,
    currency: str,
    landscape: Landscape,
    sold: dict[str, int],
    verdict: Verdict,
) -> None:
    """Sells an impression to a valid bid, or says who was better."""
    bid = offer.bid
    slot = ask.slots[bid.impid]
    if bid.impid in sold and not slot.pod:
        verdict.lost.append(Lost(Loss.OWN_BID, sold[bid.impid], offer))
        return
    floor, at, rival = _floor(ask, bid), ask.at, 0
    if bid.dealid is None:
        rival = landscape.rival_micros(bid.mtype, ask.country, currency)
    else:
        at = slot.deals[bid.dealid][1]
    price = clearing_micros(_micros(bid.price), rival, floor, at)
    if price is None:
        enough = rival if at == 1 else min(rival, _micros(bid.price) + INCREMENT_MICROS)
        verdict.lost.append(Lost(Loss.OUTBID, max(enough, floor), offer))
        return
    sold[bid.impid] = price
    verdict.won.append(Won(price, currency, max(rival, floor), offer))


def spend_micros(won: Sequence[Won]) -> int:
    """Cost of single impressions in micros of a dollar, rounded up; currencies without a rate are
    left out."""
    known = units()
    return sum(
        math.ceil(each.price_micros / known[each.currency] / 1000)
        for each in won if each.currency in known
    )  # fmt: skip
