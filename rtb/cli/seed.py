"""`rtb seed`: fills a state directory with a seeded retailer, at any size.

Exit codes: 0 seeded, or nothing to do; 1 refused or the disk failed; 2 wrong usage.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rtb.sim.seed import Parameters, seed

DEFAULTS = Parameters()


def command(
    data: Annotated[Path, typer.Option("--data", help="State directory to fill.")],
    line_items: Annotated[int, typer.Option(help="Line items.")] = DEFAULTS.line_items,
    products: Annotated[int, typer.Option(help="Products of all shops.")] = DEFAULTS.products,
    profiles: Annotated[int, typer.Option(help="People with a profile.")] = DEFAULTS.profiles,
    seed_number: Annotated[
        int, typer.Option("--seed", help="Same seed, same catalogue and people.")
    ] = DEFAULTS.seed,
    now: Annotated[
        str | None,
        typer.Option(help="Clock of the seed, ISO 8601; by default the time of seeding."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Seed anew even if it is done; with another catalogue, books too."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Seed catalogue, snapshot and profiles; nothing to do when they are there."""
    parameters = Parameters(line_items, products, profiles, seed_number, _epoch_s(now))
    stamp, done = seed(data, parameters, force=force)
    if as_json:
        typer.echo(msgspec.json.encode({"seeded": done, "stamp": stamp}))
        return
    found = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in stamp.counts.items())
    how = f"seeded in {stamp.seconds:.1f} s" if done else "already seeded"
    typer.echo(f"{data}: {how}: {found}")


def _epoch_s(text: str | None) -> int:
    if text is None:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"not a time: {text!r}", param_hint="--now") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
