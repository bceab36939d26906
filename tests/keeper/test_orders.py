"""All that is said of a bid, in every order, over and over, late or never: what is booked of it."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtb.base.events import Kind, bid_id
from rtb.exchanges.settings import Exchange
from rtb.keeper.letters import Reason, read
from rtb.ledger.accounts import Balance
from rtb.ledger.calendar import day_of
from rtb.ledger.commands import Outcome, Scope
from rtb.profiles import codec
from rtb.stores.ledger_sql import UTC
from tests.keeper import test_caps
from tests.keeper.node import UNLIMITED, Bid, Node, T, Worker, line
from tests.keeper.records import ADX, PIXEL, WINS

SHOES = 7
PRICE = 700
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EVENTS = (Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK)
ORDERS = list(itertools.permutations(EVENTS))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Four workers, not yet started."""
    made = Node(tmp_path, workers_count=4)
    yield made
    made.close()


def worker_of(node: Node, number: int) -> Worker:
    """One that is alive."""
    found = node.workers[number]
    assert found is not None
    return found


def bids(node: Node, count: int, exchange: Exchange = ADX) -> list[Bid]:
    """So many bids, by the first worker."""
    before = len(node.sent)
    while len(node.sent) < before + count:
        worker_of(node, 0).bid(SHOES, 1_000, exchange)
        node.turn(1)
    return node.sent[before:]


def say(node: Node, kind: Kind, bid: Bid) -> None:
    """A notice at a worker that chance chooses."""
    worker_of(node, node.chance.randrange(4)).notice(kind, bid, PRICE)
    node.commit()


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 0], ids=["one by one", "together"])
@pytest.mark.parametrize("exchange", [ADX, PIXEL, WINS], ids=lambda one: one.settle_on)
def test_every_order_of_notices_ends_alike(node: Node, exchange: Exchange, turns: int) -> None:
    """Click, impression, win, bill and loss of a bid come in each of their 120 orders, whichever of
    them settles: booked once at its price, nothing held, nothing over, no dead letter."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    sent = bids(node, len(ORDERS), exchange)
    for position in range(len(EVENTS)):
        for bid, order in zip(sent, ORDERS, strict=True):
            say(node, order[position], bid)
        node.turns(turns)
    node.turns(3)

    ids = [int(bid.said["bid"][0]) for bid in sent]
    assert dict.fromkeys(ids, PRICE) == node.books.booked(ids)
    assert len(sent) * PRICE == node.balance(Balance.POSTED, SHOES)
    assert 0 == node.balance(Balance.PENDING, SHOES) + node.balance(Balance.OVER, SHOES)
    assert [] == list(read(node.letters))
    assert [] == node.books.audit()


def test_every_order_of_notices_counts_one_impression(tmp_path: Path) -> None:
    """Of each of the 120 orders the keeper counts one impression for the person's caps, whatever
    batch it comes in."""
    place = test_caps.Place(tmp_path)
    records = []
    for position in range(len(EVENTS)):
        for person, order in enumerate(ORDERS, start=1):
            body = test_caps.impression(person, bid_id(T, 0, 0, person), test_caps.NOW)
            records.append((len(records) + 1, int(order[position]), body))
    for first in range(0, len(records), 50):
        place.keeper.apply([test_caps.stretch("0/0/0abc", records[first : first + 50])])

    place.readers[0].refresh()
    caps = (test_caps.HOUR, test_caps.LIFE, test_caps.AD)
    for person in range(1, len(ORDERS) + 1):
        counts = place.readers[0].counts(person)
        assert counts is not None
        found = codec.decode_counts(counts).counts
        assert dict.fromkeys(caps, 1) == {cap: one.shown for cap, one in found.items()}
    place.close()


# -- over and over ---------------------------------------------------------------------------------


def test_a_bill_that_comes_a_thousand_times(node: Node) -> None:
    """At all workers at once, again a thousand times after 24 hours, and after a week: booked once,
    not a nano more."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    (bid,) = bids(node, 1)
    for wait_ms in (0, DAY_MS, 6 * DAY_MS):
        node.turns(2, wait_ms // 2)
        node.turns(3)
        for _ in range(10):
            for _ in range(100):
                say(node, Kind.BILL, bid)
            node.turn(1)
        node.turns(3)
        assert PRICE == node.balance(Balance.POSTED, SHOES)

    assert 1_999 == node.keeper.outcomes[Outcome.DUPLICATE]
    assert 1_000 == len([one for one in read(node.letters) if one.reason == Reason.TOO_OLD])
    assert 0 == node.committed(SHOES) - PRICE
    assert [] == node.books.audit()


# -- late, and never -------------------------------------------------------------------------------


def test_late_bills_reconcile(node: Node) -> None:
    """After their reservation, after the flight's end and after midnight bills are booked to the
    day of their bids, and said to be late; after a week they are dead letters. What is owed is one
    or the other, to the nano."""
    node.offer(line(SHOES, 100_000, until_s=T + 30))
    node.start_all()
    sent = bids(node, 4)
    for bid, wait_ms in zip(sent, (100_000, HOUR_MS, 22 * HOUR_MS, 6 * DAY_MS), strict=True):
        node.turns(2, wait_ms // 2)
        node.turns(3)
        say(node, Kind.BILL, bid)
        node.turns(3)

    nanos, _ = node.books.balances(Scope.LINE_ITEM_DAY, SHOES, day_of(T, UTC))
    letters = list(read(node.letters))
    assert 3 * PRICE == nanos[Balance.POSTED] == node.balance(Balance.POSTED, SHOES)
    assert 3 == node.keeper.outcomes[Outcome.LATE]
    assert [Reason.TOO_OLD] == [one.reason for one in letters]
    assert len(sent) == node.keeper.outcomes[Outcome.LATE] + len(letters)
    assert PRICE * 3 == node.committed(SHOES)
    assert [] == node.books.audit()


def test_lost_bills_give_back_their_money(node: Node) -> None:
    """Three in ten bills never come: what they held is back a second after its time, and the rest
    is spent with it."""
    node.offer(line(SHOES, 100_000))
    node.start_all()
    chance = random.Random(23)
    for _ in range(12):
        before = len(node.sent)
        for _ in range(20):
            worker_of(node, 0).bid(SHOES, 1_000)
            worker_of(node, 1).bid(SHOES, 1_000)
            node.turn()
        for bid in node.sent[before:]:
            if chance.random() >= 0.3:
                worker_of(node, 2).notice(Kind.BILL, bid, bid.nanos)
        node.turn()
        node.turns(2, (ADX.reservation_ttl_s + 1) * 500)
        assert 0 == node.balance(Balance.PENDING, SHOES)

    assert 100_000 == node.balance(Balance.POSTED, SHOES)
    assert len(node.sent) > 120
    assert [] == node.books.audit()
