"""Asynchronous tests of stores run on both event loops: workers use uvloop, tools may not; those of
the books on both engines."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.stores.postgres import Postgres, sqlite_url, start_or_skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all."""
    server = start_or_skip()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each engine."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    server: Postgres = request.getfixturevalue("postgres")
    return server.url()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that each test is repeated on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
