"""`rtb journal`: what the journals of a node have lost, how to give it up, and their export.

Exit codes: 0 nothing is lost, all that is was given up, or all is exported; 1 something is lost, or
it could not be looked or exported; 2 wrong usage.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from rtb.base.errors import StoreError
from rtb.keeper import exports
from rtb.server import kernels, settings
from rtb.server.claim import claim_state
from rtb.stores import events_export
from rtb.stores.journal import Kernel
from rtb.stores.journal_damage import Damage, damages, give_up
from rtb.stores.journal_kept import Kept, kept_in
from rtb.stores.serving import StatePaths

app: Final = typer.Typer(help="Look for damage, give up what is lost, export events.")
_Data = Annotated[Path, typer.Option("--data", help="State directory of the node.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON array.")]
_LOST: Final = 1


class Lost(msgspec.Struct, frozen=True):
    """Records of one journal that cannot be read; times where the records beside them say some."""

    worker: int
    first: int
    last: int
    place: str
    after: str
    before: str
    given_up: bool


def _lost(one: Damage) -> Lost:
    return Lost(
        one.worker, one.span.first, one.span.last, one.place, _time(one.from_ms),
        _time(one.to_ms), one.is_given_up,
    )  # fmt: skip


def _time(time_ms: int | None) -> str:
    if time_ms is None:
        return ""
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _sentence(one: Lost) -> str:
    count = one.last - one.first + 1
    what = f"worker {one.worker}: records {one.first:,} to {one.last:,} are lost ({count:,})"
    when = f"written between {one.after or '?'} and {one.before or '?'}"
    return f"{what}, {when}{', given up' if one.given_up else ''}; {one.place}"


def _found(paths: StatePaths, kernel: Kernel) -> Iterator[tuple[Kept, list[Damage]]]:
    """The journals of a node with what each has lost. Raises: StoreError."""
    if not paths.journals.is_dir():
        raise StoreError(f"there are no journals - at `{paths.journals}`", transient=False)
    for kept in kept_in(paths.journals, kernel):
        yield kept, list(damages(paths.journals, kept, kernel))


@app.command("check")
def check(data: _Data, as_json: _Json = False) -> None:
    """Read all journals to their end, and say which records are damaged or missing."""
    paths = StatePaths(data.resolve())
    found = [_lost(one) for _, lost in _found(paths, kernels.load().journal) for one in lost]
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        for one in found:
            typer.echo(_sentence(one))
        if not found:
            typer.echo("all records can be read")
    if any(not one.given_up for one in found):
        raise typer.Exit(_LOST)


@app.command("give-up")
def accept(
    data: _Data,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what.")] = False,
) -> None:
    """Accept that damaged records are lost: the keeper goes on behind them. The node must not run.

    Bids among them expire; bills among them were answered, and are in no books: compare the
    exchanges' invoices.
    """
    paths = StatePaths(data.resolve())
    if not paths.serving.parent.is_dir():
        raise StoreError(f"no node has run here - at `{paths.root}`", transient=False)
    lock = claim_state(paths, 0.0)
    try:
        accepted = _accept(paths, yes)
    finally:
        os.close(lock)
    if not accepted:
        typer.echo("nothing to give up")
    elif not yes:
        typer.echo("nothing was done: say --yes to give them up")
        raise typer.Exit(_LOST)


def _accept(paths: StatePaths, yes: bool) -> int:
    """How many losses there are that were not given up."""
    count = 0
    for kept, lost in _found(paths, kernels.load().journal):
        new = [one for one in lost if not one.is_given_up]
        if new and yes:
            give_up(paths.journals, kept, [one.span for one in new])
        for one in new:
            typer.echo(_sentence(_lost(one._replace(is_given_up=yes))))
        count += len(new)
    return count


# -- the export ----------------------------------------------------------------------------------


class Exported(msgspec.Struct, frozen=True):
    """A worker's journal after an export.

    segments, rows, damaged, unread: of this run; damaged records are in no file, unread ones are as
        bytes
    exported  sequence of the last record that was
    waits     records of the segment that is not whole yet
    """

    worker: int
    journal: str
    segments: int
    rows: int
    damaged: int
    unread: int
    exported: int
    waits: int


def _exported(before: events_export.Waiting, after: events_export.Waiting) -> Exported:
    """What an export has done for one worker."""
    old, new = before.progress, after.progress
    return Exported(
        after.worker, after.journal, new.segments - old.segments, new.rows - old.rows,
        new.damaged - old.damaged, new.unread - old.unread, new.exported,
        after.last - new.exported,
    )  # fmt: skip


@app.command("export")
def export(
    data: _Data,
    config: Annotated[
        Path | None, typer.Option(help="Settings of the node, as `rtb serve` has them.")
    ] = None,
    configs: Annotated[Path, typer.Option(help="Folder of exchange settings.")] = settings.CONFIGS,
    as_json: _Json = False,
) -> None:
    """Write what journals have to Parquet files, each whole segment once, also while a node runs.

    `rtb serve` does it by itself where its settings say `[journal] export = true`.
    """
    paths = StatePaths(data.resolve())
    if not paths.journals.is_dir():
        raise StoreError(f"there are no journals - at `{paths.journals}`", transient=False)
    exports.check()
    chosen, kernel = settings.load(config), kernels.load().journal
    exchanges = settings.load_exchanges(configs / chosen.files.exchanges)
    before = {one.worker: one for one in _waiting(paths, kernel)}
    for _ in exports.exporter(paths, chosen.money.node, exchanges, kernel).run():
        pass
    found = [_exported(before.get(one.worker, one), one) for one in _waiting(paths, kernel)]
    if as_json:
        typer.echo(msgspec.json.encode(found))
    for one in [] if as_json else found:
        typer.echo(_told(one))


def _waiting(paths: StatePaths, kernel: Kernel) -> Iterator[events_export.Waiting]:
    return events_export.waiting(paths.journals, paths.events, kernel)


def _told(one: Exported) -> str:
    done = f"worker {one.worker}: {one.segments:,} segments, {one.rows:,} rows"
    lost = f", {one.damaged:,} damaged records left out" if one.damaged else ""
    unread = f", {one.unread:,} rows not understood" if one.unread else ""
    waits = f"; {one.waits:,} records wait for their segment to be whole" if one.waits else ""
    return f"{done}{lost}{unread}{waits}"
