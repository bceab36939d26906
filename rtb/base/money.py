"""Money: integer micros of a named currency, and the few places where decimals become micros.

1 unit of a currency = 1,000,000 micros. Prices on the wire are CPM (per 1,000 impressions).
Rounding is always spelled: floors and costs round up (against us), wire decimals half-even.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final, NewType

Micros = NewType("Micros", int)

MICROS: Final = 1_000_000
# No impression costs 100,000 a thousand; above it a price is a mistake or an attack.
CPM_MICROS_MAX: Final = 100_000 * MICROS
# Digits before the point of an amount that is read: 10**15 micros are the most that any budget may
# have, and with six digits behind the point what is read still fits the default decimal context.
DIGITS_MAX: Final = 18


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up, for a positive denominator."""
    return -(-numerator // denominator)


def to_micros(amount: float) -> int:
    """A float amount of currency as micros, half-even: the one door from score to money."""
    return round(amount * MICROS)


def parse_micros(text: str) -> int:
    """A decimal text ("1.23") as micros, half-even.

    Raises: ValueError for anything that is not a finite decimal below 10**`DIGITS_MAX`.
    """
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"not a decimal: {text!r}") from error
    if not value.is_finite():
        raise ValueError(f"not finite: {text!r}")
    if value.adjusted() >= DIGITS_MAX:
        raise ValueError(f"too large: {text[:40]!r}")
    return int((value * MICROS).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def format_micros(micros: int) -> str:
    """Micros as the shortest exact decimal: 1_230_000 -> "1.23", 5_000_000 -> "5"."""
    sign = "-" if micros < 0 else ""
    whole, part = divmod(abs(micros), MICROS)
    if not part:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{part:06d}".rstrip("0")


def format_amounts(micros_by_currency: Mapping[str, int]) -> str:
    """Amounts of several currencies for people: "1.5 EUR, 2 USD"."""
    return ", ".join(f"{format_micros(one)} {name}" for name, one in micros_by_currency.items())


def currency_code(name: str) -> int:
    """An ISO 4217 code as the integer that records carry ("USD" -> 0x555344).

    Raises: ValueError unless it is three ASCII letters; lower case is accepted.
    """
    if len(name) != 3 or not (name.isascii() and name.isalpha()):
        raise ValueError(f"not an ISO 4217 currency: {name!r}")
    a, b, c = name.upper().encode()
    return a << 16 | b << 8 | c


def currency_name(code: int) -> str:
    """The inverse of `currency_code`."""
    return bytes((code >> 16 & 255, code >> 8 & 255, code & 255)).decode()
