"""Books that two nodes had before they shared a database, or agreed on owners: one campaign, and
two advertisers who pay for it."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from rtb.base.events import Kind
from rtb.ledger.accounts import Balance
from rtb.ledger.chart import Advertiser, Campaign, Chart, changes_to
from rtb.ledger.commands import Outcome
from rtb.stores.ledger_sql import LedgerStore
from tests.keeper.node import CAMPAIGN, USD, Node, T, line
from tests.keeper.test_cluster import Cluster
from tests.ledger.books import EUR
from tests.stores.postgres import Postgres

pytestmark = pytest.mark.server
SHOES, HATS = 7, 8
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "operating.md"
OURS = Chart(
    (Advertiser(600, "shop", "UTC", USD),),
    (Campaign(CAMPAIGN, "spring", 600, 1_000_000),),
    (line(SHOES),),
)
THEIRS = Chart(
    (Advertiser(601, "mill", "UTC", EUR),),
    (Campaign(CAMPAIGN, "spring", 601, 1_000_000),),
    (line(HATS),),
)


@pytest.fixture
def url(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.url()


def book(books: LedgerStore, chart: Chart) -> None:
    """As a keeper of before did: without asking anybody."""
    outcomes = books.apply(changes_to(chart, books.state, T)).outcomes
    assert Outcome.MOVED not in outcomes


def correction() -> list[str]:
    """The statements by which the guide takes back what was said wrong."""
    found = re.search(r"Who said it wrong\n.*?BEGIN;\n(.*?)COMMIT;", GUIDE.read_text(), re.DOTALL)
    assert found
    return found[1].splitlines()


def serve(cluster: Cluster) -> None:
    """Both keepers begin with their catalogues, and the workers bid for a while."""
    for node, chart in zip(cluster.nodes, (OURS, THEIRS), strict=True):
        node.kill_keeper()
        node.plan = chart
        node.start_keeper()
    cluster.start()
    for _ in range(20):
        cluster.bid(0, 3, SHOES), cluster.bid(1, 3, HATS)
        cluster.turns(2)


def check(first: Node, second: Node) -> None:
    """The first one bids; the other has nothing lent, and says why."""
    assert first.sent
    assert {} == first.keeper.unbooked
    assert [] == second.sent
    assert {HATS: "mill / spring / line 8"} == second.keeper.unbooked
    assert 1 == second.keeper.outcomes[Outcome.MOVED]
    assert 0 == second.balance(Balance.GRANTED, HATS)
    for node in (first, second):
        node.close()


def test_books_of_one_node_become_a_pool(tmp_path: Path, url: str) -> None:
    """They were in the database before anybody shared it, so they say whose the campaign is."""
    with LedgerStore.open(url) as alone:
        alone.load(1)
        book(alone, OURS)
    cluster = Cluster(tmp_path, url)
    serve(cluster)

    check(*cluster.nodes)


def test_nodes_of_a_version_that_did_not_ask(tmp_path: Path, url: str) -> None:
    """Both have booked on the campaign: the first in number is right, the other bids no more."""
    cluster = Cluster(tmp_path, url)
    for node, chart in zip(cluster.nodes, (OURS, THEIRS), strict=True):
        book(node.books, chart)
    with cluster.nodes[0].books._transaction() as connection:
        connection.exec_driver_sql("DROP TABLE rtb_pool.pool_owners")
        connection.exec_driver_sql("UPDATE rtb_pool.pool_meta SET value = 1 WHERE name = 'version'")
    serve(cluster)

    check(*cluster.nodes)


def test_who_is_asked_again_may_have_lost_what_was_lent(tmp_path: Path, url: str) -> None:
    """A node that bids on what the pool says is another's stops with the next catalogue; what it
    was lent comes back, and its bills are booked."""
    cluster = Cluster(tmp_path, url)
    first, second = cluster.nodes
    second.plan = THEIRS
    second.keeper.chart(THEIRS, second.now_ms)
    cluster.start()
    while not second.sent:
        cluster.bid(1, 3, HATS)
        cluster.turns(1)
    with second.books._transaction() as connection:
        connection.exec_driver_sql("DELETE FROM rtb_pool.pool_owners")
    first.plan = OURS
    first.keeper.chart(OURS, first.now_ms)
    second.keeper.chart(THEIRS, second.now_ms)
    made = len(second.sent)
    for bid in second.sent:
        cluster.worker(0).notice(Kind.BILL, bid, bid.nanos)
    for _ in range(20):
        cluster.turns(2)
        assert 0 == cluster.bid(1, 3, HATS)

    assert (made * 1000, 0) == (
        second.balance(Balance.POSTED, HATS), second.balance(Balance.GRANTED, HATS),
    )  # fmt: skip
    for node in cluster.nodes:
        node.close()


def test_a_slip_is_taken_back(tmp_path: Path, url: str) -> None:
    """What the guide says: the first node has said wrong whose a campaign is, and was lent nothing
    of it yet; what it has spent of another one stays as it is."""
    cluster = Cluster(tmp_path, url)
    first, second = cluster.nodes
    summer = replace(
        OURS,
        campaigns=(Campaign(CAMPAIGN + 1, "summer", 600),),
        line_items=(replace(line(SHOES), campaign=CAMPAIGN + 1),),
    )
    first.plan = summer
    first.keeper.chart(summer, T * 1000)
    first.start_all()
    while not first.sent:
        cluster.bid(0, 3, SHOES)
        cluster.turns(1)
    first.keeper.chart(replace(OURS, line_items=(line(HATS),)), T * 1000)
    second.keeper.chart(THEIRS, T * 1000)
    assert {HATS} == second.keeper.unbooked.keys()
    first.kill_keeper()
    with second.books._transaction() as connection:
        for statement in correction():
            connection.exec_driver_sql(statement)
    second.kill_keeper()
    first.start_keeper()
    second.start_keeper()
    second.keeper.chart(THEIRS, T * 1000)

    assert {} == first.keeper.unbooked == second.keeper.unbooked
    assert [] == first.books.audit()
    second.keeper.chart(
        replace(summer, advertisers=(Advertiser(600, "shop", "UTC", EUR),)), T * 1000
    )
    assert {SHOES} == second.keeper.unbooked.keys()
    for node in cluster.nodes:
        node.close()
