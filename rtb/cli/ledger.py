"""`rtb ledger`: the accounts and rows of the books, and invoices against them.

It only reads, also while the node runs. Exit codes: 0 done, or the invoice agrees; 1 it differs, or
something could not be read; 2 wrong usage.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from msgspec.structs import replace as replace_struct
from rich.table import Table

from rtb.base.errors import InputError
from rtb.base.money import currency_name
from rtb.base.records import Dim
from rtb.catalogue.model import FLIGHT_MS_MAX, FLIGHT_MS_MIN
from rtb.catalogue.tokens import hash_of
from rtb.cli import audit, pool
from rtb.cli.console import console
from rtb.cli.nodes import view_of
from rtb.ledger.accounts import NO_LIMIT, Balance, Limit, Line, place
from rtb.ledger.amounts import nanos_text
from rtb.ledger.calendar import day_name
from rtb.ledger.changes import NO_WORKER, Row
from rtb.ledger.commands import Flight, Scope
from rtb.server import settings
from rtb.stores.ledger_view import Account, LedgerView, Look, name_of

app: Final = typer.Typer(help="Show what the books say; compare them with an invoice.")
_BETWEEN: Final = " / "  # the names of advertiser, campaign and line item
_OPEN_START_S, _OPEN_END_S = FLIGHT_MS_MIN // 1000, FLIGHT_MS_MAX // 1000
_Data = Annotated[Path, typer.Option("--data", help="State directory of the node.")]
_Ledger = Annotated[
    str, typer.Option(help="URL of the books, where they are not in the state directory.")
]
_Node = Annotated[
    int | None,
    typer.Option("--node", help="Number of the node, where its journals do not tell."),
]
_Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


class Shown(msgspec.Struct, frozen=True):
    """One line of the report; amounts in nanos of `currency`, None: no limit.

    `left` is what may still be lent out, here or by other nodes on the same books; negative where a
    budget was set below what is committed.

    key     as the books have it, in hex; of a day, that of its line item
    under   of a flight, the name of the line item or campaign that runs in it; "" for others
    flight  its number there, in the order of time from 1; 0 for others
    from, until  when it runs, from the first moment up to the second; "" where it is open
    """

    level: str  # "advertiser", "campaign", "line item", "flight", "day"
    name: str
    key: str
    currency: str
    budget_nanos: int | None
    posted_nanos: int
    pending_nanos: int
    granted_nanos: int
    left_nanos: int | None
    over_nanos: int
    budget_units: int | None
    posted_units: int
    under: str = ""
    flight: int = 0
    start: str = msgspec.field(default="", name="from")
    until: str = ""


class Moved(msgspec.Struct, frozen=True):
    """One row of the books, as `--rows --json` has it; `bid` and `worker` are "" for none."""

    row: int
    time: str
    entry: str
    source: str
    target: str
    nanos: int
    currency: str
    units: int
    moves: int
    bid: str
    worker: str
    day: str
    line_item: str
    reference: str


# -- which -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """Which line items and day; "" and 0 mean all.

    Ids of the catalogue, names as the books have them, or keys in hex; in any case of letters.
    """

    advertiser: str = ""
    campaign: str = ""
    line_item: str = ""
    day: int = 0

    def has(self, line: Line) -> bool:
        """Whether a line item is meant."""
        names = [*line.name.split(_BETWEEN, 2), "", ""]
        return (
            _is_named(self.advertiser, "advertiser", line.advertiser, names[0])
            and _is_named(self.campaign, "campaign", line.campaign, names[1])
            and _is_named(self.line_item, "line_item", line.line_item, names[2])
        )

    @property
    def is_narrow(self) -> bool:
        """Whether anything is left out."""
        return bool(self.advertiser or self.campaign or self.line_item)


def _is_named(wanted: str, kind: str, key: int, name: str) -> bool:
    found = (name.casefold(), f"{key:016x}")
    return not wanted or wanted.casefold() in found or hash_of(Dim.AD, f"{kind}:{wanted}") == key


def chosen(look: Look, wanted: Wanted) -> dict[int, Line]:
    """The line items that are meant. Raises: InputError when there is none."""
    lines = {key: line for key, line in look.lines.items() if wanted.has(line)}
    if wanted.is_narrow and not lines:
        said = wanted.line_item or wanted.campaign or wanted.advertiser
        raise InputError("no line item of the books is meant", said)
    return lines


# -- accounts --------------------------------------------------------------------------------------


class _Sum:
    """Balances of several accounts; elsewhere: nanos that other nodes were lent beside them."""

    def __init__(self) -> None:
        self.nanos, self.units = [0] * len(Balance), [0] * len(Balance)
        self.elsewhere = 0

    def add(self, account: Account) -> None:
        """One more account."""
        for balance in Balance:
            self.nanos[balance] += account.nanos[balance]
            self.units[balance] += account.units[balance]

    def shown(self, level: str, name: str, key: int, currency: int, limit: Limit | None) -> Shown:
        """As a line of the report."""
        nanos = self.nanos
        budget = limit.nanos if limit is not None and limit.nanos < NO_LIMIT else None
        units = limit.units if limit is not None and limit.units < NO_LIMIT else None
        drawn = nanos[Balance.POSTED] + nanos[Balance.PENDING] + nanos[Balance.GRANTED]
        drawn += self.elsewhere
        return Shown(
            level, name, f"{key:016x}", currency_name(currency), budget,
            nanos[Balance.POSTED], nanos[Balance.PENDING], nanos[Balance.GRANTED],
            None if budget is None else budget - drawn, nanos[Balance.OVER],
            units, self.units[Balance.POSTED] + self.units[Balance.OVER],
        )  # fmt: skip


def report(look: Look, wanted: Wanted) -> Iterator[Shown]:
    """Advertisers, their campaigns and line items, flights that have a budget, and the days of line
    items where few are meant.

    An advertiser, campaign or flight is always whole, whichever of its line items are meant. A
    flight stands under its line item, or under its campaign where line items share it.
    """
    lines = chosen(look, wanted)
    sums = _sums(look, wanted.day)
    shared = {key for key, count in _runs(look).items() if count > 1}
    shown: set[tuple[Scope, int]] = set()
    for line in sorted(lines.values(), key=lambda line: line.name):
        names = [*line.name.split(_BETWEEN, 2), "", ""]
        for scope, daily, level, key, name in (
            (Scope.ADVERTISER, None, "advertiser", line.advertiser, names[0]),
            (Scope.CAMPAIGN, Scope.CAMPAIGN_DAY, "campaign", line.campaign, names[1]),
            (Scope.LINE_ITEM, Scope.LINE_ITEM_DAY, "line item", line.line_item, names[2]),
        ):
            if (scope, key) not in shown:
                shown.add((scope, key))
                bound = daily if wanted.day else scope
                limit = look.limits.get((bound, key)) if bound is not None else None
                found = sums.get((scope, key, 0), _Sum())
                yield found.shown(level, name or f"{key:016x}", key, line.currency, limit)
            if scope is not Scope.ADVERTISER and not wanted.day:
                for number, flight in enumerate(line.flights, 1):
                    is_here = (flight.key in shared) == (scope is Scope.CAMPAIGN)
                    if is_here and (Scope.FLIGHT, flight.key) not in shown:
                        shown.add((Scope.FLIGHT, flight.key))
                        for one in _flight(look, line, flight, sums):
                            yield replace_struct(one, under=name, flight=number)
        if wanted.is_narrow and not wanted.day:
            yield from _days(look, line, sums)


def _sums(look: Look, day: int) -> dict[tuple[Scope, int, int], _Sum]:
    """By scope, key and day; the day of line items only, 0 for all days together."""
    found: dict[tuple[Scope, int, int], _Sum] = {}
    for account in look.accounts:
        if day and account.day != day:
            continue
        line = look.lines[account.line_item]
        for key in (
            (Scope.ADVERTISER, line.advertiser, 0), (Scope.CAMPAIGN, line.campaign, 0),
            (Scope.LINE_ITEM, line.line_item, 0), (Scope.LINE_ITEM, line.line_item, account.day),
            (Scope.FLIGHT, account.flight, 0),
        ):  # fmt: skip
            found.setdefault(key, _Sum()).add(account)
    for (scope, of, on), amount in look.elsewhere.items():
        if on and (not day or on == day):
            found.setdefault(
                (_OF_DAY[scope], of, 0 if day else on), _Sum()
            ).elsewhere += amount.nanos
        elif not (on or day):
            found.setdefault((scope, of, 0), _Sum()).elsewhere += amount.nanos
    return found


_OF_DAY: Final = {Scope.LINE_ITEM_DAY: Scope.LINE_ITEM, Scope.CAMPAIGN_DAY: Scope.CAMPAIGN}


def _runs(look: Look) -> Counter[int]:
    """How many line items run in each flight."""
    return Counter(flight.key for line in look.lines.values() for flight in line.flights)


def _flight(
    look: Look, line: Line, flight: Flight, sums: dict[tuple[Scope, int, int], _Sum]
) -> Iterator[Shown]:
    """A flight that has a budget of its own."""
    limit = look.limits.get((Scope.FLIGHT, flight.key))
    if limit is not None and (limit.nanos < NO_LIMIT or limit.units < NO_LIMIT):
        found = sums.get((Scope.FLIGHT, flight.key, 0), _Sum())
        one = found.shown("flight", _flight_name(line, flight), flight.key, line.currency, limit)
        yield replace_struct(one, start=_moment(flight.start_s), until=_moment(flight.end_s))


def _flight_name(line: Line, flight: Flight) -> str:
    """Its first and last day where the advertiser is."""
    words = ["flight"]
    if flight.start_s > _OPEN_START_S:
        words.append(f"from {day_name(place(line, flight.start_s)[1])}")
    if flight.end_s < _OPEN_END_S:
        words.append(f"to {day_name(place(line, flight.end_s - 1)[1])}")
    return " ".join(words)


def _moment(time_s: int) -> str:
    """A time in UTC; "" for the open start or end of a flight."""
    if not _OPEN_START_S < time_s < _OPEN_END_S:
        return ""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _days(look: Look, line: Line, sums: dict[tuple[Scope, int, int], _Sum]) -> Iterator[Shown]:
    limit = look.limits.get((Scope.LINE_ITEM_DAY, line.line_item))
    for scope, key, day in sorted(sums):
        if day and (scope, key) == (Scope.LINE_ITEM, line.line_item):
            yield sums[scope, key, day].shown("day", day_name(day), key, line.currency, limit)


_INDENT: Final = {
    "advertiser": "", "campaign": "  ", "line item": "    ", "flight": "      ", "day": "      ",
}  # fmt: skip


def _table(found: Iterator[Shown]) -> Table:
    table = Table(box=None)
    table.add_column("account", no_wrap=True)
    for name in ("budget", "posted", "pending", "granted", "left", "overspend", "impressions"):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            _INDENT[one.level] + one.name, _text(one.budget_nanos, one.currency),
            _text(one.posted_nanos), _text(one.pending_nanos), _text(one.granted_nanos),
            _text(one.left_nanos), _text(one.over_nanos), _impressions(one),
        )  # fmt: skip
    return table


def _text(nanos: int | None, currency: str = "") -> str:
    return "-" if nanos is None else f"{nanos_text(nanos)} {currency}".rstrip()


def _impressions(one: Shown) -> str:
    of = f" of {one.budget_units:,}" if one.budget_units is not None else ""
    return f"{one.posted_units:,}{of}"


# -- rows ------------------------------------------------------------------------------------------


def rows_of(view: LedgerView, look: Look, wanted: Wanted) -> Iterator[Moved]:
    """Every row of the line items that are meant, oldest first. Raises: InputError, StoreError."""
    lines = chosen(look, wanted)
    accounts = {account.number: account for account in look.accounts}
    # One line item is found by the store; of several, all rows are read once.
    asked = list(lines) if len(lines) == 1 else [None]
    for number, row in view.rows(asked, wanted.day or None):
        account = accounts.get(row.account)
        if account is not None and account.line_item in lines:
            yield _row(number, row, account, look)


def row_lines(rows: Iterator[Moved]) -> Iterator[str]:
    """For people: tabs between the columns."""
    yield "\t".join(_COLUMNS)
    for one in rows:
        yield "\t".join(
            (
                str(one.row), one.time, one.entry, one.source, one.target,
                _text(one.nanos, one.currency), str(one.units), str(one.moves), one.bid,
                one.worker, one.day, one.line_item, one.reference,
            )
        )  # fmt: skip


def row_json(rows: Iterator[Moved]) -> Iterator[str]:
    """One JSON array, a row a line: books have more rows than fit into memory."""
    before = "["
    for one in rows:
        yield before + msgspec.json.encode(one).decode()
        before = ","
    yield "]" if before == "," else "[]"


_COLUMNS: Final = (
    "row", "time", "entry", "from", "to", "amount", "units", "moves", "bid", "worker", "day",
    "line item", "reference",
)  # fmt: skip


def _row(number: int, row: Row, account: Account, look: Look) -> Moved:
    currency = currency_name(look.lines[account.line_item].currency)
    worker = "" if row.worker == NO_WORKER else f"{row.worker >> 8}/{row.worker & 255}"
    return Moved(
        number, _moment(row.time_s),
        row.entry.name.lower(), row.source.name.lower(), row.target.name.lower(),
        row.nanos, currency, row.units, row.moves,
        f"{row.bid:016x}" if row.bid else "", worker, day_name(account.day),
        name_of(account.line_item, look.lines), row.reference,
    )  # fmt: skip


# -- commands --------------------------------------------------------------------------------------


@app.command("show")
def show(
    data: _Data,
    ledger: _Ledger = "",
    node: _Node = None,
    advertiser: Annotated[str, typer.Option(help="Only this advertiser, by its id.")] = "",
    campaign: Annotated[str, typer.Option(help="Only this campaign, by its id.")] = "",
    line_item: Annotated[str, typer.Option(help="Only this line item, by its id.")] = "",
    day: Annotated[str, typer.Option(help="Only this day of the advertiser: YYYY-MM-DD.")] = "",
    rows: Annotated[bool, typer.Option("--rows", help="Rows instead of accounts.")] = False,
    as_json: _Json = False,
) -> None:
    """Print what is budgeted, spent, in flight, lent out and left; or the rows of it."""
    wanted = Wanted(advertiser, campaign, line_item, _day(day))
    with view_of(data, ledger, node) as view:
        look = view.look()
        if rows:
            found = rows_of(view, look, wanted)
            for line in row_json(found) if as_json else row_lines(found):
                typer.echo(line)
        elif as_json:
            typer.echo(msgspec.json.encode(list(report(look, wanted))))
        else:
            console().print(_table(report(look, wanted)))


def _day(text: str) -> int:
    try:
        return date.fromisoformat(text).toordinal() if text else 0
    except ValueError as error:
        raise typer.BadParameter(f"expected YYYY-MM-DD, got {text!r}") from error


@app.command("import-invoice")
def import_invoice(
    invoice: Annotated[list[Path], typer.Argument(help="Billing reports of exchanges, CSV.")],
    data: _Data,
    ledger: _Ledger = "",
    node: _Node = None,
    configs: Annotated[Path, typer.Option(help="Folder of exchange settings.")] = settings.CONFIGS,
    as_json: _Json = False,
) -> None:
    """Compare billing reports with the books, bid by bid, and say what differs."""
    compared = audit.compare(data, ledger, node, invoice, configs)
    if as_json:
        typer.echo(msgspec.json.encode(compared))
    else:
        audit.show_findings(compared, console())
    if any(map(audit.differs, compared)):
        raise typer.Exit(audit.DIFFERS)


app.command("pool")(pool.show)
app.command("release")(pool.release)
