"""The shop behind an ad: who clicked gets there, perhaps buys, and the shop reports it. Pure.

The shop knows of the ad what the landing page was called with: the bidder's token, anywhere in its
query. It reports a conversion with it, an order with id and value mostly, a sign-up at times. An ad
whose landing page asks for no token is clicked and bought from all the same, and nobody is told.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from rtb.base.events import Kind
from rtb.base.money import format_micros
from rtb.notices.tokens import TOKEN_CHARS
from rtb.notices.urls import PATHS, PREFIX
from rtb.sim.dice import Dice

# Of conversions; the others are sign-ups, which have no value.
ORDERS_SHARE: Final = 0.8
# Values are uniform up to this, in whole hundredths.
VALUE_CENTS_MAX: Final = 20_000
_CENT_MICROS: Final = 10_000
_TOKEN = re.compile(rf"[?&][^=&#]+=([A-Za-z0-9_\-]{{{TOKEN_CHARS}}})(?=[&#]|$)")
_PATH: Final = PREFIX + PATHS[Kind.CONVERSION, 0]


@dataclass(slots=True, eq=False)
class Shopper:
    """Who clicked on a bid: whether he buys is drawn when he gets to the shop, once.

    currency: of the shop
    """

    bid: str
    odds: float
    currency: str
    dice: Dice
    is_there: bool = False


@dataclass(slots=True, eq=False)
class Order:
    """What a shop reports; `value_micros` 0: a sign-up. `is_told`: the bidder took it."""

    id: str
    value_micros: int
    currency: str
    is_told: bool = False


def order_of(shopper: Shopper) -> Order | None:
    """What somebody does who gets to the shop; None: nothing."""
    if shopper.is_there:
        return None
    shopper.is_there = True
    dice = shopper.dice
    if not dice.hits(shopper.odds):
        return None
    if not dice.hits(ORDERS_SHARE):
        return Order("", 0, shopper.currency)
    cents = 1 + int(dice.unit() * VALUE_CENTS_MAX)
    return Order(f"o-{shopper.bid}", cents * _CENT_MICROS, shopper.currency)


def report_url(click_url: str, page: str, order: Order) -> str:
    """Where the shop reports an order; "" where the page was called without a token."""
    token = _TOKEN.search(page)
    if token is None:
        return ""
    base = click_url.partition(PREFIX)[0]
    said = {
        "order": order.id,
        "value": format_micros(order.value_micros),
        "currency": order.currency,
    }
    query = f"?{urlencode(said)}" if order.id else ""
    return f"{base}{_PATH}/{token[1]}{query}"
