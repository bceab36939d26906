"""Reads billing reports of exchanges: CSV with a header, one line an impression.

    bid        id of the bid, up to 16 hex digits
    imp        impression of the request; not looked at
    price      cleared CPM, a decimal
    currency   of price and cost, ISO 4217
    cost       of this one impression, a decimal of up to nine places
    time       when it was billed, ISO 8601 with its zone
    exchange   who bills, by its name in our settings

Columns may stand in any order, and others besides.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from rtb.base.errors import InputError
from rtb.base.money import currency_code, parse_micros
from rtb.ledger.amounts import parse_nanos

HEADER: Final = ("bid", "imp", "price", "currency", "cost", "time", "exchange")
_UNREAD: Final = frozenset({"imp"})
_BID = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)

T = TypeVar("T")


class Billed(NamedTuple):
    """A line; `nanos` is its cost."""

    bid: int
    price_micros: int
    currency: str
    nanos: int
    time_s: int
    exchange: str


def read(path: Path) -> Iterator[Billed]:
    """The lines of a report.

    Raises: InputError with row and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            found = set(rows.fieldnames or ())
            missing = [name for name in HEADER if name not in found | _UNREAD]
            if missing:
                raise InputError(f"no column {', '.join(missing)}", f"{path} row 1")
            for row in rows:
                yield _billed(row, f"{path} row {rows.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", str(path)) from error


def _billed(row: Mapping[str, str | None], place: str) -> Billed:
    return Billed(
        bid=_field(row, "bid", _bid, place),
        price_micros=_field(row, "price", parse_micros, place),
        currency=_field(row, "currency", _currency, place),
        nanos=_field(row, "cost", parse_nanos, place),
        time_s=_field(row, "time", _time_s, place),
        exchange=_field(row, "exchange", str, place),
    )


def _field(row: Mapping[str, str | None], name: str, parse: Callable[[str], T], place: str) -> T:
    try:
        return parse((row[name] or "").strip())
    except ValueError as error:
        raise InputError(str(error), f"{place} field {name}") from error


def _bid(text: str) -> int:
    if not _BID.fullmatch(text):
        raise ValueError(f"expected up to 16 hex digits, got {text!r}")
    return int(text, 16)


def _currency(text: str) -> str:
    currency_code(text)
    return text.upper()


def _time_s(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"expected a time with its zone, got {text!r}")
    return int(moment.timestamp())
