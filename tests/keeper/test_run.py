"""The keeper, workers and their journals together: what is lent, spent, booked and given back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from rtb.base.errors import StoreError
from rtb.base.events import Kind
from rtb.base.records import Overlay
from rtb.keeper import publish
from rtb.keeper.letters import Reason, read
from rtb.ledger.accounts import Balance
from rtb.ledger.calendar import day_bounds_s, day_of
from rtb.ledger.chart import Campaign
from rtb.ledger.commands import Outcome, Scope
from rtb.stores.board_money import NO_SLOT, MoneyBoard
from tests.keeper.market import Market
from tests.keeper.node import ADVERTISER, UNLIMITED, Node, T, Worker, line
from tests.keeper.records import bid_body, claims, notice_body
from tests.stores.journals import Killed

SHOES, HATS = 7, (1 << 64) - 8


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Two workers, not yet started."""
    made = Node(tmp_path)
    yield made
    made.close()


def _worker(node: Node, number: int = 0) -> Worker:
    found = node.workers[number]
    assert found is not None
    return found


def _bids(node: Node, count: int, number: int = 0, line_item: int = SHOES) -> int:
    """Opportunities for one worker; how many it could pay for."""
    return sum(_worker(node, number).bid(line_item) is not None for _ in range(count))


def _books_hold(node: Node, market: Market) -> None:
    """Each delivered bill is booked once, at its price, and the books add up."""
    assert market.billed == {
        bid: nanos for bid, nanos in node.books.booked(market.billed).items() if nanos
    }
    assert [] == node.books.audit()
    for item in market.items:  # the board and the books agree to the nano
        assert node.lent(item) == node.balance(Balance.GRANTED, item)
    assert 0 == sum(node.balance(Balance.OVER, item) for item in market.items)


# -- lending and booking ---------------------------------------------------------------------------


def test_what_is_refused_is_lent_and_what_is_won_is_booked(node: Node) -> None:
    """The first opportunity asks for a lease; the next one bids; its bill is booked once."""
    node.offer(line(SHOES, 10_000))
    node.start_all()
    assert 0 == _bids(node, 1)
    node.turns(2)
    assert 1 == _bids(node, 1)
    won = node.sent[0]
    _worker(node, 1).notice(Kind.BILL, won, 900)
    _worker(node, 0).notice(Kind.BILL, won, 900)
    node.turns(2)

    assert (900, 0) == (node.balance(Balance.POSTED, SHOES), node.balance(Balance.PENDING, SHOES))
    assert 1 == node.keeper.outcomes[Outcome.DUPLICATE]


def test_a_burst_without_a_budget_loses_nothing(tmp_path: Path) -> None:
    """Two thousand bids at once, before the keeper has seen the first."""
    node = Node(tmp_path)
    node.offer(line(SHOES), costs={SHOES: 1_000})
    node.start(0)
    node.turn()
    node.turn()
    worker = _worker(node, 0)
    for number in range(2_000):
        assert worker.bid(SHOES, 1_000) is not None
        if number % 50 == 0:
            worker.journal.turn()
    node.close()


def test_a_worker_is_served_when_all_was_lent_ahead(tmp_path: Path) -> None:
    """Not at its first lease of many: until then requests would be answered in vain."""
    node = Node(tmp_path, limits={"grants_max": 1})
    node.offer(line(SHOES, 900_000), line(HATS, 900_000), costs={SHOES: 1, HATS: 1})
    worker = node.start(0)
    lent = []
    while not worker.purse.served:
        node.turn()
        lent.append(sum(bool(node.lent(item)) for item in (SHOES, HATS)))

    assert [1, 2] == sorted({*lent} - {0})
    assert 2 == lent[-1]
    worker.kill()
    again = node.start(0)
    assert not again.purse.served
    node.turns(6)
    assert again.purse.served


def test_a_loss_and_silence_both_give_the_money_back(node: Node) -> None:
    """At once for the one, after the exchange's `reservation_ttl_s` for the other."""
    node.offer(line(SHOES, 2_000))
    node.start_all()
    while len(node.sent) < 2:
        _bids(node, 1)
        node.turn()
    _worker(node).notice(Kind.LOSS, node.sent[0])
    node.turn()
    assert 1_000 == node.balance(Balance.PENDING, SHOES)
    node.turns(1, 58_000)
    assert 1_000 == node.balance(Balance.PENDING, SHOES)
    node.turns(1, 2_000)

    assert 0 == node.balance(Balance.PENDING, SHOES)


@pytest.mark.parametrize("budget", [1_000, 7_350, 100_000, 900_000])
def test_a_budget_is_delivered(tmp_path: Path, budget: int) -> None:
    """One impression or a thousand, over two workers: at least 99 %, and never a nano more."""
    node = Node(tmp_path)
    node.offer(line(SHOES, budget))
    node.start_all()
    market = Market(node, (SHOES,), costs=(1_000,) if budget < 10_000 else (700, 1_000))
    for _ in range(60):
        market.play(5)
        assert budget >= node.committed(SHOES)
        if node.balance(Balance.POSTED, SHOES) * 100 >= budget * 99:
            break
    market.play(40)
    market.finish()

    _books_hold(node, market)
    least = budget - 1_000  # what is left does not pay for one more impression
    assert min(least, budget * 99 // 100) <= node.balance(Balance.POSTED, SHOES) <= budget
    assert 0 < node.balance(Balance.POSTED, SHOES)
    node.close()


def test_line_items_share_a_campaign(node: Node) -> None:
    """What one of them holds idle, the other gets when the campaign has no more."""
    node.offer(line(SHOES), line(HATS), nanos=5_000)
    node.start_all()
    spent = 0
    while node.board.granted[0, node.keeper.slots.slot[SHOES]] < 3_000:
        spent += _bids(node, 20)
        node.turn()
    node.turns(45)
    for _ in range(60):
        spent += _bids(node, 3, 1, HATS)
        node.turn()

    assert 5 == spent
    assert node.balance(Balance.PENDING, HATS) > 0


def test_impressions_are_a_budget_too(node: Node) -> None:
    """Three impressions are three, whatever they cost."""
    node.offer(line(SHOES, UNLIMITED, units=3))
    node.start_all()
    for _ in range(80):
        _bids(node, 2, 0)
        _bids(node, 2, 1)
        node.turn()

    assert 3 == len(node.sent)
    assert Overlay.EXHAUSTED == node.board.overlay[node.keeper.slots.slot[SHOES]]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("nanos", [None, 7_000, 9_500])
@pytest.mark.parametrize("alone", [False, True])
def test_the_last_impressions_are_lent_promptly(
    tmp_path: Path, workers: int, nanos: int | None, alone: bool
) -> None:
    """Seven are seven, within half a second of turns where all workers have traffic, and soon after
    where one has it all: what the others hold comes to it. No lease is without its money."""
    node = Node(tmp_path, workers_count=workers)
    node.offer(line(SHOES, nanos, units=7), costs={SHOES: 1_000})
    node.start_all()
    turns = 0
    while len(node.sent) < 7 and turns < 40:
        turns += 1
        for number in [0] if alone else range(workers):
            _bids(node, 7, number)
        node.turn()
        held = node.board.granted_units - node.board.taken_units
        assert (held * 1_000 <= node.board.granted - node.board.taken).all()
    node.turns(20)
    _bids(node, 1)

    assert 7 == len(node.sent)
    assert turns <= (10 if workers == 1 or not alone else 30)
    assert 0 == node.balance(Balance.GRANTED, SHOES)
    node.close()


def _exhaust(node: Node) -> int:
    """Bids until nothing is left for a bid; the slot, which then says so."""
    for _ in range(30):
        _bids(node, 1)
        node.turn()
    slot = node.keeper.slots.slot[SHOES]
    assert Overlay.EXHAUSTED == node.board.overlay[slot]
    return slot


def test_exhausted_ends_when_money_comes_back(node: Node) -> None:
    """The bit is for those who choose line items; it follows the budget."""
    node.offer(line(SHOES, 1_000))
    node.start_all()
    slot = _exhaust(node)
    _worker(node).notice(Kind.LOSS, node.sent[0])
    node.turns(12)

    assert 0 == node.board.overlay[slot]


def test_a_new_keeper_lets_the_exhausted_ask_again(node: Node) -> None:
    """The mark stays on the board when its keeper dies, but nobody would ever look at it again."""
    node.offer(line(SHOES, 1_000))
    node.start_all()
    slot = _exhaust(node)
    node.kill_keeper()
    node.start_keeper()
    assert 0 == node.board.overlay[slot]
    assert slot == _exhaust(node)
    _worker(node).notice(Kind.LOSS, node.sent[0])
    node.turns(12)

    assert 0 == node.board.overlay[slot]


def test_nothing_is_lent_outside_of_flights(node: Node) -> None:
    """A flight's end ends its leases, and there is no budget after it."""
    node.offer(line(SHOES, 50_000, until_s=T + 5))
    node.start_all()
    for _ in range(200):
        _bids(node, 1)
        node.turn()

    assert 0 < len(node.sent)
    assert all(bid.time_ms < (T + 5) * 1000 for bid in node.sent)
    assert 0 == node.balance(Balance.GRANTED, SHOES)


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns"])
def test_a_daily_budget_begins_once_at_local_midnight(tmp_path: Path, zone: str) -> None:
    """Two days, two budgets: none of yesterday's lease pays for today."""
    midnight_s = day_bounds_s(day_of(T, ZoneInfo(zone)), ZoneInfo(zone))[1]
    node = Node(tmp_path, now_ms=midnight_s * 1000 - 4_000)
    node.offer(line(SHOES, UNLIMITED, daily=10_000), zone=zone)
    node.start_all()
    for _ in range(160):
        for number in (0, 1):
            _bids(node, 3, number)
        node.turn()

    before = [bid for bid in node.sent if bid.time_ms < midnight_s * 1000]
    assert (10, 10) == (len(before), len(node.sent) - len(before))
    assert 0 == node.keeper.outcomes[Outcome.TAKEN_UNGRANTED]
    day = day_of(midnight_s, ZoneInfo(zone))
    for one in (day - 1, day):
        nanos, _ = node.books.balances(Scope.LINE_ITEM_DAY, SHOES, one)
        assert 10_000 == nanos[Balance.PENDING]
    node.close()


# -- failing ---------------------------------------------------------------------------------------


def test_without_a_keeper_workers_spend_what_they_have(node: Node) -> None:
    """And not a bid more; the next keeper books it all."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    for _ in range(20):
        _bids(node, 5)
        node.turn()
    node.kill_keeper()
    granted = int(node.board.granted[0, node.keeper.slots.slot[SHOES]])
    while _bids(node, 1):
        node.now_ms += 1
    assert granted == int(node.board.taken[0, node.keeper.slots.slot[SHOES]])
    node.start_keeper()
    node.turns(3)

    assert 1_000 * len(node.sent) == node.balance(Balance.PENDING, SHOES)
    assert 0 == node.balance(Balance.GRANTED, SHOES)


def test_books_that_fail_are_tried_again_with_the_same_batch(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is published meanwhile, and each record counts once."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    apply, fails = node.books.apply, [True]

    def flaky(*batch: Any) -> Any:
        if fails[0]:
            raise StoreError("down")
        return apply(*batch)

    monkeypatch.setattr(node.books, "apply", flaky)
    _bids(node, 1)
    node.turns(5)
    assert (0, "down") == (_bids(node, 1), node.keeper.fault)
    fails[0] = False
    node.turns(2)
    assert (1, "") == (_bids(node, 1), node.keeper.fault)
    fails[0] = True
    node.turns(3)
    fails[0] = False
    node.turns(3)

    assert 1_000 == node.balance(Balance.PENDING, SHOES)


@pytest.mark.parametrize("when", ["chart", "turn"])
def test_a_commit_that_fails_half_way_leaves_no_gap(
    node: Node, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A full disk, say: the books are read again, whether budgets or records were to be written."""
    node.offer(line(SHOES, 10_000))
    node.start_all()
    _bids(node, 1)
    node.turns(3)
    assert 1 == _bids(node, 1)

    def full(*_: object) -> None:
        raise StoreError("no room")

    monkeypatch.setattr(node.books, "_write", full)
    if when == "chart":
        with pytest.raises(StoreError, match="no room"):
            node.offer(line(SHOES, 8_000))
    node.turns(3)
    assert "no room" == node.keeper.fault
    monkeypatch.undo()
    node.turns(3)
    node.offer(line(SHOES, 8_000))
    node.turns(3)

    assert "" == node.keeper.fault
    assert 1_000 == node.balance(Balance.PENDING, SHOES)
    assert node.committed(SHOES) <= 8_000


def test_a_hundred_kills_in_the_midst_of_a_lease(tmp_path: Path) -> None:
    """Money is stuck until the next start at most, and none of it is spent twice."""
    node = Node(tmp_path, workers_count=1, die_in_bid=0.0)
    node.offer(line(SHOES, 400_000))
    node.start_all()
    for _ in range(100):
        node.turns(1)
        _bids(node, 1)
        node.turns(1)
        _bids(node, 1)
        node.turn()
        _bids(node, 1)
        assert node.lent(SHOES) > 0
        _worker(node).kill()
        node.turn()
        node.start(0)
        node.turns(2)
        assert 0 == node.balance(Balance.GRANTED, SHOES)
        assert 1_000 * len(node.sent) == node.balance(Balance.PENDING, SHOES)

    assert [] == node.books.audit()
    assert len(node.sent) >= 100
    node.close()


def _deadly(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    """The keeper dies before or after each of its words on the board, now and then."""

    def wrap(name: str) -> None:
        write = getattr(publish, name)

        def wrapped(*words: Any) -> None:
            fate = node.chance.random()
            if fate < node.keeper_dies:
                raise Killed
            write(*words)
            if fate > 1 - node.keeper_dies:
                raise Killed

        monkeypatch.setattr(publish, name, wrapped)

    for name in ("shut", "ask", "settle", "admit", "raise_grant"):
        wrap(name)


@pytest.mark.parametrize("seed", range(3))
def test_random_kills(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers die between any two words and so do keepers: all bills are booked once, nothing is
    overspent or bid without a lease, and the money is delivered all the same."""
    node = Node(tmp_path, seed=seed, die_in_bid=0.01, keeper_dies=0.03)
    _deadly(monkeypatch, node)
    budget = 150_000
    node.offer(line(SHOES, budget), line(HATS, 60_000))
    node.start_all()
    market = Market(node, (SHOES, HATS))
    for _ in range(150):
        market.play(2, 8)
        kill = node.chance.randrange(12)
        if kill < node.workers_count and (worker := node.workers[kill]) is not None:
            worker.kill()
        elif kill == 5:
            node.kill_keeper()
            node.start_keeper()
        if node.chance.random() < 0.5:
            for number, one in enumerate(node.workers):
                if one is None:
                    node.start(number)
        assert budget >= node.committed(SHOES)
    for number, one in enumerate(node.workers):
        if one is None:
            node.start(number)
    node.die_in_bid = node.keeper_dies = 0
    for _ in range(3):  # what expires is spent once more
        market.play(50)
        market.finish()

    _books_hold(node, market)
    assert budget * 99 <= node.balance(Balance.POSTED, SHOES) * 100
    node.close()
    assert node.keepers > 10
    assert node.outcomes[Outcome.TAKEN] > 100
    assert 0 == node.outcomes[Outcome.TAKEN_UNGRANTED] + node.outcomes[Outcome.TAKEN_SHORT]


def test_a_worker_that_does_not_answer_keeps_its_lease(node: Node) -> None:
    """It may be stopped in the midst of a bid: only its death or its answer ends a lease."""
    node.offer(line(SHOES, 1_000))
    node.start_all()
    _bids(node, 1)
    node.turn()
    stopped = _worker(node)
    node.workers[0] = None  # does nothing, and still holds its lock
    for _ in range(200):
        assert 0 == _bids(node, 1, 1)
        node.turn()
    assert 1_000 == node.balance(Balance.GRANTED, SHOES)
    node.workers[0] = stopped
    assert 0 == _bids(node, 1)  # it was asked to give it back meanwhile
    node.turn()
    for _ in range(5):
        _bids(node, 1, 0)
        _bids(node, 1, 1)
        node.turn()

    assert 1 == len(node.sent)


def test_the_lease_of_a_dead_worker_comes_back(node: Node) -> None:
    """Even if it never starts again: a lease's time, and a second until it passes for dead."""
    node.offer(line(SHOES, 1_000))
    node.start_all()
    _bids(node, 1)
    node.turn()
    _worker(node).kill()
    died_ms = node.now_ms
    while not node.sent:
        _bids(node, 1, 1)
        node.turn()

    assert node.now_ms - died_ms <= 3_500
    node.start(0)
    node.turns(3)
    assert _worker(node).purse.ready


def test_a_smaller_node_takes_back_what_the_larger_had_lent(node: Node, tmp_path: Path) -> None:
    """A board knows fewer workers than the books: their journals are read to the end first."""
    node.offer(line(SHOES, 100_000))
    node.start_all()
    _bids(node, 1, 1)
    node.turn()
    assert 1 == _bids(node, 1, 1)
    for worker in (0, 1):
        _worker(node, worker).kill()
    node.kill_keeper()
    node.workers_count, node.workers = 1, [None]
    node.board = MoneyBoard.create(tmp_path / "run" / "money", 1, 8)
    node.start_keeper()
    node.start_all()
    node.turns(3, 1_000)

    assert (0, 1_000) == (
        node.balance(Balance.GRANTED, SHOES), node.balance(Balance.PENDING, SHOES)
    )  # fmt: skip


def test_poison_does_not_stop_the_tail(node: Node) -> None:
    """Broken records are kept with their place, and what follows them is booked."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    journal = _worker(node).journal
    _bids(node, 1)
    node.turn()
    first = journal.append(77, b"what is this")
    journal.append(Kind.BID, b"too short")
    stranger = claims(5 << 32, 12345)
    journal.append(Kind.BID, bid_body(stranger, 5, node.now_ms))
    assert 1 == _bids(node, 1)
    won = node.sent[0]
    journal.append(Kind.BILL, notice_body(won.said, node.now_ms, 1_001))
    _worker(node).notice(Kind.BILL, won, 800)
    _worker(node).notice(Kind.BILL, won, 700)
    node.turns(2)
    letters = read(node.letters)

    assert 800 == node.balance(Balance.POSTED, SHOES)
    assert [
        Reason.UNKNOWN_KIND, Reason.BROKEN_BODY, Reason.UNKNOWN_LINE_ITEM, Reason.ABOVE_BID,
        Reason.OTHER_PRICE,
    ] == [letter.reason for letter in letters]  # fmt: skip
    assert (first, 77, b"what is this") == (letters[0].sequence, letters[0].kind, letters[0].body)


def test_a_damaged_journal_stops_only_its_own_worker(node: Node) -> None:
    """Nothing more is lent to it; the other goes on."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    _bids(node, 1)
    node.turn()
    tail = node.keeper.tails.of(0)
    assert 1 == _bids(node, 1)
    _worker(node).journal._segment.map[1024:1100] = b"\xff" * 76
    for _ in range(10):
        _bids(node, 2, 0)
        _bids(node, 2, 1)
        node.turn()

    assert "damaged" in tail.fault
    assert {0: tail.fault} == node.keeper.tails.faults()
    assert node.balance(Balance.PENDING, SHOES) > 0
    assert node.keeper.lag_ms(node.now_ms) >= 400


# -- places on the board ---------------------------------------------------------------------------


def test_a_line_item_that_left_gives_its_place_to_another(node: Node) -> None:
    """Once nothing is lent on it; what was in flight is still booked."""
    node.offer(line(SHOES, UNLIMITED))
    node.start_all()
    _bids(node, 1)
    node.turn()
    assert 1 == _bids(node, 1)
    node.offer(line(HATS, UNLIMITED))
    node.turns(3)
    assert 0 == _bids(node, 1)
    assert NO_SLOT == _worker(node).slot_of(SHOES)
    node.offer(*(line(100 + number, UNLIMITED) for number in range(7)), line(HATS, UNLIMITED))
    _worker(node).notice(Kind.BILL, node.sent[0], 600)
    node.turns(2)

    assert 8 == len(node.keeper.slots.slot)
    assert 600 == node.balance(Balance.POSTED, SHOES)


def test_who_moved_to_other_money_has_no_lease(node: Node) -> None:
    """Books of another campaign: what was lent comes back, nothing is lent, bills are booked."""
    node.offer(line(SHOES, 100_000), line(HATS, 100_000))
    node.start_all()
    _bids(node, 1), _bids(node, 1, line_item=HATS)
    node.turns(3)
    assert (1, 1) == (_bids(node, 1), _bids(node, 1, line_item=HATS))
    shoes, hats = node.plan.line_items
    node.plan = msgspec.structs.replace(
        node.plan,
        campaigns=(*node.plan.campaigns, Campaign(501, "autumn", ADVERTISER)),
        line_items=(msgspec.structs.replace(shoes, campaign=501), hats),
    )
    node.keeper.chart(node.plan, node.now_ms)
    _worker(node).notice(Kind.BILL, node.sent[0], 900)
    node.turns(10)

    assert {SHOES: "shop / autumn / line 7"} == node.keeper.unbooked
    assert (0, 1) == (_bids(node, 1), _bids(node, 1, line_item=HATS))
    assert SHOES not in node.keeper.slots.slot
    assert (900, 0) == (node.balance(Balance.POSTED, SHOES), node.balance(Balance.GRANTED, SHOES))
    assert 1 == node.keeper.outcomes[Outcome.MOVED]


def test_a_new_flight_end_ends_the_lease(node: Node) -> None:
    """The lease was for a time that is no longer the flight's."""
    node.offer(line(SHOES, 100_000, until_s=T + 900))
    node.start_all()
    _bids(node, 1)
    node.turn()
    node.offer(line(SHOES, 100_000, until_s=T + 1))
    node.turns(3)

    assert node.now_ms < (T + 1) * 1000
    assert 0 == node.balance(Balance.GRANTED, SHOES)
    _bids(node, 1)
    node.turns(2)
    assert (T + 1) * 1000 == node.board.until_ms[0, node.keeper.slots.slot[SHOES]]


def test_a_budget_that_is_lowered_calls_its_leases_back(node: Node) -> None:
    """Within a turn or two nobody spends what there is no more; the others go on."""
    node.offer(line(SHOES, 1_000_000), line(HATS, UNLIMITED))
    node.start_all()
    for _ in range(10):
        _bids(node, 9)
        _bids(node, 9, 0, HATS)
        node.turn()
    assert node.lent(SHOES) > 0
    node.offer(line(SHOES, 0), line(HATS, UNLIMITED))
    node.turns(2)

    assert (0, 0) == (node.lent(SHOES), node.balance(Balance.GRANTED, SHOES))
    assert 0 == _bids(node, 1)
    assert 1 == _bids(node, 1, 0, HATS)
