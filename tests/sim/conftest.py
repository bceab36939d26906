"""A small seeded directory, made once for all tests of the simulation."""

from pathlib import Path

import pytest

from rtb.sim.seed import Parameters, seed

# An autumn noon: seeds with a clock of their own are the same on every day.
NOW_S = 1_790_000_000
SMALL = Parameters(line_items=300, products=400, profiles=500, seed=3, now_s=NOW_S)


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with 300 line items and 500 people."""
    data = tmp_path_factory.mktemp("seeded")
    seed(data, SMALL)
    return data
