"""What nodes tell each other of the budgets that they pace."""

from pathlib import Path

import pytest

from rtb.catalogue.model import Budget, Flight
from rtb.keeper.elsewhere import TELL_EVERY_MS, Elsewhere
from rtb.stores.ledger_pool import PooledStore, open_books
from tests.keeper.pacing_node import PacedNode, snapshot_of
from tests.stores.postgres import Postgres

pytestmark = pytest.mark.server
BOTH = {1: True, 2: True}


def test_each_sees_what_all_have_spent(tmp_path: Path, postgres: Postgres) -> None:
    """Money and impressions of two nodes, told every few seconds; who is alone says nothing."""
    url = postgres.url()
    nodes, stores = [], []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        nodes.append(PacedNode(tmp_path / str(number)))
        budget = Budget(daily="1400", impressions=10**6)
        flights = (Flight("2026-09-21", "2026-09-22"),)
        nodes[-1].serve(snapshot_of({"li": {"budget": budget, "flights": flights}}))
        stores.append(open_books(url, number))
        stores[-1].load(number)
    told = [Elsewhere(store) for store in stores if isinstance(store, PooledStore)]
    for second in range(1, 40):
        for node, elsewhere in zip(nodes, told, strict=True):
            node.turn()
            node.offer("li", 20, floor=0.5)
            elsewhere.turn(node.pacers, BOTH if second > 20 else {1: True}, second * 1000)
        if second == 20:
            assert all(_seen(node) == _own(node) for node in nodes)
    now_ms = 40_000 + TELL_EVERY_MS
    for _ in range(3):  # what is seen, told, and heard
        for node, elsewhere in zip(nodes, told, strict=True):
            elsewhere.turn(node.pacers, BOTH, now_ms)
            node.turn()
        now_ms += TELL_EVERY_MS
    for store in stores:
        store.close()

    assert all(_own(node)[0] > 0 for node in nodes)
    total = [sum(pair) for pair in zip(*map(_own, nodes), strict=True)]
    assert [total, total] == [_seen(node) for node in nodes]


def _own(node: PacedNode) -> list[int]:
    """What a node has spent of each of its budgets."""
    return [seen.spent_nanos for _, seen in sorted(node.pacers.own.items())]


def _seen(node: PacedNode) -> list[int]:
    """What its controllers believe."""
    pacers = sorted(node.pacers._pacers, key=lambda one: one.budget.name)
    return [pacer.seen.spent_nanos for pacer in pacers]
