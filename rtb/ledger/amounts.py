"""Nanos as decimals and back: the text of amounts in reports, exact to the last digit."""

import re
from typing import Final

NANOS: Final = 1_000_000_000  # of one unit of a currency
_DIGITS: Final = 9
_DECIMAL = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?", re.ASCII)


def nanos_text(nanos: int) -> str:
    """The shortest exact decimal: 1_230_000_000 -> "1.23", 5 -> "0.000000005"."""
    sign = "-" if nanos < 0 else ""
    whole, part = divmod(abs(nanos), NANOS)
    if not part:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{part:0{_DIGITS}d}".rstrip("0")


def parse_nanos(text: str) -> int:
    """The inverse. Raises: ValueError for anything but a decimal of at most nine places."""
    found = _DECIMAL.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a decimal of at most {_DIGITS} places: {text!r}")
    sign, whole, part = found.groups()
    nanos = int(whole) * NANOS + int((part or "").ljust(_DIGITS, "0"))
    return -nanos if sign else nanos
