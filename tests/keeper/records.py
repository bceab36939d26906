"""Records for tests of the keeper, as workers write them."""

import numpy as np

from rtb.base.events import (
    BID,
    CLAIMS,
    CLAIMS_VERSION,
    CONVERSION,
    MULTIPLIER_ONE,
    NO_PRICE,
    NOTICE,
    RATE_ONE,
    PriceState,
)  # fmt: skip
from rtb.exchanges.settings import Exchange

ADX = Exchange(name="adx", path="adx", reservation_ttl_s=60)
PIXEL = Exchange(name="pixel", path="pixel", settle_on="impression", empty_price="bid")
WINS = Exchange(name="wins", path="wins", settle_on="nurl", reservation_ttl_s=60)
EXCHANGES = {one.claim_key: one for one in (ADX, PIXEL, WINS)}


def claims(
    bid: int, line_item: int, micros: int = 1000, flags: int = 0, exchange: Exchange = ADX,
    rate_e9: int = RATE_ONE, version: int = CLAIMS_VERSION,
) -> np.ndarray:  # fmt: skip
    """What a bid says of itself."""
    found = np.zeros(1, CLAIMS)
    found["version"], found["flags"], found["exchange"] = version, flags, exchange.claim_key
    found["bid"], found["line_item"] = bid, line_item
    found["price_micros"], found["rate_e9"] = micros, rate_e9
    return found


def bid_body(said: np.ndarray, nanos: int, time_ms: int) -> bytes:
    """The record of a bid that reserved `nanos`."""
    found = np.zeros(1, BID)
    found["claims"], found["reserve_nanos"], found["time_ms"] = said, nanos, time_ms
    return found.tobytes()


def notice_body(
    said: np.ndarray, time_ms: int, micros: int = NO_PRICE, state: int = PriceState.OK,
    multiplier_e6: int = MULTIPLIER_ONE,
) -> bytes:  # fmt: skip
    """The record of a notice."""
    found = np.zeros(1, NOTICE)
    found["claims"], found["time_ms"], found["price_micros"] = said, time_ms, micros
    found["price_state"], found["multiplier_e6"] = state, multiplier_e6
    return found.tobytes()


def conversion_body(said: np.ndarray, time_ms: int, order: int, micros: int) -> bytes:
    """The record of a conversion worth some euros."""
    found = np.zeros(1, CONVERSION)
    found["claims"], found["time_ms"], found["order"] = said, time_ms, order
    found["value_micros"], found["currency"] = micros, 0x455552
    found["value_state"] = PriceState.NONE if micros == NO_PRICE else PriceState.OK
    return found.tobytes()
