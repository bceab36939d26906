"""Rules of what several kinds of objects have: amounts, budgets, flights, caps, URLs.

Each states what must be, and yields what is not, at the field that its caller names.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, Literal

from rtb.catalogue.model import (
    Advertiser,
    Amount,
    Budget,
    Flight,
    FrequencyCap,
    flight_ms,
    is_zone,
    micros,
    window_s,
)

Severity = Literal["error", "warning"]
Remark = tuple[str, str] | tuple[str, str, Severity]  # field, message, severity
Remarks = Iterator[Remark]

# Below a thousandth of a unit an amount is probably units that should be micros.
SUSPICIOUS_MICROS: Final = 1_000
# Totals go further than prices, but stay exact in 64 bits with room to add them up.
TOTAL_MICROS_MAX: Final = 10**15
IMPRESSIONS_MAX: Final = 10**12
# What the budget of each object can say.
_BUDGETS: Final = {
    "advertiser": ("total",),
    "campaign": ("total", "daily"),
    "flight": ("total", "impressions"),
    "line item": ("total", "daily", "impressions", "mode"),
}

# A host, then anything that stands in a URL or a macro. No credentials: they only deceive.
_URL = re.compile(
    r"https?://[^\s/?#@\"<>\\^`\x00-\x20]+(?:[/?#][^\s\"<>\\^`\x00-\x20]*)?", re.IGNORECASE
)


def amount(field: str, amount: Amount | None, top: int, least: int = 1) -> Remarks:
    """An amount within [least, top] micros; None is no amount."""
    if amount is None:
        return
    try:
        value = micros(amount)
    except ValueError as error:
        yield field, str(error)
        return
    if not least <= value <= top:
        yield field, f"out of range: {amount!r}"
    elif isinstance(amount, int) and 0 < value < SUSPICIOUS_MICROS:
        yield field, f"{amount} micros is next to nothing; as text it would be units", "warning"


def budget(budget: Budget, owner: str, field: str = "budget") -> Remarks:
    """A budget that says only what one of its owner's kind can."""
    for name in Budget.__struct_fields__:
        if name not in _BUDGETS[owner] and getattr(budget, name) != getattr(Budget(), name):
            yield f"{field}.{name}", f"the budget of a {owner} has {', '.join(_BUDGETS[owner])}"
    yield from amount(f"{field}.total", budget.total, TOTAL_MICROS_MAX, 0)
    yield from amount(f"{field}.daily", budget.daily, TOTAL_MICROS_MAX, 0)
    if budget.impressions is not None:
        yield from number(f"{field}.impressions", budget.impressions, 0, IMPRESSIONS_MAX)


def number(field: str, value: float, low: float, high: float, open_low: bool = False) -> Remarks:
    """A number within [low, high], or within (low, high]."""
    inside = low < value <= high if open_low else low <= value <= high
    if not inside:
        start = "over" if open_low else "from"
        yield field, f"expected a number {start} {low:g} to {high:g}, got {value!r}"


def caps(caps: tuple[FrequencyCap, ...], levels: tuple[str, ...]) -> Remarks:
    """Frequency caps that count at some of these levels."""
    for index, cap in enumerate(caps):
        place = f"frequency_caps[{index}]"
        yield from number(f"{place}.count", cap.count, 1, 1_000_000)
        if cap.level not in (None, *levels):
            yield f"{place}.level", f"expected one of {', '.join(levels)}"
        try:
            window_s(cap.window)
        except ValueError as error:
            yield f"{place}.window", str(error)


def flights(flights: tuple[Flight, ...], advertiser: Advertiser | None) -> Remarks:
    """Flights that end after they start, one at a time."""
    timezone = advertiser.timezone if advertiser and is_zone(advertiser.timezone) else "UTC"
    spans: list[tuple[int, int, int]] = []
    for index, flight in enumerate(flights):
        yield from budget(flight.budget, "flight", f"flights[{index}].budget")
        try:
            start, end = flight_ms(flight, timezone)
        except (ValueError, OverflowError) as error:
            yield f"flights[{index}]", str(error)
            continue
        if end <= start:
            yield f"flights[{index}]", "ends before it starts"
        else:
            spans.append((start, end, index))
    spans.sort()
    for (_, end, first), (start, _, second) in pairwise(spans):
        if start < end:
            # A moment has one flight, or its money would have two budgets.
            yield f"flights[{second}]", f"overlaps flights[{first}]"


def each(field: str, values: tuple[str, ...], read: Callable[[str], str]) -> Remarks:
    """Values that a reader takes."""
    for index, value in enumerate(values):
        try:
            read(value)
        except ValueError as error:
            yield f"{field}[{index}]", f"{error}, got {value!r}"


def url(field: str, url: str | None, secure: bool | None) -> Remarks:
    """A URL that a browser may open; None is no URL."""
    if url is None:
        return
    if not _URL.fullmatch(url):
        yield field, f"expected a URL that begins with https://, got {url[:80]!r}"
    elif url.lower().startswith("http://"):
        if secure:
            yield field, "http:// in a creative that is declared secure"
        else:
            yield field, "http:// is not served where the exchange asks for https", "warning"
