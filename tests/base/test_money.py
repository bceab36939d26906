"""Money: decimals become micros once, exactly, and back."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.events import RATE_ONE, cost_nanos
from rtb.base.money import (
    ceil_div,
    currency_code,
    currency_name,
    format_micros,
    parse_micros,
    to_micros,
)


@given(st.integers(-(10**15), 10**15))
def test_micros_survive_text(micros: int) -> None:
    """Formatting and parsing give the same micros, and the text is the exact decimal."""
    text = format_micros(micros)

    assert micros == parse_micros(text)
    assert Decimal(micros) / 1_000_000 == Decimal(text)


@pytest.mark.parametrize(
    ("text", "micros"),
    [("1.23", 1_230_000), ("0.0000005", 0), ("0.0000015", 2), ("1e-6", 1), ("-2", -2_000_000)],
)
def test_decimals_round_half_even(text: str, micros: int) -> None:
    """Wire decimals are rounded half-even, never truncated."""
    assert micros == parse_micros(text)


@pytest.mark.parametrize("text", ["", "NaN", "inf", "1,5", "abc"])
def test_what_is_no_decimal_is_refused(text: str) -> None:
    """Nothing but a finite decimal becomes money."""
    with pytest.raises(ValueError, match="not"):
        parse_micros(text)


@pytest.mark.parametrize("text", ["1e30", "9" * 25, "-1e18", "1e999999"])
def test_an_amount_beyond_all_budgets_is_refused(text: str) -> None:
    """What no integer of ours holds is said so, and reckoned with no further."""
    with pytest.raises(ValueError, match="too large"):
        parse_micros(text)


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_ceil_div(numerator: int, denominator: int) -> None:
    """Division rounds up: the smallest integer that is not less."""
    result = ceil_div(numerator, denominator)

    assert (result - 1) * denominator < numerator <= result * denominator


def test_to_micros_is_half_even() -> None:
    """Scores become micros by rounding half to even."""
    assert [2, 4] == [to_micros(0.0000025), to_micros(0.0000035)]


def test_currency_codes() -> None:
    """A currency is a number and back; what is no currency is refused."""
    assert "EUR" == currency_name(currency_code("eur"))
    for wrong in ("EU", "EURO", "E1R", "ÄÖÜ"):
        with pytest.raises(ValueError, match="ISO 4217"):
            currency_code(wrong)


@pytest.mark.parametrize("rate_e9", [RATE_ONE, 1_083_417_905])
def test_ten_million_impressions_cost_their_sum(rate_e9: int) -> None:
    """10^7 impressions at 20,000 prices add up to the invoice: to the nano in one currency, and in
    another never below it nor a nano an impression above."""
    chance = np.random.default_rng(26)
    prices = chance.integers(0, 10**11, 20_000).tolist()
    counts = np.bincount(chance.integers(0, len(prices), 10**7), minlength=len(prices)).tolist()
    exact = sum(price * count for price, count in zip(prices, counts, strict=True)) * rate_e9
    booked = sum(
        cost_nanos(price, rate_e9) * count for price, count in zip(prices, counts, strict=True)
    )

    assert 10**7 == sum(counts)
    assert 0 <= booked * RATE_ONE - exact < 10**7 * RATE_ONE
    if rate_e9 == RATE_ONE:
        assert exact == booked * RATE_ONE
