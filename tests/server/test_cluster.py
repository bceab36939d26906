"""Two real nodes on one PostgreSQL, behind what could be a load balancer."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtb.catalogue.model import Budget
from rtb.cli import audit
from rtb.ledger.accounts import Balance
from rtb.stores import artifacts
from rtb.stores.ledger_view import LedgerView
from rtb.stores.profiles_lmdb import ProfileStore
from tests.decide.test_rules import image, line, snapshot
from tests.server.conftest import Node, StartNode
from tests.server.test_money import offer
from tests.server.test_notices import path_of, until
from tests.stores.postgres import Postgres, start_or_skip

pytestmark = pytest.mark.server
SECRET = '[notices]\nsecrets = { 1 = "RTB_TEST_SECRET" }\ncurrent_secret = 1\n'
NANOS = 10**9


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One server for all."""
    server = start_or_skip()
    yield server
    server.stop()


def start(start_node: StartNode, folder: Path, url: str, *objects: Any) -> list[Node]:
    """Two nodes of one worker each that serve the same catalogue."""
    made = snapshot(*objects)
    found = []
    for number in (1, 2):
        place = folder / str(number)
        artifacts.write_snapshot(place / "snapshots", made.arrays, made.meta)
        ProfileStore.open(place / "profiles", readonly=False).close()
        options = ("--workers", "1", "--node", str(number), "--ledger", url)
        found.append(start_node(*options, data=place, line_items=0, config=SECRET, wait=False))
    for node in found:
        node.wait_ready()
    return found


def spent(url: str, node: int) -> int:
    """Nanos that the books of a node have as spent; nothing is overspend."""
    with LedgerView.open(url, node=node) as view:
        accounts = view.look().accounts
    assert 0 == sum(account.nanos[Balance.OVER] for account in accounts)
    return sum(account.nanos[Balance.POSTED] for account in accounts)


def test_two_nodes_spend_one_daily_budget(
    start_node: StartNode, tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget of 1.00 at 0.02 an impression makes 50 of them over both nodes. Every bill comes to
    the other node, many to both; each is booked once, where its bid was made."""
    monkeypatch.setenv("RTB_TEST_SECRET", secrets.token_hex(16))
    url = postgres.url()
    budget = Budget(daily="1.00")
    nodes = start(
        start_node,
        tmp_path,
        url,
        image("c"),
        line("l", "c", cpm="20", budget=budget, pacing="asap"),
    )
    won = [0, 0]
    number = 0

    def play(*sides: int) -> None:
        nonlocal number
        for side in sides:
            number += 1
            for bid in offer(nodes[side], number):
                won[side] += 1
                path = path_of(bid["burl"], PRICE=str(bid["price"]))
                for node in (nodes[1 - side], *nodes[: number % 3]):
                    assert 204 == node.get(path)[0]

    for side in (0, 1):  # each for itself first: the budget goes where the traffic is
        until(lambda side=side: play(side) or won[side] >= 5, 20)
    until(lambda: play(0, 1) or sum(won) >= 50, 20)
    until(lambda: spent(url, 1) + spent(url, 2) == NANOS, 10)
    for number in range(10_000, 10_040):
        assert [] == offer(nodes[number % 2], number)

    assert 50 == sum(won)
    assert min(won) >= 5
    assert [won[0] * NANOS // 50, won[1] * NANOS // 50] == [spent(url, 1), spent(url, 2)]
    configs = Path(nodes[0].arguments[nodes[0].arguments.index("--configs") + 1])
    report = audit.run([node.data for node in nodes], url, [], [], configs)
    assert (True, 50) == (report.agrees, report.bills)
