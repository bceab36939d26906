"""Keepers of several nodes share one PostgreSQL."""

from collections.abc import Iterator

import pytest

from tests.stores.postgres import Postgres, start_or_skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all."""
    server = start_or_skip()
    yield server
    server.stop()
