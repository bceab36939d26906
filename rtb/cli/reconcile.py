"""The three comparisons of the books: with their rows, with the journals, with invoices.

What no money moves by is counted on the way: conversions, which stand in the journals only.

Everything is read beside a running node. The books and the positions of the journals are one look,
so what the journals say up to those positions is what the books must say. Bids of a time whose
records are partly retired are left out on both sides.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from rtb.base.errors import ConfigError, InputError
from rtb.base.events import (
    CONVERSION,
    NOTICE,
    RATE_ONE,
    Kind,
    bid_time_s,
    cost_nanos,
    record_time_ms,
)
from rtb.base.money import ceil_div, currency_name
from rtb.exchanges.settings import Exchange
from rtb.keeper import letters as dead
from rtb.ledger import audit
from rtb.ledger.accounts import Line, place
from rtb.ledger.audit import Charges, Terms, Verdict
from rtb.ledger.calendar import day_name
from rtb.notices.conversions import Conversions
from rtb.notices.notice import CONVERSIONS
from rtb.notices.settle import settles
from rtb.stores import invoice_read
from rtb.stores.invoice_read import Billed
from rtb.stores.journal import Kernel
from rtb.stores.journal_kept import Kept, Records, kept_in
from rtb.stores.ledger_view import LedgerView, Look, name_of
from rtb.stores.serving import StatePaths

_SETTLING: Final = (Kind.WIN, Kind.BILL, Kind.IMPRESSION)
_DAY_S: Final = 86_400
NANOS_PER_MICRO: Final = 1000
# Findings of one invoice that are listed; all are counted.
FINDINGS_MAX: Final = 1_000


class Journal(msgspec.Struct, frozen=True):
    """One journal: records `first` to `last` are kept, those to `booked` are in the books."""

    name: str
    first: int
    last: int
    booked: int


class Spent(msgspec.Struct, frozen=True):
    """What a line item spent in a day, by the journals and by the books; nanos of `currency`."""

    line_item: str
    day: str
    currency: str
    journals_nanos: int
    books_nanos: int


class Finding(msgspec.Struct, frozen=True):
    """A bid on which invoice and books differ; amounts in nanos."""

    bid: str
    verdict: str
    invoiced_nanos: int
    booked_nanos: int


class Compared(msgspec.Struct, frozen=True):
    """The invoices of one exchange in one currency."""

    exchange: str
    currency: str
    lines: int
    counts: dict[str, int]
    invoiced_nanos: int
    booked_nanos: int
    findings: list[Finding]


class Converted(msgspec.Struct, frozen=True):
    """Conversions of one line item in the journals; their value in micros by currency."""

    line_item: str
    conversions: int
    orders: int
    value_micros: dict[str, int]


class Report(msgspec.Struct, frozen=True):
    """An audit. `from_s` is not 0 where only bids since then could be compared.

    agrees: nothing differs, and no record is missing that an operator has not given up
    """

    agrees: bool
    difference_micros: int
    books: list[str]
    journals: list[Journal]
    records: int
    bills: int
    not_applied: int
    left_out: dict[str, int]
    notes: list[str]
    from_s: int
    spend: list[Spent]
    invoices: list[Compared]
    conversions: list[Converted]


class Node(NamedTuple):
    """What is audited, and how its exchanges settle, by `claims.exchange`."""

    paths: StatePaths
    exchanges: Mapping[int, Exchange]
    kernel: Kernel


# -- journals --------------------------------------------------------------------------------------


@dataclass
class _Read:
    """What the journals say up to where the books are."""

    charges: Charges
    conversions: Conversions
    journals: list[Journal]
    records: int
    not_applied: int
    notes: list[str]
    from_s: int
    damaged: int = 0  # records that are missing, and that no operator has given up


def _first_time_ms(paths: StatePaths, kept: Kept, kernel: Kernel) -> int:
    """When the oldest record was written that a journal still has."""
    for _, kind, body in Records(paths.journals, kept, kept.last, kernel):
        time_ms = record_time_ms(kind, body)
        if time_ms is not None:
            return time_ms
    return 0


def _from_s(node: Node, kept: Iterable[Kept]) -> int:
    """Bids made since then have all their records; 0 where no record was ever retired."""
    times = [_first_time_ms(node.paths, one, node.kernel) for one in kept if one.first > 1]
    return max(times) // 1000 + 1 if times else 0


def _read(node: Node, kept: list[Kept], look: Look, from_s: int) -> _Read:
    found = _Read(Charges(), Conversions(from_s), [], 0, 0, [], from_s)
    letters = {(one.journal, one.sequence): one for one in dead.read(node.paths.letters)}
    days = _Days(look.lines)
    terms = {key: _terms(exchange) for key, exchange in node.exchanges.items()}
    for journal in kept:
        name = next((name for name in look.positions if journal.is_named(name)), "")
        booked = look.positions.get(name, 0)
        found.journals.append(Journal(name or str(journal.worker), journal.first, journal.last,
                                      booked))  # fmt: skip
        found.not_applied += max(journal.last - booked, 0)
        records = Records(node.paths.journals, journal, booked, node.kernel)
        for sequence, kind, body in records:
            found.records += 1
            if kind in CONVERSIONS:
                _convert(found, body)
            if kind not in _SETTLING:
                continue
            if len(body) != NOTICE.itemsize:
                found.charges.left_out["of another version"] += 1
                continue
            letter = letters.get((name, sequence))
            if letter is not None:
                found.charges.left_out[f"dead letter: {letter.reason.name.lower()}"] += 1
                continue
            found.charges.add(Kind(kind), body, days.of, terms)
        if records.given_up:
            found.notes.append(f"journal {name}: {records.given_up} damaged records are missing")
        if records.damaged:
            found.damaged += records.damaged
            found.notes.append(f"journal {name}: look at it with `rtb journal check`")
    unknown = found.charges.left_out["unknown_exchange"]
    if unknown:  # without them every sum is wrong: that is no difference of the books
        raise ConfigError(
            f"{unknown} notices are of exchanges without settings: put back those that the node "
            "ran with, or name their folder - at `--configs`"
        )
    missing = [name for name in look.positions if not any(one.is_named(name) for one in kept)]
    found.notes += [f"journal {name}: in the books, but not here" for name in sorted(missing)]
    return found


def _convert(found: _Read, body: bytes) -> None:
    if len(body) == CONVERSION.itemsize:
        found.conversions.add(body)
    else:
        found.conversions.left_out["of another version"] += 1


def _terms(exchange: Exchange) -> Terms:
    kind = next(kind for kind in _SETTLING if settles(kind, exchange))
    return Terms(kind, exchange.empty_price == "bid")


class _Days:
    """Budget days of bids: a look-up for each second, not for each bid."""

    def __init__(self, lines: Mapping[int, Line]) -> None:
        self._lines = lines
        self._day = lru_cache(maxsize=65_536)(self._day_at)

    def of(self, line_item: int, bid: int) -> int:
        """The day of a bid; 0 for a line item that is in no books."""
        return self._day(line_item, bid_time_s(bid))

    def _day_at(self, line_item: int, time_s: int) -> int:
        line = self._lines.get(line_item)
        return place(line, time_s)[1] if line is not None else 0


def _spend(charged: audit.Spend, look: Look) -> list[Spent]:
    """Both figures for every line item and day."""
    return [
        Spent(
            name_of(line_item, look.lines), day_name(day) if day else "?",
            _currency(line_item, look), charged.get((line_item, day), 0),
            look.spent.get((line_item, day), 0),
        )
        for line_item, day in sorted(charged.keys() | look.spent.keys())
    ]  # fmt: skip


def _converted(found: Conversions, look: Look) -> list[Converted]:
    """By line item, in the order of their names."""
    rows = (
        Converted(
            name_of(line_item, look.lines), total.conversions, total.orders,
            {currency_name(code): micros for code, micros in sorted(total.value_micros.items())},
        )
        for line_item, total in found.by_line_item.items()
    )  # fmt: skip
    return sorted(rows, key=lambda row: row.line_item)


def _currency(line_item: int, look: Look) -> str:
    line = look.lines.get(line_item)
    return currency_name(line.currency) if line is not None else "?"


# -- invoices --------------------------------------------------------------------------------------


class _Group:
    """The lines of one exchange whose line items are in one currency."""

    def __init__(self) -> None:
        self.lines: list[audit.Line] = []
        self.bids: set[int] = set()  # of ours that the lines ought to name


def _compare(
    view: LedgerView, invoices: Iterable[Path], node: Node, found: _Read, look: Look
) -> list[Compared]:
    """Each exchange's lines against what was booked for its bids in the days that they are of."""
    groups: dict[tuple[str, str], _Group] = {}
    days: dict[int, set[int]] = {}
    names = {one.name: key for key, one in node.exchanges.items()}
    for path in invoices:
        for line in invoice_read.read(path):
            key = names.get(line.exchange)
            if key is None:
                raise InputError(f"no exchange {line.exchange!r} in our settings", str(path))
            days.setdefault(key, set()).add(line.time_s // _DAY_S)
            _add(groups, line, found.charges, look)
    for bid, charge in found.charges.by_bid.items():
        exchange = node.exchanges.get(charge.exchange)
        in_period = charge.time_ms // 1000 // _DAY_S in days.get(charge.exchange, ())
        if exchange is not None and in_period:
            group = groups.setdefault((exchange.name, _currency(charge.line_item, look)), _Group())
            group.bids.add(bid)
    return [_compared(view, *key, group) for key, group in sorted(groups.items())]


def _add(groups: dict[tuple[str, str], _Group], line: Billed, charges: Charges, look: Look) -> None:
    """Files a line; its cost becomes the line item's currency as the ledger does it."""
    charge = charges.by_bid.get(line.bid)
    currency, nanos = line.currency, line.nanos
    if charge is not None:
        currency = _currency(charge.line_item, look)
        if charge.rate_e9 != RATE_ONE:
            nanos = cost_nanos(nanos, charge.rate_e9)
    group = groups.setdefault((line.exchange, currency), _Group())
    group.lines.append(audit.Line(line.exchange, line.bid, nanos))


def _compared(view: LedgerView, exchange: str, currency: str, group: _Group) -> Compared:
    named = {line.bid for line in group.lines}
    booked = view.booked(group.bids | named)
    result = audit.reconcile(group.lines, booked, exchange)
    return Compared(
        exchange, currency, len(group.lines),
        {verdict.name.lower(): result.counts[verdict] for verdict in Verdict},
        result.invoiced_nanos, result.booked_nanos,
        [
            Finding(f"{one.bid:016x}", one.verdict.name.lower(), one.invoiced_nanos,
                    one.booked_nanos)
            for one in result.findings[:FINDINGS_MAX]
        ],
    )  # fmt: skip


# -- the whole -------------------------------------------------------------------------------------


def audit_of(view: LedgerView, node: Node, invoices: Iterable[Path] = ()) -> Report:
    """Everything compared.

    Raises: StoreError where books or journals cannot be read; InputError for an invoice;
        ConfigError where exchanges of the journals have no settings.
    """
    books = view.audit()
    kept, look, from_s = _looked(view, node)
    found = _read(node, kept, look, from_s)
    found.charges.resolve(view.booked(found.charges.contested))
    spend = _spend(found.charges.spend(from_s), look)
    compared = _compare(view, invoices, node, found, look)
    off = sum(abs(one.journals_nanos - one.books_nanos) for one in spend)
    off += sum(_off(one) for one in compared)
    return Report(
        agrees=not (books or off or found.damaged or any(map(_differs, compared))),
        difference_micros=ceil_div(off, NANOS_PER_MICRO),
        books=[_sentence(one) for one in books],
        journals=found.journals,
        records=found.records,
        bills=len(found.charges.by_bid),
        not_applied=found.not_applied,
        left_out=dict(sorted((found.charges.left_out + found.conversions.left_out).items())),
        notes=found.notes,
        from_s=from_s,
        spend=spend,
        invoices=compared,
        conversions=_converted(found.conversions, look),
    )


def invoices_of(view: LedgerView, node: Node, invoices: Iterable[Path]) -> list[Compared]:
    """Invoices alone against the books. Raises: as `audit_of`."""
    kept, look, from_s = _looked(view, node)
    return _compare(view, invoices, node, _read(node, kept, look, from_s), look)


def _looked(view: LedgerView, node: Node) -> tuple[list[Kept], Look, int]:
    """The journals, the books, and since when bids can be compared: all of one moment."""
    kept = kept_in(node.paths.journals, node.kernel)
    while True:
        from_s = _from_s(node, kept)
        look = view.look(from_s)
        # The books may know a journal that has only just begun; a segment may have just gone.
        before, kept = kept, kept_in(node.paths.journals, node.kernel)
        firsts = {(one.worker, one.identity): one.first for one in kept}
        if all(firsts.get((one.worker, one.identity)) == one.first for one in before):
            return kept, look, from_s


def _off(one: Compared) -> int:
    return abs(one.invoiced_nanos - one.booked_nanos)


def _differs(one: Compared) -> bool:
    matched = Counter(one.counts)[Verdict.MATCHED.name.lower()]
    return sum(one.counts.values()) != matched


def _sentence(one: audit.Difference) -> str:
    return f"{one.what}: {one.place}: expected {one.expected}, found {one.found}"
