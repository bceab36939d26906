"""What currencies are worth to the exchange: to draw rivals' prices, and to add up for people."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from rtb.base.errors import ConfigError
from rtb.base.money import currency_name
from rtb.server import settings

# Rivals of the seeded traffic bid by these; by another rate it would be another world.
_OWN: Final = {"USD": 1.0, "EUR": 0.9, "GBP": 0.8}


def units() -> Mapping[str, float]:
    """Units of a currency for one US dollar, for rivals: our own, others by the rates file."""
    return _shipped() | _OWN


@cache
def _shipped() -> dict[str, float]:
    """Units of a currency for one US dollar, as the bidder reckons."""
    try:
        rows = settings.load_rates(settings.CONFIGS / settings.Files().rates)
    except ConfigError:
        return dict(_OWN)  # installed without the file: only these can be added up
    rates = {
        currency_name(code): rate
        for code, rate in zip(rows["cur"].tolist(), rows["rate"].tolist(), strict=True)
    }
    dollar = rates.get("USD", 0.0)
    return {name: dollar / rate for name, rate in rates.items() if dollar and rate > 0}


def in_dollars(amounts: Mapping[str, int]) -> float:
    """Nanos by currency together, in dollars; a currency that nobody has a rate for is left out."""
    known = _shipped()
    return sum(nanos / known[name] for name, nanos in amounts.items() if name in known) / 1e9
