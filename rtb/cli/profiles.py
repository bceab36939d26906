"""`rtb profiles`: moves people from the embedded store to Redis, and tells how many there are."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rtb.base.errors import ConfigError
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.profiles_redis import RedisProfiles
from rtb.stores.serving import StatePaths


def command(
    data: Annotated[Path, typer.Option("--data", help="State directory with the profiles.")],
    to: Annotated[
        str | None, typer.Option(help="Copy all records and links to this redis:// URL.")
    ] = None,
) -> None:
    """Count the profiles of a state directory; copy them to Redis for `rtb serve --profiles`."""
    paths = StatePaths(data.resolve())
    if not paths.profiles.exists():
        raise ConfigError(f"{paths.profiles}: no profiles: run `rtb seed`")
    store = ProfileStore.open(paths.profiles, readonly=True)
    try:
        typer.echo(f"{store.count()} records and links in {paths.profiles}")
        if to is not None:
            typer.echo(f"{asyncio.run(_copy(store.items(), to))} copied to Redis")
    finally:
        store.close()


async def _copy(pairs: Iterator[tuple[bytes, bytes]], url: str) -> int:
    store = RedisProfiles(url)
    try:
        return await store.load(pairs)
    finally:
        await store.close()
