"""Two nodes on one PostgreSQL: one budget, and notices that come to the wrong node."""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rtb.base.errors import StoreError
from rtb.base.events import Kind
from rtb.keeper import publish
from rtb.keeper.leases import Lent, Need
from rtb.keeper.run import Keeper
from rtb.ledger.accounts import Balance, lend
from rtb.ledger.chart import LineItem
from rtb.ledger.commands import Outcome, Scope
from rtb.stores.board import NoticeResult
from rtb.stores.ledger_pool import PooledStore, open_books
from tests.keeper.market import Market
from tests.keeper.node import UNLIMITED, Bid, Node, T, Worker, line
from tests.ledger.books import EUR
from tests.stores.journals import Killed
from tests.stores.postgres import Postgres

pytestmark = pytest.mark.server
SHOES, HATS = 7, (1 << 64) - 8


@dataclass
class Cluster:
    """Two nodes that serve the same catalogue."""

    folder: Path
    url: str
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(7)
        for number in (1, 2):
            self.add(number)

    def add(self, number: int, now_ms: int = T * 1000) -> Node:
        """One more node, not yet started."""
        folder = self.folder / str(number)
        folder.mkdir()
        node = Node(folder, number=number, books_url=self.url, now_ms=now_ms, seed=number)
        self.nodes.append(node)
        return node

    def release(self, number: int) -> None:
        """Says that a node is no more, as an operator would."""
        with open_books(self.url, number) as books:
            assert isinstance(books, PooledStore)
            books.release()

    def offer(self, *items: LineItem, nanos: int | None = None) -> None:
        """Sets the budgets on both."""
        for node in self.nodes:
            node.offer(*items, nanos=nanos)

    def start(self) -> None:
        """Starts all workers."""
        for node in self.nodes:
            node.start_all()

    def turns(self, count: int, ms: int = 50) -> None:
        """Time passes on both."""
        for _ in range(count):
            for node in self.nodes:
                node.turn(ms)

    def sent(self) -> list[Bid]:
        """All bids."""
        return [bid for node in self.nodes for bid in node.sent]

    def total(self, balance: Balance, line_item: int = SHOES) -> int:
        """Nanos of a line item in both books."""
        return sum(node.balance(balance, line_item) for node in self.nodes)

    def check(self, budget: int, line_item: int = SHOES) -> None:
        """What is lent, in flight and spent is within the budget; the books add up."""
        assert sum(node.committed(line_item) for node in self.nodes) <= budget
        assert 0 == self.total(Balance.OVER, line_item)
        for node in self.nodes:
            assert [] == node.books.audit()

    def bid(self, number: int, most: int, line_item: int = SHOES, micros: int = 1000) -> int:
        """Opportunities for the workers of a node; how many it could pay for."""
        made = 0
        for worker in self.nodes[number].workers:
            if worker is not None:
                for _ in range(self.chance.randrange(most + 1)):
                    made += worker.bid(line_item, micros) is not None
        return made

    def worker(self, number: int) -> Worker:
        """The first worker of a node."""
        found = self.nodes[number].workers[0]
        assert found is not None
        return found


@pytest.fixture
def cluster(tmp_path: Path, postgres: Postgres) -> Iterator[Cluster]:
    """Two nodes of two workers each, not yet started."""
    made = Cluster(tmp_path, postgres.url())
    yield made
    for node in made.nodes:
        node.close()


def play(cluster: Cluster, turns: int, most: int = 4, sides: tuple[int, ...] = (0, 1)) -> None:
    """Opportunities on some nodes, all won."""
    for _ in range(turns):
        for side in sides:
            for bid in _made(cluster, side, most):
                cluster.worker(cluster.chance.choice((0, 1))).notice(Kind.BILL, bid, bid.nanos)
        cluster.turns(1)


def _made(cluster: Cluster, side: int, most: int, item: int = SHOES) -> list[Bid]:
    """Bids of a node on a few opportunities."""
    node = cluster.nodes[side]
    before = len(node.sent)
    cluster.bid(side, most, item)
    return node.sent[before:]


# -- one budget ------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1_000, 3_000, 100_000, 1_000_000])
def test_a_daily_budget_is_spent_once_and_whole(cluster: Cluster, budget: int) -> None:
    """Both nodes together make exactly as many impressions as the budget allows, however small."""
    cluster.offer(line(SHOES, None, daily=budget))
    cluster.start()
    turns = 0
    while len(cluster.sent()) * 1000 < budget and turns < 400:
        play(cluster, 5, most=budget // 20_000 + 2)
        turns += 5
        assert sum(node.committed(SHOES) for node in cluster.nodes) <= budget
    play(cluster, 40)
    cluster.turns(10)

    assert budget // 1000 == len(cluster.sent())
    assert budget == cluster.total(Balance.POSTED)
    cluster.check(budget)
    if budget == 1_000_000:
        assert all(len(node.sent) > 200 for node in cluster.nodes)


def test_the_pool_is_asked_for_what_makes_an_impression(cluster: Cluster) -> None:
    """A rest that pays for no impression is not waited for, whether or not a bid was refused."""
    cluster.offer(line(SHOES, 1_300))
    cluster.start()
    play(cluster, 40)
    cluster.turns(40)

    for refused in (True, False):
        need = Need(0, 0, 1, 1000, refused, 1000, False, 1000, 1)
        for _ in range(40):
            waiting = [waits(node.keeper, need) for node in cluster.nodes]
            cluster.turns(1)
        assert [False, False] == waiting


def waits(keeper: Keeper, need: Need) -> bool:
    """Whether a lease of the shoes waits for the pool."""
    pool, shoes = keeper._cluster, keeper.state.lines[SHOES]
    assert pool is not None
    room = Lent(*keeper.state.available(Scope.LINE_ITEM, SHOES))
    return pool.waits(shoes, 0, 0, need, room, 2, keeper._settings.leases)


@pytest.mark.parametrize("side", [0, 1])
def test_traffic_on_one_side_only(cluster: Cluster, side: int) -> None:
    """The node that has the traffic can spend all, whoever had it first."""
    cluster.offer(line(SHOES, 20_000))
    cluster.start()
    play(cluster, 12, most=1, sides=(1 - side,))
    other = len(cluster.nodes[1 - side].sent)
    assert 0 < other < 20
    for _ in range(40):
        play(cluster, 5, sides=(side,))

    assert 20 == len(cluster.sent())
    assert 20 - other == len(cluster.nodes[side].sent)
    cluster.check(20_000)


def test_a_campaign_is_shared_over_nodes_and_line_items(cluster: Cluster) -> None:
    """A budget above line items holds where each of them is spent on another node."""
    cluster.offer(line(SHOES, UNLIMITED), line(HATS), nanos=30_000)
    cluster.start()
    for _ in range(60):
        for side, item in ((0, SHOES), (1, HATS)):
            for bid in _made(cluster, side, 2, item):
                cluster.worker(1 - side).notice(Kind.BILL, bid, bid.nanos)
        cluster.turns(1)
    cluster.turns(10)

    assert 30_000 == cluster.total(Balance.POSTED) + cluster.total(Balance.POSTED, HATS)
    assert cluster.total(Balance.POSTED) > 5_000
    assert cluster.total(Balance.POSTED, HATS) > 5_000
    cluster.check(30_000)


def test_a_pot_is_of_one_currency_on_all_nodes(cluster: Cluster) -> None:
    """The second node that serves a campaign for other money does not bid for it, and says so; the
    first goes on."""
    first, second = cluster.nodes
    first.offer(line(SHOES, 100_000))
    second.offer(line(SHOES, 100_000), line(HATS, 100_000), currency=EUR)
    cluster.start()
    for _ in range(10):
        cluster.bid(0, 9)
        assert (0, 0) == (cluster.bid(1, 9), cluster.bid(1, 9, HATS))
        cluster.turns(5)
    assert first.sent
    assert {SHOES, HATS} == second.keeper.unbooked.keys()
    assert 2 == second.keeper.outcomes[Outcome.MOVED]
    assert {} == first.keeper.unbooked

    second.offer(line(SHOES, 100_000))
    for _ in range(10):
        cluster.bid(1, 9)
        cluster.turns(5)
    assert {} == second.keeper.unbooked
    assert second.sent
    cluster.check(100_000)


def test_impressions_are_shared_too(cluster: Cluster) -> None:
    """A budget of impressions over both nodes."""
    cluster.offer(line(SHOES, units=31))
    cluster.start()
    for _ in range(20):
        play(cluster, 5, most=1)

    assert 31 == len(cluster.sent())


def test_money_that_comes_back_is_for_whoever_wants_it(cluster: Cluster) -> None:
    """Bids of one node expire; the other one spends what they had held."""
    cluster.offer(line(SHOES, 10_000))
    cluster.start()
    while len(cluster.nodes[0].sent) < 10:
        cluster.bid(0, 2)
        cluster.turns(1)
    cluster.turns(4, 20_000)
    for _ in range(20):
        play(cluster, 5, sides=(1,))

    assert 10 == len(cluster.nodes[1].sent)
    cluster.check(10_000)


def test_a_budget_that_is_lowered(cluster: Cluster) -> None:
    """Once both nodes have the new catalogue nothing goes out beyond it; until then the one that
    has it keeps to it, and the lower budget holds."""
    cluster.offer(line(SHOES, 1_000_000))
    cluster.start()
    play(cluster, 40, most=6)
    spent = 1000 * len(cluster.sent())
    lower = spent + 50_000
    cluster.nodes[0].offer(line(SHOES, lower))
    cluster.turns(10)
    cluster.nodes[1].offer(line(SHOES, lower))
    for _ in range(30):
        play(cluster, 5)
    cluster.turns(100)

    assert lower - 1000 < cluster.total(Balance.POSTED) <= lower
    cluster.check(lower)


def test_a_budget_that_is_raised(cluster: Cluster) -> None:
    """Both are exhausted, and go on when both have the new catalogue."""
    cluster.offer(line(SHOES, 5_000))
    cluster.start()
    for _ in range(30):
        play(cluster, 5)
    assert 5 == len(cluster.sent())
    cluster.nodes[0].offer(line(SHOES, 25_000))
    for _ in range(5):
        play(cluster, 5)
    assert 5 == len(cluster.sent())  # the lower one holds
    cluster.nodes[1].offer(line(SHOES, 25_000))
    for _ in range(20):
        play(cluster, 5)

    assert 25 == len(cluster.sent())
    cluster.check(25_000)


def test_a_limit_that_comes_later_counts_what_was_spent(cluster: Cluster) -> None:
    """What both have spent without a limit is told to the pool when there is one."""
    cluster.offer(line(SHOES))
    cluster.start()
    play(cluster, 20)
    cluster.turns(100)
    spent = cluster.total(Balance.POSTED)
    cluster.offer(line(SHOES, spent + 5_000))
    cluster.turns(12)  # leases of before are called back
    for _ in range(20):
        play(cluster, 5)
    cluster.turns(100)

    assert spent + 5_000 == cluster.total(Balance.POSTED)
    cluster.check(spent + 5_000)


def test_who_left_has_no_say(cluster: Cluster) -> None:
    """A node that overspent and had a lower budget is released: the other goes by its own budget,
    and nobody calls back its leases."""
    _overspend(cluster, 0)
    cluster.release(1)
    here = cluster.nodes[1]
    here.offer(line(SHOES, 13_000))
    for _ in range(60):
        cluster.bid(1, 2)
        here.turn()

    assert 1 + 10 == len(here.sent)  # two of 13 are booked there


def test_who_stops_leaves_the_rest_to_the_others(cluster: Cluster) -> None:
    """The first node had all while it was alone; after its stop the other can spend what it has not
    lent."""
    first, second = cluster.nodes
    second.kill_keeper()
    cluster.release(2)
    for node in cluster.nodes[:1]:
        node.offer(line(SHOES, 50_000))
        node.start_all()
    while len(first.sent) < 5:
        cluster.bid(0, 1)
        first.turn()
    second.start_keeper()
    second.offer(line(SHOES, 50_000))
    first.turns(6)
    first.keeper.give_back()
    kept = first.committed(SHOES)
    second.start_all()
    for _ in range(200):
        cluster.bid(1, 3)
        second.turn()

    assert (50_000 - kept) // 1000 == len(second.sent)
    assert kept < 50_000
    cluster.check(50_000)


def test_keepers_die_at_any_time(cluster: Cluster) -> None:
    """Keepers are killed between what the pool wrote down and what the books hear of it: nothing is
    lent twice, and nothing is lost for good."""
    cluster.offer(line(SHOES, 40_000))
    cluster.start()
    for round_ in range(24):
        play(cluster, 4, most=3)
        node = cluster.nodes[round_ % 2]
        pooled = node.books
        assert isinstance(pooled, PooledStore)
        if round_ % 3 == 0:
            _lose_the_next_answer(pooled)
        if round_ < 12:
            node.kill_keeper()
            node.start_keeper()
        assert sum(one.committed(SHOES) for one in cluster.nodes) <= 40_000
    for _ in range(10):
        play(cluster, 5)

    assert 40 == len(cluster.sent())
    cluster.check(40_000)


def _lose_the_next_answer(books: PooledStore) -> None:
    """The pool has written it down; the node hears nothing."""
    whole = books.exchange

    def once(asks):  # type: ignore[no-untyped-def]
        books.exchange = whole  # type: ignore[method-assign]
        before = {ask.pot: books.state.bound(ask.pot) for ask in asks}
        whole(asks)
        for pot, bound in before.items():
            lend(books.state, pot, (min(bound[0], books.state.bound(pot)[0]),
                                    min(bound[1], books.state.bound(pot)[1])))  # fmt: skip
        raise StoreError("the network is gone")

    books.exchange = once  # type: ignore[method-assign]


# -- notices ---------------------------------------------------------------------------------------


def _bid(cluster: Cluster, side: int, turning: tuple[int, ...] = (0, 1)) -> Bid:
    """One bid of a node; turning: whose time passes until it has the money."""
    for _ in range(40):
        found = cluster.worker(side).bid(SHOES)
        if found is not None:
            return found
        for number in turning:
            cluster.nodes[number].turn()
    raise AssertionError("no bid")


def _in_flight(cluster: Cluster) -> Bid:
    """A bid of the first node, of a budget that is large; its books have it."""
    cluster.offer(line(SHOES, 100_000))
    cluster.start()
    bid = _bid(cluster, 0)
    cluster.turns(3)
    return bid


def _overspend(cluster: Cluster, side: int) -> None:
    """Three bids on a budget of two, for the first two have expired, and all are billed after all;
    side: where the bills come."""
    cluster.offer(line(SHOES, 2_000))
    cluster.start()
    bids = [_bid(cluster, 0), _bid(cluster, 0)]
    cluster.turns(4, 20_000)
    for bid in (*bids, _bid(cluster, 1)):
        cluster.worker(side).notice(Kind.BILL, bid, 1000)
    cluster.turns(12)
    assert 1000 == cluster.total(Balance.OVER)


@pytest.mark.parametrize("to", [(1,), (0, 1), (1, 0), (1, 1, 0, 0, 1)])
def test_a_bill_is_booked_by_who_made_the_bid(cluster: Cluster, to: tuple[int, ...]) -> None:
    """Wherever it comes, and however often: once, in the books of its own node."""
    bid = _in_flight(cluster)
    for side in to:
        cluster.worker(side).notice(Kind.BILL, bid, 900)
    cluster.turns(8)

    ours, others = cluster.nodes
    number = int(bid.said["bid"][0])
    assert {number: 900} == ours.books.booked([number])
    assert {} == others.books.booked([number])
    assert (900, 0) == (ours.balance(Balance.POSTED, SHOES), others.balance(Balance.POSTED, SHOES))
    assert 1 == ours.keeper.outcomes[Outcome.POSTED]
    assert len(to) - 1 == ours.keeper.outcomes[Outcome.DUPLICATE]
    cluster.check(100_000)


@pytest.mark.parametrize("is_down", [False, True])
def test_a_bill_of_a_node_that_is_new_goes_to_it(
    cluster: Cluster, is_down: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It bid before the others knew of it, and its bill was sent to it and to another at once."""
    cluster.offer(line(SHOES, 100_000))
    cluster.start()
    cluster.turns(6)
    here, now_ms = cluster.nodes[1], cluster.nodes[1].now_ms
    new = cluster.add(3, now_ms)
    new.offer(line(SHOES, 100_000))
    new.start_all()
    bid = _bid(cluster, 2, turning=(0, 2))
    new.turn()
    here.now_ms = now_ms + 1  # its keeper has not asked who takes part since
    cluster.worker(1).notice(Kind.BILL, bid, 900)
    cluster.worker(2).notice(Kind.BILL, bid, 900)
    if is_down:
        monkeypatch.setattr(here.books, "nodes", _away)
        assert 0 == here.turn(1)
        assert "refused" in here.keeper.fault
        assert not here.keeper.is_idle()
        assert {} == here.keeper.positions()
        monkeypatch.undo()
    here.turn(1)
    cluster.turns(12)
    bills = [node.keeper.tally.counts[Kind.BILL] for node in (new, here)]

    assert (900, 0) == (new.balance(Balance.POSTED, SHOES), here.balance(Balance.POSTED, SHOES))
    assert (1, 1) == (bills[0][NoticeResult.OK], bills[0][NoticeResult.DUPLICATE])
    assert 0 == bills[1].sum()
    assert all(node.keeper.is_idle() for node in cluster.nodes)
    cluster.check(100_000)


def _away(*_: object, **__: object) -> None:
    raise StoreError("connection refused")


def test_a_bill_elsewhere_comes_before_its_bid(cluster: Cluster) -> None:
    """The other node's keeper is faster than the bid's own: booked as unseen, once."""
    cluster.offer(line(SHOES, 100_000))
    cluster.start()
    bid = _bid(cluster, 0)
    cluster.worker(1).notice(Kind.BILL, bid, 900)
    ours, others = cluster.nodes
    others.turns(8)
    read, ours.keeper.tails.read = ours.keeper.tails.read, lambda *_: []  # type: ignore[method-assign]
    ours.turns(8)
    assert 1 == ours.keeper.outcomes[Outcome.POSTED_UNSEEN]
    ours.keeper.tails.read = read  # type: ignore[method-assign]
    cluster.turns(8)

    assert 900 == cluster.total(Balance.POSTED)
    assert 0 == cluster.total(Balance.PENDING)
    cluster.check(100_000)


def test_a_loss_elsewhere_frees_the_money_here(cluster: Cluster) -> None:
    """A loss notice goes by mail as well."""
    bid = _in_flight(cluster)
    assert 1000 == cluster.total(Balance.PENDING)
    cluster.worker(1).notice(Kind.LOSS, bid)
    cluster.turns(8)

    assert 0 == cluster.total(Balance.PENDING)
    assert 1 == cluster.nodes[0].keeper.outcomes[Outcome.VOIDED]


@pytest.mark.parametrize("commit", ["before", "after"])
@pytest.mark.parametrize("side", [0, 1])
def test_mail_is_booked_once_whoever_dies(cluster: Cluster, side: int, commit: str) -> None:
    """The sender or the receiver is killed before or after the commit of the batch that has it."""
    bid = _in_flight(cluster)
    node = cluster.nodes[side]
    whole = node.books.apply

    def dies(commands, positions=None, also=None):  # type: ignore[no-untyped-def]
        has_it = also is not None or "mail-from/2" in (positions or {})
        if has_it and commit == "before":
            raise Killed
        applied = whole(commands, positions, also)
        if has_it:
            raise Killed
        return applied

    node.books.apply = dies  # type: ignore[method-assign]
    cluster.worker(1).notice(Kind.BILL, bid, 900)
    cluster.turns(12)

    assert 3 == sum(one.keepers for one in cluster.nodes)
    assert 900 == cluster.total(Balance.POSTED)
    assert 900 == cluster.nodes[0].balance(Balance.POSTED, SHOES)
    cluster.check(100_000)


@pytest.mark.parametrize("known", ["nowhere", "in the mail", "in its journal"])
def test_a_bill_for_a_node_that_left_waits_for_it(cluster: Cluster, known: str) -> None:
    """Only its own books can tell whether it was booked: it is, once, when the node comes back."""
    bid = _in_flight(cluster)
    first, here = cluster.nodes
    if known == "in the mail":
        cluster.worker(1).notice(Kind.BILL, bid, 900)
        here.turns(6)
    elif known == "in its journal":
        cluster.worker(0).notice(Kind.BILL, bid, 900)
        first.commit()
    cluster.release(1)
    here.turns(8)
    cluster.worker(1).notice(Kind.BILL, bid, 900)
    here.turns(6)
    assert 0 == here.balance(Balance.POSTED, SHOES)
    first.kill_keeper()
    first.start_keeper()
    cluster.turns(20)
    cluster.worker(1).notice(Kind.BILL, bid, 900)
    cluster.turns(20)

    assert 900 == first.balance(Balance.POSTED, SHOES) == cluster.total(Balance.POSTED)
    cluster.check(100_000)


def test_a_share_that_is_short_is_no_overspend_for_long(cluster: Cluster) -> None:
    """A late bill beyond the share is covered by the budget that the others have not spent."""
    cluster.offer(line(SHOES, 2_000))
    cluster.start()
    bid = _bid(cluster, 0)
    cluster.turns(4, 20_000)  # its hold has expired
    _bid(cluster, 1)
    cluster.worker(1).notice(Kind.BILL, bid, 1000)
    cluster.turns(12)

    assert (
        1
        == cluster.nodes[0].keeper.outcomes[Outcome.LATE_OVER]
        + (cluster.nodes[0].keeper.outcomes[Outcome.LATE])
    )
    assert 1000 == cluster.nodes[0].balance(Balance.POSTED, SHOES)
    cluster.check(2_000)


def test_overspend_of_one_node_is_taken_from_the_other(cluster: Cluster) -> None:
    """Late bills beyond the whole budget leave nothing for anybody, and are alarmed."""
    _overspend(cluster, 1)

    assert 2000 == cluster.total(Balance.POSTED)
    assert 2 == len(cluster.nodes[0].sent)
    assert sum(node.committed(SHOES) for node in cluster.nodes) <= 2_000
    play(cluster, 10)
    assert 3 == len(cluster.sent())


def test_without_the_database_a_node_spends_what_it_was_lent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL is away: no more than that goes out, and all is booked when it is back."""
    cluster.offer(line(SHOES, 1_000_000))
    cluster.start()
    play(cluster, 20)
    lent = [node.lent(SHOES) for node in cluster.nodes]
    before = [len(node.sent) for node in cluster.nodes]

    for node in cluster.nodes:
        monkeypatch.setattr(node.books, "_transaction", _away)
    for _ in range(30):
        cluster.bid(0, 20)
        cluster.bid(1, 20)
        cluster.turns(1)
    spent = [1000 * (len(node.sent) - count) for node, count in zip(
        cluster.nodes, before, strict=True)]  # fmt: skip
    assert all(0 < one <= most for one, most in zip(spent, lent, strict=True))
    assert all("refused" in node.keeper.fault for node in cluster.nodes)
    monkeypatch.undo()
    cluster.turns(40)

    assert all(node.keeper.is_idle() for node in cluster.nodes)
    cluster.check(1_000_000)


# -- everything at once ----------------------------------------------------------------------------


@dataclass
class Everywhere(Market):
    """The bids of one node; notices come to any worker of any node, now and then to two."""

    others: list[Node] = field(default_factory=list)

    def deliver(self) -> None:
        """See `Market`."""
        alive = [worker for node in self.others for worker in node.workers if worker is not None]
        while alive and self._waiting and self._waiting[0][0] <= self.node.now_ms:
            _, _, kind, bid, nanos = heapq.heappop(self._waiting)
            for worker in self.node.chance.choices(alive, k=self.node.chance.choice((1, 1, 2))):
                worker.notice(kind, bid, nanos)
            if kind == Kind.BILL:
                self.billed[int(bid.said["bid"][0])] = nanos


def _deadly(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, share: float) -> None:
    """Keepers die before or after what they write: on the board, in the books, in the pool."""

    def wrap(owner: object, name: str) -> None:
        write = getattr(owner, name)

        def wrapped(*words: Any, **more: Any) -> Any:
            fate = cluster.chance.random()
            if fate < share:
                raise Killed
            found = write(*words, **more)
            if fate > 1 - share:
                raise Killed
            return found

        monkeypatch.setattr(owner, name, wrapped)

    for name in ("shut", "ask", "settle", "admit", "raise_grant"):
        wrap(publish, name)
    for name in ("exchange", "receive"):
        wrap(PooledStore, name)
    wrap(PooledStore, "_write")


@pytest.mark.parametrize("seed", range(2))
def test_random_kills(cluster: Cluster, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and keepers of both nodes die between any two steps, notices come to any node, lost
    bids and silence give money back: each bill is booked once by its own node, and one budget holds
    over both, is never overspent, and is delivered."""
    cluster.chance = random.Random(seed)
    budget = 150_000
    cluster.offer(line(SHOES, budget), line(HATS, 60_000), nanos=200_000)
    cluster.start()
    markets = [Everywhere(node, (SHOES, HATS), others=cluster.nodes) for node in cluster.nodes]

    def play(turns: int, most: int) -> None:
        for _ in range(turns):
            for market in markets:
                market.offer(most)
                market.deliver()
                market.node.turn()
            assert budget >= sum(node.committed(SHOES) for node in cluster.nodes)

    with monkeypatch.context() as deadly:
        _deadly(deadly, cluster, 0.01)
        for _ in range(30):
            play(2, 6)
            node = cluster.chance.choice(cluster.nodes)
            if (worker := cluster.chance.choice(node.workers)) is not None and (
                cluster.chance.random() < 0.3
            ):
                worker.kill()
            for number, one in enumerate(node.workers):
                if one is None and cluster.chance.random() < 0.5:
                    node.start(number)
    for node in cluster.nodes:
        for number, one in enumerate(node.workers):
            if one is None:
                node.start(number)
    for _ in range(3):  # what expires is spent once more
        play(25, 8)
        play(10, 0)
        cluster.turns(4, 20_000)
        cluster.turns(8)

    for market in markets:
        own = market.node.books.booked(market.billed)
        assert market.billed == {bid: nanos for bid, nanos in own.items() if nanos}
        for other in cluster.nodes:
            if other is not market.node:
                assert not any(other.books.booked(market.billed).values())
    cluster.check(budget)
    total = cluster.total(Balance.POSTED) + cluster.total(Balance.POSTED, HATS)
    assert 190_000 <= total <= 200_000
    assert sum(node.keepers for node in cluster.nodes) > 5
