"""From a goal to a price: value of an impression, the floor that applies, the bid.

Readable twin of `ext/engine/price.pxi`. Values are floats (micros CPM) until the one
rounding to integer micros: values half-even, what may be paid at most down, floors up. A price
under its floor is no bid, and none is above what its line item pays.

Rates are decimals, and floats miss most of them by a hair: 4.20 at 1.16 would end below 4.872. So
what is rounded down gets a hair more first, what is rounded up a hair less: more than two rates, a
quotient and a product can miss together, and far less than anything that is written down.
"""

import math
from types import SimpleNamespace
from typing import Final

from rtb.base.money import CPM_MICROS_MAX
from rtb.base.reasons import Reject
from rtb.base.records import MULTIPLIER_E6_ONE
from rtb.catalogue import snapshot as snap

FIRST_PRICE, SECOND_PRICE, FIXED_PRICE = 1, 2, 3
IMPRESSIONS_PER_CPM: Final = 1000.0


A_LITTLE_MORE: Final = 1.0 + 2.0**-50
A_LITTLE_LESS: Final = 1.0 - 2.0**-50


class Rates:
    """Currency conversion by the rates file: value of one unit of each currency in one base."""

    def __init__(self, terms: SimpleNamespace) -> None:
        used = terms.rates[: terms.rates_count]
        self._rates = {int(rate["cur"]): float(rate["rate"]) for rate in used}

    def knows(self, currency: int) -> bool:
        return currency in self._rates

    def ratio(self, source: int, target: int) -> float | None:
        """Units of `target` for one unit of `source`; None without both rates."""
        if source == target:
            return 1.0
        if source not in self._rates or target not in self._rates:
            return None
        return self._rates[source] / self._rates[target] * A_LITTLE_MORE

    def down(self, micros: int, source: int, target: int) -> int:
        """The most that a price in `source` allows in `target`, of what anybody bids at all; both
        rates are known.
        """
        if source == target:
            return micros
        product = micros * (self._rates[source] / self._rates[target] * A_LITTLE_MORE)
        return CPM_MICROS_MAX if product > CPM_MICROS_MAX else math.floor(product)

    def up(self, micros: int, source: int, target: int) -> int:
        """A floor in another currency, rounded up: against us. Both rates are known.

        What no bid can reach is CPM_MICROS_MAX + 1.
        """
        if source == target:
            return micros
        product = micros * (self._rates[source] / self._rates[target] * A_LITTLE_LESS)
        return CPM_MICROS_MAX + 1 if product > CPM_MICROS_MAX else math.ceil(product)


def response_currency(head: SimpleNamespace, terms: SimpleNamespace, rates: Rates) -> int:
    """The currency to answer in: the first that the request lists and we can price; 0 = none."""
    ours = terms.currencies[: terms.currencies_count]
    asked = head.cur[: head.cur_count] if head.cur_count else [terms.cur_default]
    for currency in asked:
        if rates.knows(currency) and (not ours or currency in ours):
            return int(currency)
    return 0


def value_micros(line_item: SimpleNamespace, ctr: float, cvr: float) -> float:
    """What 1,000 impressions are worth to the line item, in its currency; 0 when unknown.

    CPM: the price itself. CPC: ctr x price of a click. CPA: ctr x cvr x price of an action.
    ROAS: ctr x cvr x order value / target. Bounded by `max_cpm_micros`.
    """
    bid = float(line_item.bid_micros)
    if line_item.goal == snap.GOAL_CPM:
        value = bid
    elif line_item.goal == snap.GOAL_CPC:
        value = ctr * bid * IMPRESSIONS_PER_CPM
    elif line_item.goal == snap.GOAL_CPA:
        value = ctr * cvr * bid * IMPRESSIONS_PER_CPM
    else:
        order = float(line_item.order_value_micros)
        value = ctr * cvr * order / line_item.target_roas * IMPRESSIONS_PER_CPM
    if not math.isfinite(value) or value <= 0.0:
        return 0.0
    return min(value, float(line_item.max_cpm_micros))


def floor_of(
    imp: SimpleNamespace,
    av: SimpleNamespace | None,
    deal: SimpleNamespace | None,
    dur_s: int,
    durfloors: list[SimpleNamespace],
) -> tuple[int, int]:
    """(floor in micros CPM, its currency), by the precedence of OpenRTB 2.6 section 7.11.

    With a deal: the deal's durfloors, else mincpmpersec, else bidfloor. Without one, or when the
    deal says nothing: the media's durfloors or mincpmpersec; else imp.bidfloor.
    """
    if deal is not None:
        floor = _timed_floor(deal, dur_s, durfloors)
        if floor is None and deal.floor_micros > 0:
            floor = int(deal.floor_micros)
        if floor is not None:
            return floor, deal.floor_cur
    if av is not None:
        floor = _timed_floor(av, dur_s, durfloors)
        if floor is not None:
            return floor, imp.floor_cur
    return imp.floor_micros, imp.floor_cur


def _timed_floor(
    owner: SimpleNamespace, dur_s: int, durfloors: list[SimpleNamespace]
) -> int | None:
    """The highest floor among the duration ranges that hold, else seconds x mincpmpersec."""
    start = owner.durfloors_start
    fitting = [
        entry.floor_micros
        for entry in durfloors[start : start + owner.durfloors_count]
        if dur_s >= entry.mindur_s and (not entry.maxdur_s or dur_s <= entry.maxdur_s)
    ]
    if fitting and dur_s > 0:
        return int(max(fitting))
    if owner.mincpmpersec_micros > 0 and dur_s > 0:
        return int(owner.mincpmpersec_micros * dur_s)
    return None


def paced(value: float, multiplier_e6: int) -> float:
    """A value as pacing lets it count: it only ever lowers it."""
    return value * min(multiplier_e6, MULTIPLIER_E6_ONE) / MULTIPLIER_E6_ONE


def bid_price(
    at: int, value: float, paced_value: float, shade: float, floor: int, most: int
) -> tuple[int, Reject]:
    """The price in micros CPM for an auction of type `at`, or why there is none.

    First price: the shaded value, lifted to the floor where the value allows. Second price (and
    types we do not know): the value. Both as pacing has it. Fixed price: exactly the floor, which
    pacing cannot move. None is over `most`, the line item's highest price.
    """
    is_over = float(floor) > value or floor > most
    if at == FIXED_PRICE:
        return (0, Reject.OVER_MAX_BID) if is_over else (floor, Reject.NONE)
    price = min(round(paced_value * shade if at == FIRST_PRICE else paced_value), most)
    if price < floor and float(floor) <= paced_value and not is_over:
        price = floor
    if price < floor:
        return 0, Reject.BELOW_FLOOR if is_over else Reject.PACED
    if price <= 0:
        return 0, Reject.NO_VALUE
    return price, Reject.NONE


def auction_type(
    head: SimpleNamespace, deal: SimpleNamespace | None, terms: SimpleNamespace
) -> int:
    """deal.at overrides request.at; the exchange's default stands for an absent one.

    Type 3 on a request (some exchanges send it) counts for its deals only: the open market has no
    agreed price.
    """
    at: int = head.at or terms.at_default
    if deal is not None and deal.at:
        at = deal.at
    if at == FIXED_PRICE and deal is None:
        return SECOND_PRICE
    return at
