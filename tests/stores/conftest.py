"""Asynchronous tests of stores run on both event loops: workers use uvloop, tools may not."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that each test is repeated on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
