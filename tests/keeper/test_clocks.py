"""A clock that is set five minutes forward and back while a node bids, also at midnight."""

import itertools
import random
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rtb.base.events import Kind
from rtb.ledger.accounts import Balance
from rtb.ledger.calendar import day_bounds_s, day_of
from rtb.ledger.commands import Outcome, Scope
from rtb.profiles.reducers import folded
from rtb.stores.caps_merge import is_open
from tests.keeper.node import UNLIMITED, Bid, Node, T, line
from tests.keeper.test_cluster import Cluster
from tests.stores.postgres import Postgres

SHOES = 7
BUDGET = 200_000
SKEW_MS = 300_000
UNPAID = (
    Outcome.TAKEN_UNGRANTED, Outcome.TAKEN_SHORT, Outcome.LATE_OVER, Outcome.POSTED_OVER,
)  # fmt: skip

# A zone and a moment of the day whose end is looked at; of New York and London both changes too.
MIDNIGHTS = [
    ("Asia/Kolkata", "2026-06-10"),
    ("America/St_Johns", "2026-06-10"),
    ("Pacific/Auckland", "2026-06-10"),
    ("Europe/London", "2026-06-10"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Africa/Cairo", "2026-04-23"),  # the next day begins at one o'clock
    ("America/Havana", "2026-10-31"),  # midnight comes twice
]


def end_of(zone: str, date: str) -> int:
    """When a day ends."""
    noon = datetime.fromisoformat(date + "T12:00").replace(tzinfo=ZoneInfo(zone))
    return day_bounds_s(day_of(int(noon.timestamp()), ZoneInfo(zone)), ZoneInfo(zone))[1]


@dataclass
class Wrong:
    """A node whose clock is `off_ms` off the true time; all its bids are won, and billed soon."""

    node: Node
    seed: int
    off_ms: int = 0
    owed: list[tuple[int, Bid]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.seen = 0

    @property
    def true_ms(self) -> int:
        """What the time really is."""
        return self.node.now_ms - self.off_ms

    def set(self, off_ms: int) -> None:
        """Somebody sets the clock."""
        self.node.now_ms += off_ms - self.off_ms
        self.off_ms = off_ms

    def bids(self, most: int) -> None:
        """Up to `most` opportunities for each worker."""
        for worker in self.node.workers:
            for _ in range(self.chance.randrange(most + 1)):
                if worker is not None:
                    worker.bid(SHOES)

    def play(self, turns: int, ms: int = 50, most: int = 2) -> None:
        """Opportunities, bills within seconds of the true time, and time."""
        for _ in range(turns):
            self.bids(most)
            for bid in self.node.sent[self.seen :]:
                self.owed.append((self.true_ms + self.chance.randrange(5_000), bid))
            self.seen = len(self.node.sent)
            for due in [due for due in self.owed if due[0] <= self.true_ms]:
                self.owed.remove(due)
                bill(self.node, due[1])
            self.node.turn(ms)


def bill(node: Node, bid: Bid) -> None:
    """Any worker hears that a bid is owed."""
    worker = node.chance.choice(node.workers)
    assert worker is not None
    worker.notice(Kind.BILL, bid, bid.nanos)


def bills(node: Node) -> None:
    """All that was bid is owed."""
    for bid in node.sent:
        bill(node, bid)
        node.commit()


def held(node: Node, zone: str, second: int) -> int:
    """What is lent, in flight and spent of a day's budget."""
    nanos, _ = node.books.balances(Scope.LINE_ITEM_DAY, SHOES, day_of(second, ZoneInfo(zone)))
    return nanos[Balance.GRANTED] + nanos[Balance.PENDING] + nanos[Balance.POSTED]


def posted(node: Node, zone: str, second: int) -> int:
    """What is spent of a day's budget."""
    nanos, _ = node.books.balances(Scope.LINE_ITEM_DAY, SHOES, day_of(second, ZoneInfo(zone)))
    return nanos[Balance.POSTED]


@pytest.mark.parametrize(("zone", "date"), MIDNIGHTS)
def test_a_clock_that_is_set_about_midnight(tmp_path: Path, zone: str, date: str) -> None:
    """Set to five minutes off, back and forth across midnight: each day's budget begins once and is
    spent to the last impression, nothing is over it, and no bid has the id of another."""
    end_s = end_of(zone, date)
    node = Node(tmp_path, now_ms=end_s * 1000 - 240_000, seed=end_s)
    node.offer(line(SHOES, UNLIMITED, daily=BUDGET), zone=zone)
    node.start_all()
    wrong = Wrong(node, end_s)
    for before in (True, False):
        for _ in range(6):
            wrong.set(wrong.chance.choice((-SKEW_MS, 0, SKEW_MS)))
            for _ in range(3):
                wrong.play(6)
                wrong.play(1, wrong.chance.choice((50, 1_000, 4_000)))
                assert max(held(node, zone, end_s - 1), held(node, zone, end_s)) <= BUDGET
        if before:
            assert wrong.true_ms < end_s * 1000
            wrong.play(1, 300_000)
    wrong.set(0)
    wrong.play(150, 2_000)
    node.turns(3, 60_000)

    ids = [int(bid.said["bid"][0]) for bid in node.sent]
    assert len(ids) == len(set(ids))
    assert BUDGET == posted(node, zone, end_s)
    assert posted(node, zone, end_s - 1) <= BUDGET
    assert 0 == node.balance(Balance.OVER, SHOES)
    assert 0 == sum(node.keeper.outcomes[one] for one in UNPAID)
    assert [] == node.books.audit()
    node.close()


@pytest.mark.parametrize("off_ms", [-SKEW_MS, SKEW_MS])
def test_bidding_goes_on_when_the_clock_is_set(tmp_path: Path, off_ms: int) -> None:
    """Within a day no second is lost: who has a lease bids, and who wants the last money of the
    budget, which another one does not use, gets it in a second."""
    node = Node(tmp_path)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    wrong = Wrong(node, 7)
    wrong.play(60)
    wrong.set(off_ms)
    before = len(node.sent)
    wrong.play(20)
    assert len(node.sent) - before >= 15
    first, second = node.workers
    assert first is not None
    assert second is not None
    while BUDGET > 1_000 * (len(node.sent) + 2):
        second.bid(SHOES)
        node.turn()
    first.bid(SHOES), second.bid(SHOES)
    node.turns(1)
    wrong.set(0)
    for _ in range(20):
        second.bid(SHOES)
        node.turn()

    assert BUDGET == 1_000 * len(node.sent)
    node.close()


def test_tomorrow_does_not_pay_for_today(tmp_path: Path) -> None:
    """A lease of after midnight, and the clock is set back to before: what is left of it is
    given back before anything is lent of the day that was over."""
    end_s = end_of("UTC", "2026-06-10")
    node = Node(tmp_path, now_ms=end_s * 1000 - 60_000)
    node.offer(line(SHOES, UNLIMITED, daily=10_000))
    node.start_all()
    first, second = node.workers
    assert first is not None
    assert second is not None
    while len(node.sent) < 9:
        second.bid(SHOES)
        node.turn()
    bills(node)
    node.turns(20, 10_000)
    assert first.bid(SHOES, 5_000) is None  # it asks
    node.turns(2)
    assert 5_000 == node.lent(SHOES)
    node.now_ms -= SKEW_MS
    for _ in range(100):
        first.bid(SHOES)
        node.turn()

    assert 10 == len(node.sent)
    assert 0 == sum(node.keeper.outcomes[one] for one in UNPAID)
    node.close()


def test_money_in_flight_is_held_when_the_clock_is_set_forward(tmp_path: Path) -> None:
    """By five minutes, with bids of a minute in flight: their money is lent to nobody else until
    that minute is over, so all bills are within the budget."""
    node = Node(tmp_path)
    node.offer(line(SHOES, BUDGET))
    node.start_all()
    wrong = Wrong(node, 7)
    while BUDGET > 1_000 * len(node.sent):
        wrong.bids(8)
        node.turn()
    wrong.set(SKEW_MS)
    for _ in range(100):
        wrong.bids(8)
        node.turn()
    bills(node)
    node.turns(10)

    assert (BUDGET, 0) == (node.balance(Balance.POSTED, SHOES), node.balance(Balance.OVER, SHOES))
    node.close()


@pytest.mark.server
@pytest.mark.parametrize("off_ms", [-SKEW_MS, SKEW_MS])
def test_one_node_of_two_has_a_wrong_clock(tmp_path: Path, postgres: Postgres, off_ms: int) -> None:
    """Five minutes off, over a midnight: each day's budget is one for both nodes, and spent."""
    end_s = end_of("UTC", "2026-06-10")
    cluster = Cluster(tmp_path, postgres.url())
    right, wrong = cluster.nodes
    right.now_ms = end_s * 1000 - 400_000
    wrong.now_ms = right.now_ms + off_ms
    cluster.offer(line(SHOES, UNLIMITED, daily=30_000))
    cluster.start()
    for ms in (50,) * 60 + (20_000,) * 40 + (50,) * 60:
        for side in (0, 1):
            before = len(cluster.nodes[side].sent)
            cluster.bid(side, 1)
            for bid in cluster.nodes[side].sent[before:]:
                cluster.worker(cluster.chance.choice((0, 1))).notice(Kind.BILL, bid, bid.nanos)
        cluster.turns(1, ms)
        for second in (end_s - 1, end_s):
            assert sum(held(node, "UTC", second) for node in cluster.nodes) <= 30_000

    ids = [int(bid.said["bid"][0]) for bid in cluster.sent()]
    assert len(ids) == len(set(ids))
    for second in (end_s - 1, end_s):
        assert 30_000 == sum(posted(node, "UTC", second) for node in cluster.nodes)
    cluster.check(60_000)
    for node in cluster.nodes:
        node.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_daily_cap_under_a_clock_that_is_set(seed: int) -> None:
    """Somebody who could be shown an ad every minute is shown three a day: a window begins once a
    day, but for the minutes that the clock was off at its two ends."""
    chance = random.Random(seed)
    day_s, off_s, most = 86_400, SKEW_MS // 1000, 3
    start_s = count = 0
    begun: list[int] = []
    shown = 0
    for minute in range(10 * 24 * 60):
        now_ms = (T + minute * 60 + chance.choice((-off_s, 0, off_s))) * 1000
        if count >= most and is_open(start_s, day_s, now_ms):
            continue
        before = start_s
        start_s, count = folded(start_s, count, day_s, now_ms)
        shown += 1
        if start_s != before:
            begun.append(minute * 60)

    gaps_s = [later - one for one, later in itertools.pairwise(begun)]
    assert all(day_s - 2 * off_s <= gap <= day_s + 2 * off_s for gap in gaps_s)
    assert shown <= most * len(begun)
    assert 10 == len(begun)
