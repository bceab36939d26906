"""What tests of commands share."""

import shutil

import pytest


@pytest.fixture
def redis_binary() -> str:
    """The redis-server of this machine."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found
