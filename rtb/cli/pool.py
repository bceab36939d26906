"""`rtb ledger pool` and `rtb ledger release`: what nodes of one PostgreSQL were lent, and the end
of one that does not come back."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec
import typer
from rich.table import Table

from rtb.base.errors import ConfigError
from rtb.base.money import currency_name
from rtb.cli.console import console
from rtb.ledger.accounts import NO_LIMIT, Line, Pot
from rtb.ledger.amounts import nanos_text
from rtb.ledger.calendar import day_name
from rtb.ledger.commands import Scope
from rtb.ledger.pool import UNLIMITED, Amount, Share, Wants
from rtb.stores.ledger_pool import PooledStore, nodes_in, open_books
from rtb.stores.ledger_view import LedgerView

_BETWEEN: Final = " / "  # the names of advertiser, campaign and line item
_Ledger = Annotated[str, typer.Option(help="Books of the nodes: postgresql://user@host/db.")]


class Lent(msgspec.Struct, frozen=True):
    """What one node has of a budget; amounts in nanos of `currency`, None: no limit.

    day    of a daily budget, "" for others
    wants  "more": it could not have what it needs; "all": more was drawn than there is
    """

    level: str  # "advertiser", "campaign", "line item", "flight"
    name: str
    day: str
    node: int
    currency: str
    budget_nanos: int | None
    lent_nanos: int | None
    budget_units: int | None
    lent_units: int | None
    wants: str


def report(view: LedgerView) -> Iterator[Lent]:
    """Every share of every budget, by name. Raises: StoreError."""
    names = _names(view.look().lines.values())
    shares, found = view.shares(), []
    whole: dict[Pot, Amount] = {}  # of nodes that are told different ones the lowest holds
    for pot, _, share in shares:
        whole[pot] = Amount(*map(min, share.budget, whole.get(pot, UNLIMITED)))
    for pot, node, share in shares:
        scope, key, day = pot
        level = scope.name.lower().removesuffix("_day").replace("_", " ")
        name, currency = names.get((level, key), (f"{key:016x}", "?"))
        wants = "" if share.wants is Wants.NOTHING else share.wants.name.lower()
        on = day_name(day) if day else ""
        found.append(Lent(level, name, on, node, currency, *_amounts(share, whole[pot]), wants))
    yield from sorted(found, key=lambda one: (one.name, one.level, one.day, one.node))


def _amounts(share: Share, whole: Amount) -> tuple[int | None, int | None, int | None, int | None]:
    """Budget and share, of money and of impressions."""
    nanos, units = whole
    return (
        *((nanos, share.lent.nanos) if nanos != NO_LIMIT else (None, None)),
        *((units, share.lent.units) if units != NO_LIMIT else (None, None)),
    )


def _names(lines: Iterable[Line]) -> dict[tuple[str, int], tuple[str, str]]:
    """Names and currencies of all that may have a budget."""
    found = {}
    for line in lines:
        names = [*line.name.split(_BETWEEN, 2), "", ""]
        currency = currency_name(line.currency)
        found["advertiser", line.advertiser] = names[0], currency
        found["campaign", line.campaign] = _BETWEEN.join(names[:2]), currency
        found["line item", line.line_item] = line.name, currency
        for flight in line.flights:
            found["flight", flight.key] = line.name, currency
    return found


def show(
    ledger: _Ledger,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print what each node was lent of every budget that nodes share."""
    nodes = _nodes(ledger)
    with LedgerView.open(ledger, node=nodes[0]) as view:
        found = list(report(view))
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table(box=None)
    for name in ("budget of", "", "day", "node"):
        table.add_column(name, no_wrap=True)
    for name in ("budget", "lent", "impressions", "wants"):
        table.add_column(name, justify="right")
    for one in found:
        units = "-" if one.lent_units is None else f"{one.lent_units:,} of {one.budget_units:,}"
        table.add_row(
            one.level, one.name, one.day, str(one.node), _text(one.budget_nanos, one.currency),
            _text(one.lent_nanos), units, one.wants,
        )  # fmt: skip
    console().print(table)


def release(
    ledger: _Ledger,
    node: Annotated[int, typer.Option(help="Number of the node that does not come back.")],
) -> None:
    """Return to the other nodes what a node that is gone was lent and has not drawn."""
    if node not in _nodes(ledger):
        raise ConfigError(f"there are no books of node {node} - at `--node`")
    with open_books(ledger, node) as books:
        assert isinstance(books, PooledStore)
        books.release()
        drawn = sum(one.nanos > 0 for (scope, *_), one in books.state.drawn.items()
                    if scope is Scope.LINE_ITEM)  # fmt: skip
    typer.echo(
        f"node {node} is released: what {drawn:,} of its line items have spent, in flight or lent "
        "to workers stays with it"
    )


def _nodes(ledger: str) -> list[int]:
    """Whose books there are. Raises: ConfigError, StoreError."""
    found = nodes_in(ledger)
    if not found:
        raise ConfigError("nodes share budgets in PostgreSQL only, and none does - at `--ledger`")
    return found


def _text(nanos: int | None, currency: str = "") -> str:
    return "-" if nanos is None else f"{nanos_text(nanos)} {currency}".rstrip()
