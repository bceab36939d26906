"""Many workers want the last cent of one budget, while they die, lose bids and hear bills late."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rtb.ledger.accounts import Balance
from rtb.ledger.commands import Outcome
from tests.keeper.market import Market
from tests.keeper.node import Node, line
from tests.keeper.test_cluster import Everywhere
from tests.stores.postgres import Postgres

SHOES = 7
BUDGET = 600_000
UNPAID = (
    Outcome.TAKEN_UNGRANTED, Outcome.TAKEN_SHORT, Outcome.POSTED_OVER, Outcome.LATE_OVER,
)  # fmt: skip


def kill_some(node: Node) -> None:
    """One worker may die, and each that is dead may start."""
    number = node.chance.randrange(node.workers_count * 3)
    if number < node.workers_count and (worker := node.workers[number]) is not None:
        worker.kill()
    for number, one in enumerate(node.workers):
        if one is None and node.chance.random() < 0.3:
            node.start(number)


def committed(nodes: Sequence[Node]) -> int:
    """Nanos lent, in flight, spent and overspent, in the books of all nodes."""
    return sum(node.committed(SHOES) + node.balance(Balance.OVER, SHOES) for node in nodes)


def race(
    nodes: Sequence[Node], markets: Sequence[Market], turns: int, most: int, ms: int = 50,
    kills_every: int = 0,
) -> None:  # fmt: skip
    """Opportunities without end; after every turn no more is committed than the budget."""
    for turn in range(turns):
        for node, market in zip(nodes, markets, strict=True):
            market.offer(most)
            market.deliver()
            node.turn(ms)
            if kills_every and turn % kills_every == 0:
                kill_some(node)
        assert committed(nodes) <= BUDGET


def finish(nodes: Sequence[Node], markets: Sequence[Market]) -> None:
    """What was lost or got no answer is spent again, until no impression is left to buy."""
    for node in nodes:
        node.die_in_bid = 0
        for number, one in enumerate(node.workers):
            if one is None:
                node.start(number)
    for _ in range(12):
        if sum(node.balance(Balance.POSTED, SHOES) for node in nodes) > BUDGET - 1_000:
            return
        race(nodes, markets, 20, 6)
        race(nodes, markets, 8, 0)
        race(nodes, markets, 4, 0, 20_000)


def check(nodes: Sequence[Node], markets: Sequence[Market]) -> None:
    """Spent but for less than an impression, each bill booked once, nothing without a lease."""
    spent = sum(node.balance(Balance.POSTED, SHOES) for node in nodes)
    assert BUDGET - 1_000 < spent <= BUDGET
    for node, market in zip(nodes, markets, strict=True):
        booked = node.books.booked(market.billed)
        assert market.billed == {bid: nanos for bid, nanos in booked.items() if nanos}
        assert 0 == sum(node.keeper.outcomes[one] for one in UNPAID)
        assert [] == node.books.audit()


def test_sixteen_workers_of_a_node(tmp_path: Path) -> None:
    """A budget race of 16 workers on one node, with kills, losses and late bills: of some 10^6
    opportunities 600 impressions are bought, to the last one, and none beyond."""
    node = Node(tmp_path, workers_count=16, seed=27, die_in_bid=0.01)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    markets = [Market(node, (SHOES,), costs=(1_000,))]
    race([node], markets, 250, 500, kills_every=4)
    finish([node], markets)

    assert markets[0].offered > 950_000
    check([node], markets)
    node.close()


@pytest.mark.server
def test_four_nodes_of_four_workers(tmp_path: Path, postgres: Postgres) -> None:
    """A budget race of 4 nodes with 4 workers each on one database: together they buy what the
    budget pays for, to the last impression, and none beyond."""
    nodes, url = [], postgres.url()
    for number in range(1, 5):
        folder = tmp_path / str(number)
        folder.mkdir()
        nodes.append(Node(folder, 4, number, number, die_in_bid=0.01, books_url=url))
    for node in nodes:
        node.offer(line(SHOES, BUDGET))
    for node in nodes:
        node.start_all()
    markets = [Everywhere(node, (SHOES,), costs=(1_000,), others=nodes) for node in nodes]
    race(nodes, markets, 30, 500, kills_every=4)
    finish(nodes, markets)

    assert sum(market.offered for market in markets) > 100_000
    assert all(node.sent for node in nodes)
    check(nodes, markets)
    for node in nodes:
        node.close()
