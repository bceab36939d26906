"""`rtb audit`: do the books agree with their rows, with the journals, and with invoices.

It only reads, also while the node runs. Exit codes: 0 all agrees, to the micro; 1 something
differs; 2 wrong usage, or it could not be looked: no books, no invoice, a server that is down.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from rtb.base.errors import RtbError
from rtb.base.money import format_amounts
from rtb.cli.console import console
from rtb.cli.nodes import view_of, views_of
from rtb.keeper.reconcile import Compared, Node, Report, Spent, audit_all, invoices_of
from rtb.ledger.amounts import nanos_text
from rtb.server import kernels, settings
from rtb.stores.serving import StatePaths

DIFFERS: Final = 1
NOT_LOOKED: Final = 2
# Lines of a table that show single differences.
_SHOWN_MAX: Final = 20


def command(
    data: Annotated[
        list[Path],
        typer.Option("--data", help="State directory of the node; repeatable for several nodes."),
    ],
    ledger: Annotated[
        str, typer.Option(help="URL of the books, where they are not in the state directory.")
    ] = "",
    node: Annotated[
        list[int] | None,
        typer.Option(help="Number of the node, one for each --data; found by its journals."),
    ] = None,
    invoice: Annotated[
        list[Path] | None, typer.Option(help="An exchange's billing report as CSV; repeatable.")
    ] = None,
    configs: Annotated[Path, typer.Option(help="Folder of exchange settings.")] = settings.CONFIGS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare the books with their rows, the journals and invoices; 0: agrees to the micro."""
    try:
        report = run(data, ledger, node or [], invoice or [], configs)
    except RtbError as error:
        typer.echo(f"rtb: {error}", err=True)
        raise typer.Exit(NOT_LOOKED) from error
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(report, console())
    if not report.agrees:
        raise typer.Exit(DIFFERS)


def run(
    datas: Sequence[Path], ledger: str, numbers: Sequence[int], invoices: list[Path], configs: Path
) -> Report:
    """The audit of nodes. Raises: StoreError, InputError, ConfigError."""
    nodes = [node_of(data, configs) for data in datas]
    with views_of(datas, ledger, numbers) as views:
        return audit_all(list(zip(views, nodes, strict=True)), invoices)


def compare(
    data: Path, ledger: str, number: int | None, invoices: list[Path], configs: Path
) -> list[Compared]:
    """Invoices against the books of a node. Raises: as `run`."""
    node = node_of(data, configs)
    with view_of(data, ledger, number) as view:
        return invoices_of([(view, node)], invoices)


def node_of(data: Path, configs: Path) -> Node:
    """A node by its directory. Raises: ConfigError."""
    exchanges = settings.load_exchanges(configs / settings.Files().exchanges)
    by_key = {one.claim_key: one for one in exchanges.values()}
    return Node(StatePaths(data.resolve()), by_key, kernels.load().journal)


# -- for people ------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    """The report as tables and sentences."""
    table = Table("compared", "with", "here", "there", "", title="audit", title_justify="left")
    table.add_row("books", "their rows", "", "", _verdict(not report.books))
    for currency, (journals, books) in sorted(_totals(report.spend).items()):
        agrees = all(_same(one) for one in report.spend if one.currency == currency)
        table.add_row(
            "books", "journals", _amount(books, currency), _amount(journals, currency),
            _verdict(agrees),
        )  # fmt: skip
    for one in report.invoices:
        table.add_row(
            "books", f"invoice of {one.exchange}", _amount(one.booked_nanos, one.currency),
            _amount(one.invoiced_nanos, one.currency), _verdict(not differs(one)),
        )  # fmt: skip
    console.print(table)
    _show_conversions(report, console)
    for line in _sentences(report):
        console.print(line, highlight=False, markup=False)
    _show_spend([one for one in report.spend if not _same(one)], console)
    show_findings(report.invoices, console)
    words = "all agrees" if report.agrees else f"differs by {report.difference_micros:,} micros"
    if not report.agrees and not report.difference_micros:
        words = "what is here agrees to the micro, but see above"
    console.print(words, highlight=False)


def _show_conversions(report: Report, console: Console) -> None:
    """Those of the line items that have most."""
    if not report.conversions:
        return
    ranked = sorted(report.conversions, key=lambda one: -one.conversions)
    table = Table("line item", title="conversions", title_justify="left")
    for name in ("conversions", "orders", "value"):
        table.add_column(name, justify="right")
    for one in ranked[:_SHOWN_MAX]:
        value = format_amounts(one.value_micros) or "-"
        table.add_row(one.line_item, f"{one.conversions:,}", f"{one.orders:,}", value)
    console.print(table)
    if len(ranked) > _SHOWN_MAX:
        console.print(f"and {len(ranked) - _SHOWN_MAX:,} more", highlight=False)


def _verdict(agrees: bool) -> str:
    return "[green]agrees[/]" if agrees else "[red]differs[/]"


def _amount(nanos: int, currency: str) -> str:
    return f"{nanos_text(nanos)} {currency}"


def _same(one: Spent) -> bool:
    return one.journals_nanos == one.books_nanos


def differs(one: Compared) -> bool:
    """Whether any line or bid does not match."""
    return sum(one.counts.values()) != one.counts["matched"]


def _totals(spend: list[Spent]) -> dict[str, tuple[int, int]]:
    """Journals and books by currency."""
    found: dict[str, tuple[int, int]] = {}
    for one in spend:
        journals, books = found.get(one.currency, (0, 0))
        found[one.currency] = journals + one.journals_nanos, books + one.books_nanos
    return found


def _sentences(report: Report) -> Iterator[str]:
    """What belongs to the figures."""
    yield (
        f"{report.records:,} records of {len(report.journals)} journals, "
        f"{report.bills:,} bids billed"
    )
    if report.not_applied:
        yield f"not yet applied: {report.not_applied:,} records, left out"
    if report.from_s:
        moment = datetime.fromtimestamp(report.from_s, UTC)
        yield f"older records are retired: compared are bids since {moment:%Y-%m-%d %H:%M:%S} UTC"
    if report.left_out:
        words = ", ".join(f"{name} {count:,}" for name, count in report.left_out.items())
        yield f"notices that settle nothing: {words}"
    yield from report.notes
    yield from report.books[:_SHOWN_MAX]


def _show_spend(wrong: list[Spent], console: Console) -> None:
    if not wrong:
        return
    table = Table("line item", "day", "journals", "books", title="differs", title_justify="left")
    for one in wrong[:_SHOWN_MAX]:
        table.add_row(
            one.line_item, one.day, _amount(one.journals_nanos, one.currency),
            _amount(one.books_nanos, one.currency),
        )  # fmt: skip
    console.print(table)
    if len(wrong) > _SHOWN_MAX:
        console.print(f"and {len(wrong) - _SHOWN_MAX:,} more", highlight=False)


def show_findings(invoices: list[Compared], console: Console) -> None:
    """What differs between invoices and books, bid by bid."""
    for one in invoices:
        counts = ", ".join(
            f"{name.replace('_', ' ')} {count:,}" for name, count in one.counts.items() if count
        )
        console.print(
            f"invoice of {one.exchange}: {one.lines:,} lines, "
            f"{_amount(one.invoiced_nanos, one.currency)}; booked "
            f"{_amount(one.booked_nanos, one.currency)}; {counts or 'nothing on either side'}",
            highlight=False, markup=False,
        )  # fmt: skip
        if not one.findings:
            continue
        table = Table("bid", "verdict", "invoiced", "booked")
        for each in one.findings[:_SHOWN_MAX]:
            table.add_row(
                each.bid, each.verdict.replace("_", " "),
                _amount(each.invoiced_nanos, one.currency),
                _amount(each.booked_nanos, one.currency),
            )  # fmt: skip
        console.print(table)
        if len(one.findings) > _SHOWN_MAX:
            console.print(f"and {len(one.findings) - _SHOWN_MAX:,} more", highlight=False)
