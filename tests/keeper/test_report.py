"""What the keeper says of money for metrics: the same, whoever keeps the books."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rtb.base.events import Kind
from rtb.keeper.letters import Letters
from rtb.keeper.pace import Pacers
from rtb.keeper.report import Report
from rtb.ledger.accounts import Balance
from rtb.ledger.commands import Adjust, Outcome, Reason
from rtb.stores.board import Board
from tests.keeper.node import USD, Bid, Node, T, line

SHOES = 7
HOUR_MS, DAY_HOURS = 3_600_000, 24


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One worker, whose line item has a budget of 10 impressions a day."""
    made = Node(tmp_path, 1)
    made.offer(line(SHOES, daily=10_000), costs={SHOES: 1000})
    made.start_all()
    yield made
    made.close()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Outlives keepers."""
    return Board.create(tmp_path / "board", 1, 16)


def told(node: Node, board: Board) -> tuple[int, int]:
    """Spend and overspend in dollars as a new report has them, in nanos."""
    pacers = Pacers(board, node.board, node.folder / "learned", node.folder / "report")
    Report(board).write(node.keeper, pacers, Letters(node.letters), node.now_ms)
    row = board.keeper[0]
    assert USD == row["currencies"][0]
    assert not row["currencies"][1:].any()
    return int(row["posted_nanos"][0]), int(row["over_nanos"][0])


def booked(node: Node) -> tuple[int, int]:
    """The same by the books."""
    return node.balance(Balance.POSTED, SHOES), node.balance(Balance.OVER, SHOES)


def bids(node: Node, count: int) -> list[Bid]:
    """What went out of so many opportunities."""
    worker, found = node.workers[0], []
    assert worker is not None
    for _ in range(count):
        found.append(worker.bid(SHOES))
        node.turn()
    return [bid for bid in found if bid is not None]


def bill(node: Node, won: list[Bid]) -> None:
    """Bills, and their booking."""
    worker = node.workers[0]
    assert worker is not None
    for bid in won:
        worker.notice(Kind.BILL, bid, bid.nanos)
    node.turns(3)


def days_pass(node: Node, days: int) -> None:
    """And bids of then are forgotten, so that a new keeper leaves their accounts on the disk."""
    node.turns(days * DAY_HOURS, HOUR_MS)
    node.turns(3)


def new_keeper(node: Node) -> None:
    """Takes over from one that is no more."""
    node.kill_keeper()
    node.start_keeper()
    node.turns(3)


def test_spend_goes_on_over_days_and_keepers(node: Node, board: Board) -> None:
    """A keeper that starts leaves accounts of past days on the disk, but not out of the sum."""
    last = 0
    for day in range(6):
        bill(node, bids(node, 5))
        found = told(node, board)
        new_keeper(node)

        assert booked(node) == found == told(node, board)
        assert found[0] > last, f"day {day}"
        last = found[0]
        days_pass(node, 1)
    assert len(node.keeper.state.accounts) < 6


def test_overspend_is_not_forgotten(node: Node, board: Board) -> None:
    """What no budget of a past day covered stays in the gauge, as it does in the books."""
    late = bids(node, 20)
    node.turns(80, 20_000)  # their reservations end
    bill(node, bids(node, 20))
    bill(node, late[:3])
    days_pass(node, 6)
    bill(node, bids(node, 5))
    found = told(node, board)
    new_keeper(node)

    assert 1 == len(node.keeper.state.accounts)
    assert found[1] > 0
    assert booked(node) == found == told(node, board)


def test_a_past_day_that_is_corrected_counts_once(node: Node, board: Board) -> None:
    """Its accounts come back from the disk, and are not in the sum twice."""
    bill(node, bids(node, 5))
    days_pass(node, 6)
    bill(node, bids(node, 5))
    spent = told(node, board)[0]
    new_keeper(node)

    assert 1 == len(node.keeper.state.accounts)
    assert (spent, 0) == told(node, board)
    correction = Adjust(T, "invoice 1", SHOES, T, -700, 0, Reason.INVOICE)
    assert [Outcome.ADJUSTED] == node.books.apply([correction]).outcomes
    assert 2 == len(node.keeper.state.accounts)
    assert booked(node) == (spent - 700, 0) == told(node, board)
