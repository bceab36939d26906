"""`rtb import`: reads a catalogue, says what is wrong with it, and publishes it to the workers.

Exit codes: 0 applied, or a dry run without errors; 1 errors, nothing applied; 2 wrong usage;
3 applied in part; 4 the state directory could not be read or written.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtb.base.errors import CatalogueError, ConfigError, StoreError
from rtb.base.money import currency_name
from rtb.catalogue.check import Outside, Owner, sound_part
from rtb.catalogue.compile import compile_snapshot, left_out
from rtb.catalogue.load import Problem, load
from rtb.catalogue.model import KINDS, Catalogue
from rtb.cli.console import console
from rtb.openrtb.agents import OS_AGENTS, OS_NAMES
from rtb.openrtb.countries import ALPHA3
from rtb.server import settings
from rtb.stores import artifacts
from rtb.stores.ledger_pool import nodes_in
from rtb.stores.ledger_view import LedgerView
from rtb.stores.serving import StatePaths

APPLIED, REFUSED, IN_PART, NO_STORE = 0, 1, 3, 4
SNAPSHOTS = "snapshots"
# Values of targeting that the decoder makes of requests; others are warned of.
KNOWN: Final = {
    "country": frozenset(country.lower() for country in ALPHA3.values()),
    "os": frozenset(name for _, name, *_ in (*OS_NAMES, *OS_AGENTS)),
}


class Report(msgspec.Struct):
    """What an import did; with `--json` it is the output."""

    applied: bool = False
    dry_run: bool = False
    snapshot: str | None = None
    counts: dict[str, int] = {}
    left_out: list[str] = []
    problems: list[Problem] = []
    exit_code: int = APPLIED


def command(
    directory: Annotated[Path, typer.Argument(help="Directory of the catalogue.")],
    data: Annotated[Path, typer.Option("--data", help="State directory to publish into.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; write nothing.")] = False,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Leave out what has errors, and what hangs on it."),
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="Publish even if no line item is left to serve."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ledger: Annotated[
        str, typer.Option("--ledger", help="Books that are not in the state directory.")
    ] = "",
    configs: Annotated[
        Path, typer.Option("--configs", help="Folder whose exchange rates are known.")
    ] = settings.CONFIGS,
) -> None:
    """Check a catalogue and publish it: applies nothing when anything is wrong."""
    report = run(
        directory, data, dry_run=dry_run, partial=partial, allow_empty=allow_empty, ledger=ledger,
        configs=configs,
    )  # fmt: skip
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(report, console())
    raise typer.Exit(report.exit_code)


def run(
    directory: Path,
    data: Path,
    *,
    dry_run: bool = False,
    partial: bool = False,
    allow_empty: bool = False,
    ledger: str = "",
    configs: Path = settings.CONFIGS,
) -> Report:
    """The import itself; a directory that cannot be listed is one of its problems."""
    outside, doubts = _outside(data, ledger, configs)
    catalogue, problems = _load(directory, outside)
    problems = doubts + problems
    report = Report(dry_run=dry_run, problems=problems)
    if any(problem.severity == "error" for problem in problems):
        report.exit_code = IN_PART if partial else REFUSED
        if partial:
            whole = catalogue
            catalogue = sound_part(catalogue, outside)
            report.left_out = _missing(whole, catalogue)
    report.counts = {kind: len(catalogue.table(kind)) for kind in KINDS}
    now_ms = time.time_ns() // 1_000_000
    if report.exit_code != REFUSED:
        _refuse_emptiness(report, catalogue, data, now_ms, allow_empty)
    if report.exit_code in (APPLIED, IN_PART) and not dry_run:
        _publish(report, catalogue, directory, data, now_ms)
    return report


def _load(directory: Path, outside: Outside) -> tuple[Catalogue, list[Problem]]:
    try:
        return load(directory, outside)
    except OSError as error:
        return Catalogue(), [Problem("", 0, "", f"{directory}: {error.strerror}")]


def _outside(data: Path, ledger: str, configs: Path) -> tuple[Outside, list[Problem]]:
    """What the catalogue is compared with, and what of it cannot be read."""
    currencies, owners, doubts = frozenset[str](), dict[int, Owner](), list[Problem]()
    try:
        rates = settings.load_rates(configs / settings.Files().rates)["cur"].tolist()
        currencies = frozenset(currency_name(one).lower() for one in rates)
    except ConfigError as error:  # the bidder may have others than whoever imports
        doubts.append(Problem("", 0, "", f"currencies are not checked: {error}", "warning"))
    try:
        owners = booked_owners(data, ledger)
    except (ConfigError, StoreError) as error:
        told = f"it is not checked whose money line items spend: {error}"
        doubts.append(Problem("", 0, "", told, "warning"))
    return Outside(KNOWN, currencies, owners), doubts


def booked_owners(data: Path, ledger: str) -> dict[int, Owner]:
    """Whose money line items spend, as all books say that there are; none without books.

    Raises: ConfigError, StoreError.
    """
    paths = StatePaths(data.resolve())
    if not ledger and not paths.ledger.exists():
        return {}
    url = ledger or paths.ledger_url
    found = {}
    nodes: list[int | None] = [*nodes_in(url)]
    for node in nodes or [None]:
        with LedgerView.open(url, node=node) as view:
            for key, line in view.lines().items():
                found[key] = Owner(line.campaign, line.advertiser, line.currency, line.name)
    return found


def _refuse_emptiness(
    report: Report, catalogue: Catalogue, data: Path, now_ms: int, allow_empty: bool
) -> None:
    """Keeps a mistyped path, or flights that ran out, from taking a bidder off the air."""
    if not any(report.counts.values()):
        # No option allows this: to end all bidding on purpose, pause the line items.
        _fail(report, REFUSED, "no object of a catalogue is found here: is the path right?")
        return
    if any(not left_out(catalogue, each, now_ms) for each in catalogue.line_items.values()):
        return
    try:
        serving = _line_items_served(data)
    except StoreError as error:
        _fail(report, NO_STORE, str(error))
        return
    what = "no line item is left to serve: all are paused, over, or missing"
    if not serving or allow_empty:
        report.problems.append(Problem("", 0, "", what, "warning"))
    else:
        _fail(report, REFUSED, f"{what}; {serving} are served now (--allow-empty to end them)")


def _fail(report: Report, exit_code: int, message: str) -> None:
    report.problems.append(Problem("", 0, "", message))
    report.exit_code = exit_code


def _line_items_served(data: Path) -> int:
    """Line items of the snapshot that is published now. Raises: StoreError."""
    path = artifacts.current(data / SNAPSHOTS, artifacts.SNAPSHOT)
    return 0 if path is None else len(artifacts.open_snapshot(path)["line_items"])


def _missing(whole: Catalogue, part: Catalogue) -> list[str]:
    """What a partial import leaves out, as "table/key"."""
    return [
        f"{kind}/{key}"
        for kind in KINDS
        for key in whole.table(kind)
        if key not in part.table(kind)
    ]


def _publish(
    report: Report, catalogue: Catalogue, directory: Path, data: Path, now_ms: int
) -> None:
    try:
        arrays, meta = compile_snapshot(catalogue, now_ms, source=directory.name)
        report.snapshot = str(artifacts.write_snapshot(data / SNAPSHOTS, arrays, meta))
        report.applied = True
    except CatalogueError as error:
        _fail(report, REFUSED, str(error))
    except StoreError as error:
        _fail(report, NO_STORE, str(error))


def show(report: Report, printed: Console) -> None:
    """The report for people: every problem, then one line of what happened."""
    if report.problems:
        table = Table("severity", "file", "table", "row", "field", "message", box=None)
        for problem in report.problems:
            style = "red" if problem.severity == "error" else "yellow"
            place = (problem.file, problem.table, str(problem.row or ""), problem.field)
            cells = (problem.severity, *place, problem.message)
            # Files are not trusted: `Text` keeps their words from being markup.
            table.add_row(*(Text(cell) for cell in cells), style=style)
        printed.print(table)
    if report.left_out:
        printed.print(Text(f"left out: {', '.join(report.left_out)}"))
    printed.print(Text(summary(report)))


def summary(report: Report) -> str:
    """One line: what was found and what was done."""
    severities = Counter(problem.severity for problem in report.problems)
    found = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count)
    faults = f"{severities['error']} errors, {severities['warning']} warnings"
    if report.applied:
        done = f"published {report.snapshot}"
    elif report.dry_run:
        done = "dry run: nothing written"
    else:
        done = "nothing applied"
    return f"{found or 'nothing found'}; {faults}; {done}"
