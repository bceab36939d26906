"""What currencies are worth to the exchange: to draw rivals' prices, and to add up for people."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from rtb.base.errors import ConfigError
from rtb.base.money import currency_name
from rtb.server import settings

# Those of the seeded traffic, roughly; another rate would be another world.
_OWN: Final = {"USD": 1.0, "EUR": 0.9, "GBP": 0.8}


@cache
def units() -> Mapping[str, float]:
    """Units of a currency for one US dollar: our own, and others by the shipped rates file."""
    try:
        rows = settings.load_rates(settings.CONFIGS / settings.Files().rates)
    except ConfigError:
        return _OWN  # installed without the file: only these can be added up
    rates = {
        currency_name(code): rate
        for code, rate in zip(rows["cur"].tolist(), rows["rate"].tolist(), strict=True)
    }
    dollar = rates.get("USD", 0.0)
    return {name: dollar / rate for name, rate in rates.items() if dollar and rate > 0} | _OWN


def in_dollars(amounts: Mapping[str, int]) -> float:
    """Nanos by currency together, in dollars; a currency that nobody has a rate for is left out."""
    known = units()
    return sum(nanos / known[name] for name, nanos in amounts.items() if name in known) / 1e9
