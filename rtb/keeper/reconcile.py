"""The three comparisons of the books: with their rows, with the journals, with invoices.

What no money moves by is counted on the way: conversions, which stand in the journals only.

Everything is read beside a running node. The books and the positions of the journals are one look,
so what the journals say up to those positions is what the books must say. Bids of a time whose
records are partly retired are left out on both sides.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from rtb.ledger.audit import Charge, Charges, Terms, Verdict
from rtb.ledger.calendar import day_name
from rtb.notices.conversions import Conversions
from rtb.notices.notice import CONVERSIONS
from rtb.notices.settle import settles
from rtb.stores import invoice_read
from rtb.stores.invoice_read import Billed
from rtb.stores.journal import Kernel, Record
from rtb.stores.journal_kept import Kept, Records, kept_in
from rtb.stores.ledger_mail import MAIL_FROM, MAIL_TO
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

    conversions: Conversions  # of all nodes
    charges: Charges = field(default_factory=Charges)
    journals: list[Journal] = field(default_factory=list)
    records: int = 0
    not_applied: int = 0
    mailed: int = 0  # records that another node books
    notes: list[str] = field(default_factory=list)
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


def _read(node: Node, kept: list[Kept], look: Look, conversions: Conversions) -> _Read:
    found = _Read(conversions)
    letters = {(one.journal, one.sequence): one for one in dead.read(node.paths.letters)}
    days = _Days(look.lines)
    terms = {key: _terms(exchange) for key, exchange in node.exchanges.items()}

    def charge(name: str, record: Record) -> None:
        sequence, kind, body = record
        letter = letters.get((name, sequence))
        if kind not in _SETTLING:
            return
        if len(body) != NOTICE.itemsize:
            found.charges.left_out["of another version"] += 1
        elif letter is not None:
            found.charges.left_out[f"dead letter: {letter.reason.name.lower()}"] += 1
        else:
            found.charges.add(Kind(kind), body, days.of, terms)

    for journal in kept:
        _read_journal(found, node, journal, look, charge)
    for mail in look.post.received:
        charge(f"{MAIL_FROM}{mail.from_node}", (mail.number, mail.kind, mail.body))
    if found.mailed:
        found.notes.append(f"notices of other nodes' bids, booked there: {found.mailed:,}")
    if look.post.received:
        found.notes.append(f"notices from other nodes: {len(look.post.received):,}")
    found.not_applied += look.post.waiting
    unknown = found.charges.left_out["unknown_exchange"]
    if unknown:  # without them every sum is wrong: that is no difference of the books
        raise ConfigError(
            f"{unknown} notices are of exchanges without settings: put back those that the node "
            "ran with, or name their folder - at `--configs`"
        )
    journals = [name for name in look.positions if not name.startswith((MAIL_FROM, MAIL_TO))]
    missing = [name for name in journals if not any(one.is_named(name) for one in kept)]
    found.notes += [f"journal {name}: in the books, but not here" for name in sorted(missing)]
    return found


def _read_journal(
    found: _Read, node: Node, journal: Kept, look: Look, charge: Callable[[str, Record], None]
) -> None:
    """What one journal says, up to where the books are, but for what went to other nodes."""
    name = next((name for name in look.positions if journal.is_named(name)), "")
    booked = look.positions.get(name, 0)
    shown = name or str(journal.worker)
    found.journals.append(Journal(shown, journal.first, journal.last, booked))
    found.not_applied += max(journal.last - booked, 0)
    sent = look.post.sent.get(name, set())
    records = Records(node.paths.journals, journal, booked, node.kernel)
    for record in records:
        found.records += 1
        if record[1] in CONVERSIONS:
            _convert(found, record[2])
        if record[0] in sent:
            found.mailed += 1
        else:
            charge(name, record)
    # What came after is not compared; but some of it was answered, so it must be there.
    rest = journal._replace(first=max(booked + 1, journal.first))
    later = Records(node.paths.journals, rest, journal.last, node.kernel)
    for _ in later:
        pass
    missing, damaged = records.given_up + later.given_up, records.damaged + later.damaged
    if missing:
        found.notes.append(f"journal {shown}: {missing} damaged records are missing")
    if damaged:
        found.damaged += damaged
        found.notes.append(f"journal {shown}: look at it with `rtb journal check`")


def _convert(found: _Read, body: bytes) -> None:
    if len(body) == CONVERSION.itemsize:
        found.conversions.add(body)
    else:
        found.conversions.left_out["of another version"] += 1


def _terms(exchange: Exchange) -> Terms:
    kind = next(kind for kind in _SETTLING if settles(kind, exchange))
    return Terms(kind, exchange.empty_price == "bid")


class _Looked(NamedTuple):
    """One node: what its books and its journals say."""

    view: LedgerView
    node: Node
    look: Look
    found: _Read


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


def _spend(charged: Iterable[tuple[audit.Spend, Look]]) -> list[Spent]:
    """Both figures for every line item and day, summed over nodes."""
    sums: dict[tuple[int, int], list[int]] = {}
    names: dict[int, tuple[str, str]] = {}
    for journals, look in charged:
        for column, spend in enumerate((journals, look.spent)):
            for key, nanos in spend.items():
                sums.setdefault(key, [0, 0])[column] += nanos
                names[key[0]] = name_of(key[0], look.lines), _currency(key[0], look.lines)
    return [
        Spent(names[line_item][0], day_name(day) if day else "?", names[line_item][1], *both)
        for (line_item, day), both in sorted(sums.items())
    ]


def _converted(found: Conversions, lines: dict[int, Line]) -> list[Converted]:
    """By line item, in the order of their names."""
    rows = (
        Converted(
            name_of(line_item, lines), total.conversions, total.orders,
            {currency_name(code): micros for code, micros in sorted(total.value_micros.items())},
        )
        for line_item, total in found.by_line_item.items()
    )  # fmt: skip
    return sorted(rows, key=lambda row: row.line_item)


def _currency(line_item: int, lines: Mapping[int, Line]) -> str:
    line = lines.get(line_item)
    return currency_name(line.currency) if line is not None else "?"


# -- invoices --------------------------------------------------------------------------------------


class _Group:
    """The lines of one exchange whose line items are in one currency."""

    def __init__(self) -> None:
        self.lines: list[audit.Line] = []
        self.bids: set[int] = set()  # of ours that the lines ought to name


def _compare(looked: Sequence[_Looked], invoices: Iterable[Path]) -> list[Compared]:
    """Each exchange's lines against what was booked for its bids in the days that they are of."""
    exchanges = {key: one for each in looked for key, one in each.node.exchanges.items()}
    lines = {key: line for each in looked for key, line in each.look.lines.items()}
    charges = {bid: one for each in looked for bid, one in each.found.charges.by_bid.items()}
    groups: dict[tuple[str, str], _Group] = {}
    days: dict[int, set[int]] = {}
    names = {one.name: key for key, one in exchanges.items()}
    for path in invoices:
        for line in invoice_read.read(path):
            key = names.get(line.exchange)
            if key is None:
                raise InputError(f"no exchange {line.exchange!r} in our settings", str(path))
            days.setdefault(key, set()).add(line.time_s // _DAY_S)
            _add(groups, line, charges.get(line.bid), lines)
    for bid, charge in charges.items():
        exchange = exchanges.get(charge.exchange)
        in_period = charge.time_ms // 1000 // _DAY_S in days.get(charge.exchange, ())
        if exchange is not None and in_period:
            key_of_group = exchange.name, _currency(charge.line_item, lines)
            groups.setdefault(key_of_group, _Group()).bids.add(bid)
    views = [each.view for each in looked]
    return [_compared(views, *key, group) for key, group in sorted(groups.items())]


def _add(
    groups: dict[tuple[str, str], _Group], line: Billed, charge: Charge | None,
    lines: Mapping[int, Line],
) -> None:  # fmt: skip
    """Files a line; its cost becomes the line item's currency as the ledger does it."""
    currency, nanos = line.currency, line.nanos
    if charge is not None:
        currency = _currency(charge.line_item, lines)
        if charge.rate_e9 != RATE_ONE:
            nanos = cost_nanos(nanos, charge.rate_e9)
    group = groups.setdefault((line.exchange, currency), _Group())
    group.lines.append(audit.Line(line.exchange, line.bid, nanos))


def _compared(views: Iterable[LedgerView], exchange: str, currency: str, group: _Group) -> Compared:
    named = {line.bid for line in group.lines}
    booked: Counter[int] = Counter()  # of a bid that two nodes booked: both
    for view in views:
        booked.update(view.booked(group.bids | named))
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
    """Everything compared, of one node. Raises: as `audit_all`."""
    return audit_all([(view, node)], invoices)


def audit_all(pairs: Sequence[tuple[LedgerView, Node]], invoices: Iterable[Path] = ()) -> Report:
    """Everything compared, of nodes that an exchange knows as one.

    Raises: StoreError where books or journals cannot be read; InputError for an invoice;
        ConfigError where exchanges of the journals have no settings.
    """
    books = [one for view, _ in pairs for one in view.audit()]
    looked, from_s = _look_at(pairs)
    for each in looked:
        each.found.charges.resolve(each.view.booked(each.found.charges.contested))
    spend = _spend((each.found.charges.spend(from_s), each.look) for each in looked)
    compared = _compare(looked, invoices)
    off = sum(abs(one.journals_nanos - one.books_nanos) for one in spend)
    off += sum(_off(one) for one in compared)
    founds = [each.found for each in looked]
    damaged = sum(found.damaged for found in founds)
    conversions = founds[0].conversions
    left_out = sum((found.charges.left_out for found in founds), Counter(conversions.left_out))
    lines = {key: line for each in looked for key, line in each.look.lines.items()}
    return Report(
        agrees=not (books or off or damaged or any(map(_differs, compared))),
        difference_micros=ceil_div(off, NANOS_PER_MICRO),
        books=[_sentence(one) for one in books],
        journals=[journal for found in founds for journal in found.journals],
        records=sum(found.records for found in founds),
        bills=sum(len(found.charges.by_bid) for found in founds),
        not_applied=sum(found.not_applied for found in founds),
        left_out=dict(sorted(left_out.items())),
        notes=[note for found in founds for note in found.notes],
        from_s=from_s,
        spend=spend,
        invoices=compared,
        conversions=_converted(conversions, lines),
    )


def invoices_of(
    pairs: Sequence[tuple[LedgerView, Node]], invoices: Iterable[Path]
) -> list[Compared]:
    """Invoices alone against the books. Raises: as `audit_all`."""
    return _compare(_look_at(pairs)[0], invoices)


def _look_at(pairs: Sequence[tuple[LedgerView, Node]]) -> tuple[list[_Looked], int]:
    """Every node's journals and books, and since when bids can be compared on all of them."""
    from_s = 0
    while True:
        moments = [_at_one_moment(view, node, from_s) for view, node in pairs]
        latest_s = max(moment[2] for moment in moments)
        if all(moment[2] == latest_s for moment in moments):
            break
        from_s = latest_s
    conversions = Conversions(latest_s)
    looked = [
        _Looked(view, node, look, _read(node, kept, look, conversions))
        for (view, node), (kept, look, _) in zip(pairs, moments, strict=True)
    ]
    return looked, latest_s


def _at_one_moment(view: LedgerView, node: Node, since_s: int) -> tuple[list[Kept], Look, int]:
    """The journals, the books, and since when bids can be compared, not before `since_s`."""
    kept = kept_in(node.paths.journals, node.kernel)
    while True:
        mail_s = view.mail_from_s()
        from_s = max(since_s, mail_s, _from_s(node, kept))
        look = view.look(from_s)
        # The books may know a journal that has only just begun; a segment may have just gone.
        before, kept = kept, kept_in(node.paths.journals, node.kernel)
        firsts = {(one.worker, one.identity): one.first for one in kept}
        is_same = all(firsts.get((one.worker, one.identity)) == one.first for one in before)
        if is_same and mail_s == look.post.from_s:
            return kept, look, from_s


def _off(one: Compared) -> int:
    return abs(one.invoiced_nanos - one.booked_nanos)


def _differs(one: Compared) -> bool:
    matched = Counter(one.counts)[Verdict.MATCHED.name.lower()]
    return sum(one.counts.values()) != matched


def _sentence(one: audit.Difference) -> str:
    return f"{one.what}: {one.place}: expected {one.expected}, found {one.found}"
