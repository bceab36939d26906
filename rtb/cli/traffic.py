"""`rtb traffic`: the generator's bid requests as JSON lines, or a log of impressions to learn from.

Exit codes: 0 written; 1 refused, or the disk failed; 2 wrong usage.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from rtb.base.errors import ConfigError
from rtb.sim.clicks import log_lines
from rtb.sim.seed import people_count, read_stamp
from rtb.sim.traffic import Traffic


def command(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Seeded directory: as many people as it has come by."),
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Requests to write.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 1,
    out: Annotated[Path | None, typer.Option(help="File; standard output by default.")] = None,
    log: Annotated[
        int,
        typer.Option(
            min=0,
            help="Instead: this many impressions of the seeded ads, with clicks and conversions, "
            "in the form that `rtb train` reads.",
        ),
    ] = 0,
) -> None:
    """Write realistic OpenRTB 2.6 bid requests, one a line."""
    # Before the file is opened: a refusal must not empty it.
    lines = _lines(data, count, seed, log)
    with _open(out) as file:
        for line in lines:
            file.write(line + b"\n")


def _lines(data: Path | None, count: int, seed: int, log: int) -> Iterator[bytes]:
    if data is not None and read_stamp(data) is None:
        raise ConfigError(f"{data}: not a seeded directory: run `rtb seed`")
    if not log:
        return Traffic(seed, people_count(data)).bodies(count)
    if data is None:
        raise typer.BadParameter("--log needs the --data of a seeded directory")
    return log_lines(data, log, seed)


@contextmanager
def _open(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with out.open("wb") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"{out}: {error}") from error
