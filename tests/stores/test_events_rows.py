"""What exported notices say of money is what the books would be told."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.events import MULTIPLIER_ONE, NO_PRICE, NOTICE, RATE_ONE, Kind, PriceState, cost_nanos
from rtb.keeper.apply import booking
from rtb.ledger.accounts import State
from rtb.ledger.commands import Post
from rtb.stores.events_names import Exchange
from rtb.stores.events_rows import NANOS_MAX, charged_nanos, costs_nanos
from tests.keeper.records import ADX, EXCHANGES, PIXEL
from tests.ledger.books import SHOES, Books, T, bid, enrol

EXPORTED = {
    ADX.claim_key: Exchange("adx", Kind.BILL, empty_is_bid=False),
    PIXEL.claim_key: Exchange("pixel", Kind.IMPRESSION, empty_is_bid=True),
}
RATES = st.sampled_from([RATE_ONE, 1, 7, 10**15])
MULTIPLIERS = st.sampled_from([MULTIPLIER_ONE, 1, 4_000_000_000])
KINDS = st.sampled_from([Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK])
MONEY = st.sampled_from([NO_PRICE, 0, 1, 999, 1_000, 1_001, 2_000_000, 10**12])


def _state() -> State:
    return Books(enrol()).state


@st.composite
def _notices(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    row = np.zeros(1, NOTICE)
    claims = row["claims"]
    claims["version"], claims["line_item"], claims["bid"] = 1, SHOES, bid(1)
    claims["exchange"] = draw(st.sampled_from([*EXPORTED, 12345]))
    claims["flags"] = draw(st.sampled_from([0, 0, 1, 2]))
    claims["price_micros"] = draw(st.sampled_from([1, 1_000, 2_000_000]))
    claims["rate_e9"] = draw(st.sampled_from([RATE_ONE, 1, 900_000_001, 10**12]))
    row["price_micros"], row["time_ms"] = draw(MONEY), T * 1000
    row["price_state"] = draw(st.sampled_from(PriceState))
    row["multiplier_e6"] = draw(st.sampled_from([MULTIPLIER_ONE, 1, 2_500_000]))
    if row["price_state"] == PriceState.OK and row["price_micros"] == NO_PRICE:
        row["price_micros"] = 5
    return int(
        draw(st.sampled_from([Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK]))
    ), row


@given(st.lists(_notices(), min_size=1, max_size=8))
def test_charged_is_what_the_keeper_posts(notices: list[tuple[int, np.ndarray]]) -> None:
    """By the same settings, to the nano; nothing where it posts nothing."""
    kinds = np.array([kind for kind, _ in notices])
    rows = np.concatenate([row for _, row in notices])
    posts = [booking(kind, row.tobytes(), EXCHANGES, _state()) for kind, row in notices]

    assert [one.nanos if isinstance(one, Post) else -1 for one in posts] == charged_nanos(
        kinds, rows, EXPORTED
    ).tolist()


@given(st.lists(st.tuples(MONEY, RATES, MULTIPLIERS), min_size=1))
def test_costs_of_many(rows: list[tuple[int, int, int]]) -> None:
    """As of one; none for no price, and for what no column could hold."""
    prices, rates, multipliers = (np.array(column) for column in zip(*rows, strict=True))
    expected = [
        cost if price != NO_PRICE and (cost := cost_nanos(price, rate, many)) <= NANOS_MAX else -1
        for price, rate, many in rows
    ]

    assert expected == costs_nanos(prices, rates.astype(np.uint64), multipliers).tolist()
