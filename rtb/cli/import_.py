"""`rtb import`: reads a catalogue, says what is wrong with it, and publishes it to the workers.

Exit codes: 0 applied, or a dry run without errors; 1 errors, nothing applied; 2 wrong usage;
3 applied in part; 4 the state directory could not be written.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtb.base.errors import CatalogueError, StoreError
from rtb.catalogue.check import sound_part
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.load import Problem, load
from rtb.catalogue.model import KINDS, Catalogue
from rtb.stores import artifacts

APPLIED, REFUSED, IN_PART, NO_STORE = 0, 1, 3, 4
SNAPSHOTS = "snapshots"


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
    directory: Annotated[
        Path, typer.Argument(help="Directory of the catalogue.", exists=True, file_okay=False)
    ],
    data: Annotated[Path, typer.Option("--data", help="State directory to publish into.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; write nothing.")] = False,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Leave out what has errors, and what hangs on it."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a catalogue and publish it: applies nothing when anything is wrong."""
    report = run(directory, data, dry_run=dry_run, partial=partial)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        show(report, Console())
    raise typer.Exit(report.exit_code)


def run(directory: Path, data: Path, *, dry_run: bool = False, partial: bool = False) -> Report:
    """The import itself. Raises: OSError when `directory` cannot be listed."""
    catalogue, problems = load(directory)
    report = Report(dry_run=dry_run, problems=problems)
    if any(problem.severity == "error" for problem in problems):
        report.exit_code = IN_PART if partial else REFUSED
        if partial:
            whole = catalogue
            catalogue = sound_part(catalogue)
            report.left_out = _missing(whole, catalogue)
    report.counts = {kind: len(catalogue.table(kind)) for kind in KINDS}
    if report.exit_code != REFUSED and not dry_run:
        _publish(report, catalogue, directory, data)
    return report


def _missing(whole: Catalogue, part: Catalogue) -> list[str]:
    """What a partial import leaves out, as "table/key"."""
    return [
        f"{kind}/{key}"
        for kind in KINDS
        for key in whole.table(kind)
        if key not in part.table(kind)
    ]


def _publish(report: Report, catalogue: Catalogue, directory: Path, data: Path) -> None:
    try:
        now_ms = time.time_ns() // 1_000_000
        arrays, meta = compile_snapshot(catalogue, now_ms, source=directory.name)
        report.snapshot = str(artifacts.write_snapshot(data / SNAPSHOTS, arrays, meta))
        report.applied = True
    except CatalogueError as error:
        report.problems.append(Problem("", 0, "", str(error)))
        report.exit_code = REFUSED
    except StoreError as error:
        report.problems.append(Problem("", 0, "", str(error)))
        report.exit_code = NO_STORE


def show(report: Report, console: Console) -> None:
    """The report for people: every problem, then one line of what happened."""
    if report.problems:
        table = Table("severity", "file", "row", "field", "message", box=None)
        for problem in report.problems:
            style = "red" if problem.severity == "error" else "yellow"
            cells = (problem.severity, problem.file, str(problem.row or ""), problem.field)
            # Files are not trusted: `Text` keeps their words from being markup.
            table.add_row(*(Text(cell) for cell in (*cells, problem.message)), style=style)
        console.print(table)
    if report.left_out:
        console.print(Text(f"left out: {', '.join(report.left_out)}"))
    console.print(Text(summary(report)))


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
