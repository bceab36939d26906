"""What the books forget, and a clock that is days ahead: for a turn, from the start on, and on one
node of two."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from rtb.base.events import Kind
from rtb.keeper.forgetting import NOTHING_NOTED, Forgetting
from rtb.ledger.accounts import Balance
from rtb.ledger.calendar import day_of
from rtb.ledger.commands import Scope
from rtb.stores.ledger_pool import PooledStore, shares_in
from rtb.stores.ledger_sql import UTC
from tests.keeper.node import UNLIMITED, Node, T, line
from tests.keeper.test_cluster import Cluster, play
from tests.stores.postgres import Postgres

SHOES = 7
BUDGET = 50_000
HOUR_S = 3_600
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
REMEMBER_S = 25 * HOUR_S


class Clocks:
    """What is forgotten by a wall clock that may be set, and one that may not."""

    def __init__(self, forgotten_s: int, now_s: int = T) -> None:
        self.now_s, self.steady_s = now_s, 0
        self.start(forgotten_s)

    def start(self, forgotten_s: int, noted: Mapping[str, int] = NOTHING_NOTED) -> None:
        """A new process."""
        self.forgetting = Forgetting(forgotten_s, REMEMBER_S, noted)
        self.forgetting.turn(self.now_s * 1000, self.steady_s * 1000)

    def restart(self, rest_s: int = 0) -> None:
        """A new process after a rest, of a steady clock that begins anew."""
        before = self.forgetting
        self.now_s += rest_s
        self.steady_s = 0
        self.start(before.before_s, before.noted)

    def passes(self, seconds: int, turns: int = 1) -> int:
        """So much time, in as many turns; returns what is forgotten."""
        for _ in range(turns):
            self.now_s += seconds // turns
            self.steady_s += seconds // turns
            self.forgetting.turn(self.now_s * 1000, self.steady_s * 1000)
        return self.forgetting.before_s


def test_it_follows_the_clock() -> None:
    """What was to be remembered for 25 hours was remembered for as long, to the second."""
    clocks = Clocks(T - REMEMBER_S)
    assert T + 1 - REMEMBER_S == clocks.passes(1)
    assert T + 2 * HOUR_S + 1 - REMEMBER_S == clocks.passes(2 * HOUR_S, 3)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ahead_s", [60, 20 * HOUR_S, 240 * HOUR_S])
@pytest.mark.parametrize("for_s", [HOUR_S, 15 * HOUR_S, REMEMBER_S - 100])
@pytest.mark.parametrize("right_s", [0, HOUR_S, 20 * HOUR_S, 1_000 * HOUR_S])
def test_a_clock_that_is_ahead_for_less_than_is_remembered(
    restarts: bool, ahead_s: int, for_s: int, right_s: int
) -> None:
    """However far, whenever it began, and whether or not keepers end meanwhile: nothing is
    forgotten too soon, then or after it."""
    clocks = Clocks(T - REMEMBER_S)
    if right_s:
        clocks.passes(right_s, 100)
    true_s = clocks.now_s
    clocks.now_s += ahead_s
    for _ in range(10):
        if restarts:
            clocks.restart()
        true_s += for_s // 10
        assert true_s - REMEMBER_S == clocks.passes(for_s // 10, 10)
    clocks.now_s -= ahead_s
    for _ in range(20):
        true_s += 5 * HOUR_S
        assert true_s - REMEMBER_S == clocks.passes(5 * HOUR_S, 100)


def test_a_clock_that_is_ahead_for_as_long_is_believed() -> None:
    """By ten days, since a keeper began to watch: this is the bound."""
    clocks = Clocks(T - REMEMBER_S)
    clocks.start(T - REMEMBER_S)
    clocks.now_s += 240 * HOUR_S
    clocks.start(T - REMEMBER_S)
    assert T - 100 == clocks.passes(REMEMBER_S - 100, 100)
    assert T + 240 * HOUR_S == clocks.passes(100)


def test_two_times_ahead_are_two() -> None:
    """Of twenty hours each: a minute in which the clock was right is enough."""
    clocks = Clocks(T - REMEMBER_S)
    true_s = T - REMEMBER_S
    for _ in range(5):
        clocks.now_s += 20 * HOUR_S
        clocks.passes(20 * HOUR_S, 100)
        clocks.now_s -= 20 * HOUR_S
        true_s += 20 * HOUR_S + 60
        assert true_s == clocks.passes(60)


def test_after_a_rest_it_catches_up() -> None:
    """A node that was down for two days remembers no more than others, two days later."""
    clocks = Clocks(T - 48 * HOUR_S - REMEMBER_S)
    assert T - 24 * HOUR_S - REMEMBER_S == clocks.passes(24 * HOUR_S, 24)
    assert T + 25 * HOUR_S - REMEMBER_S == clocks.passes(HOUR_S)
    assert T + 26 * HOUR_S - REMEMBER_S == clocks.passes(HOUR_S)


def test_a_node_that_rests_every_night_catches_up() -> None:
    """No keeper of it lives for as long as is remembered; together they watch the clock."""
    clocks = Clocks(T - REMEMBER_S)
    for _ in range(60):
        forgotten_s = clocks.passes(16 * HOUR_S, 100)
        assert clocks.now_s - 4 * 24 * HOUR_S < forgotten_s <= clocks.now_s - REMEMBER_S
        clocks.restart(8 * HOUR_S)


def test_what_is_forgotten_stays_so() -> None:
    """A clock that is set back brings nothing back; right again, it is followed."""
    clocks = Clocks(T - REMEMBER_S)
    clocks.now_s -= HOUR_S
    assert T - REMEMBER_S == clocks.passes(60)
    clocks.now_s += HOUR_S
    assert T + 1 - REMEMBER_S == clocks.passes(1)
    clocks.passes(2 * REMEMBER_S, 100)
    assert clocks.now_s + 60 - REMEMBER_S == clocks.passes(60)


def test_new_books_believe_no_clock_until_they_are_as_old_as_they_remember() -> None:
    """Over restarts, too, and not if it was once right; a machine that begins in 1970 waits for
    its clock."""
    clocks = Clocks(0, T + 72 * HOUR_S)
    assert HOUR_S == clocks.passes(HOUR_S, 60)
    clocks.restart()
    clocks.now_s = T + HOUR_S
    assert 24 * HOUR_S == clocks.passes(23 * HOUR_S, 23)
    clocks.now_s += 72 * HOUR_S
    assert T + 25 * HOUR_S - REMEMBER_S == clocks.passes(HOUR_S)

    clocks = Clocks(0, HOUR_S)
    clocks.now_s = T
    clocks.passes(REMEMBER_S, 100)
    assert T + 2 * REMEMBER_S - REMEMBER_S == clocks.passes(REMEMBER_S, 100)


# -- one node --------------------------------------------------------------------------------------


def grow_old(*nodes: Node) -> None:
    """Until the books forget by the clock."""
    for node in nodes:
        node.turn(26 * HOUR_MS)
        node.turns(25)
        forgotten_s = node.books.state.forgotten_s
        assert node.now_ms // 1000 - REMEMBER_S - 3 <= forgotten_s


def win(node: Node, turns: int) -> None:
    """All that the workers can pay for, won and billed at once."""
    for _ in range(turns):
        for worker in node.workers:
            assert worker is not None
            bid = worker.bid(SHOES)
            if bid is not None:
                worker.notice(Kind.BILL, bid, bid.nanos)
        node.turn()


def restart(node: Node) -> None:
    """The keeper."""
    node.kill_keeper()
    node.start_keeper()


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("hours", [26, 24 * 30])
def test_a_clock_ahead_for_some_turns(
    tmp_path: Path, is_new: bool, begins: bool, hours: int
) -> None:
    """By more than what is remembered, and a keeper may begin with it: once it is right again, the
    budget is spent once and all of it is booked."""
    node = Node(tmp_path, 2)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    if not is_new:
        grow_old(node)
    win(node, 5)
    node.now_ms += hours * HOUR_MS
    if begins:
        restart(node)
    node.turns(25)
    node.now_ms -= hours * HOUR_MS
    win(node, 100)
    restart(node)
    win(node, 100)

    assert BUDGET == sum(bid.nanos for bid in node.sent)
    assert (BUDGET, 0) == (node.balance(Balance.POSTED, SHOES), node.balance(Balance.OVER, SHOES))
    assert [] == node.books.audit()
    node.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_bill_of_before_a_clock_was_ahead(tmp_path: Path, restarts: bool) -> None:
    """By twenty hours, for fifteen: right again, a bill of fifteen hours before is booked."""
    node = Node(tmp_path, 1)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    grow_old(node)
    (worker,) = node.workers
    assert worker is not None
    while not node.sent:
        worker.bid(SHOES)
        node.turn()
    (bid,) = node.sent
    node.turn()
    node.now_ms += 20 * HOUR_MS
    for _ in range(15):
        node.turns(4, HOUR_MS // 4)
        node.turns(2)
        if restarts:
            node.steady_ms = 0
            restart(node)
            node.turn()
    node.now_ms -= 20 * HOUR_MS
    worker.notice(Kind.BILL, bid, 900)
    node.turns(5)

    assert 900 == node.balance(Balance.POSTED, SHOES)
    forgotten_s = node.books.state.forgotten_s
    assert node.now_ms // 1000 - REMEMBER_S - 20 <= forgotten_s <= node.now_ms // 1000 - REMEMBER_S
    node.close()


def test_what_was_seen_of_the_clock_is_kept_with_the_books(tmp_path: Path) -> None:
    """New books whose keepers live an hour each: together they are as old as they remember."""
    node = Node(tmp_path, 1)
    node.offer(line(SHOES, BUDGET))
    for _ in range(26):
        node.turns(4, HOUR_MS // 4)
        node.turns(40)
        restart(node)
        node.turn()
    node.turns(40)

    assert node.now_ms // 1000 - REMEMBER_S - 60 <= node.books.state.forgotten_s
    node.close()


def test_a_slow_keeper_forgets(tmp_path: Path) -> None:
    """One whose every turn takes more than a second, and has holds to end: as any other."""
    node = Node(tmp_path, 1)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    node.turn(26 * HOUR_MS)
    (worker,) = node.workers
    assert worker is not None
    for _ in range(100):
        worker.bid(SHOES)
        node.turn(1_500)

    assert node.now_ms // 1000 - REMEMBER_S - 5 <= node.books.state.forgotten_s
    node.close()


def test_new_books_of_a_clock_that_is_ahead(tmp_path: Path) -> None:
    """By three days, for the hour before the first bid: all bids after it are booked."""
    node = Node(tmp_path, 1, now_ms=T * 1000 + 3 * DAY_MS)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    node.turns(60, 60_000)
    node.turns(25)
    node.now_ms -= 3 * DAY_MS
    win(node, 200)
    node.turns(5)

    assert BUDGET == sum(bid.nanos for bid in node.sent)
    assert BUDGET == node.balance(Balance.POSTED, SHOES)
    node.close()


def test_holds_end_after_a_clock_that_was_ahead(tmp_path: Path) -> None:
    """For a quarter of an hour, by five days: when it is right again, what was bid then and not won
    is given back in its time, not five days later."""
    node = Node(tmp_path, 1)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    node.now_ms += 5 * DAY_MS
    node.turns(45, 20_000)
    node.now_ms -= 5 * DAY_MS
    (worker,) = node.workers
    assert worker is not None
    while not node.sent:
        worker.bid(SHOES)
        node.turn()
    node.turns(1)
    assert 1_000 == node.balance(Balance.PENDING, SHOES)
    node.turns(45, 20_000)
    assert 0 == node.balance(Balance.PENDING, SHOES)
    node.close()


# -- two nodes -------------------------------------------------------------------------------------


def of_day(cluster: Cluster, second: int) -> int:
    """What is spent of a day's budget, by the books of both."""
    found = 0
    for node in cluster.nodes:
        nanos, _ = node.books.balances(Scope.LINE_ITEM_DAY, SHOES, day_of(second, UTC))
        found += nanos[Balance.POSTED] + nanos[Balance.OVER]
    return found


def close(cluster: Cluster) -> None:
    """Ends both nodes."""
    for node in cluster.nodes:
        node.close()


@pytest.mark.server
@pytest.mark.parametrize("is_new", [True, False])
def test_a_share_of_today_outlives_a_clock_that_is_days_ahead(
    tmp_path: Path, postgres: Postgres, is_new: bool
) -> None:
    """One node's, by five days, for more than an hour and a restart: what it has drawn of today's
    budget is lent to nobody else."""
    cluster = Cluster(tmp_path, postgres.url())
    cluster.offer(line(SHOES, UNLIMITED, daily=60_000))
    cluster.start()
    right, wrong = cluster.nodes
    if not is_new:
        grow_old(right, wrong)
    second = right.now_ms // 1000
    play(cluster, 9, 2)
    cluster.turns(20)
    before = of_day(cluster, second)
    assert 0 < before < 60_000
    wrong.now_ms += 5 * DAY_MS
    wrong.turns(30)
    restart(wrong)
    wrong.turns(30)
    wrong.turns(80, 60_000)
    wrong.turns(30)
    win(right, 400)

    assert before < of_day(cluster, second) <= 60_000
    close(cluster)


@pytest.mark.server
@pytest.mark.parametrize("is_new", [True, False])
def test_one_node_of_two_is_ahead_for_some_turns(
    tmp_path: Path, postgres: Postgres, is_new: bool
) -> None:
    """By thirty hours: after that both spend one budget, and all bills are booked, whichever node
    they came to."""
    cluster = Cluster(tmp_path, postgres.url())
    cluster.offer(line(SHOES, 60_000))
    cluster.start()
    if not is_new:
        grow_old(*cluster.nodes)
    play(cluster, 5, 2)
    cluster.nodes[1].now_ms += 30 * HOUR_MS
    cluster.turns(25)
    cluster.nodes[1].now_ms -= 30 * HOUR_MS
    restart(cluster.nodes[1])
    play(cluster, 200, 2)
    cluster.turns(20)

    assert 60_000 == sum(bid.nanos for bid in cluster.sent())
    assert 60_000 == cluster.total(Balance.POSTED)
    cluster.check(60_000)
    close(cluster)


@pytest.mark.server
def test_a_budget_is_told_after_a_clock_that_was_ahead(tmp_path: Path, postgres: Postgres) -> None:
    """A share of a day to come does not hide today's: the pool hears of today's lower budget."""
    cluster = Cluster(tmp_path, postgres.url())
    cluster.offer(line(SHOES, UNLIMITED, daily=60_000))
    cluster.start()
    wrong = cluster.nodes[1]
    day = day_of(T, UTC)
    play(cluster, 9, 2)
    wrong.now_ms += 5 * DAY_MS
    assert cluster.worker(1).bid(SHOES) is None  # but it asks
    wrong.turns(30)
    lent = wrong.books.state.lent or {}
    assert (Scope.LINE_ITEM_DAY, SHOES, day + 5) in lent
    wrong.now_ms -= 5 * DAY_MS
    cluster.turns(30)
    wrong.offer(line(SHOES, UNLIMITED, daily=40_000))
    wrong.turns(30)

    assert isinstance(wrong.books, PooledStore)
    with wrong.books._transaction(reading=True) as connection:
        found = {
            pot[2]: share.budget.nanos
            for pot, node, share in shares_in(connection)
            if node == 2 and pot[0] is Scope.LINE_ITEM_DAY
        }
    assert 40_000 == found[day]
    close(cluster)
