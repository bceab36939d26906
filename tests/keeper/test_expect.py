"""What is reserved where a budget reserves what it expects to pay."""

from pathlib import Path

import pytest

from rtb.keeper.chart import Plan
from rtb.keeper.expect import Expected, share_e6
from rtb.ledger.accounts import Account, Balance, State
from rtb.pacing.schedule import Shape
from rtb.stores.board_money import RESERVE_E6_ALL, MoneyBoard

SHOES, HATS = 7, 8


def plan(*, expected: bool) -> Plan:
    return Plan(0, "x", "UTC", 1, Shape.ASAP, expected, False, 1, None, None, None, ())


@pytest.mark.parametrize(
    ("bids", "bills", "share"),
    [
        (0, 0, RESERVE_E6_ALL),
        (199, 0, RESERVE_E6_ALL),
        (998, 99, 120_000),
        (998, 999, RESERVE_E6_ALL),
        (10**6, 0, 10_000),
    ],
)
def test_share(bids: int, bills: int, share: int) -> None:
    """A fifth more than the bills to the bids; all until enough was seen, never next to nothing."""
    assert share == share_e6(bids, bills)


def test_only_expected_budgets_reserve_less(tmp_path: Path) -> None:
    """The share follows bids and bills of the line items that chose it; others stay strict."""
    board = MoneyBoard.create(tmp_path / "money", 1, 8)
    expected = Expected(board)
    slots = {SHOES: 3, HATS: 4}
    expected.serve({SHOES: plan(expected=True), HATS: plan(expected=False)}, slots)
    account = Account(1, SHOES, 0, 1, ())
    state = State(accounts={1: account})
    board.taken_units[0, [3, 4]] = 998
    account.units[Balance.POSTED] = 99
    expected.turn(state, 1_000_000)

    assert (120_000, RESERVE_E6_ALL) == (board.reserve_e6[3], board.reserve_e6[4])
    board.taken_units[0, 3] = 0  # the worker was started anew
    expected.turn(state, 1_010_000)
    assert 110_000 < board.reserve_e6[3] < 130_000
    expected.serve({SHOES: plan(expected=False)}, slots)
    assert RESERVE_E6_ALL == board.reserve_e6[3]


def test_a_look_now_and_then(tmp_path: Path) -> None:
    """Between two looks nothing is added up."""
    board = MoneyBoard.create(tmp_path / "money", 1, 8)
    expected = Expected(board)
    expected.serve({SHOES: plan(expected=True)}, {SHOES: 3})
    board.taken_units[0, 3] = 998
    expected.turn(State(), 1_000_000)
    board.taken_units[0, 3] = 2_000
    expected.turn(State(), 1_000_100)

    assert share_e6(998, 0) == board.reserve_e6[3]
