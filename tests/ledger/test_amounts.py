"""Amounts as decimals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.ledger.amounts import nanos_text, parse_nanos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, "0"), (5, "0.000000005"), (1_230_000_000, "1.23"), (-40_000_000_000, "-40")],
)
def test_texts(nanos: int, text: str) -> None:
    """The shortest decimal that says it all."""
    assert text == nanos_text(nanos)


@given(st.integers(-(10**20), 10**20))
def test_back_and_forth(nanos: int) -> None:
    """Nothing is rounded."""
    assert nanos == parse_nanos(nanos_text(nanos))


@pytest.mark.parametrize("text", ["", "1,5", "1e3", "0.1234567891", "nan", "1.", "٣"])
def test_what_is_no_amount(text: str) -> None:
    """Anything but a plain decimal is refused, more places than there are too."""
    with pytest.raises(ValueError, match="not a decimal"):
        parse_nanos(text)
